"""The observed step of Keras on TensorFlow: a second train function, made from the model's own ``train_step``."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deadunits_tb.capture.packed import Layout
from deadunits_tb.record import Int
from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras import ranges
from deadunits_tb.taps.keras.layers import Survey, UnitLayer, Weights
from deadunits_tb.taps.keras.packing import layout_of, taps_of
from deadunits_tb.taps.keras.replacing import replaced
from deadunits_tb.taps.keras.step import KerasStep
from deadunits_tb.taps.keras.sums import input_axes
from deadunits_tb.taps.keras.tensorflow_optimizer import gradients_by_variable, optimizer_fields
from deadunits_tb.taps.keras.trails import StepTrace, Tap
from deadunits_tb.taps.merge import merge_vectors
from deadunits_tb.taps.tensorflow.apart import apart, gradient_seen, marked
from deadunits_tb.taps.tensorflow.distributed import check_strategy, shared_scale, summed_gradients
from deadunits_tb.taps.tensorflow.private import draws_statefully
from deadunits_tb.taps.tensorflow.reductions import Reductions, only_if, rows_of_units, value_summary, zeros_like
from deadunits_tb.taps.tensorflow.weights import WeightWatch, matrix
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import RELU_LIKE

KEY = "dead_units/step"
"""Under which the numbers leave the step among the logs; taken out before ``fit`` sees them."""
_FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "sigmoid", "tanh", "softplus", "softsign"),
    *("softmax", "log_softmax", "crelu"),
)


class TensorFlowStep(KerasStep):
    """Runs a model's training steps with taps.

    Made for one model; :meth:`make` for each train function of it.

    Args:
        model: Built and compiled.
        survey: Its layers.
        outgoing: Layer to the weights that take in its units, where all are known.
        thresholds: Those that act while writing are used.
        compiled: Whether to have XLA compile big reductions: worth it where observed steps are many.
    """

    weights: WeightWatch
    framework = "keras/tensorflow"
    versions: ClassVar[Mapping[str, str]] = {"tensorflow": tf.__version__}
    several_workers: ClassVar[bool] = False
    """Whether workers on several machines may train together."""
    functions: ClassVar[Sequence[tuple[ModuleType, str]]] = [
        (module, name) for module in (tf.nn, tf.math, tf) for name in _FUNCTIONS if hasattr(module, name)
    ]

    def __init__(
        self,
        model: keras.Model,
        survey: Survey,
        outgoing: Mapping[str, tuple[Weights, ...]],
        thresholds: Thresholds,
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__(model, survey, thresholds)
        check_strategy(model.distribute_strategy, several_workers=self.several_workers)
        self._strategy = model.distribute_strategy
        self._replicas = int(self._strategy.num_replicas_in_sync)
        self._running = threading.local()
        self._reductions = Reductions(compiled=compiled and self._replicas == 1, xla=self._is_compiled())
        # Of ours, not the model's: nothing of this is saved, counted or initialized with the model.
        self._scales = tf.Variable(np.full(len(survey.watched), -1, np.float32), trainable=False, name="dead_units")
        self.weights = WeightWatch(
            {unit_layer.name: _columns(unit_layer.incoming) for unit_layer in survey.watched},
            {name: _columns(weights) for name, weights in outgoing.items()},
            xla=self._is_compiled(),
        )
        self._look = tf.Variable(True, trainable=False, name="dead_units_look")
        self._range_look = tf.Variable(False, trainable=False, name="dead_units_range_look")
        self.only = False
        """Whether all steps must run here, observed or not, for training to stay as it is."""

    def __call__(self, iterator: Any) -> tuple[Any, Any]:
        """Run a step, or several where Keras is told to.

        Returns:
            The logs, and the numbers on the device; None where the observation failed.
        """
        assert self._function is not None
        if self.around is not None:
            self.around.before(value_of)
        if self._replicas == 1:
            logs = self._function(iterator)
        else:
            with self._on_all_replicas():
                logs = self._function(iterator)
        if self.around is not None:
            self.around.after(value_of)
        if not isinstance(logs, dict) or KEY not in logs:
            return logs, None
        logs = dict(logs)
        return logs, logs.pop(KEY)

    def begin(self) -> None:
        """Remember the weights before the first observed step."""
        self.weights.begin()

    def look_at_weights(self, look: bool) -> None:
        """Whether the next observed step looks at the weights."""
        if look != self._looks:
            super().look_at_weights(look)
            self._look.assign(look)

    def look_at_ranges(self, look: bool) -> None:
        """Whether the next observed step looks at the ranges of what layers take in."""
        if look != self._ranges:
            super().look_at_ranges(look)
            self._range_look.assign(look)

    @property
    def accelerated(self) -> bool:
        """Whether matrix units may take float32 with ten bits."""
        return any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU"))

    def pick(self, value: Any, columns: Columns, units: Int) -> npt.NDArray[np.floating]:
        """``[rows, k]``: some units of the value of a variable, on the host."""
        return np.asarray(tf.gather(matrix(columns, value), units, axis=1))

    def set_scales(self, scales: Mapping[str, float | None]) -> None:
        """Root mean square of each layer's activations at the previous record."""
        self._scales.assign(self._in_order(scales))

    def fetch(self, packed: Any) -> tuple[Layout, npt.NDArray[np.floating]]:
        """Wait for a step's numbers. The first one says which trace they come from."""
        vector = np.asarray(packed)
        if vector.ndim == 1:
            return self._layouts[int(vector[0])], vector[1:]
        numbers = {int(number) for number in vector[:, 0]}
        if len(numbers) > 1:
            raise ValueError("the replicas of one step did not call the same layers")
        return merge_vectors(self._layouts[numbers.pop()], vector[:, 1:], loss="sum")

    # What following needs

    def belongs(self, tensor: Any, graph: object) -> bool:
        """Whether a tensor is one of the step's own graph, or eager as the step is."""
        if isinstance(tensor, tf.IndexedSlices):
            tensor = tensor.values
        return isinstance(tensor, tf.Tensor) and (tensor.graph if tf.is_symbolic_tensor(tensor) else None) is graph

    def input_to_keep(self, tensor: Any, layer: UnitLayer) -> Any:
        """What a layer takes in: in a graph always, as whether it is looked at is said when that runs."""
        wanted = (self._ranges or not tf.executing_eagerly()) and input_axes(layer)
        return tensor if wanted else None

    def gradient_tap(self, tensor: Any, arrived: Callable[[Any], None]) -> Any:
        """An identity that sees the gradient on its way back."""
        return gradient_seen(tensor, arrived)

    def reduce_gradient(self, gradient: Any, tap: Tap) -> Any:
        """Eagerly ``[units]``, the sum of squares over positions; in a graph the gradient itself, to be reduced later.

        What else uses it is known only when all of the step is there, and :func:`~.apart.apart` goes by that.
        """
        return (gradient,) if self._waits(gradient) else self._squares(gradient, tap)

    def reduce_activation(self, output: Any, tap: Tap) -> Any:
        """Eagerly sums by name, each ``[units]``; in a graph the output itself, to be reduced later."""
        return output if self._waits(output) else self._sums(output, tap)

    def _waits(self, tensor: Any) -> bool:
        """Whether a tensor is looked at when all of the step is traced."""
        return bool(tf.is_symbolic_tensor(tensor))

    def _squares(self, gradient: Any, tap: Tap) -> Any:
        with marked():
            return self._reductions.square_sums(*rows_of_units(gradient, tap.axes, tap.mask))

    def _sums(self, output: Any, tap: Tap) -> dict[str, Any]:
        with marked():
            rows, mask = rows_of_units(output, tap.axes, tap.mask)
            scale = self._scales[self._order[tap.layer.name]]
            if self._replicas > 1 and tap.function not in RELU_LIKE:
                scale = shared_scale(scale, rows, mask)
            sums: dict[str, Any] = self._reductions.activation_sums(
                rows,
                mask,
                relu_like=tap.function in RELU_LIKE,
                limits=self._limits(tap),
                scale=scale,
                fired_scale=self._thresholds.fired_scale,
            )
            return sums

    def _reduced(self, tap: Tap, made: dict[int, Any]) -> dict[str, Any]:
        """Everything of one tap, by name."""
        seen, gradient = tap.activation, tap.gradient
        sums = dict(seen) if isinstance(seen, dict) else self._sums(apart(seen, made), tap)
        if isinstance(gradient, tuple):
            gradient = sum(self._squares(apart(each, made), tap) for each in gradient)
        return sums if gradient is None else sums | {"gradient": gradient}

    def _range_fields(self, step: StepTrace, made: dict[int, Any]) -> dict[str, Any]:
        """Ranges of what layers take in, if they are wanted when the step runs."""
        what, tensors = ranges.wanted(step)
        ranges.let_go(step)
        if not what:
            return {}
        tensors = [apart(tensor, made) for tensor in tensors]
        look = self._ranges if tf.executing_eagerly() else self._range_look.read_value()
        sizes: dict[str, int] = {}

        def seen() -> Any:
            fields = ranges.ends(what, tensors)
            sizes.update({name: int(values.shape[0]) for name, values in fields.items()})
            return tf.concat([tf.zeros([0]), *fields.values()], 0)

        # One vector, as each result of a branch takes time to trace.
        numbers = only_if(look, seen, lambda _: tf.constant(ranges.nothing(sizes)))
        return dict(zip(sizes, tf.split(numbers, list(sizes.values())), strict=True)) if sizes else {}

    # The step itself

    def _wrap(self, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def train_step(data: Any) -> Any:
            step = StepTrace(None if tf.executing_eagerly() else tf.compat.v1.get_default_graph())
            if self.failure is not None:
                return original(data)
            before: dict[str, Any] = {}
            gradients: dict[int, Any] = {}
            weights: dict[str, list[Any]] = {}
            look: Any = True
            with step.guard(), marked():
                look = self._whether_to_look()
                before = self._before(data, look)
                weights = self.weights.before(look)
            with self._follower.following(step), self._gradients(step, gradients):
                logs = original(data)
            if step.failure is None:
                with step.guard(), marked():
                    self._follower.finish(step)
                    fields = before | self._after(step, before, logs) | {"looked": tf.cast(look, tf.float32)}
                    numbers = self._pack(step, fields | self.weights.around(weights, look), gradients, look)
                    logs = {**logs, KEY: numbers}
            self.failure = self.failure or step.failure
            if step.graph is None:
                self.traces.clear()
            self.traces.append(step)
            self.only = self.only or (step.graph is not None and draws_statefully(step.graph))
            return logs

        return train_step

    def _whether_to_look(self) -> Any:
        if tf.executing_eagerly() and self._replicas == 1:
            return self._looks
        # XLA knows no branches that give tensors of different shapes; but what it compiles costs less anyway.
        # Nor do replicas talk to each other inside of a branch.
        return True if self._is_compiled() or self._replicas > 1 else self._look.read_value()

    def _is_compiled(self) -> bool:
        """Whether XLA compiles the whole step."""
        return bool(self._model.jit_compile)

    def _before(self, data: Any, look: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        numbers = self._numeric_inputs(data)
        if numbers:
            fields |= only_if(look, lambda: {"inputs": value_summary(numbers)}, zeros_like)
        optimizer = self._model.optimizer
        return fields if optimizer is None else fields | optimizer_fields(optimizer)

    def _after(self, step: StepTrace, before: Mapping[str, Any], logs: Mapping[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        loss = step.loss if step.loss is not None else logs.get("loss")
        if loss is not None and self.belongs(loss, step.graph) and loss.shape.rank == 0:
            fields["loss"] = loss
        if "skipped" in before:  # a loss scaler that skips a step does not count it
            fields["skipped"] = tf.identity(self._model.optimizer.iterations.value) == before["skipped"]
        return fields

    def _is_numeric(self, tensor: Any) -> bool:
        if not isinstance(tensor, tf.Tensor):
            return False
        # Where there are embeddings whole numbers are names of tokens, elsewhere perhaps pixels.
        return bool(tensor.dtype.is_floating or (tensor.dtype.is_integer and not self._survey.tokens))

    @contextlib.contextmanager
    def _gradients(self, step: StepTrace, found: dict[int, Any]) -> Iterator[None]:
        """Note the gradients that optimizers are given, by ``id`` of the variable."""
        with contextlib.ExitStack() as stack:
            if self._replicas == 1:
                stack.enter_context(replaced(self._optimizers_wrapped()))
            self._running.now = step, found
            try:
                yield
            finally:
                self._running.now = None

    @contextlib.contextmanager
    def _on_all_replicas(self) -> Iterator[None]:
        """Replicas run in threads that take turns: what they all call is wrapped once, around all of them."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._follower.installed())
                stack.enter_context(replaced(self._optimizers_wrapped()))
                stack.enter_context(replaced([keras_private.replicas_kept(KEY, self._strategy)]))
            except Exception as error:
                stack.close()
                self.failure = self.failure or error
            yield

    def _optimizers_wrapped(self) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
        for optimizer in self.optimizers():
            yield optimizer, "apply", self._wrap_apply(optimizer)

    def _wrap_apply(self, optimizer: keras.optimizers.Optimizer) -> Callable[..., Any]:
        original = optimizer.apply

        def apply(grads: Any, trainable_variables: Any = None) -> Any:
            now = getattr(self._running, "now", None)
            if now is None or now[0].failure is not None:
                return original(grads, trainable_variables)
            step, found = now
            grads = list(grads)
            trainable_variables = None if trainable_variables is None else list(trainable_variables)
            with step.guard():
                found |= gradients_by_variable(
                    optimizer, grads, trainable_variables, functools.partial(self.belongs, graph=step.graph)
                )
            return original(grads, trainable_variables)

        return apply

    def _pack(self, step: StepTrace, fields: Mapping[str, Any], gradients: Mapping[int, Any], look: Any) -> Any:
        """Everything as one vector, headed by the number of its layout.

        Args:
            step: All of it is there.
            fields: What is known already.
            gradients: Of weights, by ``id`` of the variable, to be looked at.
            look: Whether to look at them.
        """
        made: dict[int, Any] = {}
        fields = {name: apart(values, made) for name, values in fields.items()}
        gradients = {key: _values_apart(gradient, made) for key, gradient in gradients.items()}
        gradients = gradients if self._replicas == 1 else summed_gradients(gradients)
        fields |= self.weights.gradients(gradients, look)
        for at, tap in enumerate(taps_of(step)):
            fields |= {f"{at}:{name}": values for name, values in self._reduced(tap, made).items()}
        fields |= self._range_fields(step, made)
        flat = {name: tf.reshape(tf.cast(values, tf.float32), [-1]) for name, values in fields.items()}
        layout = layout_of(step, {name: int(values.shape[0]) for name, values in flat.items()})
        number = tf.constant([self._number_of(layout)], tf.float32)
        return tf.concat([number, *flat.values()], 0)


def value_of(variable: keras.Variable) -> Any:
    """What a variable holds now."""
    return tf.convert_to_tensor(variable.value)


def _values_apart(gradient: Any, made: dict[int, Any]) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(apart(gradient.values, made), gradient.indices, gradient.dense_shape)
    return apart(gradient, made)


def _columns(several: tuple[Weights, ...]) -> list[tuple[tf.Variable, Columns]]:
    return [(weights.variable.value, weights.columns) for weights in several]

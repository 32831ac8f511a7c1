"""The observed step of Keras on JAX: a second train function, made from the model's own ``train_step``.

While the step is traced, what is reduced belongs to the step's own computation, outside of the differentiation that
Keras or the user's own ``train_step`` does in it: primals are taken from the pairs that are differentiated, and
gradients where the rule of an identity is given them on the way back.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import keras
import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.packed import Layout
from deadunits_tb.taps.jax.private import carried, trace_of_now
from deadunits_tb.taps.jax.reductions import activation_sums, square_sums, value_summary
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras import ranges
from deadunits_tb.taps.keras.jax_device import DEVICE
from deadunits_tb.taps.keras.layers import Survey, UnitLayer, Weights
from deadunits_tb.taps.keras.packing import layout_of, tap_fields, with_weights
from deadunits_tb.taps.keras.replacing import replaced
from deadunits_tb.taps.keras.step import KerasStep
from deadunits_tb.taps.keras.sums import input_axes
from deadunits_tb.taps.keras.trails import StepTrace, Tap
from deadunits_tb.taps.keras.weights import WeightWatch, columns_of
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import RELU_LIKE

KEY = "dead_units/step"
"""Under which the numbers leave the step among the logs; taken out before ``fit`` sees them."""
_FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "glu", "sigmoid"),
    *("hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "tanh", "softplus", "soft_sign", "squareplus"),
    *("log_sigmoid", "softmax", "log_softmax"),
)

State = Sequence[Any]
"""As Keras hands it from step to step: values of trainable, other, optimizer and metric variables."""


class JaxStep(KerasStep):
    """Runs a model's training steps with taps.

    Made for one model; :meth:`make` for each train function of it.

    Args:
        model: Built and compiled.
        survey: Its layers.
        outgoing: Layer to the weights that take in its units, where all are known.
        thresholds: Those that act while writing are used.
    """

    weights: WeightWatch
    framework = "keras/jax"
    versions: ClassVar[Mapping[str, str]] = {"jax": jax.__version__}
    functions: ClassVar[Sequence[tuple[ModuleType, str]]] = [
        (module, name) for module in (jax.nn, jnp) for name in _FUNCTIONS if hasattr(module, name)
    ]
    only = False
    """Random numbers have no hidden state: all train functions draw the same."""

    def __init__(
        self,
        model: keras.Model,
        survey: Survey,
        outgoing: Mapping[str, tuple[Weights, ...]],
        thresholds: Thresholds,
        *,
        compiled: bool = False,
    ) -> None:
        if keras.config.is_nnx_enabled():
            raise NotImplementedError(
                "Keras models that are Flax NNX modules (KERAS_NNX_ENABLED) cannot be watched yet"
            )
        super().__init__(model, survey, thresholds)
        self._scales = jnp.full(len(survey.watched), -1.0)
        self.weights = WeightWatch(
            {unit_layer.name: columns_of(unit_layer.incoming) for unit_layer in survey.watched},
            {name: columns_of(weights) for name, weights in outgoing.items()},
            DEVICE,
        )
        self._look = {look: jnp.asarray(look) for look in (True, False)}
        self._tracing = False
        self._trace: Any = None
        self._step_scales: Any = None

    def __call__(self, state: State, iterator: Iterator[Any]) -> tuple[Any, Any]:
        """Run a step, or several where Keras is told to.

        Returns:
            What the train function returns, and the numbers on the device; None where the observation failed.
        """
        assert self._function is not None
        assert self._plain is not None
        kept = self.weights.keep(self._values(state)) if self._looks else None
        if self.around is not None:
            self.around.before(self._value_in(state))
        batches = _Batches(iterator, (self._scales, self._look[self._looks], self._look[self._ranges]))
        try:
            logs, after = self._function(state, batches)
        except Exception as error:
            if not self._tracing or len(batches.taken) != 1:
                raise  # what has begun to run has taken the buffers of the state over
            self._tracing, self.failure = False, self.failure or error
        else:
            if not isinstance(logs, dict) or KEY not in logs:
                return (logs, after), None
            logs = dict(logs)
            vector = logs.pop(KEY)
            if self.around is not None:
                self.around.after(self._value_in(after))
            return (logs, after), (vector, None if kept is None else self.weights.compare(kept, self._values(after)))
        assert self._plain is not None
        # Nothing has run yet. If it was not our taps that could not be traced, the user's own error comes again.
        return self._plain(state, iter(batches.taken)), None

    def begin(self) -> None:
        """Nothing: the first weights are those in the state that the first observed step is given."""

    def set_scales(self, scales: Mapping[str, float | None]) -> None:
        """Root mean square of each layer's activations at the previous record."""
        self._scales = jnp.asarray(self._in_order(scales))

    def fetch(self, numbers: Any) -> tuple[Layout, npt.NDArray[np.floating]]:
        """Wait for a step's numbers. The first one says which trace they come from."""
        vector = np.asarray(numbers[0])
        layout, vector = self._layouts[int(vector[0])], vector[1:]
        return (layout, vector) if numbers[1] is None else with_weights(layout, vector, self.weights.fetch(numbers[1]))

    # What following needs

    def belongs(self, tensor: Any, graph: object) -> bool:
        """Whether a value is one of the step's own computation, or a pair whose primal is."""
        return carried(tensor, graph) is not None

    def gradient_tap(self, tensor: Any, arrived: Callable[[Any], None]) -> Any:
        """An identity that sees the gradient on its way back."""

        def identity(value: Any) -> Any:
            return value

        def back(_: None, gradient: Any) -> tuple[Any]:
            arrived(gradient)
            return (gradient,)

        tap = jax.custom_vjp(identity)
        tap.defvjp(lambda value: (value, None), back)
        return tap(tensor)

    def reduce_gradient(self, gradient: Any, tap: Tap) -> Any:
        """``[units]``: sum of squares over positions."""
        return square_sums(gradient, tap.axes, tap.mask)

    def reduce_activation(self, output: Any, tap: Tap) -> Any:
        """Sums by name, each ``[units]``."""
        return activation_sums(
            carried(output, self._trace),
            tap.axes,
            tap.mask,
            relu_like=tap.function in RELU_LIKE,
            limits=self._limits(tap),
            scale=self._step_scales[self._order[tap.layer.name]],
            fired_scale=self._thresholds.fired_scale,
        )

    def input_to_keep(self, tensor: Any, layer: UnitLayer) -> Any:
        """What a layer takes in: of a traced step always, as whether it is looked at is said when that runs."""
        wanted = (self._ranges or self._trace is not None) and input_axes(layer)
        return carried(tensor, self._trace) if wanted else None

    @property
    def accelerated(self) -> bool:
        """Whether matrix units may take float32 with ten bits."""
        return bool(jax.default_backend() != "cpu")

    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The one whose state goes from step to step."""
        return [] if self._model.optimizer is None else [self._model.optimizer]

    # The step itself

    def _wrap(self, original: Callable[[State, Any], tuple[Any, State]]) -> Callable[[State, Any], tuple[Any, State]]:
        def train_step(state: State, batch: Any) -> tuple[Any, State]:
            data, (scales, look, ranged) = batch
            self._tracing = True
            step = StepTrace(trace_of_now())
            self._trace, self._step_scales = step.graph, scales
            before: dict[str, Any] = {}
            gradients: dict[int, Any] = {}
            with step.guard():
                before = self._before(state)
            with self._follower.following(step), self._gradients(step, gradients):
                logs, after = original(state, data)
            if step.failure is None:
                with step.guard():
                    self._follower.finish(step)
                    looked = self._looked(data, gradients, look)
                    fields = before | self._after(step, before, logs, after) | looked | self._range_fields(step, ranged)
                    logs = {**logs, KEY: self._pack(step, fields)}
            self.failure = self.failure or step.failure
            if step.graph is None:
                self.traces.clear()
            self.traces.append(step)
            self._tracing = False
            return logs, after

        return train_step

    def _before(self, state: State) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        optimizer = self._model.optimizer
        if optimizer is None:
            return fields
        now = {id(variable): value for variable, value in zip(optimizer.variables, state[2], strict=True)}
        source = keras_private.learning_rate_source(optimizer)
        if isinstance(source, keras.optimizers.schedules.LearningRateSchedule):
            fields["learning_rate"] = source(now[id(optimizer.iterations)])
        elif isinstance(source, keras.Variable):  # a function of the user's may count its calls: it is not called
            fields["learning_rate"] = now[id(source)]
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            fields["scale"] = now[id(optimizer.dynamic_scale)]
            fields["skipped"] = now[id(optimizer.iterations)]
        elif optimizer.loss_scale_factor is not None:
            fields["scale"] = jnp.float32(optimizer.loss_scale_factor)
        return fields

    def _after(self, step: StepTrace, before: Mapping[str, Any], logs: Any, after: State) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        loss = carried(step.loss if step.loss is not None else logs.get("loss"), step.graph)
        if loss is not None and loss.ndim == 0:
            fields["loss"] = loss
        if "skipped" in before:  # a loss scaler that skips a step does not count it
            optimizer = self._model.optimizer
            now = {id(variable): value for variable, value in zip(optimizer.variables, after[2], strict=True)}
            fields["skipped"] = now[id(optimizer.iterations)] == before["skipped"]
        return fields

    def _looked(self, data: Any, gradients: Mapping[int, Any], look: Any) -> dict[str, Any]:
        """What is looked at in steps that become records only."""
        numbers = self._numeric_inputs(data)

        def work(numbers: list[Any], gradients: Mapping[int, Any]) -> dict[str, Any]:
            seen = {"inputs": value_summary(numbers)} if numbers else {}
            return seen | self.weights.gradients(gradients)

        if trace_of_now() is None:
            return {"looked": self._looks, **(work(numbers, gradients) if self._looks else {})}
        shapes = jax.eval_shape(work, numbers, gradients)

        def nothing(*_: Any) -> Any:
            return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

        found: dict[str, Any] = jax.lax.cond(look, work, nothing, numbers, gradients)
        return {"looked": look, **found}

    def _range_fields(self, step: StepTrace, ranged: Any) -> dict[str, Any]:
        """Ranges of what layers take in, if they are wanted when the step runs."""
        what, tensors = ranges.wanted(step)
        ranges.let_go(step)
        tensors = [carried(tensor, step.graph) for tensor in tensors]
        lost = {one.layer for one, tensor in zip(what, tensors, strict=True) if tensor is None}
        pairs = [pair for pair in zip(what, tensors, strict=True) if pair[0].layer not in lost]
        what, tensors = [one for one, _ in pairs], [tensor for _, tensor in pairs]
        work = functools.partial(ranges.ends, what)
        if trace_of_now() is None:
            return work(tensors) if self._ranges else {}
        sizes = {name: shape.size for name, shape in jax.eval_shape(work, tensors).items()}

        def nothing(_: Any) -> Any:
            return {name: jnp.asarray(ranges.nothing({name: size})) for name, size in sizes.items()}

        found: dict[str, Any] = jax.lax.cond(ranged, work, nothing, tensors) if sizes else {}
        return found

    def _is_numeric(self, array: Any) -> bool:
        if not isinstance(array, (jax.Array, np.ndarray)):
            return False
        # Where there are embeddings whole numbers are names of tokens, elsewhere perhaps pixels.
        whole = jnp.issubdtype(array.dtype, jnp.integer) and not self._survey.tokens
        return bool(jnp.issubdtype(array.dtype, jnp.floating) or whole)

    @contextlib.contextmanager
    def _gradients(self, step: StepTrace, gradients: dict[int, Any]) -> Iterator[None]:
        """Look at the gradients that optimizers are given."""

        def wrapped(optimizer: keras.optimizers.Optimizer) -> Callable[..., Any]:
            original = optimizer.stateless_apply

            def stateless_apply(optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
                with step.guard():
                    for variable, gradient in zip(keras_private.optimizer_variables(optimizer), grads, strict=False):
                        value = carried(gradient, step.graph)
                        if value is not None:
                            gradients[id(variable)] = value
                return original(optimizer_variables, grads, trainable_variables)

            return stateless_apply

        with replaced([(optimizer, "stateless_apply", wrapped(optimizer)) for optimizer in self.optimizers()]):
            yield

    def _pack(self, step: StepTrace, fields: dict[str, Any]) -> Any:
        """Everything as one vector, headed by the number of its layout."""
        flat = {
            name: jnp.ravel(jnp.asarray(values)).astype(jnp.float32)
            for name, values in {**fields, **tap_fields(step)}.items()
        }
        layout = layout_of(step, {name: int(values.size) for name, values in flat.items()})
        number = jnp.full(1, self._number_of(layout), jnp.float32)
        return jnp.concatenate([number, *flat.values()])

    def _values(self, state: State) -> dict[int, Any]:
        """``id`` of each variable of the model to its value in a state."""
        variables = (*self._model.trainable_variables, *self._model.non_trainable_variables)
        values = (*state[0], *state[1])
        return {id(variable): value for variable, value in zip(variables, values, strict=True)}

    def _value_in(self, state: State) -> Callable[[keras.Variable], Any]:
        """Gives a copy of what a variable is in a state: the next step is given the buffers."""
        values = self._values(state)
        optimizer = self._model.optimizer
        if optimizer is not None:
            pairs = zip(optimizer.variables, state[2], strict=True)
            values |= {id(variable): value for variable, value in pairs}
        return lambda variable: DEVICE.copy(values[id(variable)])


class _Batches:
    """The batches of one call, each with what the observed step needs besides.

    Args:
        iterator: Of the batches.
        extras: What the step needs.
    """

    def __init__(self, iterator: Iterator[Any], extras: Any) -> None:
        self._iterator = iterator
        self._extras = extras
        self.taken: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batch = next(self._iterator)
        self.taken.append(batch)
        return batch, self._extras

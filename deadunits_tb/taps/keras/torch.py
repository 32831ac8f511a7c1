"""The observed step of Keras on PyTorch: the model's own train function, with a wrapped ``train_step``.

Everything runs eagerly, so nothing is traced or compiled: hooks see the gradients, and reductions see the activations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import keras
import numpy as np
import numpy.typing as npt
import torch

from deadunits_tb.capture.packed import Layout
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras import ranges
from deadunits_tb.taps.keras.layers import Survey, Weights
from deadunits_tb.taps.keras.packing import layout_of, tap_fields, with_weights
from deadunits_tb.taps.keras.replacing import replaced
from deadunits_tb.taps.keras.step import KerasStep
from deadunits_tb.taps.keras.torch_device import DEVICE
from deadunits_tb.taps.keras.torch_masks import masked_activation_sums, masked_squares
from deadunits_tb.taps.keras.trails import StepTrace, Tap
from deadunits_tb.taps.keras.weights import WeightWatch, columns_of
from deadunits_tb.taps.torch import private as torch_private
from deadunits_tb.taps.torch.reductions import Reductions, value_summary
from deadunits_tb.taps.torch.rows import Place
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import RELU_LIKE

_FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "glu", "prelu", "threshold"),
    *("sigmoid", "logsigmoid", "tanh", "tanhshrink", "softplus", "softsign", "softshrink", "hardshrink"),
    *("hardtanh", "hardsigmoid", "hardswish", "softmax", "log_softmax"),
)


class TorchStep(KerasStep):
    """Runs a model's training steps with taps.

    Made for one model; :meth:`make` for each train function of it.

    Args:
        model: Built and compiled.
        survey: Its layers.
        outgoing: Layer to the weights that take in its units, where all are known.
        thresholds: Those that act while writing are used.
    """

    weights: WeightWatch
    framework = "keras/torch"
    versions: ClassVar[Mapping[str, str]] = {"torch": torch.__version__}
    functions: ClassVar[Sequence[tuple[ModuleType, str]]] = [
        (module, name) for module in (torch.nn.functional, torch) for name in _FUNCTIONS if hasattr(module, name)
    ]
    only = False
    """Random numbers are drawn as ever: an observed step runs the same operations as any other."""

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
        self._reductions = Reductions()
        self._scales: dict[str, float] = {}
        self.weights = WeightWatch(
            {unit_layer.name: columns_of(unit_layer.incoming) for unit_layer in survey.watched},
            {name: columns_of(weights) for name, weights in outgoing.items()},
            DEVICE,
        )
        incoming = [weights.variable for unit_layer in survey.watched for weights in unit_layer.incoming]
        taken_in = [weights.variable for several in outgoing.values() for weights in several]
        self._variables = {id(variable): variable for variable in (*incoming, *taken_in)}
        self._arriving = False
        self._hooks: list[Any] = []
        self._numbers: Any = None

    def make(self) -> None:
        """Get ready for the model's train function.

        Raises:
            NotImplementedError: ``torch.compile`` would compile it.
        """
        if self._model.jit_compile:
            raise NotImplementedError(
                "a model compiled with jit_compile=True cannot be watched on PyTorch: what torch.compile makes of a "
                "step with taps rounds in another way; use jit_compile=False, which is the default there"
            )
        self._plain = self._model.train_function

    def __call__(self, data: Any) -> tuple[Any, Any]:
        """Run a step.

        Returns:
            The logs, and the numbers on the device; None where the observation failed.
        """
        assert self._plain is not None
        self._numbers = None
        if self.around is not None:
            self.around.before(_value_of)
        with replaced([(self._model, "train_step", self._wrap(self._model.train_step))]):
            logs = self._plain(data)
        if self.around is not None:
            self.around.after(_value_of)
        return logs, self._numbers

    def begin(self) -> None:
        """Remember the weights before the first observed step."""
        if not self.weights.begun:
            self.weights.keep(self._values())

    def set_scales(self, scales: Mapping[str, float | None]) -> None:
        """Root mean square of each layer's activations at the previous record."""
        self._scales = {name: scale for name, scale in scales.items() if scale is not None}

    def fetch(self, numbers: Any) -> tuple[Layout, npt.NDArray[np.floating]]:
        """Wait for a step's numbers."""
        layout, known, vector, compared = numbers
        vector = np.concatenate([known, vector.cpu().numpy()])
        return (layout, vector) if compared is None else with_weights(layout, vector, self.weights.fetch(compared))

    # What following needs

    def belongs(self, tensor: Any, graph: object) -> bool:
        """Whether a tensor is one of the step's: not of a transformation, nor of what a checkpoint computes again."""
        if not isinstance(tensor, torch.Tensor) or torch_private.transformed():
            return False
        return self._arriving or not torch_private.in_backward()

    @property
    def accelerated(self) -> bool:
        """Whether matrix units may take float32 with ten bits."""
        return any(variable.value.device.type != "cpu" for variable in self._variables.values())

    def gradient_tap(self, tensor: Any, arrived: Callable[[Any], None]) -> Any:
        """The same tensor, with a hook that sees its gradient."""

        def hook(gradient: Any) -> None:
            self._arriving = True
            try:
                arrived(gradient)
            finally:
                self._arriving = False

        if tensor.requires_grad:
            self._hooks.append(tensor.register_hook(hook))
        return tensor

    def reduce_gradient(self, gradient: Any, tap: Tap) -> Any:
        """``[units]``: sum of squares over positions."""
        if tap.mask is not None:
            return masked_squares(_units_last(gradient, tap.axes), tap.mask)
        gradient, axis = _one_axis(gradient, tap.axes)
        return self._reductions.gradient_squares(gradient, Place(axis, gradient.shape[axis]))

    def reduce_activation(self, output: Any, tap: Tap) -> Any:
        """Sums by name, each ``[units]``."""
        options: dict[str, Any] = {
            "relu_like": tap.function in RELU_LIKE,
            "limits": self._limits(tap),
            "scale": self._scales.get(tap.layer.name),
            "fired_scale": self._thresholds.fired_scale,
        }
        if tap.mask is not None:
            return masked_activation_sums(_units_last(output, tap.axes), tap.mask, **options)
        output, axis = _one_axis(output, tap.axes)
        return self._reductions.activation_sums(output, Place(axis, output.shape[axis]), **options).whole()

    # The step itself

    def _wrap(self, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def train_step(data: Any) -> Any:
            step = StepTrace(None)
            before: dict[str, Any] = {}
            gradients: dict[str, Any] = {}
            kept: Any = None
            with step.guard(), torch.no_grad():
                before = self._before(data)
                kept = self.weights.keep(self._values()) if self._looks else None
            try:
                with self._follower.following(step), self._gradients(step, gradients):
                    logs = original(data)
                if step.failure is None and isinstance(logs, dict):
                    with step.guard(), torch.no_grad():
                        self._follower.finish(step)
                        fields = before | gradients | self._after(step, before, logs)
                        fields |= ranges.ends(*ranges.wanted(step))
                        compared = None if kept is None else self.weights.compare(kept, self._values())
                        self._numbers = (*self._pack(step, fields), compared)
            finally:
                self._let_go(step)
            self.failure = self.failure or step.failure
            return logs

        return train_step

    def _before(self, data: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {"looked": float(self._looks)}
        numbers = self._numeric_inputs(data)
        if numbers and self._looks:
            fields["inputs"] = value_summary(numbers)
        optimizer = self._model.optimizer
        if optimizer is None:
            return fields
        source = keras_private.learning_rate_source(optimizer)
        if isinstance(source, keras.optimizers.schedules.LearningRateSchedule):
            fields["learning_rate"] = source(optimizer.iterations)
        elif isinstance(source, keras.Variable):  # a function of the user's may count its calls: it is not called
            fields["learning_rate"] = source.value.detach().clone()
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            built = optimizer.built  # its first step makes the variable, and scales by the initial value
            fields["scale"] = optimizer.dynamic_scale.value.detach().clone() if built else optimizer.initial_scale
            fields["skipped"] = optimizer.iterations.value.detach().clone()
        elif optimizer.loss_scale_factor is not None:
            fields["scale"] = float(optimizer.loss_scale_factor)
        return fields

    def _after(self, step: StepTrace, before: Mapping[str, Any], logs: Mapping[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        loss = step.loss if step.loss is not None else logs.get("loss")
        if isinstance(loss, torch.Tensor) and loss.dim() == 0:
            fields["loss"] = loss.detach()
        if "skipped" in before:  # a loss scaler that skips a step does not count it
            fields["skipped"] = self._model.optimizer.iterations.value.detach() == before["skipped"]
        return fields

    def _is_numeric(self, tensor: Any) -> bool:
        if not isinstance(tensor, torch.Tensor) or tensor.is_complex() or tensor.dtype == torch.bool:
            return False
        # Where there are embeddings whole numbers are names of tokens, elsewhere perhaps pixels.
        return bool(tensor.numel()) and (tensor.is_floating_point() or not self._survey.tokens)

    @contextlib.contextmanager
    def _gradients(self, step: StepTrace, norms: dict[str, Any]) -> Iterator[None]:
        """Look at the gradients that optimizers are given."""
        if not self._looks:
            yield
            return

        def wrapped(optimizer: keras.optimizers.Optimizer) -> Callable[..., Any]:
            original = optimizer.apply

            def apply(grads: Any, trainable_variables: Any = None) -> Any:
                grads = list(grads)
                trainable_variables = None if trainable_variables is None else list(trainable_variables)
                if step.failure is None:
                    with step.guard(), torch.no_grad():
                        variables = trainable_variables or keras_private.optimizer_variables(optimizer)
                        norms.update(
                            self.weights.gradients(
                                {
                                    id(variable): gradient.detach()
                                    for variable, gradient in zip(variables, grads, strict=False)
                                    if isinstance(gradient, torch.Tensor)
                                }
                            )
                        )
                return original(grads, trainable_variables)

            return apply

        with replaced([(optimizer, "apply", wrapped(optimizer)) for optimizer in self.optimizers()]):
            yield

    def _pack(self, step: StepTrace, fields: dict[str, Any]) -> tuple[Layout, npt.NDArray[np.float64], Any]:
        """The layout, numbers that are known already, and all others as one vector on the device."""
        fields = {**fields, **tap_fields(step)}
        known = {name: float(value) for name, value in fields.items() if not isinstance(value, torch.Tensor)}
        flat = {name: value.reshape(-1).float() for name, value in fields.items() if name not in known}
        sizes = dict.fromkeys(known, 1) | {name: values.numel() for name, values in flat.items()}
        vector = torch.cat(list(flat.values())) if flat else torch.zeros(0)
        return layout_of(step, sizes), np.array(list(known.values())), vector

    def _let_go(self, step: StepTrace) -> None:
        """Of tensors: they hold the graph, and the graph holds our hooks."""
        with step.guard():
            for hook in self._hooks:
                hook.remove()
            self._hooks.clear()
            for trail in step.trails:
                trail.output = torch.empty(trail.output.shape, device="meta")
            ranges.let_go(step)
            step.forget_tensors()
            self.traces[:] = [step]

    def _values(self) -> dict[int, Any]:
        return {key: variable.value.detach() for key, variable in self._variables.items()}


def _value_of(variable: keras.Variable) -> Any:
    return variable.value.detach()


def _one_axis(tensor: Any, axes: tuple[int, ...]) -> tuple[Any, int]:
    """The tensor with its unit axes made one, and which that is."""
    if len(axes) == 1:
        return tensor, axes[0]
    others = [axis for axis in range(tensor.dim()) if axis not in axes]
    return tensor.permute([*others, *axes]).flatten(len(others)), len(others)


def _units_last(tensor: Any, axes: tuple[int, ...]) -> Any:
    tensor, axis = _one_axis(tensor, axes)
    return tensor.movedim(axis, -1)

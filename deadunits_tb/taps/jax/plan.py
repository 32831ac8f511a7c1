"""What a loop in JAX says of its layers: the static part of their statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from deadunits_tb.capture.activation_functions import known_name, output_limits
from deadunits_tb.capture.arguments import check_whole
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import BOUNDED, RELU_LIKE, Role


@dataclass(frozen=True, slots=True)
class Layer:
    """What is to be known of a layer before it is observed.

    Attributes:
        units: How many.
        activation_function: Such as ``"relu"`` or ``"tanh"``; ``"linear"`` for none, ``"custom"`` for one of your own,
            None if unknown.
        unit_axis: Of the pre-activation; several where the units fill several axes.
        weights: The incoming weights in your parameters, such as ``lambda params: params["w1"]``; one array, or several
            in a tuple. None to leave them out.
        weight_unit_axis: Of the weights: -1 in ``[inputs, units]`` and ``[height, width, inputs, units]``, 0 in
            Equinox's ``[units, inputs]``.
        outgoing: Likewise the weights that the units feed, ``[units, ...]``; only if these are all of them.
        biases: Likewise the biases, ``[units]``; None for none. Only needed with ``inputs``.
        inputs: How many features the weights take in, such as 784. With it, and with what these are handed to
            ``observe(inputs=)``, the record says of dead units whether they can fire at all, see docs/definitions.md.
            The pre-activation must be ``inputs @ weights + biases``, or a convolution likewise. None to leave that out.
        input_axis: Of what is handed to ``observe(inputs=)``: that of the features.
        weight_input_axis: Of the kernel of a convolution: that of the features, -2 in ``[height, width, inputs,
            units]``, 1 in Equinox's ``[units, inputs, height, width]``. None for a matrix.
        padded: Whether padding may add zeros to what such a kernel takes in.
        role: ``"output"`` for the layer that the loss consumes: it may be silent.
        kind: What to call this sort of layer, such as ``"Dense"``.
        trainable: Whether the weights are trained.
        tokens: Whether the positions between examples and units are tokens of a sequence.
    """

    units: int
    activation_function: str | None = "relu"
    unit_axis: int | tuple[int, ...] = -1
    weights: Callable[[Any], Any] | None = None
    weight_unit_axis: int | tuple[int, ...] = -1
    outgoing: Callable[[Any], Any] | None = None
    role: Role = "hidden"
    kind: str = "Layer"
    trainable: bool = True
    tokens: bool = False
    biases: Callable[[Any], Any] | None = None
    inputs: int | None = None
    input_axis: int = -1
    weight_input_axis: int | None = None
    padded: bool = True

    def __post_init__(self) -> None:
        check_whole("units", self.units, 1)
        if self.activation_function is not None:
            object.__setattr__(self, "activation_function", known_name(self.activation_function))
        if self.role not in ("hidden", "output"):
            raise InvalidArgumentError(f"role must be 'hidden' or 'output', not {self.role!r}")
        check_whole("inputs", self.inputs, 1, none="to leave certificates out")
        if self.inputs is not None and self.weights is None:
            raise InvalidArgumentError(
                "inputs are what the weights take in: say where these are with Layer(weights=...)"
            )
        for name, where in (("weights", self.weights), ("outgoing", self.outgoing), ("biases", self.biases)):
            if where is not None and not callable(where):
                raise InvalidArgumentError(
                    f"{name} must be a function of your parameters, like lambda params: params['w1'], not {where!r}"
                )

    @property
    def relu_like(self) -> bool:
        """Whether firing means greater than zero."""
        return self.activation_function in RELU_LIKE


@dataclass(frozen=True, slots=True)
class Plan:
    """What does not change of statistics: the static part of their pytree."""

    layers: tuple[tuple[str, Layer], ...]
    thresholds: Thresholds = field(default_factory=Thresholds)

    def layer(self, name: str) -> Layer:
        """A layer by its name.

        Raises:
            UnknownNameError: There is none.
        """
        for known, layer in self.layers:
            if known == name:
                return layer
        raise UnknownNameError.of("layer", name, (known for known, _ in self.layers))


def checked_layers(layers: Any) -> tuple[tuple[str, Layer], ...]:
    """Layers as a user gives them.

    Raises:
        InvalidArgumentError: There is none, or something else in its place.
    """
    if not isinstance(layers, Mapping) or not layers:
        raise InvalidArgumentError(f"layers must map names to Layer, like {{'hidden': Layer(64)}}, not {layers!r}")
    for name, layer in layers.items():
        if not isinstance(name, str) or not isinstance(layer, Layer):
            raise InvalidArgumentError(
                f"layers must map names to Layer, like {{'hidden': Layer(64)}}, not {name!r}: {layer!r}"
            )
    return tuple(layers.items())


def unit_axes(name: str, layer: Layer, values: Any) -> tuple[int, ...]:
    """Axes of the units of an array, counted from the front.

    Raises:
        InvalidArgumentError: They do not hold the layer's units.
    """
    shape = jnp.shape(values)
    wanted = (layer.unit_axis,) if isinstance(layer.unit_axis, int) else layer.unit_axis
    if all(-len(shape) <= axis < len(shape) for axis in wanted):
        axes = tuple(axis % len(shape) for axis in wanted)
        if math.prod(shape[axis] for axis in axes) == layer.units:
            return axes
    raise InvalidArgumentError(
        f"layer {name!r} has {layer.units} units along axis {layer.unit_axis}, and an array of shape {shape} came: "
        "correct Layer(units, unit_axis=...), or pass the layer's own pre-activation"
    )


def limits_of(layer: Layer, thresholds: Thresholds) -> tuple[float, float]:
    """Outputs at which a layer is saturated, infinite without."""
    if layer.activation_function in BOUNDED:
        return output_limits(layer.activation_function, thresholds.saturated_derivative)
    return -math.inf, math.inf

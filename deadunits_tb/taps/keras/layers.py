"""Which Keras layers have units, where their units and weights lie, and which layers only hand units on."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers

from deadunits_tb.capture.activation_functions import CUSTOM, field_name
from deadunits_tb.certificate import PROVABLE
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.keras import private as keras_private


def public(*names: str) -> tuple[Any, ...]:
    """Those of Keras's layers that this version has."""
    return tuple(getattr(layers, name) for name in names if hasattr(layers, name))


TRANSPOSED = public("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
DEPTHWISE = public("DepthwiseConv1D", "DepthwiseConv2D")
SEPARABLE = public("SeparableConv1D", "SeparableConv2D")
CONVOLUTIONS = (*public("Conv1D", "Conv2D", "Conv3D"), *TRANSPOSED, *DEPTHWISE, *SEPARABLE)
LOOPS = public("RNN", "TimeDistributed")
"""Layers that run others in a loop: they are watched as a whole, at their output."""
WITH_UNITS = (layers.Dense, layers.EinsumDense, *CONVOLUTIONS, *LOOPS)
ACTIVATIONS = public("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")
ADDITIONS = (layers.Add, layers.Subtract, *keras_private.addition_operations())
RESHAPES = public("Reshape", "Permute", "Flatten")
_RANKS = ("1D", "2D", "3D")
PASSING = public(
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization"),
    *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization", "Identity", "Rescaling"),
    *("Masking", "RepeatVector"),
    *(
        kind + rank
        for kind in ("SpatialDropout", "ZeroPadding", "Cropping", "UpSampling", "MaxPooling", "AveragePooling")
        for rank in _RANKS
    ),
    *("Global" + kind + rank for kind in ("MaxPooling", "AveragePooling") for rank in _RANKS),
    *("Adaptive" + kind + rank for kind in ("MaxPooling", "AveragePooling") for rank in _RANKS),
)
"""Layers that hand units on, each in its place."""
FOLLOWED = (*WITH_UNITS, *ACTIVATIONS, *ADDITIONS, *RESHAPES, *PASSING)


@dataclass(frozen=True, slots=True)
class Weights:
    """A variable, and where its units lie.

    Attributes:
        variable: Of any shape.
        axes: Those of the units, in the order of the units.
        groups: The last unit axis holds this many blocks, each with all units: the gates of an LSTM.
    """

    variable: keras.Variable
    axes: tuple[int, ...]
    groups: int = 1

    @property
    def size(self) -> int:
        """How many numbers."""
        return int(math.prod(self.variable.shape))

    @property
    def columns(self) -> Columns:
        """Where the units lie, without the variable."""
        return Columns(tuple(self.variable.shape), self.axes, self.groups)


@dataclass(frozen=True, eq=False, slots=True)
class UnitLayer:
    """A layer with units.

    Attributes:
        layer: The layer.
        name: Unique in the model.
        axes: Of the units in the layer's output, as :class:`Weights`; negative where counted from the end.
        incoming: Its weights, empty if they cannot be told.
        fan_in: Inputs of one unit.
        convolution: Whether the other axes are positions of one image or signal, never tokens.
        loop: Whether the output alone is seen, from outside of a loop.
        function: For loops, the activation function; otherwise it is found by following the output.
        linear: Whether nothing but a linear map can follow, as in the projections of attention.
    """

    layer: keras.Layer
    name: str
    axes: tuple[int, ...]
    incoming: tuple[Weights, ...] = ()
    fan_in: int | None = None
    convolution: bool = False
    loop: bool = False
    function: str | None = None
    linear: bool = False

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights at present."""
        weights = [weights.variable for weights in self.incoming] or self.layer.weights
        return any(variable.trainable for variable in weights)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a model is made of.

    Attributes:
        followed: Layers whose calls are followed.
        watched: Those with units that are to be watched.
        skipped: Name of each other layer with weights to the reason.
        tokens: Whether the model looks up embeddings, so that positions of a sequence are tokens.
    """

    followed: tuple[Any, ...]
    watched: tuple[UnitLayer, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    tokens: bool = False


def survey(model: keras.Model, chosen: Iterable[str | keras.Layer] | None = None) -> Survey:
    """Look through a built model.

    Args:
        model: The model.
        chosen: Layers to watch, by name, path or object; a model or composite layer stands for all within it. None for
            all.

    Raises:
        UnknownNameError: The model has no such layer.
        InvalidArgumentError: There is nothing to watch.
    """
    everything = keras_private.sublayers(model)
    inside = {id(inner) for loop in everything if isinstance(loop, LOOPS) for inner in keras_private.sublayers(loop)}
    visible = [layer for layer in everything if id(layer) not in inside]
    projections = _attention_projections(visible)
    wanted = None if chosen is None else _chosen(model, chosen, everything)
    graph = keras_private.graph_of(model)
    operations = [op for op in getattr(graph, "operations", ()) if isinstance(op, ADDITIONS)]
    watched, skipped, names = [], {}, _names(visible, model)
    for layer in visible:
        name = names[id(layer)]
        if isinstance(layer, WITH_UNITS):
            if wanted is None or id(layer) in wanted:
                if not layer.built:
                    skipped[name] = "not called, so it has no weights"
                    continue
                try:
                    watched.append(describe(layer, name, linear=id(layer) in projections))
                except (AttributeError, TypeError, ValueError, IndexError) as error:
                    skipped[name] = f"its units could not be told: {error}"
        elif wanted is None and _own_weights(layer) and not isinstance(layer, (*ACTIVATIONS, *PASSING)):
            skipped[name] = _why_not(layer)
    if not watched and wanted is not None:
        raise InvalidArgumentError(f"none of the layers to watch has units: {', '.join(map(_called, chosen or ()))}")
    followed = {id(layer): layer for layer in (*visible, *operations) if isinstance(layer, FOLLOWED)}
    tokens = any(isinstance(layer, layers.Embedding) for layer in everything)
    return Survey(tuple(followed.values()), tuple(watched), skipped, tokens)


def describe(layer: Any, name: str, *, linear: bool = False) -> UnitLayer:
    """Tell the units and weights of a built layer of a kind in :data:`WITH_UNITS`."""
    if isinstance(layer, LOOPS):
        return _describe_loop(layer, name)
    if isinstance(layer, CONVOLUTIONS):
        first = layer.data_format == "channels_first"
        if isinstance(layer, DEPTHWISE):
            incoming = _weights(layer.kernel, (-2, -1))
        elif isinstance(layer, SEPARABLE):
            incoming = _weights(layer.pointwise_kernel, (-1,))
        else:
            incoming = _weights(layer.kernel, (-2,) if isinstance(layer, TRANSPOSED) else (-1,))
        axes: tuple[int, ...] = (1,) if first else (-1,)
        return UnitLayer(layer, name, axes, incoming, _fan_in(incoming), convolution=True)
    if isinstance(layer, layers.EinsumDense):
        output, kernel = _einsum_axes(layer.equation)
        incoming = _weights(layer.kernel, kernel)
        return UnitLayer(layer, name, output, incoming, _fan_in(incoming), linear=linear)
    incoming = _weights(layer.kernel, (-1,))
    return UnitLayer(layer, name, (-1,), incoming, _fan_in(incoming), linear=linear)


def function_of(activation: Any) -> str:
    """The field's name of an activation function or layer, ``"custom"`` for one that it does not know."""
    while isinstance(activation, functools.partial):
        activation = activation.func
    if isinstance(activation, layers.Activation):
        return function_of(activation.activation)
    if isinstance(activation, layers.ReLU):
        if activation.negative_slope:
            return "leaky_relu"
        if activation.threshold:
            return "threshold"
        return "relu6" if activation.max_value == 6 else "relu"
    name: str = getattr(activation, "__name__", None) or type(activation).__name__
    return field_name(name) or CUSTOM


def is_exactly_silent(activation: Any) -> bool:
    """Whether an activation function or layer gives nothing exactly where its input is not above zero, or a threshold.

    As far as its settings are known: not so for functions with arguments bound to them.
    """
    if isinstance(activation, layers.Activation):
        return is_exactly_silent(activation.activation)
    if isinstance(activation, layers.ReLU):
        return type(activation) is layers.ReLU and not activation.negative_slope
    bound = isinstance(activation, functools.partial)
    return not bound and function_of(activation) in PROVABLE - {"threshold"}


def has_activation(layer: Any) -> bool:
    """Whether a layer applies an activation function of its own."""
    activation = getattr(layer, "activation", None)
    return activation is not None and activation is not keras.activations.linear


def _describe_loop(layer: Any, name: str) -> UnitLayer:
    if isinstance(layer, layers.TimeDistributed):
        inner = describe(layer.layer, name)
        if any(axis >= 0 for axis in inner.axes):
            raise ValueError("the channels of the layer in the loop do not come last")
        name_of = function_of(layer.layer.activation) if has_activation(layer.layer) else "linear"
        return UnitLayer(
            layer, name, inner.axes, inner.incoming, inner.fan_in, inner.convolution, loop=True, function=name_of
        )
    cell = layer.cell
    convolution = hasattr(cell, "filters")
    first = convolution and getattr(cell, "data_format", None) == "channels_first"
    function = function_of(cell.activation) if has_activation(cell) else None
    incoming: list[Weights] = []
    units = getattr(cell, "filters", None) or getattr(cell, "units", None)
    for part in ("kernel", "recurrent_kernel"):
        variable = getattr(cell, part, None)
        if isinstance(units, int) and isinstance(variable, keras.Variable) and variable.shape[-1] % units == 0:
            incoming.append(Weights(variable, (-1,), groups=variable.shape[-1] // units))
    fan_in = sum(weights.size // weights.variable.shape[-1] for weights in incoming) or None
    axes = (-1 - cell.rank,) if first else (-1,)  # counted from the end, as a sequence has one axis more
    return UnitLayer(layer, name, axes, tuple(incoming), fan_in, convolution, loop=True, function=function)


def _weights(kernel: Any, axes: tuple[int, ...]) -> tuple[Weights, ...]:
    # With LoRA or quantization the kernel is computed from others: which of them are a unit's is not ours to say.
    return (Weights(kernel, axes),) if isinstance(kernel, keras.Variable) else ()


def _fan_in(incoming: Sequence[Weights]) -> int | None:
    if not incoming:
        return None
    shape = incoming[0].variable.shape
    units = int(math.prod(shape[axis] for axis in incoming[0].axes))
    return incoming[0].size // units


def _einsum_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes of the units in the output and in the kernel: the letters that come from the kernel alone."""
    inputs, output = equation.replace(" ", "").split("->")
    source, kernel = inputs.split(",")
    letters = [letter for letter in output if letter in kernel and letter not in source]
    if not letters:
        raise ValueError(f"no axis of the output of {equation!r} comes from the weights alone")
    if "..." in output and output.index(letters[0]) < output.index("..."):
        raise ValueError(f"the units of {equation!r} come before axes that it does not name")
    return tuple(output.index(x) - len(output) for x in letters), tuple(kernel.index(x) for x in letters)


def _attention_projections(visible: Iterable[keras.Layer]) -> set[int]:
    attention = public("MultiHeadAttention", "GroupQueryAttention")
    return {id(inner) for layer in visible if isinstance(layer, attention) for inner in keras_private.sublayers(layer)}


def _own_weights(layer: keras.Layer) -> bool:
    inner = {id(weight) for part in keras_private.sublayers(layer) for weight in part.weights}
    return any(id(weight) not in inner for weight in layer.weights)


def _why_not(layer: keras.Layer) -> str:
    if isinstance(layer, layers.Embedding):
        return "a table whose rows are looked up: a row not seen is not dead"
    return f"deadunits_tb does not know where the units of a layer of kind {type(layer).__name__} are"


def _names(visible: Sequence[keras.Layer], model: keras.Model) -> dict[int, str]:
    """A layer's own name where it is unique in the model, otherwise its path."""
    own = [layer.name for layer in visible]
    names: dict[int, str] = {}
    taken: set[str] = set()
    for layer in visible:
        name = layer.name if own.count(layer.name) == 1 else (layer.path or layer.name)
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}#{number}", number + 1
        taken.add(unique)
        names[id(layer)] = unique
    return names


def _chosen(model: keras.Model, chosen: Iterable[str | keras.Layer], everything: Sequence[keras.Layer]) -> set[int]:
    wanted: set[int] = set()
    names = _names(everything, model)
    for one in chosen:
        if isinstance(one, str):
            found = [layer for layer in everything if one in (names[id(layer)], layer.name, layer.path)]
        else:
            found = [layer for layer in everything if layer is one]
        if not found:
            raise UnknownNameError.of("layer", _called(one), names.values())
        for layer in found:
            wanted.add(id(layer))
            wanted.update(id(inner) for inner in keras_private.sublayers(layer))
    return wanted


def _called(layer: str | keras.Layer) -> str:
    return layer if isinstance(layer, str) else layer.name

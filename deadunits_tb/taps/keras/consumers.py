"""Which weights each unit feeds, where a functional graph tells every consumer of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from deadunits_tb.capture.activation_functions import field_name
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.layers import (
    ACTIVATIONS,
    CONVOLUTIONS,
    DEPTHWISE,
    PASSING,
    SEPARABLE,
    TRANSPOSED,
    UnitLayer,
    Weights,
)

Outgoing = tuple[Weights, ...]


class UnknownConsumer(Exception):
    """Something consumes the units, and it is not known with which weights."""


def outgoing_weights(model: keras.Model, watched: tuple[UnitLayer, ...]) -> dict[str, Outgoing]:
    """Find the weights that take in each layer's units.

    Between a layer and its consumers there may be activation functions, normalisation, dropout, pooling, padding and
    flattening. Anything else, the model's output among it, makes the consumers unknown.

    Args:
        model: Built. Of a subclassed model only the functional parts tell something.
        watched: Its layers.

    Returns:
        Name of the layer to its outgoing weights; a layer of which not every consumer is known is absent.
    """
    graphs = {id(g): g for part in (model, *keras_private.sublayers(model)) if (g := keras_private.graph_of(part))}
    homes: dict[int, list[Any]] = defaultdict(list)
    for graph in graphs.values():
        for operation in graph.operations:
            homes[id(operation)].append(graph)
    found = {}
    for unit_layer in watched:
        home = homes[id(unit_layer.layer)]
        if len(home) != 1 or any(axis >= 0 for axis in unit_layer.axes):
            continue
        walk = _Walk(home[0])
        try:
            found[unit_layer.name] = tuple(walk.from_layer(unit_layer.layer))
        except UnknownConsumer:
            continue
    return found


class _Walk:
    """Follows the symbolic tensors of one graph, as long as the units stay its last axis."""

    def __init__(self, graph: Any) -> None:
        self._calls = list(keras_private.graph_calls(graph))
        self._outputs = {id(tensor) for tensor in graph.outputs}

    def from_layer(self, layer: Any) -> Iterator[Weights]:
        for operation, _, outputs in self._calls:
            if operation is layer:
                yield from self._from_tensor(outputs[0], 1)

    def _from_tensor(self, tensor: Any, positions: int) -> Iterator[Weights]:
        """``positions``: how often the units are repeated along the last axis, after flattening."""
        consumers = [call for call in self._calls if any(each is tensor for each in call[1])]
        if id(tensor) in self._outputs or not consumers:
            raise UnknownConsumer
        for operation, inputs, outputs in consumers:
            function = field_name(type(operation).__name__)  # an activation function called on a symbolic tensor
            if isinstance(operation, (*ACTIVATIONS, *PASSING)) or function not in (None, "glu", "maxout"):
                yield from self._from_tensor(outputs[0], positions)
            elif isinstance(operation, layers.Flatten) and operation.data_format == "channels_last":
                shape = inputs[0].shape[1:-1]
                if None in shape:
                    raise UnknownConsumer
                yield from self._from_tensor(outputs[0], positions * math.prod(shape))
            else:
                yield taken_in(operation, positions)


def taken_in(layer: Any, positions: int) -> Weights:
    """The weights with which a layer takes in the last axis of its input.

    Args:
        layer: The layer.
        positions: How often the units are repeated along that axis, after flattening.

    Raises:
        UnknownConsumer: It is not known.
    """
    kernel, axis = None, 0
    if isinstance(layer, layers.Dense):
        kernel, axis = layer.kernel, 0
    elif isinstance(layer, layers.EinsumDense):
        kernel, axis = layer.kernel, _last_letter(layer.equation)
    elif isinstance(layer, DEPTHWISE):
        kernel, axis = layer.kernel, -2
    elif isinstance(layer, SEPARABLE):
        kernel, axis = layer.depthwise_kernel, -2
    elif isinstance(layer, TRANSPOSED):
        kernel, axis = layer.kernel, -1
    elif isinstance(layer, CONVOLUTIONS) and layer.groups == 1:
        kernel, axis = layer.kernel, -2
    elif isinstance(layer, (layers.LSTM, layers.GRU, layers.SimpleRNN)):
        kernel, axis = layer.cell.kernel, 0
    if not isinstance(kernel, keras.Variable) or getattr(layer, "data_format", None) == "channels_first":
        raise UnknownConsumer
    return Weights(kernel, (axis,), groups=positions)


def _last_letter(equation: str) -> int:
    """Axis of the kernel that the last axis of the input is summed over with."""
    inputs, output = equation.replace(" ", "").split("->")
    source, kernel = inputs.split(",")
    if source[-1] not in kernel or source[-1] in output:
        raise UnknownConsumer
    return kernel.index(source[-1])

"""Where the units of a Keras layer go: normalisation on the way, and every layer that takes them in."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from deadunits_tb.capture.activation_functions import field_name
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.consumers import UnknownConsumer, taken_in
from deadunits_tb.taps.keras.layers import ACTIVATIONS, ADDITIONS, PASSING, function_of, has_activation

COUPLING = frozenset({"softmax", "log_softmax", "sparsemax", "glu", "maxout"})
"""Activation functions in which one unit's output depends on others."""
ZERO_WHEN_SILENT = frozenset({"relu", "relu6", "squared_relu"})
_MIXING = ("LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization")
_SHIFTING = ("AlphaDropout", "Rescaling")
"""Behind these a zero is a zero no more."""


class Lost(Exception):
    """It is not known where the units go; the message says why."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where the units of one layer go.

    Attributes:
        consumers: Each layer that takes them in, with the number of times that its input repeats them.
        norms: Batch normalisations that they pass.
        function: The first activation function on the way, None if unknown.
        zero_when_silent: Whether a unit that does not fire sends exact zeros to every consumer.
    """

    consumers: tuple[tuple[Any, int], ...]
    norms: tuple[Any, ...]
    function: str | None
    zero_when_silent: bool


def route(model: keras.Model, layer: Any) -> Route:
    """Follow the units of a layer through the functional graph that it belongs to.

    Raises:
        Lost: It is not known where they all go, or they are not the layer's alone.
    """
    graphs = {id(g): g for part in (model, *keras_private.sublayers(model)) if (g := keras_private.graph_of(part))}
    homes: dict[int, list[Any]] = defaultdict(list)
    for graph in graphs.values():
        for operation in graph.operations:
            homes[id(operation)].append(graph)
    if len(homes[id(layer)]) != 1:
        raise Lost("it is not part of one functional or sequential model")
    walk = _Walk(homes[id(layer)][0])
    walk.from_layer(layer)
    for each in (*walk.consumers, *walk.norms):
        if len(homes[id(each)]) != 1 or walk.others_feed(each):
            raise Lost(f"{each.name} also takes in other units")
    return Route(tuple(walk.consumers.items()), tuple(walk.norms), walk.function, walk.zero_when_silent)


def named_route(layer: Any, units: int, consumers: tuple[Any, ...], norms: tuple[Any, ...]) -> Route:
    """As :func:`route`, where the user says where the units go.

    Raises:
        Lost: The sizes do not fit.
    """
    function = function_of(layer.activation) if has_activation(layer) else None
    repeats = []
    for consumer in consumers:
        inputs = _input_size(consumer)
        if inputs % units:
            raise Lost(f"{consumer.name} takes in {inputs} features, which {units} units do not fill evenly")
        repeats.append((consumer, inputs // units))
    return Route(tuple(repeats), norms, function, function in ZERO_WHEN_SILENT and not norms)


def _input_size(consumer: Any) -> int:
    try:
        weights = taken_in(consumer, 1)
    except UnknownConsumer:
        raise Lost(f"it is not known how {type(consumer).__name__} takes them in") from None
    return int(weights.variable.shape[weights.axes[0]])


class _Walk:
    """Follows the symbolic tensors of one graph, as long as the units stay its last axis."""

    def __init__(self, graph: Any) -> None:
        self._calls = list(keras_private.graph_calls(graph))
        self._outputs = {id(tensor) for tensor in graph.outputs}
        self._seen: set[tuple[int, int]] = set()
        self.consumers: dict[Any, int] = {}
        self.norms: dict[Any, None] = {}
        self.function: str | None = None
        self.zero_when_silent = True

    def from_layer(self, layer: Any) -> None:
        own = function_of(layer.activation) if has_activation(layer) else None
        for operation, _, outputs in self._calls:
            if operation is layer:
                if own is None:
                    self._follow(outputs[0], 1, None, False)
                else:
                    self._activated(own, outputs[0], 1, None, False)

    def others_feed(self, layer: Any) -> bool:
        """Whether a layer is called on tensors that were not followed."""
        return any(
            (id(operation), id(tensor)) not in self._seen
            for operation, inputs, _ in self._calls
            if operation is layer
            for tensor in inputs[:1]
        )

    def _follow(self, tensor: Any, positions: int, function: str | None, zero: bool) -> None:
        """Follow one tensor.

        Args:
            tensor: Symbolic.
            positions: How often the units are repeated along the last axis.
            function: The activation function behind which it lies.
            zero: Whether a silent unit is exactly zero here.
        """
        if id(tensor) in self._outputs:
            raise Lost("its units are part of the model's output")
        taking = [call for call in self._calls if any(each is tensor for each in call[1])]
        if not taking:
            raise Lost("nothing takes in its units")
        for operation, inputs, outputs in taking:
            kind = type(operation).__name__
            self._seen.add((id(operation), id(tensor)))
            if isinstance(operation, layers.BatchNormalization):
                if operation.axis not in (-1, len(tensor.shape) - 1) or positions != 1:
                    raise Lost(f"{operation.name} does not normalise each unit by itself")
                self.norms.setdefault(operation)
                self._follow(outputs[0], positions, function, False)
            elif kind in _MIXING or isinstance(operation, ADDITIONS):
                how = (
                    "adds them to others, as in a residual stream" if kind not in _MIXING else "mixes them with others"
                )
                raise Lost(f"{operation.name} {how}")
            elif isinstance(operation, ACTIVATIONS):
                self._activated(function_of(operation), outputs[0], positions, function, zero)
            elif isinstance(operation, PASSING):
                self._follow(outputs[0], positions, function, zero and kind not in _SHIFTING)
            elif isinstance(operation, layers.Flatten) and operation.data_format == "channels_last":
                shape = inputs[0].shape[1:-1]
                if None in shape:
                    raise Lost(f"{operation.name} flattens axes of unknown length")
                self._follow(outputs[0], positions * math.prod(shape), function, zero)
            elif field_name(kind) is not None:  # an activation function called on a symbolic tensor
                self._activated(str(field_name(kind)), outputs[0], positions, function, zero)
            else:
                self._take(operation, positions, zero)

    def _activated(self, name: str, tensor: Any, positions: int, before: str | None, zero: bool) -> None:
        if name in COUPLING:
            raise Lost(f"{name} mixes them with others")
        if name != "linear":
            self.function = self.function or name
        stays = name in ZERO_WHEN_SILENT and (before is None or zero)
        self._follow(tensor, positions, before if name == "linear" else name, stays or (name == "linear" and zero))

    def _take(self, operation: Any, positions: int, zero: bool) -> None:
        try:
            taken_in(operation, positions)
        except UnknownConsumer:
            raise Lost(f"they go into {operation.name}, of which it is not known how it takes them in") from None
        if self.consumers.setdefault(operation, positions) != positions:
            raise Lost(f"{operation.name} takes them in in several ways")
        self.zero_when_silent &= zero

"""The networks: which parameters they have, and a plain forward pass in float64 that gives what every unit does.

All kernels have their units along the last axis and their inputs along the one before it, as Keras has them; the
columns of a recurrent kernel are those of the input, forget, cell and output gate, in turn. Images are 8 by 8 pixels:
a convolution slides over them, and to a recurrent layer and to a transformer their rows are a sequence of eight.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import erf

if TYPE_CHECKING:
    from benchmarks.truth.recipe import Recipe

Array = npt.NDArray[np.float64]
Parameters = list[Array]
Architecture = Literal["dense", "cnn", "lstm", "transformer"]

FILTERS, FEATURES = (8, 12), 32
CELLS = 24
WIDTH, HEADS = 16, 2
EPSILON = 1e-5
"""Of layer normalisation."""


@dataclass(frozen=True)
class Hidden:
    """Where the weights of a hidden layer are among the parameters.

    Attributes:
        kernels: Indices of its incoming weights.
        bias: Index of its biases.
        readers: Indices of the kernels that its units are multiplied with.
        function: Activation function.
        gates: How many columns of the kernels a unit has.
    """

    kernels: tuple[int, ...]
    bias: int
    readers: tuple[int, ...]
    function: str
    gates: int = 1

    def incoming(self, parameters: Parameters) -> list[Array]:
        """``[weights, units]`` of each kernel, all gates of a unit together; to be changed in place."""
        units = self.biases(parameters).shape[1]
        return [parameters[at].reshape(-1, units) for at in self.kernels]

    def outgoing(self, parameters: Parameters) -> list[Array]:
        """``[..., units, ...]`` of each reader, to be changed in place."""
        units = self.biases(parameters).shape[1]
        return [parameters[at].reshape(-1, units, parameters[at].shape[-1]) for at in self.readers]

    def biases(self, parameters: Parameters) -> Array:
        """``[gates, units]``, to be changed in place; that of the output gate is last."""
        return parameters[self.bias].reshape(self.gates, -1)


def hidden_layers(recipe: Recipe) -> list[Hidden]:
    """Those whose units are judged, in the order of their names."""
    if recipe.architecture == "lstm":
        return [Hidden((0, 1), 2, (1, 3), "tanh", gates=4), Hidden((3,), 4, (5,), recipe.function)]
    if recipe.architecture == "transformer":
        return [Hidden((14,), 15, (16,), recipe.function)]
    layers = len(recipe.sizes) - 2 if recipe.architecture == "dense" else 3
    return [Hidden((2 * at,), 2 * at + 1, (2 * at + 2,), recipe.function) for at in range(layers)]


def shapes(recipe: Recipe) -> list[tuple[int, ...]]:
    """Of all parameters."""
    match recipe.architecture:
        case "dense":
            kernels: list[tuple[int, ...]] = list(itertools.pairwise(recipe.sizes))
        case "cnn":
            one, two = FILTERS
            kernels = [(3, 3, 1, one), (3, 3, one, two), (16 * two, FEATURES), (FEATURES, 10)]
        case "lstm":
            recurrent = [(8, 4 * CELLS), (CELLS, 4 * CELLS), (4 * CELLS,)]
            return [*recurrent, (CELLS, FEATURES), (FEATURES,), (FEATURES, 10), (10,)]
        case "transformer":
            norm, square = [(WIDTH,), (WIDTH,)], [(WIDTH, WIDTH), (WIDTH,)]
            block = [*norm, *square * 4, *norm, (WIDTH, FEATURES), (FEATURES,), (FEATURES, WIDTH), (WIDTH,)]
            return [(8, WIDTH), (WIDTH,), *block, (WIDTH, 10), (10,)]
    return [shape for kernel in kernels for shape in (kernel, kernel[-1:])]


def first_parameters(recipe: Recipe) -> Parameters:
    """Kernels drawn from normal distributions; those that a recipe does not speak of as Glorot would."""
    random, found = np.random.default_rng([recipe.seed, 1]), []
    layers, sizes = hidden_layers(recipe), shapes(recipe)
    judged = {at for layer in layers for at in layer.kernels} if recipe.architecture != "lstm" else {3}
    biases = {layer.bias for layer in layers} if recipe.architecture != "lstm" else {4}
    for at, shape in enumerate(sizes):
        inputs = math.prod(shape[:-1])
        if len(shape) > 1:
            given = recipe.gain if at in judged or recipe.architecture == "dense" else 1.0
            mean = recipe.mean if at in judged else 0.0
            found.append(random.normal(mean, math.sqrt(given / inputs), shape))
        else:
            found.append(np.full(shape, recipe.bias if at in biases else 0.0))
    if recipe.architecture == "transformer":
        found[2][:] = found[12][:] = 1.0
    if recipe.architecture == "lstm":
        found[2][CELLS : 2 * CELLS] = 1.0
    return found


def activations(recipe: Recipe, parameters: Parameters, images: Array) -> tuple[list[Array], list[Array]]:
    """Outputs and derivatives ``[images, ..., units]`` of the hidden layers, and of the output layer the logits."""
    outputs, slopes = [], []
    with np.errstate(all="ignore"):  # NaN and infinity are planted
        for values, slope in _FORWARD[recipe.architecture](recipe, parameters, images):
            outputs.append(values)
            slopes.append(slope)
    return outputs, slopes


def pre_activations(recipe: Recipe, parameters: Parameters, images: Array, layer: int) -> Array:
    """``[images, units]`` of a hidden layer of a dense network."""
    before = values = images
    for at in range(layer + 1):
        before = values @ parameters[2 * at] + parameters[2 * at + 1]
        values = apply(recipe.function, before)[0]
    return before


_Steps = list[tuple[Array, Array]]


def _dense(recipe: Recipe, parameters: Parameters, images: Array) -> _Steps:
    found, values = [], images
    for kernel, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        found.append(apply(recipe.function, values @ kernel + bias))
        values = found[-1][0]
    logits = values @ parameters[-2] + parameters[-1]
    return [*found, (logits, np.ones_like(logits))]


def _cnn(recipe: Recipe, parameters: Parameters, images: Array) -> _Steps:
    found, values = [], images.reshape(-1, 8, 8, 1)
    for at in (0, 2):
        windows = np.lib.stride_tricks.sliding_window_view(values, (3, 3), (1, 2))  # [n, y, x, in, 3, 3]
        kernel = parameters[at].transpose(2, 0, 1, 3).reshape(-1, parameters[at].shape[-1])
        n, y, x = windows.shape[:3]
        out, slope = apply(recipe.function, windows.reshape(n, y * x, -1) @ kernel + parameters[at + 1])
        found.append((out, slope))
        values = out.reshape(n, y, x, -1)
    found.append(apply(recipe.function, values.reshape(len(values), -1) @ parameters[4] + parameters[5]))
    logits = found[-1][0] @ parameters[6] + parameters[7]
    return [*found, (logits, np.ones_like(logits))]


def _lstm(recipe: Recipe, parameters: Parameters, images: Array) -> _Steps:
    kernel, recurrent, bias = parameters[:3]
    rows, out = images.reshape(-1, 8, 8), []
    state = memory = np.zeros((len(rows), CELLS))
    for at in range(8):
        gates = np.split(rows[:, at] @ kernel + state @ recurrent + bias, 4, axis=1)
        inward, forget, outward = (1 / (1 + np.exp(-gates[gate])) for gate in (0, 1, 3))
        memory = forget * memory + inward * np.tanh(gates[2])
        state = outward * np.tanh(memory)
        out.append(state)
    states = np.stack(out, axis=1)
    features = apply(recipe.function, states.mean(axis=1) @ parameters[3] + parameters[4])
    logits = features[0] @ parameters[5] + parameters[6]
    return [(states, 1 - states**2), features, (logits, np.ones_like(logits))]


def _transformer(recipe: Recipe, parameters: Parameters, images: Array) -> _Steps:
    p = parameters
    x = images.reshape(-1, 8, 8) @ p[0] + p[1]
    y = _normalised(x, p[2], p[3])
    query, key, value = ((y @ p[at] + p[at + 1]).reshape(len(y), 8, HEADS, -1).swapaxes(1, 2) for at in (4, 6, 8))
    scores = query @ key.swapaxes(2, 3) / math.sqrt(WIDTH / HEADS)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (weights / weights.sum(axis=-1, keepdims=True) @ value).swapaxes(1, 2).reshape(x.shape)
    x = x + mixed @ p[10] + p[11]
    up = apply(recipe.function, _normalised(x, p[12], p[13]) @ p[14] + p[15])
    logits = (x + up[0] @ p[16] + p[17]).mean(axis=1) @ p[18] + p[19]
    return [up, (logits, np.ones_like(logits))]


def _normalised(x: Array, scale: Array, shift: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + EPSILON) * scale + shift


_FORWARD = {"dense": _dense, "cnn": _cnn, "lstm": _lstm, "transformer": _transformer}


def apply(function: str, values: Array) -> tuple[Array, Array]:
    """An activation function and its derivative."""
    match function:
        case "relu":
            return np.maximum(values, 0), (values > 0).astype(np.float64)
        case "relu6":
            return np.clip(values, 0, 6), ((values > 0) & (values < 6)).astype(np.float64)
        case "leaky_relu":
            return np.where(values > 0, values, 0.2 * values), np.where(values > 0, 1.0, 0.2)
        case "tanh":
            out = np.tanh(values)
            return out, 1 - out * out
        case "sigmoid":
            out = 1 / (1 + np.exp(-values))
            return out, out * (1 - out)
        case "silu":
            gate = 1 / (1 + np.exp(-values))
            return values * gate, gate * (1 + values * (1 - gate))
        case "gelu":
            below = 0.5 * (1 + erf(values / math.sqrt(2)))
            return values * below, below + values * np.exp(-(values**2) / 2) / math.sqrt(2 * math.pi)
    raise ValueError(function)

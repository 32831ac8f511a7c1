"""The networks of the recipes in PyTorch, and the way of their parameters there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.truth.networks import CELLS, EPSILON, FEATURES, FILTERS, HEADS, WIDTH, Array, Parameters
from benchmarks.truth.recipe import Recipe

_FUNCTIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
}
Way = Callable[[Array], Array]


def network(recipe: Recipe) -> nn.Module:
    """Build the network of a recipe; its hidden layers have the names that the recipe gives them."""
    build: dict[str, Callable[[Recipe], nn.Module]] = {"cnn": _cnn, "lstm": _Recurrent, "transformer": _Transformer}
    return build.get(recipe.architecture, _dense)(recipe)


def _dense(recipe: Recipe) -> nn.Module:
    model = nn.Sequential()
    for number, (inputs, units) in enumerate(zip(recipe.sizes, recipe.sizes[1:], strict=False)):
        model.add_module(recipe.names[number], nn.Linear(inputs, units))
        if number < recipe.hidden:
            model.add_module(f"function_{number + 1}", _FUNCTIONS[recipe.function]())
    return model


def _cnn(recipe: Recipe) -> nn.Module:
    one, two = FILTERS
    layers = (nn.Conv2d(1, one, 3), nn.Conv2d(one, two, 3), nn.Linear(16 * two, FEATURES))
    model = nn.Sequential(nn.Unflatten(1, (1, 8, 8)))
    for number, layer in enumerate(layers):
        if number == 2:
            model.add_module("flatten", nn.Flatten())
        model.add_module(recipe.names[number], layer)
        model.add_module(f"function_{number + 1}", _FUNCTIONS[recipe.function]())
    model.add_module("output", nn.Linear(FEATURES, 10))
    return model


class _Recurrent(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.hidden_1 = nn.LSTM(8, CELLS, batch_first=True)
        self.hidden_1.bias_hh_l0.requires_grad_(False).zero_()  # one bias is enough
        self.hidden_2, self.function = nn.Linear(CELLS, FEATURES), _FUNCTIONS[recipe.function]()
        self.output = nn.Linear(FEATURES, 10)

    def forward(self, x: Any) -> Any:
        states, _ = self.hidden_1(x.view(-1, 8, 8))
        return self.output(self.function(self.hidden_2(states.mean(1))))


class _Transformer(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH, EPSILON) for _ in range(2)])
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.hidden_1, self.function = nn.Linear(WIDTH, FEATURES), _FUNCTIONS[recipe.function]()
        self.down, self.output = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Any) -> Any:
        x = self.embed(x.view(-1, 8, 8))
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(self.function(self.hidden_1(self.norms[1](x))))
        return self.output(x.mean(1))


def get(recipe: Recipe, model: nn.Module) -> Parameters:
    """The parameters, as :mod:`benchmarks.truth.networks` has them, in float64."""
    return [np.array(back(tensor.numpy()), np.float64, order="C") for tensor, _, back in _places(recipe, model)]


def put(recipe: Recipe, model: nn.Module, parameters: Parameters) -> None:
    """Give the network these parameters."""
    for (tensor, there, _), new in zip(_places(recipe, model), parameters, strict=True):
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(there(new), np.float32)))


def _same(values: Array) -> Array:
    return values


def _turned(values: Array) -> Array:
    return values.T


def _places(recipe: Recipe, model: Any) -> Iterator[tuple[torch.Tensor, Way, Way]]:
    """Of each parameter in turn where it is, which way it goes there, and which way back."""
    match recipe.architecture:
        case "lstm":
            yield model.hidden_1.weight_ih_l0.detach(), _turned, _turned
            yield model.hidden_1.weight_hh_l0.detach(), _turned, _turned
            yield model.hidden_1.bias_ih_l0.detach(), _same, _same
            layers = [model.hidden_2, model.output]
        case "transformer":
            yield from _of(model.embed)
            for at, norm in enumerate(model.norms):
                yield norm.weight.detach(), _same, _same
                yield norm.bias.detach(), _same, _same
                if at == 0:
                    kernels, biases = model.attention.in_proj_weight.detach(), model.attention.in_proj_bias.detach()
                    for kernel, bias in zip(kernels.chunk(3), biases.chunk(3), strict=True):
                        yield kernel, _turned, _turned
                        yield bias, _same, _same
                    yield from _of(model.attention.out_proj)
            layers = [model.hidden_1, model.down, model.output]
        case _:
            layers = [model.get_submodule(name) for name in recipe.names]
    for layer in layers:
        flattened = recipe.architecture == "cnn" and layer is model.hidden_3
        yield from _of_flattened(layer) if flattened else _of(layer)


def _of(layer: Any) -> Iterator[tuple[torch.Tensor, Way, Way]]:
    if isinstance(layer, nn.Conv2d):
        yield layer.weight.detach(), lambda v: v.transpose(3, 2, 0, 1), lambda v: v.transpose(2, 3, 1, 0)
    else:
        yield layer.weight.detach(), _turned, _turned
    yield layer.bias.detach(), _same, _same


def _of_flattened(layer: Any) -> Iterator[tuple[torch.Tensor, Way, Way]]:
    """PyTorch flattens ``[channels, positions]``, Keras ``[positions, channels]``."""
    channels = FILTERS[1]

    def there(values: Array) -> Array:
        return values.reshape(-1, channels, FEATURES).swapaxes(0, 1).reshape(-1, FEATURES).T

    def back(values: Array) -> Array:
        return values.T.reshape(channels, -1, FEATURES).swapaxes(0, 1).reshape(-1, FEATURES)

    yield layer.weight.detach(), there, back
    yield layer.bias.detach(), _same, _same

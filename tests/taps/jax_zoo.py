"""Networks and training steps in JAX, for tests: each loss carries statistics along, or None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from deadunits_tb.jax import Layer, Statistics, observe, observe_inputs, observe_weights, value_and_grad

Loss = Callable[..., Any]


class Network(NamedTuple):
    """A loss of ``(params, statistics, x, y)``, its parameters and layers, and the shape of one example."""

    loss: Loss
    params: Any
    layers: dict[str, Layer]
    example: tuple[int, ...]


def _params(*shapes: tuple[int, ...]) -> dict[str, Any]:
    random = np.random.default_rng(0)
    params: dict[str, Any] = {}
    for at, shape in enumerate(shapes):
        params[f"w{at}"] = (random.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)
        params[f"b{at}"] = (random.normal(size=shape[-1:]) / 10).astype(np.float32)
    return params


def _layer(at: int, units: int, function: str = "relu", **facts: Any) -> Layer:
    return Layer(units, function, weights=Picked(f"w{at}"), **facts)


class Picked(NamedTuple):
    """Equal where it picks the same, so that two calls here make equal layers."""

    key: str

    def __call__(self, params: Any) -> Any:
        return params[self.key]


def _cross_entropy(logits: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def mlp(function: Callable[[Any], Any] = jax.nn.relu, name: str = "relu") -> Network:
    """Two hidden layers, of which the second is ``tanh``."""

    def loss(params: Any, statistics: Any, x: Any, y: Any) -> Any:
        a, statistics = observe(statistics, "first", function, x @ params["w0"] + params["b0"])
        b, statistics = observe(statistics, "second", jnp.tanh, a @ params["w1"] + params["b1"])
        logits, statistics = observe(statistics, "head", None, b @ params["w2"] + params["b2"])
        return _cross_entropy(logits, y), statistics

    layers = {
        "first": _layer(0, 24, name),
        "second": _layer(1, 16, "tanh"),
        "head": _layer(2, 4, "linear", role="output"),
    }
    return Network(loss, _params((10, 24), (24, 16), (16, 4)), layers, (10,))


def cnn() -> Network:
    """Convolution, normalisation over the batch, ReLU; twice."""

    def loss(params: Any, statistics: Any, x: Any, y: Any) -> Any:
        for at in range(2):
            z = lax.conv_general_dilated(
                x, params[f"w{at}"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            z = (z - z.mean((0, 1, 2))) * lax.rsqrt(z.var((0, 1, 2)) + 1e-5) + params[f"b{at}"]
            x, statistics = observe(statistics, f"conv{at}", jax.nn.relu, z)
        return _cross_entropy(x.mean((1, 2)) @ params["w2"] + params["b2"], y), statistics

    layers = {"conv0": _layer(0, 8), "conv1": _layer(1, 12)}
    return Network(loss, _params((3, 3, 2, 8), (3, 3, 8, 12), (12, 4)), layers, (9, 7, 2))


def dropout() -> Network:
    """A mask drawn from the data, as a key would be, between two layers."""

    def loss(params: Any, statistics: Any, x: Any, y: Any) -> Any:
        a, statistics = observe(statistics, "first", jax.nn.relu, x @ params["w0"] + params["b0"])
        keep = jax.random.bernoulli(jax.random.fold_in(jax.random.key(0), y.sum()), 0.7, a.shape)
        b, statistics = observe(statistics, "second", jax.nn.gelu, (a * keep / 0.7) @ params["w1"] + params["b1"])
        return _cross_entropy(b @ params["w2"] + params["b2"], y), statistics

    return Network(
        loss,
        _params((10, 24), (24, 16), (16, 4)),
        {"first": _layer(0, 24), "second": _layer(1, 16, "gelu")},
        (10,),
    )


def scanned() -> Network:
    """A recurrent layer: the statistics are part of what ``scan`` carries."""

    def loss(params: Any, statistics: Any, x: Any, y: Any) -> Any:
        def body(carry: Any, now: Any) -> Any:
            state, statistics = carry
            z = now @ params["w0"] + state @ params["w1"] + params["b0"]
            state, statistics = observe(statistics, "state", jnp.tanh, z)
            return (state, statistics), None

        start = (jnp.zeros((len(x), 12)), statistics)
        (state, statistics), _ = lax.scan(body, start, jnp.moveaxis(x, 1, 0))
        return _cross_entropy(state @ params["w2"] + params["b2"], y), statistics

    return Network(loss, _params((6, 12), (12, 12), (12, 4)), {"state": _layer(0, 12, "tanh")}, (5, 6))


def vmapped() -> Network:
    """Written for one example: the statistics see all of them through the name of the vmapped axis."""

    def one(params: Any, x: Any, statistics: Any) -> Any:
        z = x @ params["w0"] + params["b0"]
        a, statistics = observe(statistics, "first", jax.nn.relu, z, batched=False, axis_name="batch")
        return a @ params["w1"] + params["b1"], statistics

    def loss(params: Any, statistics: Any, x: Any, y: Any) -> Any:
        logits, statistics = jax.vmap(one, (None, 0, None), (0, None), axis_name="batch")(params, x, statistics)
        return _cross_entropy(logits, y), statistics

    return Network(loss, _params((10, 24), (24, 4)), {"first": _layer(0, 24)}, (10,))


def remat() -> Network:
    """What is observed is within ``jax.checkpoint``."""

    def block(params: Any, statistics: Any, x: Any) -> Any:
        a, statistics = observe(statistics, "first", jax.nn.relu, x @ params["w0"] + params["b0"])
        return observe(statistics, "second", jax.nn.silu, a @ params["w1"] + params["b1"])

    def loss(params: Any, statistics: Any, x: Any, y: Any) -> Any:
        a, statistics = jax.checkpoint(block)(params, statistics, x)
        return _cross_entropy(a @ params["w2"] + params["b2"], y), statistics

    return Network(
        loss,
        _params((10, 24), (24, 16), (16, 4)),
        {"first": _layer(0, 24), "second": _layer(1, 16, "silu")},
        (10,),
    )


ZOO: dict[str, Callable[[], Network]] = {
    "mlp": mlp,
    "cnn": cnn,
    "dropout": dropout,
    "scan": scanned,
    "vmap": vmapped,
    "checkpoint": remat,
}


def batch(network: Network, number: int = 0, examples: int = 16) -> tuple[Any, Any]:
    """Random numbers and classes, the same for the same number."""
    random = np.random.default_rng(number)
    return random.normal(size=(examples, *network.example)).astype(np.float32), random.integers(0, 4, examples)


def training_step(loss: Loss, optimizer: Any, *, has_aux: bool = False) -> Callable[..., Any]:
    """A jitted step of ``(params, state, statistics, x, y)``."""

    @jax.jit
    def step(params: Any, state: Any, statistics: Statistics | None, x: Any, y: Any) -> Any:
        (value, statistics), gradients = value_and_grad(loss, has_aux=has_aux)(params, statistics, x, y)
        updates, state = optimizer.update(gradients, state, params)
        new_params = optax.apply_updates(params, updates)
        statistics = observe_weights(observe_inputs(statistics, x), params, gradients, new_params)
        return new_params, state, statistics, value

    return step

"""Functions that are watched as they are: what is found in them, and that it is seen."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.jax import Layer, init_statistics, observe_weights, value_and_grad, watch
from deadunits_tb.taps.jax.writer import step_observation
from test_jax_bit_identity import assert_same

FACTS = ("units", "activation_function", "role", "kind")


def facts(layers: dict[str, Layer]) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(getattr(layer, fact) for fact in FACTS) for name, layer in layers.items()}


def images(examples: int = 6) -> Any:
    return np.random.default_rng(0).normal(size=(examples, 8, 8, 1)).astype(np.float32)


class Everything(nn.Module):
    """Normalisations, dropout, pooling, a residual connection, attention, half precision."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.GroupNorm(2)(nn.Conv(8, (3, 3), name="conv")(x)))
        x = nn.relu(nn.max_pool(nn.Conv(4, (3, 3), name="pooled")(x), (2, 2), (2, 2)))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dropout(0.5, deterministic=False)(nn.Dense(8, name="hidden")(x)))
        x = nn.silu(x + nn.BatchNorm(use_running_average=False)(nn.Dense(8, name="residual")(x)))
        x = nn.gelu(nn.LayerNorm()(nn.Dense(8, name="gelu")(x)))
        x = nn.gelu(nn.Dense(8, name="exact")(x), approximate=False)
        x = nn.MultiHeadDotProductAttention(2, name="attention")(x[:, None])[:, 0]
        x = nn.sigmoid(nn.Dense(4, dtype=jnp.bfloat16, name="half")(x))
        return nn.Dense(3, name="head")(x)


@pytest.mark.slow
def test_flax_linen() -> None:
    model, x = Everything(), images()
    variables = jax.jit(model.init)({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x)

    def loss(params: Any, x: Any) -> Any:
        logits, changed = model.apply(
            {**variables, "params": params}, x, rngs={"dropout": jax.random.key(2)}, mutable=["batch_stats"]
        )
        return jnp.square(logits).mean(), changed

    watched, params = watch(loss, has_aux=True), variables["params"]
    layers = watched.layers(params, x)
    assert facts(layers) == {
        "conv": (8, "relu", "hidden", "Conv"),
        "pooled": (4, "relu", "hidden", "Conv"),
        "hidden": (8, "relu", "hidden", "Dense"),
        "residual": (8, "silu", "hidden", "Dense"),
        "gelu": (8, "gelu", "hidden", "Dense"),
        "exact": (8, "gelu", "hidden", "Dense"),
        **{f"attention/{name}": (8, "linear", "hidden", "Dense") for name in ("query", "key", "value", "out")},
        "half": (4, "sigmoid", "hidden", "Dense"),
        "head": (3, "linear", "output", "Dense"),
    }
    assert layers.skipped == {}
    (value, (statistics, changed)), gradients = jax.jit(value_and_grad(watched, has_aux=True))(
        params, init_statistics(layers), x
    )
    assert_same(((value, changed), gradients), jax.jit(jax.value_and_grad(loss, has_aux=True))(params, x))
    seen = step_observation(jax.device_get(observe_weights(statistics, params, gradients))).layers
    assert list(seen) == list(layers)
    assert (seen["conv"].examples, seen["conv"].positions) == (6, 6 * 64)
    assert (seen["pooled"].examples, seen["pooled"].positions) == (6, 6 * 16)
    kernel = np.asarray(params["hidden"]["kernel"], np.float64)
    np.testing.assert_allclose(seen["hidden"].weights.norm_in, np.sqrt((kernel**2).sum(0)), rtol=1e-5)
    assert (seen["hidden"].gradient_squares >= 0).all()


def test_what_is_seen_is_the_activation_and_its_gradient() -> None:
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = self.perturb("z", nn.LayerNorm()(nn.Dense(5, name="hidden")(x)))
            x = nn.gelu(x)
            self.sow("intermediates", "a", x)
            return nn.Dense(3, name="head")(x)

    model, x = Network(), images().reshape(6, -1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    params, zeros = variables["params"], variables["perturbations"]

    def loss(params: Any, zeros: Any, x: Any) -> Any:
        logits, kept = model.apply({"params": params, "perturbations": zeros}, x, mutable=["intermediates"])
        return jnp.square(logits).mean(), kept["intermediates"]["a"][0]

    gradient, output = jax.grad(loss, argnums=1, has_aux=True)(params, zeros, x)
    watched = watch(lambda params, x: loss(params, zeros, x)[0])
    layers = watched.layers(params, x)
    assert [layer.activation_function for layer in layers.values()] == ["gelu", "linear"]
    (_, statistics), _ = jax.jit(value_and_grad(watched))(params, init_statistics(layers), x)
    seen = step_observation(jax.device_get(statistics)).layers["hidden"]
    output, slopes = np.asarray(output, np.float64), np.asarray(gradient["z"], np.float64)
    np.testing.assert_allclose(seen.mean, output.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen.max, output.max(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.gradient_squares, (slopes**2).sum(0), rtol=1e-4)


def test_flax_nnx() -> None:
    class Network(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.first = nnx.Linear(8, 6, rngs=rngs)
            self.blocks = nnx.List([nnx.Conv(6, 5, (3,), rngs=rngs)])
            self.head = nnx.Linear(5, 3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = jnp.maximum(self.blocks[0](nnx.relu(self.first(x))), 0)
            return nnx.softmax(self.head(x))

    graph, params = nnx.split(Network(nnx.Rngs(0)))
    watched = watch(lambda params, x: jnp.square(nnx.merge(graph, params)(x)).mean())
    x = images()[..., 0]
    layers = watched.layers(params, x)
    assert facts(layers) == {
        "first": (6, "relu", "hidden", "Dense"),
        "blocks/0": (5, "relu", "hidden", "Conv"),
        "head": (3, "linear", "output", "Dense"),
    }
    assert layers.unproved == {}
    assert [layer.biases is not None for layer in layers.values()] == [True, True, False]
    (_, statistics), gradients = jax.jit(value_and_grad(watched))(params, init_statistics(layers), x)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)
    assert step_observation(jax.device_get(statistics)).layers["blocks/0"].positions == 6 * 8


def test_equinox_models_are_vmapped_and_hold_units_first() -> None:
    class Network(eqx.Module):
        conv: eqx.nn.Conv2d
        head: eqx.nn.Linear

        def __call__(self, x: Any) -> Any:
            return self.head(jax.nn.relu(self.conv(x)).ravel())

    one, other = jax.random.split(jax.random.key(0))
    model = Network(eqx.nn.Conv2d(1, 5, 3, key=one), eqx.nn.Linear(180, 3, key=other))
    params, static = eqx.partition(model, eqx.is_array)
    watched = watch(lambda params, x: jnp.square(jax.vmap(eqx.combine(params, static))(x)).mean())
    x = np.moveaxis(images(), -1, 1)
    layers = watched.layers(params, x)
    assert (layers["conv"].inputs, layers["conv"].weight_input_axis) == (1, 1)
    assert layers["conv"].biases(params).shape == (5, 1, 1)
    assert facts(layers) == {"conv": (5, "relu", "hidden", "Conv"), "head": (3, "linear", "output", "Dense")}
    (_, statistics), _ = jax.jit(value_and_grad(watched))(params, init_statistics(layers), x)
    seen = step_observation(jax.device_get(observe_weights(statistics, params))).layers
    output = np.maximum(np.asarray(jax.vmap(model.conv)(x), np.float64), 0)
    assert (seen["conv"].examples, seen["conv"].positions) == (6, 6 * 36)
    np.testing.assert_allclose(seen["conv"].mean, output.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(seen["conv"].fired_examples, (output > 0).any((2, 3)).sum(0))
    head = np.asarray(model.head.weight, np.float64)
    np.testing.assert_allclose(seen["head"].weights.norm_in, np.sqrt((head**2).sum(1)), rtol=1e-5)


def test_layers_in_loops_are_skipped_and_said_so() -> None:
    params = {"before": {"w": np.ones((4, 4), np.float32)}, "within": {"w": np.ones((3, 4, 4), np.float32)}}

    def loss(params: Any, x: Any) -> Any:
        x = jnp.tanh(x @ params["before"]["w"])
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["within"]["w"])[0].sum()

    layers = watch(loss).layers(params, np.ones((2, 4), np.float32))
    assert facts(layers) == {"before": (4, "tanh", "hidden", "Dense")}
    assert list(layers.skipped) == ["within"]
    assert "outside of scan" in layers.skipped["within"]


def test_a_table_that_is_looked_up_is_no_layer() -> None:
    params = {"table": np.ones((9, 4), np.float32), "head": np.ones((4, 3), np.float32)}
    found = watch(lambda params, ids: (params["table"][ids] @ params["head"]).sum())
    assert list(found.layers(params, np.zeros(5, int))) == ["head"]


def test_what_a_function_raises_is_raised_and_nothing_is_left_behind() -> None:
    """In the middle of being looked into; then it runs as it would have."""
    params, x = {"w": np.ones((4, 3), np.float32)}, np.ones((2, 4), np.float32)
    armed: list[str] = []

    def loss(params: Any, x: Any) -> Any:
        x = jax.nn.relu(x @ params["w"])
        if armed:
            raise RuntimeError(armed[0])
        return x.sum()

    wanted = jax.jit(jax.value_and_grad(loss))(params, x)
    functions = [(module, dict(vars(module))) for module in (jax, jax.nn, jnp, lax)]
    watched = watch(loss)
    statistics = init_statistics(watched.layers(params, x))
    armed.append("the user's own")
    for call in (lambda: watched.layers(params, x), lambda: jax.jit(value_and_grad(watched))(params, statistics, x)):
        with pytest.raises(RuntimeError, match="the user's own"):
            call()
    armed.clear()
    for module, before in functions:
        assert all(vars(module)[name] is function for name, function in before.items())
    with jax.checking_leaks():
        (value, statistics), gradients = jax.jit(value_and_grad(watched))(params, statistics, x)
    assert_same((value, gradients), wanted)
    assert step_observation(jax.device_get(statistics)).layers["w"].examples == 2


def test_shared_weights_are_one_layer_with_twice_the_examples() -> None:
    params = {"shared": {"kernel": np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)}}

    def loss(params: Any, x: Any) -> Any:
        for _ in range(2):
            x = jax.nn.relu(x @ params["shared"]["kernel"])
        return x.sum()

    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    watched = watch(loss)
    layers = watched.layers(params, x)
    (_, statistics), _ = value_and_grad(watched)(params, init_statistics(layers), x)
    once = np.maximum(x @ params["shared"]["kernel"], 0)
    twice = np.maximum(once @ params["shared"]["kernel"], 0)
    seen = step_observation(jax.device_get(statistics)).layers["shared"]
    assert seen.examples == 10
    np.testing.assert_array_equal(seen.fired_examples, (once > 0).sum(0) + (twice > 0).sum(0))


def test_shapes_are_enough_to_find_layers() -> None:
    shapes = {"w": jax.ShapeDtypeStruct((4, 7), jnp.float32)}
    layers = watch(lambda params, x: jnp.tanh(x @ params["w"]).sum()).layers(shapes, jax.ShapeDtypeStruct((2, 4), "f4"))
    assert facts(layers) == {"w": (7, "tanh", "output", "Dense")}


def test_a_function_without_layers_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no layer was found in this function"):
        watch(lambda params, x: (params * x).sum()).layers(np.ones(3, np.float32), np.ones(3, np.float32))
    with pytest.raises(InvalidArgumentError, match="watch takes the loss function"):
        watch(3)  # type: ignore[arg-type]

"""Rule one for loops in JAX: training is the same to the last bit whether its steps are observed or not."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import deadunits_tb
from deadunits_tb.jax import (
    DeadUnitsWriter,
    init_statistics,
    observe,
    observe_inputs,
    observe_weights,
    value_and_grad,
    watch,
)
from jax_zoo import ZOO, Network, batch, mlp, training_step

STEPS = 6
OPTIMIZERS = {
    "adamw": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01)),
    "momentum": lambda: optax.sgd(0.05, momentum=0.9, nesterov=True),
}


def assert_same(one: Any, other: Any) -> None:
    """Two trees of arrays are equal to the last bit."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(leaves) == len(others)
    for a, b in zip(leaves, others, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def trained_without(network: Network, optimizer: Any, dtype: Any = None) -> Any:
    """Parameters, optimizer state and losses of a step that knows nothing of us."""

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        value, gradients = jax.value_and_grad(lambda params: network.loss(params, None, x, y)[0])(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    params = network.params if dtype is None else jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), network.params)
    state, losses = optimizer.init(params), []
    for i in range(STEPS):
        x, y = batch(network, i)
        params, state, loss = step(params, state, x if dtype is None else jnp.asarray(x, dtype), y)
        losses.append(loss)
    return params, state, losses


def trained_with(network: Network, optimizer: Any, log_dir: pathlib.Path, *, every: int = 1, dtype: Any = None) -> Any:
    """The same of a watched step."""
    step = training_step(network.loss, optimizer)
    params = network.params if dtype is None else jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), network.params)
    state, losses = optimizer.init(params), []
    with DeadUnitsWriter(log_dir, network.layers, params=params, every=every) as writer:
        for i in range(STEPS):
            x, y = batch(network, i)
            x = x if dtype is None else jnp.asarray(x, dtype)
            params, state, statistics, loss = step(params, state, writer.begin(i), x, y)
            writer.write(i, statistics, params=params)
            losses.append(loss)
    run = deadunits_tb.load(log_dir)["."]
    assert list(run.layers) == list(network.layers)
    assert run.records[-1].errors == ()
    return params, state, losses


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        pytest.param(
            name,
            "adamw" if at % 2 else "momentum",
            marks=() if name in ("mlp", "cnn") else pytest.mark.slow,
        )
        for at, name in enumerate(ZOO)
    ],
)
def test_every_network(name: str, optimizer: str, tmp_path: pathlib.Path) -> None:
    network = ZOO[name]()
    assert_same(
        trained_with(network, OPTIMIZERS[optimizer](), tmp_path), trained_without(network, OPTIMIZERS[optimizer]())
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, tmp_path: pathlib.Path) -> None:
    network, optimizer = mlp(), OPTIMIZERS["adamw"]()
    assert_same(
        trained_with(network, optimizer, tmp_path, dtype=dtype), trained_without(network, optimizer, dtype=dtype)
    )


@pytest.mark.slow
def test_some_steps(tmp_path: pathlib.Path) -> None:
    network, optimizer = mlp(), OPTIMIZERS["adamw"]()
    assert_same(trained_with(network, optimizer, tmp_path, every=4), trained_without(network, optimizer))


def test_a_step_that_gets_none_is_compiled_to_what_it_would_be_without_us() -> None:
    network = ZOO["cnn"]()
    x, y = batch(network)

    def plain(params: Any) -> Any:
        return jax.value_and_grad(lambda params: network.loss(params, None, x, y)[0])(params)

    def ours(params: Any) -> Any:
        (value, _), gradients = value_and_grad(network.loss)(params, None, x, y)
        return value, gradients

    texts = [jax.jit(f).lower(network.params).as_text().split("\n", 1)[1] for f in (plain, ours)]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_many_steps_in_one_scan() -> None:
    """Training steps within ``scan``: the statistics of all of them leave it together."""
    network, optimizer = mlp(), OPTIMIZERS["adamw"]()
    batches = jax.tree.map(lambda *leaves: np.stack(leaves), *(batch(network, i) for i in range(STEPS)))

    def run(statistics: Any) -> Any:
        def body(carry: Any, now: Any) -> Any:
            params, state, statistics = carry
            (value, statistics), gradients = value_and_grad(network.loss)(params, statistics, *now)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state, statistics), value

        return lax.scan(body, (network.params, optimizer.init(network.params), statistics), batches)

    (params, state, statistics), losses = jax.jit(run)(init_statistics(network.layers))
    (plain_params, plain_state, _), plain_losses = jax.jit(run)(None)
    assert_same((params, state, losses), (plain_params, plain_state, plain_losses))
    assert statistics.layers["first"]["examples"] == STEPS * 16


@pytest.mark.slow
def test_a_separate_pass_sees_what_the_step_would(tmp_path: pathlib.Path) -> None:
    """Exact on any device: the training step is one that knows nothing of us."""
    network, optimizer = mlp(), OPTIMIZERS["momentum"]()

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        value, gradients = jax.value_and_grad(lambda params: network.loss(params, None, x, y)[0])(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    @jax.jit
    def look(params: Any, new_params: Any, statistics: Any, x: Any, y: Any) -> Any:
        (_, statistics), gradients = value_and_grad(network.loss)(params, statistics, x, y)
        return observe_weights(observe_inputs(statistics, x), params, gradients, new_params)

    params, state, losses = network.params, optimizer.init(network.params), []
    with DeadUnitsWriter(tmp_path / "apart", network.layers, params=params, every=2) as writer:
        for i in range(STEPS):
            before, statistics, (x, y) = params, writer.begin(i), batch(network, i)
            params, state, loss = step(params, state, x, y)
            if statistics is not None:
                writer.write(i, look(before, params, statistics, x, y), params=params)
            losses.append(loss)
    assert_same((params, state, losses), trained_without(network, optimizer))
    trained_with(network, optimizer, tmp_path / "within", every=2)
    apart, within = (deadunits_tb.load(tmp_path / name)["."] for name in ("apart", "within"))
    assert apart.records[-1].errors == ()
    for name, layer in within.layers.items():
        assert apart.layers[name].steps.tolist() == layer.steps.tolist() == [0, 2, 4]
        for statistic in layer.statistics:
            np.testing.assert_allclose(
                apart.layers[name].statistic(statistic), layer.statistic(statistic), rtol=0.01, atol=1e-6
            )


def test_a_function_that_is_watched_as_it_is(tmp_path: pathlib.Path) -> None:
    network, optimizer = ZOO["cnn"](), OPTIMIZERS["momentum"]()
    x, y = batch(network)
    watched = watch(lambda params, x, y: network.loss(params, None, x, y)[0])
    layers = watched.layers(network.params, x, y)
    assert [layer.activation_function for layer in layers.values()] == ["relu", "relu", "linear"]
    seen = Network(watched, network.params, layers, network.example)
    assert_same(trained_with(seen, optimizer, tmp_path), trained_without(network, optimizer))


@pytest.mark.parametrize("watched", [pytest.param(False, marks=pytest.mark.slow), True], ids=["observe", "watch"])
def test_a_pre_activation_that_others_take_in_too(watched: bool, tmp_path: pathlib.Path) -> None:
    """Of their gradients none may be added to another earlier than without us: that alone changes their last bits."""

    def loss(params: Any, statistics: Any, x: Any, y: Any) -> Any:
        z = x @ params["w0"] + params["b0"]
        a, statistics = observe(statistics, "first", jax.nn.gelu, z, shared=True)
        z = (a + z + jnp.sin(z)) @ params["w1"] + params["b1"]
        b, statistics = observe(statistics, "second", jnp.tanh, z, shared=True)
        logits = (b * jnp.cos(z) + z) @ params["w2"] + params["b2"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), statistics

    network, optimizer = mlp(), OPTIMIZERS["adamw"]()
    layers = {"first": dataclasses.replace(network.layers["first"], activation_function="gelu")}
    layers["second"] = network.layers["second"]
    seen = network._replace(loss=loss, layers=layers)
    if watched:
        function = watch(lambda params, x, y: loss(params, None, x, y)[0])
        found = function.layers(network.params, *batch(network))
        assert [layer.activation_function for layer in found.values()] == ["gelu", "tanh", "linear"]
        seen = network._replace(loss=function, layers=found)
    assert_same(trained_with(seen, optimizer, tmp_path), trained_without(network._replace(loss=loss), optimizer))

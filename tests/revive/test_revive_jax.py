"""Revival in JAX: a pure function; the network's function stays, the state is that of a fresh optimizer."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.nn.initializers import he_normal, uniform

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.jax import (
    DeadUnitsWriter,
    Layer,
    Outgoing,
    Revivable,
    observe,
    plan_revival,
    record_revival,
    revive,
    value_and_grad,
)
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.revivals import revivals

UNITS = 8
DEAD = np.isin(np.arange(UNITS), [1, 4])
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.sgd(0.05, momentum=0.9),
    "adam": lambda: optax.adam(0.01),
    "amsgrad": lambda: optax.amsgrad(0.01),
    "adamw": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(0.01, 0.001, 100))),
    "rmsprop": lambda: optax.rmsprop(0.01, momentum=0.9, centered=True),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.01),
    "steps": lambda: optax.MultiSteps(optax.adam(0.01), 2),  # type: ignore[dict-item, return-value]
}
HIDDEN = Revivable(
    weights=lambda p: p["first"]["w"],
    bias=lambda p: p["first"]["b"],
    initializer=uniform(2.0),  # quick to compile
    outgoing=(Outgoing(lambda p: p["second"]["w"], bias=lambda p: p["second"]["b"]),),
)
LAYERS = {"hidden": HIDDEN}


def parameters(seed: int = 0) -> Any:
    random = np.random.default_rng(seed)

    def dense(inputs: int, outputs: int) -> Any:
        return {"w": jnp.asarray(random.normal(size=(inputs, outputs)), jnp.float32), "b": jnp.zeros(outputs)}

    params = {"first": dense(6, UNITS), "second": dense(UNITS, 5), "w": dense(5, 3)["w"]}
    params["first"]["b"] = jnp.where(DEAD, -100.0, 0.0)
    return params


def apply(params: Any, x: Any, function: Any = jax.nn.relu) -> Any:
    hidden = function(x @ params["first"]["w"] + params["first"]["b"])
    return jax.nn.relu(hidden @ params["second"]["w"] + params["second"]["b"]) @ params["w"]


def inputs(seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(64, 6)), jnp.float32)


def train(params: Any, optimizer: Any, state: Any, steps: int) -> Any:
    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        gradients = jax.grad(lambda p: jnp.mean((apply(p, x) - x[:, :3]) ** 2))(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for number in range(steps):
        params, state = step(params, state, inputs(number))
    return params, state


def new_entries(params: Any) -> Any:
    """Which entries a revival of the dead units makes new."""
    new = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), params)
    new["first"]["w"][:, DEAD] = new["first"]["b"][DEAD] = new["second"]["w"][DEAD] = True
    return new


@pytest.mark.parametrize(
    ("name", "jit"),
    [
        *(("sgd", True), ("adam", True), ("rmsprop", True), ("adamw", False)),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in ("amsgrad", "adamw", "injected", "steps")),
    ],
)
def test_the_function_stays_and_the_state_remembers_nothing(name: str, jit: bool) -> None:
    optimizer = OPTIMIZERS[name]()
    params = parameters()
    params, state = train(params, optimizer, optimizer.init(params), 5)
    x = inputs(99)
    function = functools.partial(revive, layers=LAYERS)
    after, forgotten = (jax.jit(function) if jit else function)(jax.random.key(0), params, state, {"hidden": DEAD})

    np.testing.assert_allclose(apply(after, x), apply(params, x), rtol=1e-5, atol=1e-5)
    new = new_entries(params)
    for (path, now), old, entries in zip(
        jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(params), jax.tree.leaves(new), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(now)[~entries], np.asarray(old)[~entries], err_msg=str(path))
    assert (after["first"]["w"][:, DEAD] != params["first"]["w"][:, DEAD]).all()
    assert not after["first"]["b"][DEAD].any()
    assert not after["second"]["w"][DEAD].any()
    fired = jax.nn.relu(x @ after["first"]["w"] + after["first"]["b"])[:, DEAD]
    assert (fired > 0).any(axis=0).all()

    assert jax.tree.structure(forgotten) == jax.tree.structure(state)
    checked = 0
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    flat = dict(zip(paths, jax.tree.leaves(new), strict=True))
    for (path, now), old in zip(jax.tree_util.tree_leaves_with_path(forgotten), jax.tree.leaves(state), strict=True):
        parameter = next((p for p in sorted(paths, key=len, reverse=True) if path[-len(p) :] == p), None)
        if parameter is None or jnp.ndim(now) == 0:
            assert now == old, path  # counts and rates
            continue
        entries, now, old = flat[parameter], np.asarray(now), np.asarray(old)
        np.testing.assert_array_equal(now[~entries], old[~entries], err_msg=str(path))
        if not entries.any():
            continue
        checked += 1
        if path[-len(parameter) - 1].name in ("nu", "nu_max") and name != "rmsprop":
            np.testing.assert_allclose(now[entries], old[~entries].mean(), rtol=1e-5)
        else:
            assert not now[entries].any(), path
    assert checked >= 3


def test_they_learn_and_the_first_steps_are_not_longer_than_those_of_adam() -> None:
    rate = 1e-3
    optimizer = optax.adam(rate)
    params = parameters()
    state = optimizer.init(params)
    ones = jax.tree.map(jnp.ones_like, params)
    update = jax.jit(optimizer.update)
    for _ in range(2000):
        _, state = update(ones, state)
    params, state = revive(jax.random.key(0), params, state, {"hidden": DEAD}, LAYERS)
    for step in range(60):
        updates, state = update(ones, state)
        moved = jnp.abs(updates["first"]["w"][:, DEAD]).max()
        assert moved <= rate * 1.01, step
    assert moved > 0.95 * rate


def test_where_no_unit_works_second_moments_are_those_of_the_network() -> None:
    optimizer = optax.adam(0.01)
    params = parameters()
    params, state = train(params, optimizer, optimizer.init(params), 5)
    _, after = revive(jax.random.key(0), params, state, {"hidden": np.ones(UNITS, bool)}, LAYERS)
    everything = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state[0].nu)])
    np.testing.assert_allclose(after[0].nu["first"]["w"], everything.mean(), rtol=1e-5)


def test_what_a_constant_unit_sends_moves_into_the_next_bias() -> None:
    params = parameters()
    params["first"]["w"] = jnp.where(DEAD, 0, params["first"]["w"])
    params["first"]["b"] = jnp.where(DEAD, 3.0, 0.5)
    x = inputs()
    means = {"hidden": jnp.tanh(params["first"]["b"])}
    after, _ = revive(jax.random.key(0), params, None, {"hidden": DEAD}, LAYERS, means=means)
    np.testing.assert_allclose(apply(after, x, jnp.tanh), apply(params, x, jnp.tanh), rtol=1e-4, atol=1e-5)
    blind = (Outgoing(lambda p: p["second"]["w"]),)
    layers = {"hidden": Revivable(HIDDEN.weights, he_normal(), blind)}
    with pytest.raises(InvalidArgumentError, match="say in Outgoing which bias"):
        revive(jax.random.key(0), params, None, {"hidden": DEAD}, layers, means=means)


@pytest.mark.parametrize("unit_by_unit", [False, True])
def test_a_convolution_with_batch_normalisation_behind_flattening(unit_by_unit: bool) -> None:
    """In Flax's layout with channels last, and in Equinox's, with units and outputs first."""
    random = np.random.default_rng(0)
    first = unit_by_unit
    params: dict[str, Any] = {
        "kernel": random.normal(size=(UNITS, 2, 3, 3) if first else (3, 3, 2, UNITS)),
        "scale": np.full(UNITS, 2.0), "offset": np.where(DEAD, -100.0, 0.1),
        "mean": random.normal(size=UNITS), "var": random.uniform(0.5, 2, UNITS),
        "head": random.normal(size=(3, UNITS * 16) if first else (UNITS * 16, 3)),
    }  # fmt: skip
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    x = jnp.asarray(random.normal(size=(4, 2, 6, 6) if first else (4, 6, 6, 2)), jnp.float32)

    def network(p: Any) -> Any:
        layout = ("NCHW", "OIHW", "NCHW") if first else ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, p["kernel"], (1, 1), "VALID", dimension_numbers=layout)
        shape = (-1, 1, 1) if first else (-1,)
        mean, var, scale, offset = (p[name].reshape(shape) for name in ("mean", "var", "scale", "offset"))
        y = jax.nn.relu((y - mean) / jnp.sqrt(var + 1e-3) * scale + offset).reshape(4, -1)
        return y @ (p["head"].T if first else p["head"])

    layer = Revivable(
        weights=lambda p: p["kernel"],
        initializer=uniform(1.0),
        weight_unit_axis=0 if first else -1,
        outgoing=(Outgoing(lambda p: p["head"], -1 if first else -2, None, 0 if first else -1, unit_by_unit),),
        zeros=(lambda p: p["offset"], lambda p: p["mean"]),
        ones=(lambda p: p["scale"], lambda p: p["var"]),
    )
    after, _ = revive(jax.random.key(1), params, None, {"conv": DEAD}, {"conv": layer})
    np.testing.assert_allclose(network(after), network(params), rtol=1e-4, atol=1e-4)
    assert after["var"][DEAD].tolist() == after["scale"][DEAD].tolist() == [1, 1]
    changed = (after["kernel"] != params["kernel"]).any(axis=(1, 2, 3) if first else (0, 1, 2))
    np.testing.assert_array_equal(changed, DEAD)


@pytest.mark.slow
def test_flax_and_equinox_parameters() -> None:
    import equinox as eqx
    from flax import linen, nnx

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            hidden = linen.relu(linen.Dense(UNITS)(x))
            return linen.Dense(3)(hidden)

    x = inputs()
    variables = Net().init(jax.random.key(0), x)
    params = variables["params"]
    params["Dense_0"]["bias"] = jnp.where(DEAD, -100.0, 0)
    layer = Revivable(
        lambda p: p["Dense_0"]["kernel"], he_normal(), (Outgoing(lambda p: p["Dense_1"]["kernel"]),),
        bias=lambda p: p["Dense_0"]["bias"],
    )  # fmt: skip
    optimizer = optax.adam(0.01)
    after, state = revive(jax.random.key(0), params, optimizer.init(params), {"hidden": DEAD}, {"hidden": layer})
    np.testing.assert_allclose(Net().apply({"params": after}, x), Net().apply({"params": params}, x), atol=1e-5)
    assert jax.tree.structure(state) == jax.tree.structure(optimizer.init(params))

    model = eqx.nn.MLP(6, 3, UNITS, 1, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: m.layers[0].bias, model, jnp.where(DEAD, -100.0, 0))
    layer = Revivable(
        lambda m: m.layers[0].weight, he_normal(in_axis=1, out_axis=0),
        (Outgoing(lambda m: m.layers[1].weight, unit_axis=-1, output_axis=0),),
        bias=lambda m: m.layers[0].bias, weight_unit_axis=0,
    )  # fmt: skip
    arrays, rest = eqx.partition(model, eqx.is_array)
    after, _ = revive(jax.random.key(0), arrays, optimizer.init(arrays), {"hidden": DEAD}, {"hidden": layer})
    np.testing.assert_allclose(jax.vmap(eqx.combine(after, rest))(x), jax.vmap(model)(x), atol=1e-5)
    assert not after.layers[1].weight[:, DEAD].any()

    network = nnx.Sequential(nnx.Linear(6, UNITS, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(UNITS, 3, rngs=nnx.Rngs(1)))
    network.layers[0].bias[...] = jnp.where(DEAD, -100.0, 0)
    before = network(x)
    pure = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    layer = Revivable(
        lambda p: p["layers"][0]["kernel"], he_normal(), (Outgoing(lambda p: p["layers"][2]["kernel"]),),
        bias=lambda p: p["layers"][0]["bias"],
    )  # fmt: skip
    after, _ = revive(jax.random.key(0), pure, optimizer.init(pure), {"hidden": DEAD}, {"hidden": layer})
    nnx.update(network, after)
    np.testing.assert_allclose(network(x), before, atol=1e-5)
    assert not network.layers[2].kernel[...][DEAD].any()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"units": {"hiden": DEAD}}, "there is no layer 'hiden'. Did you mean 'hidden'"),
        ({"units": {"hidden": [1, 4]}}, r"must be bool \[units\], not int"),
        ({"units": {"hidden": DEAD[:3]}}, "3 units do not fill axis -2"),
        ({"units": [1]}, "units must be a plan"),
        ({"layers": {"hidden": Revivable(HIDDEN.weights, None, HIDDEN.outgoing)}}, "no known initializer"),  # type: ignore[arg-type]
        ({"layers": {"hidden": Revivable(HIDDEN.weights, he_normal(), ())}}, "say in outgoing which weights"),
        ({"layers": {"hidden": Revivable(lambda p: p["third"], he_normal(), HIDDEN.outgoing)}}, "not in params"),
        ({"layers": {"hidden": Revivable(lambda p: p["first"], he_normal(), HIDDEN.outgoing)}}, "no array of it"),
        ({"opt_state": optax.adafactor(0.01).init(parameters())}, "it is not known what .* of the optimizer state"),
        ({"opt_state": optax.flatten(optax.adam(0.01)).init(parameters())}, "it is not known what"),
    ],
)
def test_wrong_arguments_are_said(arguments: dict[str, Any], error: str) -> None:
    given = {"units": {"hidden": DEAD}, "layers": LAYERS, "opt_state": None, **arguments}
    with pytest.raises(InvalidArgumentError, match=error):
        revive(jax.random.key(0), parameters(), **given)


@pytest.mark.slow
def test_a_watched_loop_revives_by_its_records_and_the_log_says_so(tmp_path: pathlib.Path) -> None:
    optimizer = optax.adam(0.003)
    params = parameters()
    state = optimizer.init(params)

    def loss(params: Any, statistics: Any, x: Any) -> Any:
        before = x @ params["first"]["w"] + params["first"]["b"]
        hidden, statistics = observe(statistics, "hidden", jax.nn.relu, before)
        rest = jax.nn.relu(hidden @ params["second"]["w"] + params["second"]["b"]) @ params["w"]
        return jnp.mean((rest - x[:, :3]) ** 2), statistics

    @jax.jit
    def step(params: Any, state: Any, statistics: Any, x: Any) -> Any:
        (_, statistics), gradients = value_and_grad(loss)(params, statistics, x)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, statistics

    plans = []
    layers = {"hidden": Layer(UNITS, "relu", weights=lambda p: p["first"]["w"])}
    with DeadUnitsWriter(tmp_path, layers, params=params, every=1) as writer:
        for i in range(120):
            params, state, statistics = step(params, state, writer.begin(i), inputs(i))
            writer.write(i, statistics, params=params)
            if i % 20 == 19:
                plan = plan_revival(writer, i, max_share=1)
                if plan:
                    params, state = revive(jax.random.key(i), params, state, plan, LAYERS)
                    record_revival(writer, plan)
                    plans.append(plan)
        with pytest.raises(UnknownNameError, match="there is no layer 'x'"):
            plan_revival(writer, 120, layers=["x"])
        with pytest.raises(InvalidArgumentError, match="writer must be a DeadUnitsWriter"):
            plan_revival(object(), 120)
        assert not writer._monitor.errors
    assert [(plan.step, plan.layers[0].units) for plan in plans] == [(59, (1, 4))]
    (revival,) = revivals(RunReader(LocalDataProvider(tmp_path)).history("."))
    assert (revival.event.step, revival.event.units) == (59, (1, 4))
    assert revival.sentence.endswith("2 of 2 alive 60 steps later")

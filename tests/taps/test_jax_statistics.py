"""What loops in JAX measure, against plain loops in float64 over what the same network gives out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import slow_reference
from deadunits_tb.capture.observation import Observation, StepObservation
from deadunits_tb.jax import (
    Layer,
    init_statistics,
    observe,
    observe_gradients,
    observe_inputs,
    observe_weights,
    value_and_grad,
)
from deadunits_tb.taps.jax.drift import WeightDrift
from deadunits_tb.taps.jax.plan import Plan
from deadunits_tb.taps.jax.statistics import empty_statistics
from deadunits_tb.taps.jax.writer import step_observation
from jax_zoo import ZOO, batch, mlp

FUNCTIONS = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "hard_tanh": jax.nn.hard_tanh,
    "soft_sign": jax.nn.soft_sign,
    "gelu": jax.nn.gelu,
}
LAYOUTS = {"BC": ((12, 6), -1), "BTC": ((5, 4, 6), -1), "BHWC": ((3, 4, 3, 6), 3), "BCHW": ((3, 6, 4, 3), 1)}


def fetched(statistics: Any) -> StepObservation:
    return step_observation(jax.device_get(statistics))


def statistics_of(seen: Observation) -> dict[str, Any]:
    """What a record makes of one observation, not rounded."""
    n = seen.positions
    found = {
        "active_fraction": seen.fired_examples / seen.examples,
        "active_positions": seen.fired_positions / n,
        "mean": seen.mean,
        "mean_abs": seen.sum_abs / n,
        "std": np.sqrt(seen.squares / n),
        "min": seen.min,
        "max": seen.max,
        "saturated_fraction": None if seen.saturated is None else seen.saturated / n,
        "gradient": None if seen.gradient_squares is None else np.sqrt(seen.gradient_squares / n),
    }
    return {name: values for name, values in found.items() if values is not None}


@pytest.mark.parametrize(
    ("name", "layout", "masked"),
    [
        *((name, "BC", False) for name in FUNCTIONS),
        *(("relu", layout, True) for layout in LAYOUTS),
        *(("tanh", layout, layout == "BTC") for layout in LAYOUTS if layout != "BC"),
    ],
)
def test_every_statistic_of_every_layout(name: str, layout: str, masked: bool) -> None:
    (shape, axis), random = LAYOUTS[layout], np.random.default_rng(0)
    z = random.normal(size=shape).astype(np.float32) * 3
    slopes = random.normal(size=shape).astype(np.float32)
    others = np.moveaxis(z, axis, -1).shape[:-1]
    mask = random.random(others) > 0.4 if masked else None
    layer = Layer(6, name, unit_axis=axis)

    @jax.jit
    def step(z: Any, statistics: Any) -> Any:
        def loss(z: Any, statistics: Any) -> Any:
            a, statistics = observe(statistics, "layer", FUNCTIONS[name], z, mask=mask)
            return (a * slopes).sum(), statistics

        (_, statistics), gradient = value_and_grad(loss)(z, statistics)
        return gradient, statistics, FUNCTIONS[name](z)

    gradient, statistics, output = step(z, init_statistics({"layer": layer}))
    found = statistics_of(fetched(statistics).layers["layer"])

    def rows(values: Any) -> Any:
        return np.moveaxis(np.asarray(values, np.float64), axis, -1).reshape(shape[0], -1, 6)

    real = None if mask is None else mask.reshape(shape[0], -1)
    kept = rows(output) if real is None else rows(output)[real]
    limit = 0.0 if layer.relu_like else 1e-3 * np.sqrt(np.mean(np.square(kept)))
    for unit in range(6):
        wanted = slow_reference.of_unit(
            [slow_reference.examples_of(rows(output), unit, real)],
            fires=lambda y, limit=limit: y > 0 if limit == 0 else abs(y) > limit,
            function="softsign" if name == "soft_sign" else name,
            gradients=[slow_reference.examples_of(rows(gradient), unit, real)],
        )
        assert set(wanted) == set(found)
        for statistic, value in wanted.items():
            np.testing.assert_allclose(found[statistic][unit], value, rtol=2e-5, atol=2e-6, err_msg=statistic)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_summed_in_float32(dtype: str) -> None:
    values = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 3)), dtype)
    _, statistics = jax.jit(lambda s, z: observe(s, "layer", jax.nn.relu, z))(
        init_statistics({"layer": Layer(3)}), values
    )
    output = np.maximum(np.asarray(values, np.float64), 0)
    seen = fetched(statistics).layers["layer"]
    np.testing.assert_allclose(seen.mean, output.mean(0), rtol=1e-5)
    np.testing.assert_array_equal(seen.fired_examples, (output > 0).sum(0))


def test_loss_scaling_is_undone_and_what_a_scaler_skips_has_no_gradient() -> None:
    network = mlp()
    x, y = batch(network)

    def observed(scale: float, skipped: bool) -> Observation:
        def scaled(params: Any, statistics: Any) -> Any:
            value, statistics = network.loss(params, statistics, x, y)
            return value * scale, statistics

        def step(params: Any, statistics: Any) -> Any:
            both = jax.grad(scaled, argnums=(0, 1), has_aux=True)
            (gradients, signals), statistics = both(params, statistics)
            statistics = observe_gradients(statistics, signals, loss_scale=scale, skipped=skipped)
            return observe_weights(statistics, params, jax.tree.map(lambda leaf: leaf / scale, gradients))

        return fetched(jax.jit(step)(network.params, init_statistics(network.layers))).layers["first"]

    plain, scaled, skipped = observed(1.0, False), observed(2.0**12, False), observed(2.0**12, True)
    np.testing.assert_allclose(scaled.gradient_squares, plain.gradient_squares, rtol=1e-5)
    np.testing.assert_allclose(scaled.weights.gradient, plain.weights.gradient, rtol=1e-5)
    assert skipped.gradient_squares is skipped.weights.gradient is None
    np.testing.assert_array_equal(skipped.mean, plain.mean)


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_is_that_which_passes_through_the_function(shared: bool) -> None:
    """Not that of others which take in the pre-activation, too."""
    random = np.random.default_rng(0)
    z, slopes = (random.normal(size=(8, 5)).astype(np.float32) for _ in range(2))

    def loss(z: Any, statistics: Any) -> Any:
        a, statistics = observe(statistics, "layer", jax.nn.gelu, z, mask=np.arange(8) < 6, shared=shared)
        return (a * slopes + jnp.sin(z)).sum(), statistics

    start = init_statistics({"layer": Layer(5, "gelu")})
    (_, statistics), gradient = jax.jit(value_and_grad(loss))(z, start)
    through = np.asarray(gradient - jnp.cos(z), np.float64)[:6]
    np.testing.assert_allclose(fetched(statistics).layers["layer"].gradient_squares, (through**2).sum(0), rtol=1e-5)


def test_dead_units_have_no_gradient_at_all() -> None:
    network = mlp()
    dead = np.array([1, 4])
    network.params["b0"][dead] = -1e3
    (_, statistics), _ = jax.jit(value_and_grad(network.loss))(
        network.params, init_statistics(network.layers), *batch(network)
    )
    seen = fetched(statistics).layers["first"]
    alive = np.setdiff1d(np.arange(24), dead)
    assert (seen.gradient_squares[dead] == 0).all()
    assert (seen.gradient_squares[alive] > 0).all()
    assert (seen.fired_examples[dead] == 0).all()


def test_tiny_gradients_are_not_taken_for_none() -> None:
    """Squared in float32 they would vanish, and a unit with an error signal would look dead."""

    def loss(z: Any, statistics: Any) -> Any:
        a, statistics = observe(statistics, "layer", None, z)
        return (a * 1e-25).sum(), statistics

    (_, statistics), _ = value_and_grad(loss)(jnp.ones((4, 3)), init_statistics({"layer": Layer(3, "linear")}))
    np.testing.assert_allclose(fetched(statistics).layers["layer"].gradient_squares, 4e-50, rtol=1e-5)


@pytest.mark.parametrize("function", ["relu", "tanh"])
def test_a_constant_output_has_no_spread_at_all_over_several_calls(function: str) -> None:
    constant = jnp.full((3, 7, 4), 0.3)
    statistics = init_statistics({"layer": Layer(4, function)})
    for size in (3, 2, 0):
        _, statistics = observe(statistics, "layer", None, constant[:size])
    seen = fetched(statistics).layers["layer"]
    assert (seen.squares == 0).all()
    np.testing.assert_array_equal(seen.mean, seen.max)
    assert seen.examples == 5


def test_firing_goes_by_the_scale_of_the_record_before() -> None:
    z = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)), jnp.float32)
    statistics = empty_statistics(Plan((("layer", Layer(3, "tanh")),)), {"layer": 500.0})
    output, statistics = observe(statistics, "layer", jnp.tanh, z)
    np.testing.assert_array_equal(
        fetched(statistics).layers["layer"].fired_positions, (np.abs(np.asarray(output)) > 0.5).sum(0)
    )


def test_nan_and_inf_are_seen_as_they_are() -> None:
    network = mlp()
    x, y = batch(network)
    x[3, 2], x[5, 1] = np.nan, np.inf
    (value, statistics), _ = jax.jit(value_and_grad(network.loss))(
        network.params, init_statistics(network.layers), x, y
    )
    seen = fetched(observe_inputs(statistics, x))
    assert np.isnan(value)
    assert np.isnan(seen.loss)
    assert np.isnan(seen.inputs[1])
    assert not np.isfinite(seen.layers["first"].mean).all()
    assert not np.isfinite(seen.layers["first"].gradient_squares).all()


def test_an_empty_batch_shows_nothing() -> None:
    _, statistics = observe(init_statistics({"layer": Layer(3)}), "layer", jax.nn.relu, jnp.zeros((0, 3)))
    assert fetched(statistics).layers == {}


def test_without_a_gradient_none_is_claimed() -> None:
    _, statistics = observe(init_statistics({"layer": Layer(3)}), "layer", jax.nn.relu, jnp.ones((2, 3)))
    assert fetched(statistics).layers["layer"].gradient_squares is None


# Transformations


def same_observation(one: Observation, other: Observation) -> None:
    assert (one.examples, one.positions) == (other.examples, other.positions)
    for name in ("fired_examples", "fired_positions", "min", "max"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("mean", "squares", "sum_abs", "gradient_squares"):
        wanted = getattr(other, name)
        np.testing.assert_allclose(getattr(one, name), wanted, rtol=2e-5, atol=1e-6 * np.abs(wanted).max())


def test_vmap_over_examples_equals_a_batch() -> None:
    network = ZOO["vmap"]()
    x, y = batch(network)

    def batched(params: Any, statistics: Any, x: Any, y: Any) -> Any:
        a, statistics = observe(statistics, "first", jax.nn.relu, x @ params["w0"] + params["b0"])
        logits = a @ params["w1"] + params["b1"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean(), statistics

    seen = [
        fetched(jax.jit(value_and_grad(loss))(network.params, init_statistics(network.layers), x, y)[0][1]).layers[
            "first"
        ]
        for loss in (network.loss, batched)
    ]
    same_observation(*seen)


def test_scan_adds_up_what_it_carries() -> None:
    network = ZOO["scan"]()
    x, y = batch(network)
    (_, statistics), _ = jax.jit(value_and_grad(network.loss))(network.params, init_statistics(network.layers), x, y)
    params, states, state = network.params, [], np.zeros((16, 12))
    for now in np.moveaxis(x, 1, 0):
        state = np.tanh(now @ params["w0"] + state @ params["w1"] + params["b0"])
        states.append(state)
    every = np.concatenate(states)
    seen = fetched(statistics).layers["state"]
    assert seen.examples == seen.positions == 80
    np.testing.assert_allclose(seen.mean, every.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen.max, every.max(0), rtol=1e-5)
    assert (seen.gradient_squares > 0).all()


def test_microbatches_in_a_scan_equal_the_whole_batch() -> None:
    network = mlp()
    x, y = batch(network)

    def in_parts(statistics: Any) -> Any:
        def body(statistics: Any, part: Any) -> Any:
            def share(params: Any, statistics: Any) -> Any:
                value, statistics = network.loss(params, statistics, *part)
                return value / 4, statistics

            return value_and_grad(share)(network.params, statistics)[0][1], None

        parts = jax.tree.map(lambda array: array.reshape(4, 4, *array.shape[1:]), (x, y))
        return lax.scan(body, statistics, parts)[0]

    whole = jax.jit(value_and_grad(network.loss))(network.params, init_statistics(network.layers), x, y)[0][1]
    found, wanted = fetched(jax.jit(in_parts)(init_statistics(network.layers))), fetched(whole)
    same_observation(found.layers["first"], wanted.layers["first"])


# Weights


def test_weights_around_the_optimizer_step() -> None:
    random = np.random.default_rng(0)
    kernels = {
        "dense": random.normal(size=(5, 4)),
        "conv": random.normal(size=(3, 3, 2, 4)),
        "rows": random.normal(size=(4, 7)),
    }
    params = {name: kernel.astype(np.float32) for name, kernel in kernels.items()}
    layers = {
        name: Layer(4, weights=lambda params, name=name: params[name], weight_unit_axis=0 if name == "rows" else -1)
        for name in params
    }
    gradients = {name: random.normal(size=kernel.shape).astype(np.float32) for name, kernel in params.items()}
    new = {name: params[name] - 0.1 * gradients[name] for name in params}
    statistics = init_statistics(layers)
    for name in layers:
        _, statistics = observe(statistics, name, jax.nn.relu, jnp.ones((1, 4)))
    seen = fetched(jax.jit(observe_weights)(statistics, params, gradients, new)).layers

    def norm(values: Any, name: str) -> Any:
        values = np.asarray(values, np.float64)
        return np.sqrt((values.T if name == "rows" else values).reshape(-1, 4).__pow__(2).sum(0))

    for name in layers:
        weights = seen[name].weights
        np.testing.assert_allclose(weights.norm_in, norm(params[name], name), rtol=1e-6)
        np.testing.assert_allclose(weights.gradient, norm(gradients[name], name), rtol=1e-6)
        np.testing.assert_allclose(weights.change, norm(new[name].astype("f8") - params[name], name), rtol=1e-5)


@pytest.mark.parametrize("exact_bytes", [2**20, 0], ids=["exact", "projection"])
def test_drift_and_outgoing_norms(exact_bytes: int) -> None:
    random = np.random.default_rng(0)
    params = {
        "w": random.normal(size=(300, 40)).astype(np.float32),
        "v": random.normal(size=(40, 3)).astype(np.float32),
    }
    layer = Layer(40, weights=lambda params: params["w"], outgoing=lambda params: params["v"])
    drift = WeightDrift(Plan((("layer", layer),)), params, exact_bytes=exact_bytes)
    change = random.normal(size=(300, 40)).astype(np.float32) * 0.01
    change[:, :5] = 0
    statistics = observe(init_statistics({"layer": layer}), "layer", jax.nn.relu, jnp.ones((2, 40)))[1]
    observed = drift.added(fetched(statistics), drift.compare({**params, "w": params["w"] + change}))
    weights, truth = observed.layers["layer"].weights, np.sqrt((change.astype("f8") ** 2).sum(0))
    assert drift.methods == {"layer": "projection" if exact_bytes == 0 else "exact"}
    assert (weights.change_since_first[:5] == 0).all()
    close = 1e-3 if exact_bytes else 0.5
    np.testing.assert_allclose(weights.change_since_first[5:], truth[5:], rtol=close)
    np.testing.assert_allclose(weights.norm_first, np.sqrt((params["w"].astype("f8") ** 2).sum(0)), rtol=1e-5)
    np.testing.assert_allclose(weights.norm_out, np.sqrt((params["v"].astype("f8") ** 2).sum(1)), rtol=1e-5)
    assert (drift.fan_in["layer"], drift.fan_out["layer"]) == (300, 3)

"""Certificates of loops in JAX are true: what is certified cannot fire, and what could recover does."""

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
from jax import lax

from deadunits_tb.certificate import Certainty
from deadunits_tb.jax import DeadUnitsWriter, Layer, init_statistics, observe, observe_weights, value_and_grad, watch
from deadunits_tb.reading.certainty import Prover
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.taps.jax.bounds import Ranges, certified
from deadunits_tb.taps.jax.looks import look
from deadunits_tb.taps.jax.moments import Moments
from deadunits_tb.units import UnitState
from test_jax_bit_identity import assert_same

FEATURES, CLASSES = 6, 3
LIMITS = {"dead_examples": 256, "unknown_examples": 128, "confirm_examples": 128}


def normal(random: Any) -> Any:
    return random.normal(size=(256, FEATURES)).astype(np.float32)


def positive(random: Any) -> Any:
    return random.random((256, FEATURES)).astype(np.float32)


def cross_entropy(logits: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def train(
    loss: Any,
    params: Any,
    log_dir: pathlib.Path,
    *,
    layers: Any = None,
    batch: Callable[[Any], Any] = normal,
    optimizer: Any = None,
    steps: int = 10,
    handed: tuple[str, ...] = ("params", "opt_state"),
) -> tuple[RunHistory, Any, list[Any]]:
    """Train on noise: units that are dead learn nothing, and those alive are of no concern.

    Without ``layers`` the loss is watched as it is. ``handed`` says what the writer is given.
    """
    random, optimizer = np.random.default_rng(1), optimizer or optax.sgd(0.01)
    state = optimizer.init(params)
    seen = [batch(random)]
    if layers is None:
        loss = watch(loss)
        layers = loss.layers(params, seen[0], np.zeros(len(seen[0]), int))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, statistics: Any, x: Any, y: Any) -> Any:
        (_, statistics), gradients = value_and_grad(loss)(params, statistics, x, y)
        updates, state = optimizer.update(gradients, state, params)
        new = optax.apply_updates(params, updates)
        return new, state, observe_weights(statistics, params, gradients, new)

    with DeadUnitsWriter(log_dir, layers, every=1, thresholds=LIMITS) as writer:
        for i in range(steps):
            x, y = seen[-1], random.integers(0, CLASSES, len(seen[-1]))
            params, state, statistics = step(params, state, writer.begin(i), x, y)
            given = {"params": params, "opt_state": state}
            writer.write(i, statistics, **{name: given[name] for name in handed})
            seen.append(batch(random))
    directory = LogDirectory(log_dir)
    run = directory.history(directory.matching(None)[0])
    assert run.records[-1].errors == ()
    return run, params, seen[:-1]


def dead(run: RunHistory, name: str) -> list[int]:
    return np.flatnonzero(run.layers[name].states()[-1] == UnitState.DEAD).tolist()


def kill(bias: Any, units: int, by: float = 2.5) -> Any:
    """Give units a bias from which some never fire on noise, and some cannot."""
    bias = np.array(bias)
    bias[:units] = -by * np.linspace(0.5, 4, units)
    return bias


def mlp_params() -> Any:
    random = np.random.default_rng(0)
    kernel = random.normal(size=(FEATURES, 24)).astype(np.float32) / 2.5
    first = {"kernel": kernel, "bias": kill(np.zeros(24, np.float32), 16)}
    return {"first": first, "head": random.normal(size=(24, CLASSES)).astype(np.float32) / 5}


def mlp(params: Any, x: Any, y: Any) -> Any:
    hidden = jax.nn.relu(x @ params["first"]["kernel"] + params["first"]["bias"])
    return cross_entropy(hidden @ params["head"], y)


def corner(kernel: Any, unit: int, low: Any, high: Any) -> Any:
    """The input within ranges that makes a unit as large as can be."""
    return np.where(np.asarray(kernel)[..., unit] > 0, high, low)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunHistory, Any, list[Any]]:
    """A run of the network as it is."""
    return train(mlp, mlp_params(), tmp_path_factory.mktemp("watched"))


def test_what_is_certified_fires_on_no_input_within_the_ranges(watched: Any) -> None:
    """Random inputs, and for each unit those that suit it best, at which the bound is attained."""
    run, params, seen = watched
    held = run.layers["first"].certificates(-1)
    assert held is not None
    assert held.units.tolist() == dead(run, "first")
    used = np.stack(seen[held.since :])
    assert held.observations == len(used)
    low, high = used.min((0, 1)), used.max((0, 1))
    certain = held.bound < 0
    assert certain.any()
    assert not certain.all()
    random, first = np.random.default_rng(2), params["first"]
    for whole in (False, True):
        sides = random.random((25_000, FEATURES))
        sides = sides.round() if whole else sides
        fired = np.asarray((low + sides * (high - low)).astype(np.float32) @ first["kernel"] + first["bias"])
        assert (fired[:, held.units[certain]] <= 0).all()
        assert (fired[:, held.units] <= held.bound).all()
    for unit, bound in zip(held.units.tolist(), held.bound.tolist(), strict=True):
        highest = float(corner(first["kernel"], unit, low, high) @ first["kernel"][:, unit] + first["bias"][unit])
        assert highest <= bound
        assert highest == pytest.approx(bound, rel=0.01, abs=1e-3)
    told = {Prover(run.layers["first"]).prove(unit, 0).certainty for unit in held.units.tolist()}
    assert told == {Certainty.CERTAIN, Certainty.SILENT}


def test_training_is_the_same_to_the_last_bit(watched: Any) -> None:
    _, params, seen = watched
    random, plain, optimizer = np.random.default_rng(1), mlp_params(), optax.sgd(0.01)

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        updates, state = optimizer.update(jax.grad(mlp)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(plain)
    for x in seen:
        np.testing.assert_array_equal(normal(random), x)
        plain, state = step(plain, state, x, random.integers(0, CLASSES, len(x)))
    assert_same(params, plain)


DECAYING = {0: "bias", 1: "weights", 2: "both"}


def decaying(updates: Any, params: Any) -> Any:
    """Weight decay that differs between units: of the bias, of the weights, or of both."""
    shares = {"kernel": jnp.zeros(24).at[1:3].set(2.0), "bias": jnp.zeros(24).at[jnp.array([0, 2])].set(2.0)}
    first = {name: updates["first"][name] + shares[name] * params["first"][name] for name in shares}
    return {**updates, "first": first}


def test_what_could_recover_does_and_what_is_dead_for_certain_does_not(tmp_path: pathlib.Path) -> None:
    """Weight decay moves a dead unit. Only where it takes more of the bias than of the weights it brings it back."""
    optimizer, params = optax.chain(optax.stateless(decaying), optax.sgd(0.01)), mlp_params()
    params["first"]["kernel"][:, :3], params["first"]["bias"][:3] = 0.5, -6.0
    run, params, _ = train(mlp, params, tmp_path, batch=positive, optimizer=optimizer)
    layer = run.layers["first"]
    for unit, parts in DECAYING.items():
        proof = Prover(layer).prove(unit, int(layer.since()[-1][unit]))
        assert proof.certainty == (Certainty.RECOVERABLE if parts == "bias" else Certainty.CERTAIN), parts
        assert proof.could_move == ("weight decay",)
        assert proof.margin is not None
        assert proof.margin > 0

    def highest(params: Any) -> Any:
        x = positive(np.random.default_rng(3))
        return np.asarray(x @ params["first"]["kernel"] + params["first"]["bias"]).max(0)

    assert (highest(params)[:3] < 0).all()
    for _ in range(100):  # without an error signal
        nothing = jax.tree.map(np.zeros_like, params)
        params = jax.tree.map(lambda leaf, update: leaf - 0.01 * update, params, decaying(nothing, params))
    assert (highest(params)[:3] > 0).tolist() == [True, False, False]


@pytest.mark.parametrize("make", [optax.adam, lambda rate: optax.sgd(rate, momentum=0.9)], ids=["adam", "momentum"])
@pytest.mark.parametrize(
    ("told", "push", "certainty", "movers"),
    [
        (True, 0.1, Certainty.CERTAIN, ["momentum"]),
        (True, 100.0, Certainty.RECOVERABLE, ["momentum"]),
        (False, 0.1, Certainty.RECOVERABLE, ["its bias changes"]),
    ],
)
def test_momentum_is_told_by_the_optimizer_state(
    make: Any, told: bool, push: float, certainty: Certainty, movers: list[str]
) -> None:
    """What runs out first does not lead to recovery; where the state is not handed over, whatever rises may go on."""
    params, optimizer = mlp_params(), make(0.01 if make is not optax.adam else 0.01 * push)
    params["first"]["kernel"][:, 0], params["first"]["bias"][0] = 0.5, -6.0
    gradients = jax.tree.map(np.zeros_like, params)
    gradients["first"]["bias"][0] = -push
    looks, state = [], optimizer.init(params)
    for _ in range(4):
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        looks.append(look("first", EXPLICIT, np.array([0, 1]), params, Moments(state if told else None, params)))
        gradients = jax.tree.map(np.zeros_like, params)
    ranges = Ranges(np.zeros(FEATURES), np.ones(FEATURES), since=0)
    found = certified(EXPLICIT, ranges, looks[-2], looks[-1], step=3, steps=1).of(0)
    assert found is not None
    assert (found.certainty, found.movers.words) == (certainty, movers)


EXPLICIT = Layer(
    24, "relu", weights=lambda params: params["first"]["kernel"], biases=lambda params: params["first"]["bias"],
    inputs=FEATURES,
)  # fmt: skip


def explicit(params: Any, statistics: Any, x: Any, y: Any) -> Any:
    z = x @ params["first"]["kernel"] + params["first"]["bias"]
    hidden, statistics = observe(statistics, "first", jax.nn.relu, z, inputs=x)
    return cross_entropy(hidden @ params["head"], y), statistics


def vmapped(params: Any, statistics: Any, x: Any, y: Any) -> Any:
    def one(x: Any, statistics: Any) -> Any:
        z = x @ params["first"]["kernel"] + params["first"]["bias"]
        how = {"batched": False, "axis_name": "batch", "inputs": x}
        hidden, statistics = observe(statistics, "first", jax.nn.relu, z, **how)
        return hidden @ params["head"], statistics

    logits, statistics = jax.vmap(one, (0, None), (0, None), axis_name="batch")(x, statistics)
    return cross_entropy(logits, y), statistics


def scanned(params: Any, statistics: Any, x: Any, y: Any) -> Any:
    """In four parts."""

    def part(statistics: Any, now: Any) -> Any:
        value, statistics = explicit(params, statistics, *now)
        return statistics, value

    statistics, values = lax.scan(part, statistics, (x.reshape(4, -1, FEATURES), y.reshape(4, -1)))
    return values.mean(), statistics


def test_inputs_that_are_handed_over_give_the_same_certificates(watched: Any, tmp_path: pathlib.Path) -> None:
    run, *_ = train(explicit, mlp_params(), tmp_path, layers={"first": EXPLICIT})
    one, other = (each.layers["first"].certificates(-1) for each in (watched[0], run))
    assert len(one.units) > 4
    assert (one.units.tolist(), one.observations, one.since) == (other.units.tolist(), other.observations, other.since)
    np.testing.assert_allclose(one.bound, other.bound, rtol=0.01)


@pytest.mark.parametrize("loss", [explicit, vmapped, scanned])
def test_ranges_reduce_over_every_transformation(loss: Any) -> None:
    x, y = normal(np.random.default_rng(0)), np.zeros(256, int)
    statistics = init_statistics({"first": EXPLICIT})
    for part in (x[:128], x[128:]):  # two calls, as of two micro-batches
        _, statistics = jax.jit(loss)(mlp_params(), statistics, part, y[:128])
    fields = statistics.layers["first"]
    np.testing.assert_array_equal(fields["inputs_low"], x.min(0))
    np.testing.assert_array_equal(fields["inputs_high"], x.max(0))
    assert fields["inputs_eps"] == np.finfo(np.float32).eps


def test_padding_that_is_masked_is_outside_of_the_ranges() -> None:
    x = np.ones((4, 5, FEATURES), np.float32)
    x[:, 3:] = 9
    mask = np.arange(5)[None] < np.full((4, 1), 3)
    z = np.ones((4, 5, 24), np.float32)
    seen = jax.jit(lambda start: observe(start, "first", jax.nn.relu, z, mask=mask, inputs=x)[1])
    statistics = seen(init_statistics({"first": EXPLICIT}))
    fields = statistics.layers["first"]
    assert fields["inputs_low"].tolist() == fields["inputs_high"].tolist() == [1.0] * FEATURES

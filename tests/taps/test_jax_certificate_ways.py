"""What stands between a layer and its activation function in JAX: certified where it is understood, said where not."""

from __future__ import annotations

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from deadunits_tb.certificate import Certainty
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.jax import DeadUnitsWriter, Layer, init_statistics, observe, watch
from deadunits_tb.reading.certainty import Prover
from deadunits_tb.taps.jax.bounds import Ranges, certified
from deadunits_tb.taps.jax.certifier import Certifier
from deadunits_tb.taps.jax.looks import look
from deadunits_tb.taps.jax.moments import Moments
from deadunits_tb.taps.jax.plan import Plan
from deadunits_tb.taps.jax.survey import survey
from test_jax_certificates import (
    CLASSES,
    EXPLICIT,
    FEATURES,
    corner,
    cross_entropy,
    dead,
    explicit,
    kill,
    mlp_params,
    normal,
    train,
)


def images(random: Any) -> Any:
    return random.normal(size=(64, 6, 6, 4)).astype(np.float32)


class Convolutions(nn.Module):
    """Pooling before the function, groups of channels, padding."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.max_pool(nn.Conv(12, (3, 3), name="first")(x), (2, 2), (2, 2)))
        x = nn.Conv(12, (2, 2), feature_group_count=2, padding="VALID", name="second")(x)
        return nn.Dense(CLASSES, name="head")(jnp.maximum(x, 0).reshape(len(x), -1))


def convolutions() -> tuple[Any, Any]:
    model, random = Convolutions(), np.random.default_rng(0)
    shapes = {"first": (3, 3, 4, 12), "second": (2, 2, 6, 12), "head": (48, CLASSES)}
    params: Any = {
        name: {"kernel": random.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), "bias": np.zeros(shape[-1])}
        for name, shape in shapes.items()
    }
    params["first"]["bias"] = kill(params["first"]["bias"], 10, by=10)
    params["second"]["bias"] = kill(params["second"]["bias"], 10, by=2)

    def loss(params: Any, x: Any, y: Any) -> Any:
        return cross_entropy(model.apply({"params": params}, x), y)

    return loss, jax.tree.map(np.float32, params)


def convolved(params: Any, x: Any, *, first: bool) -> Any:
    """What the model's layers sum up, ``[images, ..., units]``."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    padding, groups = ("SAME", 1) if first else ("VALID", 2)
    product = lax.conv_general_dilated(
        x, params["kernel"], (1, 1), padding, dimension_numbers=dimensions, feature_group_count=groups
    )
    return product + params["bias"]


def test_convolutions_with_groups_padding_and_pooling() -> None:
    loss, params = convolutions()
    x, y = images(np.random.default_rng(1)), np.zeros(64, int)
    function = watch(loss)
    layers = function.layers(params, x, y)
    assert layers.unproved == {}
    statistics = jax.jit(function)(params, init_statistics(layers), x, y)[1]
    first = convolved(params["first"], x, first=True)
    fed = {"first": x, "second": np.asarray(nn.max_pool(jax.nn.relu(first), (2, 2), (2, 2)))}
    for name, values in fed.items():
        fields = jax.device_get(statistics.layers[name])
        low, high = values.min((0, 1, 2)), values.max((0, 1, 2))
        np.testing.assert_allclose(fields["inputs_low"], low, rtol=1e-5)
        np.testing.assert_allclose(fields["inputs_high"], high, rtol=1e-5)
        now = look(name, layers[name], np.arange(12), params, Moments(None, params))
        ranges = Ranges(np.float64(low), np.float64(high), since=0)
        held = certified(layers[name], ranges, now, now, step=0, steps=1)
        certain = held.bound < 0
        assert certain.any()
        assert not certain.all()
        sides = np.random.default_rng(3).random((500, *values.shape[1:])).round()
        fired = convolved(params[name], (low + sides * (high - low)).astype(np.float32), first=name == "first")
        assert (fired.max((0, 1, 2)) <= held.bound).all()
        kernel, bias = (np.float64(params[name][each]) for each in ("kernel", "bias"))
        for unit, bound in enumerate(held.bound.tolist()):
            own = slice(None) if name == "first" else slice(unit // 6 * 6, unit // 6 * 6 + 6)
            best = float((corner(kernel, unit, low[own], high[own]) * kernel[..., unit]).sum() + bias[unit])
            assert best <= bound
            assert best == pytest.approx(bound, rel=0.01, abs=0.02)


def residual(params: Any, x: Any, y: Any) -> Any:
    """Something is added to the units before their activation function."""
    z = x @ params["first"]["kernel"] + params["first"]["bias"]
    return cross_entropy(jax.nn.relu(z + 0.1 * jnp.tile(x, 4)) @ params["head"], y)


def normalised(params: Any, x: Any, y: Any) -> Any:
    z = x @ params["first"]["kernel"]
    z = (z - z.mean(0)) * lax.rsqrt(z.var(0) + 1e-5) + params["first"]["bias"]
    return cross_entropy(jax.nn.relu(z) @ params["head"], y)


def twice(params: Any, x: Any, y: Any) -> Any:
    """With a bias, and without."""
    z = x @ params["first"]["kernel"]
    a = jax.nn.relu(z + params["first"]["bias"]) + jax.nn.relu((2 * x) @ params["first"]["kernel"])
    return cross_entropy(a @ params["head"], y)


def truncated(params: Any, x: Any, y: Any) -> Any:
    z = (x @ params["first"]["kernel"]).astype(int).astype(np.float32)
    return cross_entropy(jax.nn.relu(z + params["first"]["bias"]) @ params["head"], y)


def scaled(params: Any, x: Any, y: Any) -> Any:
    """The weights that are multiplied are made from parameters."""
    kernel = params["first"]["kernel"] * params["first"]["kernel"]
    return cross_entropy(jax.nn.relu(x @ kernel + params["first"]["bias"]) @ params["head"], y)


def dropped(params: Any, x: Any, y: Any) -> Any:
    """Dropout of what is summed up, as Flax has it, and a mean over pairs."""
    z = nn.Dropout(0.5, deterministic=False).apply(
        {}, x @ params["first"]["kernel"] + params["first"]["bias"], rngs={"dropout": jax.random.key(0)}
    )
    z = nn.avg_pool(z[:, None], (1,), (1,))[:, 0]
    return cross_entropy(jax.nn.relu6(z.astype(jnp.bfloat16)) @ params["head"], y)


def test_what_leaves_signs_as_they_are_may_stand_between() -> None:
    layers = watch(dropped).layers(mlp_params(), np.zeros((4, FEATURES), np.float32), np.zeros(4, int))
    assert layers.unproved == {}
    assert (layers["first"].inputs, layers["first"].activation_function) == (FEATURES, "relu6")
    assert layers["first"].biases is not None
    assert layers["first"].biases(mlp_params()).shape == (24,)


def rounded(which: str) -> Any:
    """One of weights, sums and biases was bfloat16 for a moment, in a product of float32."""

    def kept(name: str, value: Any) -> Any:
        return value.astype(jnp.bfloat16).astype(np.float32) if name == which else jnp.asarray(value)

    def loss(params: Any, x: Any) -> Any:
        z = kept("sums", x @ kept("weights", params["first"]["kernel"]))
        return (jax.nn.relu(z + kept("biases", params["first"]["bias"])) @ params["head"]).sum()

    return loss


@pytest.mark.parametrize("which", ["weights", "sums", "biases", "none"])
def test_rounding_on_the_way_is_part_of_the_bound(which: str) -> None:
    traced = jax.make_jaxpr(rounded(which))(mlp_params(), np.ones((4, FEATURES), np.float32))
    (feed,) = survey(traced.jaxpr, ["first/bias", "first/kernel", "head"], [0, 1, 2]).feeds.values()
    wanted = jnp.float32 if which == "none" else jnp.bfloat16
    assert (feed.layer, feed.eps) == ("first", float(jnp.finfo(wanted).eps))


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (residual, "more than its biases, dropout and pooling stands between"),
        (normalised, "more than its biases, dropout and pooling stands between"),
        (truncated, "more than its biases, dropout and pooling stands between"),
        (scaled, "its weights are computed from parameters"),
        (twice, "different things in different calls"),
    ],
)
def test_where_the_way_is_not_understood_the_reason_is_known(loss: Any, reason: str) -> None:
    layers = watch(loss).layers(mlp_params(), np.zeros((4, FEATURES), np.float32), np.zeros(4, int))
    assert reason in layers.unproved["first"]
    assert layers["first"].inputs is None


def test_where_nothing_can_be_proved_the_reason_is_said(tmp_path: pathlib.Path) -> None:
    run, *_ = train(residual, mlp_params(), tmp_path, steps=6)
    found = Prover(run.layers["first"]).prove(dead(run, "first")[0], 0)
    assert found.certainty == Certainty.SILENT
    assert "more than its biases, dropout and pooling stands between" in found.why


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Layer(3), "say where they are with Layer(weights=...)"),
        (Layer(3, weights=lambda params: params), "say Layer(inputs=...)"),
    ],
)
def test_what_a_layer_does_not_say_is_asked_for(layer: Layer, reason: str) -> None:
    certifier = Certifier(Plan((("first", layer),)), {})
    fetch = certifier.end(0, {"first": np.array([1])}, np.ones((2, 3)), None)
    assert fetch is not None
    assert reason in fetch()["first"].reason


def proved(params: Any, *, before: Any = None, begun: bool = True) -> Any:
    """What is said of a unit after one step of a loop."""
    x = normal(np.random.default_rng(0))
    _, statistics = jax.jit(explicit)(mlp_params(), init_statistics({"first": EXPLICIT}), x, np.zeros(256, int))
    certifier, silent = Certifier(statistics.plan, {}), {"first": np.array([14, 15])}
    certifier.hand_over(before, None)
    if begun:
        certifier.begin(7, silent, due=True)
    fetch = certifier.end(7, silent, params, None)
    certifier.take_in(7, statistics, silent)
    assert fetch is not None
    return fetch()["first"]


def test_parameters_that_are_not_handed_over_are_asked_for() -> None:
    params = mlp_params()
    assert (proved(params, before=params).bound < 0).all()
    assert "the writer was not given the parameters" in proved(None, before=params).reason
    assert "which takes the parameters before a step, too" in proved(params).reason
    assert "which takes the parameters before a step, too" in proved(params, before=params, begun=False).reason


def test_a_failure_ends_certificates_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    for where in ("certified", "look"):
        monkeypatch.setattr(f"deadunits_tb.taps.jax.certifier.{where}", broken)
        assert "the monitor could not: RuntimeError: planted" in proved(mlp_params(), before=mlp_params()).reason


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s: Layer(3, inputs=0), "inputs must be a whole number from 1"),
        (lambda s: Layer(3, inputs=4), "say where these are with Layer"),
        (
            lambda s: observe(s, "first", jax.nn.relu, np.ones((8, 24)), inputs=np.ones((8, 5))),
            "6 features along axis -1",
        ),
        (lambda s: observe(s, "plain", jax.nn.relu, np.ones((8, 3)), inputs=np.ones((8, 5))), "does not say how many"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        wrong(init_statistics({"first": EXPLICIT, "plain": Layer(3)}))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kernel": np.ones((5, 24)), "bias": np.ones(24)}, "takes in 6 features, and its weights have shape"),
        ({"kernel": np.ones((6, 24)), "bias": np.ones(7)}, "its biases have shape"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(params: Any, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        DeadUnitsWriter(tmp_path / "run", {"first": EXPLICIT}, params={"first": params})


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (optax.sgd(0.1), True),
        (optax.masked(optax.adamw(0.1), lambda params: jax.tree.map(lambda leaf: leaf.ndim == 1, params)), True),
        (optax.flatten(optax.sgd(0.1, momentum=0.9)), False),
        (optax.contrib.schedule_free_sgd(0.1), False),
    ],
    ids=["sgd", "masked", "flatten", "schedule_free"],
)
def test_what_is_not_known_of_an_optimizer_is_not_claimed(make: Any, known: bool) -> None:
    params = mlp_params()
    found = Moments(make.init(params), params).of(params["first"]["bias"])
    assert (found is not None) == known

"""Certificates of Keras models are true: what is certified cannot fire, and what could recover does."""

from __future__ import annotations

import functools
import io
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from rich.console import Console

from deadunits_tb.capture.certificates import Affine, Terms
from deadunits_tb.certificate import Certainty, Certificates
from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.reading.certainty import Prover
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.reading.report import print_report
from deadunits_tb.taps.keras.layers import describe, is_exactly_silent
from deadunits_tb.taps.keras.sums import computed_layers, input_axes, summing
from deadunits_tb.units import UnitState
from keras_zoo import BACKEND, array, assert_same_state, state

BATCH, STEPS, CLASSES = 64, 20, 3
THRESHOLDS = {"dead_examples": 600}


def noise(*shape: int) -> Any:
    random = np.random.default_rng(5)
    x = random.normal(size=(BATCH * STEPS, *shape)).astype("float32")
    return x, random.integers(0, CLASSES, len(x))


def train(
    model: keras.Model, data: Any, log_dir: pathlib.Path | None, *, optimizer: Any = None, epochs: int = 1, **how: Any
) -> RunHistory | None:
    """Train so little that what is alive stays as it is."""
    model.compile(optimizer or keras.optimizers.SGD(1e-6), "sparse_categorical_crossentropy", **how)
    watch = [] if log_dir is None else [DeadUnitsCallback(log_dir, every=1, thresholds=THRESHOLDS)]
    model.fit(*data, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=watch)
    return None if log_dir is None else read(log_dir)


def read(log_dir: pathlib.Path) -> RunHistory:
    directory = LogDirectory(log_dir)
    run = directory.history(directory.matching(None)[0])
    assert not run.records[-1].errors
    return run


def kill(bias: Any, units: int, by: float) -> None:
    """Give the first units a bias from which some never fire on noise, and some cannot."""
    values = array(bias)
    values[:units] = -by * np.linspace(0.5, 4, units)
    bias.assign(values)


def dead(layer: LayerHistory) -> list[int]:
    return np.flatnonzero(layer.states()[-1] == UnitState.DEAD).tolist()


def proof(layer: LayerHistory, unit: int) -> Any:
    return Prover(layer).prove(unit, int(layer.since()[-1][unit]))


def held(run: RunHistory, name: str) -> Certificates:
    """Those of a layer, for each of its dead units."""
    layer = run.layers[name]
    found = layer.certificates(-1)
    assert found is not None
    assert not found.reason
    assert found.units.tolist() == dead(layer)
    return found


def ranges(fed: Any, found: Certificates) -> Any:
    """Of what a layer took in while it was looked at."""
    used = fed[found.since * BATCH :]
    assert found.observations == len(used) // BATCH
    axes = tuple(range(used.ndim - 1))
    return used.min(axis=axes), used.max(axis=axes)


def some_of_each(found: Certificates) -> None:
    certain = found.bound < 0
    assert certain.any()
    assert not certain.all()


def test_what_is_certified_fires_on_no_input_within_the_ranges(tmp_path: pathlib.Path) -> None:
    """Random inputs and, for each unit, the one that suits it best, at which the bound is attained."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)), L.Dense(24, "relu", name="first"),
            L.Dense(16, name="second"), L.BatchNormalization(name="norm"), L.Dropout(0.1), L.ReLU(6, name="relu6"),
            L.Dense(CLASSES, "softmax", name="head"),
        ]
    )  # fmt: skip
    first, second, norm = (model.get_layer(name) for name in ("first", "second", "norm"))
    kill(first.bias, 16, 2.5)
    kill(norm.beta, 12, 4)
    norm.gamma.assign(np.where(np.arange(16) % 2, 1.0, -0.4))
    x, y = noise(6)
    run = train(model, (x, y), tmp_path)
    assert run is not None
    random = np.random.default_rng(0)

    found = held(run, "first")
    some_of_each(found)
    low, high = ranges(x, found)
    weights = array(first.kernel)
    certain = found.units[found.bound < 0]
    for _ in range(10):
        sides = random.random((2000, 6))
        sides = sides.round() if random.random() < 0.5 else sides
        assert not array(first(low + sides.astype("float32") * (high - low)))[:, certain].any()
    for unit, bound in zip(found.units, found.bound, strict=True):
        best = np.where(weights[:, unit] > 0, high, low)
        highest = float(best @ weights[:, unit] + array(first.bias)[unit])
        assert array(first(best[None]))[0, unit] == pytest.approx(max(highest, 0), abs=1e-4)
        assert highest <= bound
        assert highest == pytest.approx(bound, rel=0.01, abs=1e-3)

    found = held(run, "second")
    some_of_each(found)
    fed = array(first(x))
    low, high = ranges(fed, found)
    sums = array(second(fed)).astype(float).reshape(STEPS, BATCH, 16)[found.since :]
    means = np.concatenate([sums.mean(axis=1), [array(norm.moving_mean)]])
    inverse = 1 / np.sqrt(np.concatenate([sums.var(axis=1), [array(norm.moving_variance)]]) + norm.epsilon)
    weights, scale, shift = array(second.kernel), array(norm.gamma), array(norm.beta)
    for unit, bound in zip(found.units, found.bound, strict=True):
        rising = weights[:, unit] * scale[unit] > 0
        z = np.where(rising, high, low) @ weights[:, unit] + array(second.bias)[unit]
        normed = (z - means[:, unit, None]) * inverse[None, :, unit] * scale[unit] + shift[unit]
        assert normed.max() <= bound
        assert normed.max() == pytest.approx(bound, rel=0.02, abs=0.02)
    assert {proof(run.layers["second"], int(unit)).could_move for unit in found.units} == {
        ("normalisation statistics",)
    }


def convolutions() -> keras.Model:
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)), L.Conv2D(12, 3, padding="same", activation="relu", name="conv"),
            L.MaxPooling2D(name="pooled"), L.Conv2D(8, 2, name="apart"), L.AveragePooling2D(1), L.ReLU(),
            L.Flatten(name="flat"), L.Dense(10, "relu", name="dense"), L.Dense(CLASSES, "softmax", name="head"),
        ]
    )  # fmt: skip


def with_dead_units(model: keras.Model) -> keras.Model:
    random = np.random.default_rng(2)
    model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.weights])
    for name, units, by in (("conv", 10, 6), ("apart", 7, 2.5), ("dense", 8, 0.8)):
        kill(model.get_layer(name).bias, units, by)
    return model


def test_convolutions_and_what_comes_after_flattening(tmp_path: pathlib.Path) -> None:
    model = with_dead_units(convolutions())
    x, y = noise(6, 6, 2)
    run = train(model, (x, y), tmp_path)
    assert run is not None
    fed = {"conv": x}
    for name, before in (("apart", "pooled"), ("dense", "flat")):
        inputs = keras.Model(model.inputs[0], model.get_layer(before).output)
        fed[name] = array(inputs(x))
    random = np.random.default_rng(0)
    for name in fed:
        found, layer = held(run, name), model.get_layer(name)
        some_of_each(found)
        low, high = ranges(fed[name], found)
        if name == "conv":
            low, high = np.minimum(low, 0), np.maximum(high, 0)  # padding
        weights = array(layer.kernel)
        best = np.maximum(weights * low[:, None], weights * high[:, None]).sum(axis=tuple(range(weights.ndim - 1)))
        highest = (best + array(layer.bias))[found.units]
        np.testing.assert_allclose(highest, found.bound, rtol=0.01, atol=0.01)
        assert (highest <= found.bound).all()
        sides = random.random((1000, *fed[name].shape[1:])).round().astype("float32")
        fired = array(keras.ops.relu(layer(low + sides * (high - low))))
        assert not fired[..., found.units[found.bound < 0]].any()


LAYERS = {
    "dense": (lambda: L.Dense(5), (4, 3)),
    "einsum": (lambda: L.EinsumDense("abcd,dcef->abef", (3, 2, 4), bias_axes="ef"), (3, 2, 3)),
    "conv1d": (lambda: L.Conv1D(5, 3, padding="causal"), (7, 3)),
    "conv2d": (lambda: L.Conv2D(5, (3, 2), strides=2), (6, 6, 3)),
    "conv3d": (lambda: L.Conv3D(4, 2, padding="same"), (4, 4, 4, 2)),
    "transposed": (lambda: L.Conv2DTranspose(4, 3, strides=2), (4, 4, 3)),
    "depthwise": (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), (5, 5, 3)),
    "depthwise1d": (lambda: L.DepthwiseConv1D(3, depth_multiplier=2, padding="same"), (5, 3)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_bounds_of_every_kind_of_layer(kind: str) -> None:
    """Never passed by corners of the ranges, and attained by each unit's best one."""
    make, shape = LAYERS[kind]
    random = np.random.default_rng(1)
    layer = make()
    layer.build((None, *shape))
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))
    described = describe(layer, kind)
    sums = summing(described, (), accelerated=False)
    assert not isinstance(sums, str)
    columns = described.incoming[0].columns
    weights = array(layer.kernel).transpose(columns.order).reshape(columns.rows, columns.units)
    where = [axis % (len(shape) + 1) - 1 for axis in input_axes(described)]
    ends = np.sort(random.normal(size=(2, *(shape[axis] for axis in where))), axis=0)
    low, high = (np.minimum(ends[0], 0), np.maximum(ends[1], 0)) if sums.zero else ends
    spread = [sums.spread(end.reshape(-1), np.arange(columns.units)) for end in (low, high)]
    terms = Terms.of(weights, *spread, array(layer.bias).reshape(-1))
    bound, exact = Affine(terms).bound(sums.rounding), terms.upper + terms.bias
    ends = [np.transpose(end, np.argsort(where)) for end in ends]
    low, high = (
        np.zeros(shape) + end.reshape([length if axis in where else 1 for axis, length in enumerate(shape)])
        for end in ends
    )
    highest = np.full(columns.units, -np.inf)
    for _ in range(4):
        sides = random.random((256, *shape)).round()
        out = array(layer((low + sides * (high - low)).astype("float32")))
        highest = np.maximum(highest, out.reshape(-1, columns.units).max(axis=0))
    assert (highest <= bound).all()
    assert (bound - exact < 1e-3).all()
    if columns.rows <= 9 and not sums.zero:  # of few inputs the best corner comes up by itself
        np.testing.assert_allclose(highest, exact, atol=1e-4)


class Own(L.Dense):
    """Whatever it does with its kernel."""


def test_layers_whose_sums_are_not_known_say_why() -> None:
    separable, own, loop = L.SeparableConv2D(3, 2), Own(3), L.SimpleRNN(3, activation="relu")
    wrapped, lora = L.SpectralNormalization(L.Dense(3)), L.Dense(3)
    for layer, shape in ((separable, (5, 5, 2)), (own, (4,)), (loop, (4, 2)), (wrapped, (4,)), (lora, (4,))):
        layer.build((None, *shape))
    before = describe(lora, "lora")
    lora.enable_lora(2)
    reasons = [
        summing(one, computed_layers([wrapped]), accelerated=False)
        for one in (*(describe(layer, "it") for layer in (separable, own, loop, wrapped.layer, lora)), before)
    ]
    for reason, said in zip(
        reasons, ("one parameter", "no class of Keras", "in a loop", *["one parameter"] * 3), strict=True
    ):
        assert isinstance(reason, str)
        assert said in reason


def test_functions_that_are_silent_exactly_up_to_zero() -> None:
    silent = (keras.activations.relu, keras.activations.relu6, L.ReLU(), L.ReLU(6, threshold=1), L.Activation("relu"))
    others = (keras.activations.gelu, keras.activations.threshold, L.ReLU(negative_slope=0.1), L.LeakyReLU())
    assert all(map(is_exactly_silent, silent))
    assert not any(map(is_exactly_silent, others))
    assert not is_exactly_silent(functools.partial(keras.activations.relu, negative_slope=0.1))


def recovering(**options: Any) -> keras.Model:
    """A unit that its bias holds down, whose weights would let it fire on inputs from 0 to 1."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(8, "relu", name="first", **options), L.Dense(CLASSES, "softmax", name="head")]
    )
    kernel, bias = (array(weight) for weight in model.get_layer("first").weights)
    kernel[:, 0], bias[0] = 0.5, -6
    model.get_layer("first").set_weights([kernel, bias])
    return model


def within_one() -> Any:
    return np.random.default_rng(0).random((BATCH * STEPS, 6)).astype("float32"), noise(6)[1]


def decaying(*kept: str) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.SGD(0.01, weight_decay=2.0)
    if kept:
        optimizer.exclude_from_weight_decay(var_names=list(kept))
    return optimizer


RECOVERY: dict[str, tuple[Callable[[], Any], dict[str, Any], Certainty]] = {
    "bias decays": (lambda: decaying("kernel"), {}, Certainty.RECOVERABLE),
    "bias is regularized": (
        lambda: keras.optimizers.SGD(0.01), {"bias_regularizer": "l2"}, Certainty.RECOVERABLE,
    ),
    "weights decay": (lambda: decaying("bias"), {}, Certainty.CERTAIN),
    "both decay": (decaying, {}, Certainty.CERTAIN),
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [case if case == "bias decays" else pytest.param(case, marks=pytest.mark.slow) for case in RECOVERY]
)
def test_what_could_recover_does_and_what_is_dead_for_certain_does_not(case: str, tmp_path: pathlib.Path) -> None:
    """Weight decay moves a dead unit. Only where it takes more of the bias than of the weights it brings it back."""
    make, options, certainty = RECOVERY[case]
    model = recovering(**options)
    x, y = within_one()
    run = train(model, (x, y), tmp_path, optimizer=make())
    assert run is not None
    assert 0 in dead(run.layers["first"])
    found = proof(run.layers["first"], 0)
    assert found.certainty == certainty, found.why
    assert found.could_move == ("weight decay",)
    assert found.margin > 0
    if case != "bias is regularized":  # by 0.0002 a step, which takes a while
        model.fit(x, y, batch_size=BATCH, epochs=5, verbose=0)
        fires = array(model.get_layer("first")(np.random.default_rng(1).random((4096, 6))))[:, 0].any()
        assert fires == (certainty == Certainty.RECOVERABLE)


WAYS: dict[str, dict[str, Any]] = {
    "eager": {"run_eagerly": True},
    "mixed_float16": {},
    "steps_per_execution": {"steps_per_execution": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_trained_the_same_is_told(way: str, tmp_path: pathlib.Path) -> None:
    if BACKEND == "torch" and way == "steps_per_execution":
        pytest.skip("Keras on torch runs one step at a time")
    keras.mixed_precision.set_global_policy("mixed_float16" if way == "mixed_float16" else "float32")
    try:
        model = recovering()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    run = train(model, within_one(), tmp_path, optimizer=decaying("kernel"), epochs=2, **WAYS[way])
    assert run is not None
    found = held(run, "first").of(0)
    assert found is not None
    assert found.certainty == Certainty.RECOVERABLE
    assert found.bound == pytest.approx(0.32, abs=0.03)  # as by NumPy: 3 - 6 * 0.98 ** 40, and what rounding may add
    assert found.rise == pytest.approx(6 * 0.98**39 * 0.02, rel=0.03)  # of the last step, or of the last two


@pytest.mark.slow
def test_between_the_updates_of_accumulated_gradients_nothing_is_told(tmp_path: pathlib.Path) -> None:
    optimizer = keras.optimizers.SGD(0.01, weight_decay=2.0, gradient_accumulation_steps=2)
    run = train(recovering(), within_one(), tmp_path, optimizer=optimizer, epochs=2)
    assert run is not None
    found = held(run, "first").of(0)
    assert found is not None
    assert found.step % 2 == 1  # the second of two batches
    assert found.movers.words == ["weight decay"]


@pytest.mark.slow
def test_momentum_that_runs_out_first_does_not_lead_to_recovery(tmp_path: pathlib.Path) -> None:
    model, optimizer = recovering(), keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)
    optimizer.momentums[1].assign(0.01 * np.ones(8))
    x, y = within_one()
    run = train(model, (x, y), tmp_path, optimizer=optimizer)
    assert run is not None
    found = proof(run.layers["first"], 0)
    assert (found.certainty, found.could_move) == (Certainty.CERTAIN, ("momentum",))


def test_where_the_way_is_not_understood_nothing_is_certified(tmp_path: pathlib.Path) -> None:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,))
    x = L.ReLU()(L.LayerNormalization(name="layer_norm")(L.Dense(6, name="normed")(x)))
    x = L.ReLU()(L.Add()([L.Dense(6, name="added")(x), inputs]))
    x = L.ReLU()(L.GaussianNoise(0.1, name="noise")(L.Dense(6, name="noisy")(x)))
    x = L.ReLU()(L.BatchNormalization(name="last")(L.BatchNormalization()(L.Dense(6, name="twice")(x))))
    model = keras.Model(inputs, L.Dense(CLASSES, "softmax")(x))
    for bias in (
        *(model.get_layer(name).bias for name in ("added", "noisy")),
        *(model.get_layer(name).beta for name in ("layer_norm", "last")),
    ):
        bias.assign(-100 * np.ones(6))
    run = train(model, noise(6), tmp_path)
    assert run is not None
    for name, said in (
        ("normed", "LayerNormalization 'layer_norm' stands"),
        ("added", "a sum stands"),
        ("noisy", "GaussianNoise 'noise' stands"),
        ("twice", "more than a batch normalisation"),
    ):
        assert len(dead(run.layers[name])) == 6
        found = proof(run.layers[name], 0)
        assert found.certainty == Certainty.SILENT
        assert said in found.why


@pytest.mark.parametrize("how", [{}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)], ids=["graph", "xla"])
def test_training_is_the_same_to_the_last_bit(how: Any, tmp_path: pathlib.Path) -> None:
    if BACKEND == "torch" and how:
        pytest.skip("a step that torch compiles is not watched")
    ends = []
    for log_dir in (tmp_path, None):
        model = with_dead_units(convolutions())
        run = train(model, noise(6, 6, 2), log_dir, optimizer=keras.optimizers.Adam(0.01), **how)
        ends.append(state(model))
        assert run is None or run.layers["conv"].certificates(-1).units.size
    assert_same_state(*ends)


def test_a_failure_ends_certificates_and_nothing_else(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("deadunits_tb.taps.keras.proving.treatment", broken)
    run = train(recovering(), noise(6), tmp_path)
    assert run is not None
    assert "planted" in proof(run.layers["first"], 0).why


def test_a_healthy_model_is_not_looked_at(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("there is no silent unit")

    for name in ("_Opened.at", "SilentLayers.take_in"):
        monkeypatch.setattr(f"deadunits_tb.taps.keras.proving.{name}", never)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, "relu", name="first"), L.Dense(CLASSES, "softmax")])
    run = train(model, noise(6), tmp_path)
    assert run is not None
    assert run.layers["first"].certificates(-1) is None


def test_the_report_shows_the_words(tmp_path: pathlib.Path) -> None:
    train(recovering(), within_one(), tmp_path)
    console = Console(file=io.StringIO(), width=200)
    print_report(tmp_path, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 of them dead for certain" in printed
    assert "dead for certain: cannot fire for any input within the ranges that its inputs had" in printed

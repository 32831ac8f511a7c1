"""Loops with ``tf.GradientTape``: training is the same to the last bit, and the record is that of ``fit``."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from chosen_interval import assert_chosen_by_cost, without_opening
from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.tensorflow import watch
from keras_zoo import ZOO, assert_same_state, built
from tensorflow_zoo import MODES, batches, made, run_in, step_of, trained
from test_keras_layers import EXPECTED


@pytest.mark.parametrize("name", [pytest.param("unbuilt", marks=pytest.mark.slow), "subclassed"])
def test_every_model_trains_the_same(name, tmp_path):
    plain, _ = trained(name=name)
    watched, _ = trained(tmp_path, name=name)
    assert_same_state(plain, watched)
    run = run_in(tmp_path)
    assert run.layers
    assert all(layer.steps[0] == 0 for layer in run.layers.values())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["graph", "eager"])
@pytest.mark.parametrize("name", ZOO)
def test_every_model_of_the_zoo_trains_the_same(name, mode, tmp_path):
    plain, _ = trained(name=name, mode=mode)
    watched, _ = trained(tmp_path, name=name, mode=mode)
    assert_same_state(plain, watched)
    run = run_in(tmp_path)
    found = {
        layer: (info.kind, info.units, info.activation_function, info.fan_in, info.fan_out, info.role, info.witness)
        for layer, info in ((layer, history.info) for layer, history in run.layers.items())
    }
    assert found == EXPECTED[name], "as with fit"
    embeds = name in ("recurrent", "attention")
    assert [(one.layer, "row" in one.reason) for one in run.records[-1].skipped] == ([("embedding", True)] * embeds)
    if name == "shared":
        assert run.layers["dense"]._history.window(0).examples == 2 * run.layers["dense_1"]._history.window(0).examples


def sgd():
    return keras.optimizers.SGD(0.05, momentum=0.9)


@pytest.mark.parametrize(
    ("mode", "name", "arguments"),
    [
        pytest.param("eager", "separate", {}, marks=pytest.mark.slow),
        ("eager", "dense", {"wrap": False}),
        ("eager", "subclassed", {"wrap": False, "every": 2}),
        pytest.param("jit", "dense", {}, marks=pytest.mark.slow),
        pytest.param("graph", "dense", {"every": 3}, marks=pytest.mark.slow),
        pytest.param("graph", "dense", {"policy": "mixed_bfloat16"}, marks=pytest.mark.slow),
        pytest.param("graph", "separate", {"optimizer": sgd}, marks=pytest.mark.slow),
    ],
    ids=["eager", "not wrapped", "subclassed not wrapped", "jit", "every third", "bfloat16", "momentum"],
)
def test_every_way_to_run_it_trains_the_same(mode, name, arguments, tmp_path):
    without = {key: value for key, value in arguments.items() if key not in ("wrap", "every")}
    plain, _ = trained(name=name, mode=mode, **without)
    watched, _ = trained(tmp_path, name=name, mode=mode, **arguments)
    assert_same_state(plain, watched)
    run = run_in(tmp_path)
    assert len(run.layers) >= 3
    assert next(iter(run.layers.values())).steps[0] == 0


def half():
    """Scales up every second step, so that it overflows and skips some."""
    return keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), initial_scale=2.0**15, dynamic_growth_steps=1
    )


@pytest.mark.slow
def test_loss_scaling_is_undone_and_skipped_steps_have_no_gradients(tmp_path):
    plain, _ = trained(policy="mixed_float16", optimizer=half, epochs=3)
    watched, _ = trained(tmp_path / "half", policy="mixed_float16", optimizer=half, epochs=3)
    assert_same_state(plain, watched)
    trained(tmp_path / "full", epochs=3)
    one, other = (run_in(tmp_path / name).layers["dense"] for name in ("half", "full"))
    np.testing.assert_allclose(one.statistic("gradient")[0], other.statistic("gradient")[0], rtol=0.05)
    np.testing.assert_allclose(one.statistic("weight_gradient")[0], other.statistic("weight_gradient")[0], rtol=0.05)
    skipped = np.isnan(one.statistic("gradient")).all(1)
    assert skipped.any()
    np.testing.assert_array_equal(np.isnan(one.statistic("weight_gradient")).all(1), skipped)
    assert np.isfinite(one.statistic("mean")).all()


@pytest.mark.parametrize(
    "mode", [mode if mode == "eager" else pytest.param(mode, marks=pytest.mark.slow) for mode in MODES]
)
def test_the_record_of_a_step_is_that_of_fit(mode, tmp_path):
    """One step on the same weights and batch, with a loop and with fit."""
    model, (x, y) = built("dense")
    model.fit(x, y, batch_size=len(x), verbose=0, shuffle=False, callbacks=[DeadUnitsCallback(tmp_path / "fit")])
    model, (x, y), optimizer = made()
    with watch(model, tmp_path / "loop", optimizer) as monitor:
        monitor.step(monitor.wrap(step_of(model, optimizer, mode))(tf.constant(x), tf.constant(y)))
    fit, loop = (run_in(tmp_path / name) for name in ("fit", "loop"))
    assert list(fit.layers) == list(loop.layers)
    for name, layer in fit.layers.items():
        ours, theirs = loop.layers[name].info, layer.info
        assert (ours.activation_function, ours.role, ours.witness, ours.units) == (
            theirs.activation_function,
            theirs.role,
            theirs.witness,
            theirs.units,
        )
        for statistic in ("active_fraction", "mean", "std", "min", "max", "gradient", "weight_gradient", "drift"):
            np.testing.assert_allclose(
                loop.layers[name].statistic(statistic),
                layer.statistic(statistic),
                rtol=0.01,
                atol=1e-6,
                err_msg=f"{name} {statistic}",
            )
    one, other = fit.records[0], loop.records[0]
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-6)
    assert (one.examples, one.learning_rate) == (other.examples, other.learning_rate)
    np.testing.assert_allclose(one.inputs.mean, other.inputs.mean, rtol=1e-5)


@pytest.mark.slow
def test_by_default_the_interval_is_chosen_by_cost(tmp_path, monkeypatch):
    without_opening(monkeypatch)
    trained(tmp_path, every=None, epochs=40)
    assert_chosen_by_cost(run_in(tmp_path), steps=120)


def test_steps_may_be_numbered_otherwise_than_by_ones(tmp_path, caplog):
    """As by the examples seen so far. From step 1000 on not each observation becomes a record: those that do looked."""
    model, data, optimizer = made()
    step, told = step_of(model, optimizer, "eager"), [1000]
    with watch(model, tmp_path, optimizer, every=1, initial_step=1000) as monitor:
        for x, y in batches(data) * 3:
            told.append(told[-1] + len(x))
            monitor.step(step(x, y), step=told[-1])
            assert monitor.current_step == told[-1] + 1
    run = run_in(tmp_path)
    assert run.layers["dense"].steps.tolist() == told[1::2]
    assert [record.optimizer_steps for record in run.records] == [1, 2, 2, 2, 2]
    for name in ("update_ratio", "norm_in", "drift"):
        assert np.isfinite(run.layers["dense"].statistic(name)).all(), name
    assert not [record for record in caplog.records if record.name.startswith("deadunits_tb")]


def test_evaluation_is_not_counted(tmp_path):
    model, data, optimizer = made()
    step = step_of(model, optimizer, "eager")
    with watch(model, tmp_path, optimizer, every=1) as monitor:
        for x, y in batches(data)[:2]:
            model(x)  # no tape
            with tf.GradientTape():
                model(x, training=False)
            monitor.step(step(x, y))
    assert [record.examples for record in run_in(tmp_path).records] == [8, 8]

"""Arrays from any loop become records; bad data is data."""

import math
import subprocess
import sys
import warnings

import ml_dtypes
import numpy as np
import pytest

from deadunits_tb import DeadUnitsWriter, MonitorWarning, Thresholds
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.units import UnitState


def history(tmp_path):
    return RunReader(LocalDataProvider(tmp_path)).history(".")


def labels(record):
    return [UnitState(code).label for code in record.states]


class Network:
    """Two layers, trained by nobody: its weights drift."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.first = self.rng.normal(size=(20, 16))
        self.second = self.rng.normal(size=(16, 10))

    def step(self, examples=64):
        x = self.rng.normal(size=(examples, 20))
        z = x @ self.first
        z[:, 3] = -1  # silent
        a = np.maximum(z, 0)
        gradients = self.rng.normal(size=z.shape) * (z > 0)
        self.first = self.first + 1e-3 * self.rng.normal(size=self.first.shape)
        return x, a, gradients, a @ self.second


def test_a_loop_without_a_framework(tmp_path):
    network = Network()
    with DeadUnitsWriter(tmp_path) as writer:
        for step in range(120):
            x, a, gradients, out = network.step()
            writer.context(step, learning_rate=0.01, loss=1 / (step + 1), inputs=x)
            writer.observe(
                step, "hidden", a, gradients=gradients, weights=network.first, weight_gradients=network.first,
                outgoing=network.second,
            )  # fmt: skip
            writer.observe(step, "out", out, activation_function="softmax", role="output")
    run = history(tmp_path)
    hidden, out = run.layers["hidden"], run.layers["out"]
    assert [record.step for record in run.records] == hidden.steps.tolist() == out.steps.tolist() == list(range(120))
    assert labels(hidden.record(-1)) == ["dead" if unit == 3 else "active" for unit in range(16)]
    assert hidden.record(-1).since[3] == 0
    assert hidden.window(-1).from_start
    assert (hidden.info.fan_in, hidden.info.fan_out, hidden.info.weight_delta) == (20, 10, "exact")
    assert (hidden.info.order, out.info.order, out.info.role) == (0, 1, "output")
    assert run.info.framework == "numpy"
    last = run.records[-1]
    assert (last.learning_rate, last.loss, last.examples) == (0.01, pytest.approx(1 / 120), 64)
    assert last.inputs.std == pytest.approx(1, abs=0.1)
    assert last.counts["hidden"][UnitState.DEAD] == 1


def test_statistics_are_those_of_the_arrays(tmp_path):
    a = np.maximum(np.random.default_rng(0).normal(size=(50, 4)), 0).astype(np.float32)
    g = np.random.default_rng(1).normal(size=(50, 4)) * (a > 0)
    w = np.random.default_rng(2).normal(size=(6, 4))
    with DeadUnitsWriter(tmp_path) as writer:
        writer.observe(0, "l", a, gradients=g, weights=w, weight_gradients=3 * w, outgoing=w.T)
        writer.observe(1, "l", a, gradients=g, weights=w * [1.5, 1, 1, 1], weight_gradients=3 * w, outgoing=w.T)
    read = history(tmp_path).layer("l").record(1).statistics
    norm = np.linalg.norm(w, axis=0)
    expected = {
        "active_fraction": (a > 0).mean(axis=0),
        "mean": a.mean(axis=0),
        "mean_abs": np.abs(a).mean(axis=0),
        "std": a.std(axis=0),
        "min": a.min(axis=0),
        "max": a.max(axis=0),
        "gradient": np.sqrt((g**2).mean(axis=0)),
        "weight_gradient": 3 * norm,
        "update_ratio": [0.5, 0, 0, 0],
        "drift": [0.5, 0, 0, 0],
        "norm_in": norm * [1.5, 1, 1, 1],
        "norm_out": norm,
    }
    assert set(read.names) == {*expected, "active_positions"}
    for name, values in expected.items():
        np.testing.assert_allclose(read.get(name), values, rtol=2**-8, err_msg=name)


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, -3])
def test_any_layout_gives_the_same_record(tmp_path, axis):
    values = np.maximum(np.random.default_rng(0).normal(size=(6, 4, 5, 3)), 0)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 2, 3))
    with DeadUnitsWriter(tmp_path) as writer:
        writer.observe(0, "last", values, weights=kernel)
        writer.observe(
            0, "moved", np.moveaxis(values, -1, axis), unit_axis=axis, weights=np.moveaxis(kernel, -1, 0),
            weight_unit_axis=0,
        )  # fmt: skip
    last, moved = (history(tmp_path).layer(name).record(0) for name in ("last", "moved"))
    np.testing.assert_array_equal(last.statistics.values, moved.statistics.values)
    assert moved.window.positions == 6 * 4 * 5


@pytest.mark.parametrize("take_in", [np.asarray, lambda a: a.tolist(), lambda a: a.astype(ml_dtypes.bfloat16)])
def test_whatever_numpy_reads_is_taken(tmp_path, take_in):
    a = np.array([[0, 1.5], [0, 2.5], [0, 0]])
    with DeadUnitsWriter(tmp_path) as writer:
        writer.observe(0, "l", take_in(a), mask=[1, 1, 0])
    read = history(tmp_path).layer("l").record(0).statistics
    assert read.get("active_fraction").tolist() == [0, 1]
    assert read.get("mean").tolist() == [0, 2]


def test_one_layer_observed_twice_at_one_step_is_one_observation(tmp_path):
    rng = np.random.default_rng(0)
    one, two = np.maximum(rng.normal(size=(2, 30, 4)), 0)
    with DeadUnitsWriter(tmp_path) as writer:
        writer.observe(0, "halves", one)
        writer.observe(0, "halves", two)
        writer.observe(0, "whole", np.concatenate([one, two]))
    halves, whole = (history(tmp_path).layer(name).record(0) for name in ("halves", "whole"))
    assert halves.window.examples == 60
    np.testing.assert_array_equal(halves.statistics.values, whole.statistics.values)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_numbers_are_data(tmp_path, bad):
    rng = np.random.default_rng(0)
    with warnings.catch_warnings(), DeadUnitsWriter(tmp_path) as writer:
        warnings.simplefilter("error")
        for step in range(30):
            a, g, w = np.maximum(rng.normal(size=(32, 5)), 0), rng.normal(size=(32, 5)), rng.normal(size=(3, 5))
            if step == 29:
                a[0, 0], g[0, 1], w[0, 2] = bad, bad, bad
            writer.context(step, loss=bad, learning_rate=bad, inputs=[bad, 1])
            writer.observe(step, "l", a, activation_function="gelu", gradients=g, weights=w, weight_gradients=w)
    run = history(tmp_path)
    assert labels(run.layer("l").record(-1)) == ["non_finite"] * 3 + ["active"] * 2
    assert labels(run.layer("l").record(-2)) == ["active"] * 5
    assert str(run.records[-1].loss) == str(bad)
    assert not run.records[-1].errors


def test_an_empty_batch_is_no_observation(tmp_path):
    with DeadUnitsWriter(tmp_path) as writer:
        writer.observe(0, "l", np.zeros((0, 3)))
        writer.observe(1, "l", np.ones((4, 3)), mask=np.zeros(4))
        writer.observe(2, "l", np.ones((4, 3)))
    assert history(tmp_path).layer("l").steps.tolist() == [2]


def test_what_is_handed_over_is_neither_changed_nor_kept(tmp_path):
    a, w = np.ones((16, 3)), np.ones((2, 3))
    with DeadUnitsWriter(tmp_path) as writer:
        writer.observe(0, "l", a, weights=w)
        assert (a == 1).all()
        a *= 0
        w *= 2
        writer.observe(1, "l", a, weights=w)
    layer = history(tmp_path).layer("l")
    assert layer.record(0).statistics.get("mean").tolist() == [1, 1, 1]
    assert layer.record(1).statistics.get("drift").tolist() == [1, 1, 1]


def test_flushed_records_are_there_while_the_writer_goes_on(tmp_path):
    writer = DeadUnitsWriter(tmp_path)
    writer.observe(0, "l", np.ones((16, 3)))
    writer.flush()
    assert history(tmp_path).layer("l").steps.tolist() == [0]
    writer.observe(1, "l", np.ones((16, 3)))
    writer.close()
    writer.close()
    assert history(tmp_path).layer("l").steps.tolist() == [0, 1]


@pytest.mark.parametrize("end", ["", "del writer", "raise SystemExit(0)", "1 / 0"])
def test_a_writer_that_nobody_closes_loses_nothing(tmp_path, end):
    program = f"""
import weakref
import numpy as np
from deadunits_tb import DeadUnitsWriter
weakref.finalize(np, print)  # so that those are not the last to run at exit
writer = DeadUnitsWriter({str(tmp_path)!r})
for step in range(10):
    writer.observe(step, "l", np.ones((3, 2)))
{end}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ("ZeroDivisionError" in done.stderr) == (end == "1 / 0")
    assert history(tmp_path).layer("l").steps.tolist() == [0, 3, 6, 9]


def test_thresholds_are_those_that_were_given(tmp_path):
    eager = Thresholds(unknown_examples=8, dead_examples=16, confirm_examples=8)
    with DeadUnitsWriter(tmp_path, thresholds=eager) as writer:
        for step in range(4):
            writer.observe(step, "l", np.array([[0.0, 1 + step]] * 8), weights=np.ones((1, 2)))
    assert history(tmp_path).info.thresholds == eager
    assert labels(history(tmp_path).layer("l").record(-1))[0] == "dead"


def test_an_internal_failure_is_said_once_and_the_loop_goes_on(tmp_path, monkeypatch):
    writer = DeadUnitsWriter(tmp_path)
    writer.observe(0, "l", np.ones((16, 3)))
    monkeypatch.setattr("deadunits_tb.capture.layer_arrays.observe_arrays", lambda *_, **__: 1 / 0)
    with pytest.warns(MonitorWarning, match="training goes on. observe: ZeroDivisionError") as warned:
        writer.observe(1, "l", np.ones((16, 3)))
    assert len(warned) == 1
    writer.observe(2, "l", np.ones((16, 3)))  # says nothing: warnings are errors here
    writer.close()
    assert history(tmp_path).records[-1].errors == ("observe: ZeroDivisionError: division by zero",)


def test_context_may_come_before_or_after_and_is_of_its_step_alone(tmp_path):
    with DeadUnitsWriter(tmp_path) as writer:
        writer.observe(0, "l", np.ones((16, 3)))
        writer.context(0, loss=np.float32(0.5))
        writer.context(1, learning_rate=0.25)
        writer.context(1, inputs=np.zeros((0, 3)))
        writer.observe(1, "l", np.ones((16, 3)))
        writer.context(2, loss=9.0)  # nothing was observed at this step
    first, second = history(tmp_path).records
    assert (first.loss, first.learning_rate) == (0.5, None)
    assert (second.loss, second.learning_rate, second.inputs) == (None, 0.25, None)


def test_weights_given_later_are_measured_from_then_on(tmp_path):
    with DeadUnitsWriter(tmp_path) as writer:
        for step in range(4):
            weights = np.full((2, 3), 1.0 + step) if step > 1 else None
            writer.observe(step, "l", np.ones((16, 3)), weights=weights)
    layer = history(tmp_path).layer("l")
    assert "norm_in" not in layer.record(1).statistics.names
    assert layer.record(3).statistics.get("update_ratio") == pytest.approx([1 / 3] * 3, rel=2**-8)  # 3, then 4

"""Strips, levels and lines: what an overview is made of."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from deadunits_tb import DeadUnitsWriter, Thresholds, UnitState
from deadunits_tb.reading.lines import threshold_lines
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.overview import by_label, count_by_record, layer_level, onset_step, strips
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.record import Statistics
from deadunits_tb.units import LayerInfo

S = UnitState


def test_an_alarm_of_one_record_is_in_the_strip(tmp_path: pathlib.Path) -> None:
    with DeadUnitsWriter(tmp_path) as writer:
        for step in range(500):
            values = np.maximum(np.random.default_rng(step).normal(size=(16, 6)), 0)
            values[0, 2] = np.inf if step == 301 else 1
            writer.observe(step, "hidden", values)
            if step % 16 == 0:
                writer.flush()  # on a busy machine records would otherwise be dropped
    run = RunReader(LocalDataProvider(tmp_path)).history(".")
    layer = run.layer("hidden")
    assert len(layer) == 500
    for written in (True, False):  # from the run's own counts, and from the states
        drawn = strips(run, lambda name: layer.states(), written=written)
        assert len(drawn.steps) == 240
        assert (drawn.steps[0], drawn.steps[-1]) == (0, 499)
        counts = drawn.layers["hidden"]
        assert (counts.sum(axis=1) == 6).all()
        column = int(np.searchsorted(drawn.steps, 301))
        assert counts[:, S.NON_FINITE].tolist() == [int(at == column) for at in range(240)]
        np.testing.assert_array_equal(counts[-1], np.bincount(layer.states()[-1], minlength=12))


def test_counts_by_record_and_by_label() -> None:
    states = np.array([[0, 0, 8], [8, 0, 8], [9, 11, 8]], np.uint8)
    counts = count_by_record(states)
    assert counts.shape == (3, 12)
    assert {label: column.tolist() for label, column in by_label(counts).items()} == {
        "active": [2, 1, 0],
        "dead": [1, 2, 1],
        "non_finite": [0, 0, 1],
        "frozen": [0, 0, 1],
    }
    assert count_by_record(np.empty((0, 5), np.uint8)).shape == (0, 12)


@pytest.mark.parametrize(
    ("states", "level"),
    [
        ({S.ACTIVE: 100}, "ok"),
        ({S.ACTIVE: 81, S.DEAD: 19}, "ok"),
        ({S.ACTIVE: 80, S.DEAD: 20}, "warning"),
        ({S.ACTIVE: 50, S.DORMANT: 30, S.STAGNANT: 20}, "ok"),
        ({S.ACTIVE: 10, S.DYING: 90}, "warning"),
        ({S.ACTIVE: 50, S.SATURATED: 50}, "alarm"),
        ({S.ACTIVE: 99, S.NON_FINITE: 1}, "alarm"),
        ({S.FROZEN: 50, S.UNKNOWN: 50}, "ok"),
        ({S.SPARSE: 100}, "ok"),
    ],
)
def test_level_of_a_layer(states: dict[UnitState, int], level: str) -> None:
    codes = np.repeat(np.array(list(states), np.uint8), list(states.values()))
    assert layer_level(codes, Thresholds()) == level


def test_a_threshold_of_zero_does_not_flag_a_healthy_layer() -> None:
    assert layer_level(np.zeros(9, np.uint8), Thresholds(warning_share=0)) == "ok"
    assert layer_level(np.empty(0, np.uint8), Thresholds(warning_share=0)) == "ok"


def test_onset() -> None:
    assert onset_step(np.array([S.ACTIVE, S.DEAD, S.DYING], np.uint8), np.array([0, 40, 30])) == 30
    assert onset_step(np.array([S.ACTIVE, S.SPARSE], np.uint8), np.array([0, 40])) is None


RELU = LayerInfo("a", "Dense", 0, 4, "relu", witness="pre_activation")
TANH = LayerInfo("b", "Dense", 1, 4, "tanh", witness="pre_activation")
LINEAR = LayerInfo("c", "Dense", 2, 4, "linear", role="output", witness="pre_activation")
NAMES = ("active_fraction", "mean", "mean_abs", "std", "saturated_fraction", "gradient", "update_ratio")


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (RELU, {"active_fraction", "mean_abs", "std", "update_ratio"}),
        (TANH, {"active_fraction", "mean_abs", "std", "update_ratio", "saturated_fraction", "gradient"}),
        (LINEAR, {"std", "update_ratio"}),
    ],
)
def test_lines_stand_where_the_rules_compare(info: LayerInfo, expected: set[str]) -> None:
    values = np.array([[1.0, 2.0, 3.0, np.inf]] * len(NAMES), np.float32)
    lines = threshold_lines(info, Statistics(NAMES, values), Thresholds())
    assert set(lines) == expected
    if "mean_abs" in lines:
        assert lines["mean_abs"] == [("dormant_share", pytest.approx(0.025 * 2))]
    scale = np.sqrt(np.mean(2 * np.array([1, 4, 9])))
    assert lines["std"] == [("constant_range", pytest.approx(1e-4 * scale))]
    if "gradient" in lines:
        assert lines["gradient"] == [("dead_gradient", pytest.approx(1e-6 * np.sqrt(14 / 3)))]


def test_no_statistics_no_lines() -> None:
    assert threshold_lines(RELU, None, Thresholds()) == {}
    assert threshold_lines(RELU, Statistics(("norm_in",), np.ones((1, 4), np.float32)), Thresholds()) == {}

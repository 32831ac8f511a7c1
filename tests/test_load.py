"""``deadunits_tb.load``: typed objects and arrays, lazily read, with errors that help."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest

import deadunits_tb
from deadunits_tb import LogDirectoryError, MissingDependencyError, UnitState, UnknownNameError
from event_files import simulated, write_run

LAYERS = {**simulated(200, 60, name="block/conv 1"), **simulated(30, 60, name="head", order=1, seed=2)}


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("runs")
    write_run(directory / "run10", LAYERS)
    write_run(directory / "run9", simulated(5, 3))
    return directory


def test_runs_and_layers_are_mappings_in_order(log_dir: pathlib.Path) -> None:
    runs = deadunits_tb.load(log_dir)
    assert list(runs) == ["run9", "run10"]
    assert len(runs) == 2
    assert "run9" in runs
    assert list(runs["run10"].layers) == ["block/conv 1", "head"]
    assert runs["run10"] is runs["run10"]
    assert repr(runs) == "Runs('run9', 'run10')"
    assert repr(runs["run10"]) == "Run('run10': 60 records of 2 layers)"
    assert repr(runs["run10"].layers["head"]) == "Layer('head': 60 records of 30 units)"


def test_arrays_are_what_was_written(log_dir: pathlib.Path) -> None:
    run = deadunits_tb.load(str(log_dir))["run10"]
    assert [record.step for record in run.records] == run.layers["head"].steps.tolist()
    assert run.info.thresholds == deadunits_tb.Thresholds()
    for info, records in LAYERS.items():
        layer = run.layers[info.name]
        assert layer.info == info
        assert np.array_equal(layer.states, [record.states for record in records])
        assert np.array_equal(layer.since, [record.since for record in records])
        assert layer.statistics == records[0].statistics.names  # type: ignore[union-attr]
        assert np.array_equal(layer.statistic("gradient"), [r.statistics.get("gradient") for r in records])  # type: ignore[union-attr]
        assert layer.counts.get("dead", 0) == int((layer.states[-1] == UnitState.DEAD).sum())


def test_flagged_units_come_with_their_evidence(log_dir: pathlib.Path) -> None:
    run = deadunits_tb.load(log_dir)["run10"]
    flagged = run.flagged()
    assert "block/conv 1" in flagged
    assert flagged["block/conv 1"] == run.layers["block/conv 1"].flagged()
    for name, verdicts in flagged.items():
        for verdict in verdicts:
            assert verdict.state.flagged
            assert run.layers[name].states[-1, verdict.unit] == verdict.state
            assert verdict.explanation.why
    assert [finding.level for finding in run.findings] == sorted((f.level for f in run.findings), reverse=True)


def test_a_data_frame_has_a_row_for_each_unit(log_dir: pathlib.Path) -> None:
    pytest.importorskip("pandas")
    runs = deadunits_tb.load(log_dir)
    frame = runs.to_dataframe()
    assert len(frame) == 235
    assert list(frame.columns[:9]) == [
        "run", "layer", "unit", "state", "since_step", "examples", "rate_upper_bound", "born", "why",
    ]  # fmt: skip
    conv = frame[frame["layer"] == "block/conv 1"]
    layer = runs["run10"].layers["block/conv 1"]
    assert conv["state"].value_counts().to_dict() == layer.counts
    assert np.array_equal(conv["gradient"], layer.statistic("gradient")[-1])
    assert len(runs["run9"].to_dataframe()) == 5


def test_a_name_that_does_not_exist_is_said_with_those_that_do(log_dir: pathlib.Path) -> None:
    runs = deadunits_tb.load(log_dir)
    with pytest.raises(
        UnknownNameError, match=r"there is no run 'run1'\. Did you mean 'run10'\? Known: 'run9', 'run10'\."
    ):
        runs["run1"]
    with pytest.raises(KeyError):
        runs["run10"].layers["heat"]
    assert runs.get("run1") is None
    assert runs["run10"].layers.get("heat", 1) == 1
    with pytest.raises(UnknownNameError, match="no statistic 'grad'"):
        runs["run10"].layers["head"].statistic("grad")


def test_an_empty_directory_has_no_runs_and_an_absent_one_is_an_error(tmp_path: pathlib.Path) -> None:
    assert dict(deadunits_tb.load(tmp_path)) == {}
    assert len(deadunits_tb.load(tmp_path).to_dataframe()) == 0
    with pytest.raises(LogDirectoryError, match="does not exist"):
        deadunits_tb.load(tmp_path / "absent")


def test_without_pandas_the_rest_works(log_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    runs = deadunits_tb.load(log_dir)
    assert runs["run9"].layers["dense"].states.shape == (3, 5)
    with pytest.raises(MissingDependencyError, match="needs pandas, which is not installed: pip install pandas"):
        runs.to_dataframe()

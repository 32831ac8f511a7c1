"""A layer's history: lazily decoded, thinned statistics, and what cannot be asked for."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from deadunits_tb.errors import UnknownNameError
from deadunits_tb.reading import assembly
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.transitions import transitions, unit_transitions
from deadunits_tb.record import Statistics
from deadunits_tb.units import UnitState
from event_files import simulated, write_run
from recorded import history_of

((INFO, RECORDS),) = simulated(12, 20).items()


def test_where_the_budget_thinned_the_statistics_there_is_nan(tmp_path: pathlib.Path) -> None:
    layers = simulated(400, 60)
    write_run(tmp_path, layers, max_bytes=4_000_000)
    layer = RunReader(LocalDataProvider(tmp_path)).history(".").layers["dense"]
    assert layer.recorded.any()
    assert not layer.recorded.all()
    mean = layer.statistic("mean")
    assert np.array_equal(np.isnan(mean).all(axis=1), ~layer.recorded)
    for index, record in enumerate(next(iter(layers.values()))):
        found = layer.statistic_at(index)
        assert (found is not None) == layer.recorded[index]
        if found is not None:
            assert np.array_equal(found.values, record.statistics.values)  # type: ignore[union-attr]
            assert np.array_equal(mean[index], found.get("mean"))
    assert layer.states().shape == (60, 400)


def test_a_statistic_that_comes_later_is_nan_before() -> None:
    early = [dataclasses.replace(record, statistics=_without(record.statistics, "norm_out")) for record in RECORDS[:8]]
    layer = history_of(INFO, [*early, *RECORDS[8:]])
    assert np.isnan(layer.statistic("norm_out")[:8]).all()
    assert not np.isnan(layer.statistic("norm_out")[8:]).any()
    assert not np.isnan(layer.statistic("mean")).any()
    assert "norm_out" not in layer.statistic_at(7).names  # type: ignore[union-attr]
    assert layer.statistic_at(8).names == RECORDS[8].statistics.names  # type: ignore[union-attr]
    assert layer.recorded.all()


@pytest.mark.parametrize("units", [[0], [11, 3], list(range(12)), []])
def test_a_few_units_are_cut_out_of_all(units: list[int]) -> None:
    layer = history_of(INFO, RECORDS)
    assert np.array_equal(layer.statistic("mean", np.array(units, np.int64)), layer.statistic("mean")[:, units])


def test_an_unknown_statistic_is_said_with_those_that_exist() -> None:
    with pytest.raises(UnknownNameError, match=r"no statistic 'means'. Did you mean 'mean'\?"):
        history_of(INFO, RECORDS).statistic("means")


def test_indices_count_from_both_ends_and_stop_there() -> None:
    layer = history_of(INFO, RECORDS)
    assert layer.window(-1) == layer.window(19) == RECORDS[19].window
    assert np.array_equal(layer.last.since, RECORDS[19].since)
    for ask in (layer.window, layer.evidence, layer.record):
        with pytest.raises(IndexError):
            ask(20)


def test_shared_arrays_cannot_be_changed() -> None:
    layer = history_of(INFO, RECORDS)
    for array in (layer.states(), layer.since()):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


def test_what_does_not_fit_into_memory_is_thinned_to_the_last_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MAX_CELLS", 12 * 7)
    notes: list[str] = []
    whole = history_of(INFO, RECORDS[:7])
    assert len(whole) == 7
    series = [piece[0] for piece in whole._places[0].pieces]
    monkeypatch.setattr(assembly, "MAX_CELLS", 12 * 3)
    places = assembly._places(series, 12, assembly.limits_of(series), notes.append)
    assert [place.step for place in places] == [RECORDS[i].window.step for i in (0, 3, 6)]
    assert notes == ["only one in 3 of its 7 records of 12 units is shown, to save memory"]


def test_a_change_of_width_leaves_out_the_earlier_records(tmp_path: pathlib.Path) -> None:
    write_run(tmp_path, {info: records[:4] for info, records in simulated(5, 4).items()})
    write_run(tmp_path, {INFO: RECORDS[4:]})
    run = RunReader(LocalDataProvider(tmp_path)).history(".")
    assert run.layers["dense"].steps.tolist() == [record.window.step for record in RECORDS[4:]]
    assert len(run.records) == 20
    assert list(run.notes) == ["layer 'dense': records left out from when it did not have 12 units"]


A, D, Y = UnitState.ACTIVE, UnitState.DEAD, UnitState.DYING


def test_transitions_are_every_change_in_order() -> None:
    states = np.array([[A, A, D], [A, D, D], [Y, D, A], [D, D, D], [D, A, D]], np.uint8)
    steps = np.array([0, 10, 20, 30, 40])
    found = transitions(states)
    assert found.unit.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.record.tolist() == [2, 3, 1, 4, 2, 3]
    assert [(t.step, t.before, t.after) for t in unit_transitions(steps, states[:, 0])] == [(20, A, Y), (30, Y, D)]
    assert transitions(states[:1]).unit.size == 0


def _without(statistics: Statistics | None, name: str) -> Statistics:
    assert statistics is not None
    kept = [row for row, its in enumerate(statistics.names) if its != name]
    return Statistics(tuple(statistics.names[row] for row in kept), statistics.values[kept])

"""After a revival a unit is judged anew, the log has an event, and readers say what became of the unit."""

from __future__ import annotations

import io
import pathlib

import numpy as np
import pytest
from rich.console import Console

from board import Application
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.observation import StepObservation
from deadunits_tb.capture.reductions import observe_arrays
from deadunits_tb.reading.judging import rejudge
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.report import report
from deadunits_tb.reading.report_table import print_run
from deadunits_tb.reading.revivals import revivals
from deadunits_tb.run_record import EVENT_UNITS, RunEvent, RunInfo
from deadunits_tb.units import LayerInfo, UnitState

S = UnitState
UNITS, BATCH = 8, 64
RUN = RunInfo(layers=(LayerInfo("hidden", "Dense", 0, UNITS, "relu", witness="pre_activation"),))


def observe(monitor: Monitor, steps: range, dead: list[int], units: int = UNITS) -> None:
    """Training steps of which each is observed, with some units silent."""
    for step in steps:
        rng = np.random.default_rng(step)
        values = np.maximum(rng.normal(size=(BATCH, units)), 0)
        values[:, dead] = 0
        seen = observe_arrays(
            values, activation_function="relu", gradients=rng.normal(size=values.shape) * (values > 0)
        )
        monitor.observe(step, lambda seen=seen: StepObservation({"hidden": seen}))  # type: ignore[misc]


@pytest.fixture
def monitor(tmp_path: pathlib.Path) -> Monitor:
    """Sixty steps with units 2 and 5 silent from the start: both dead."""
    monitor = Monitor(tmp_path, RUN, every=1)
    observe(monitor, range(60), [2, 5])
    assert np.flatnonzero(monitor.last_records["hidden"].states == S.DEAD).tolist() == [2, 5]
    return monitor


def history(tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    return RunReader(LocalDataProvider(tmp_path)).history(".")


def test_a_unit_that_fires_again_is_active_and_one_that_stays_silent_needs_new_evidence(
    monitor: Monitor, tmp_path: pathlib.Path
) -> None:
    monitor.revived("hidden", [5, 2])
    observe(monitor, range(60, 61), [5])
    record = monitor.last_records["hidden"]
    assert record.states[2] == S.ACTIVE
    assert record.states[5] == S.UNKNOWN  # nothing is said of it by what it did before
    assert record.evidence.examples_since_active[[2, 5]].tolist() == [0, BATCH]
    assert record.evidence.last_active_step[[2, 5]].tolist() == [60, 59]
    observe(monitor, range(61, 60 + 3000 // BATCH), [5])
    assert monitor.last_records["hidden"].states[5] == S.DYING  # 2,944 examples are too few
    observe(monitor, range(60 + 3000 // BATCH, 112), [5])
    record = monitor.last_records["hidden"]
    assert record.states[5] == S.DEAD
    assert record.since[5] == 60  # dead since its revival, not since the start
    assert record.states[2] == S.ACTIVE
    monitor.close()
    assert not monitor.errors


def test_others_are_judged_as_if_nothing_had_happened(tmp_path: pathlib.Path) -> None:
    states = []
    for name in ("with", "without"):
        monitor = Monitor(tmp_path / name, RUN, every=1)
        observe(monitor, range(30), [2, 5])
        if name == "with":
            monitor.revived("hidden", [5])
        observe(monitor, range(30, 60), [2, 5])
        states.append(monitor.last_records["hidden"].states.tolist())
        monitor.close()
    assert states[0][:5] == states[1][:5]
    assert (states[0][5], states[1][5]) == (S.DYING, S.DEAD)


def test_what_was_seen_before_is_a_record_of_its_own(tmp_path: pathlib.Path) -> None:
    monitor = Monitor(tmp_path, RUN, every=1, total_steps=100_000)
    observe(monitor, range(250), [2])  # records are sparse by now
    written = monitor.last_records["hidden"].window.step
    assert written < 249
    monitor.revived("hidden", [2], step=255)
    assert monitor.last_records["hidden"].window.step == 249
    observe(monitor, range(256, 450), [])
    monitor.close()
    layer = history(tmp_path).layer("hidden")
    after = layer.record(int(np.searchsorted(layer.steps, 256)))
    assert after.statistics.get("active_fraction")[2] > 0.3  # no silent example from before is mixed in


def test_the_log_has_an_event_and_readers_follow_it_up(monitor: Monitor, tmp_path: pathlib.Path) -> None:
    monitor.revived("hidden", [2, 5], policy="dead units")
    monitor.flush()
    event = RunEvent(59, "revived", "hidden", 2, (2, 5), "dead units")
    (revival,) = revivals(history(tmp_path))  # already before the next record
    assert (revival.event, revival.later) == (event, ())
    assert revival.sentence == "2 units of hidden revived at step 59 (dead units); no record since then"
    observe(monitor, range(60, 120), [5])
    monitor.close()
    run = history(tmp_path)
    (revival,) = revivals(run)
    assert [(look.alive, look.of) for look in revival.later] == [(1, 2)] * len(revival.later)
    assert [look.step for look in revival.later] == sorted({look.step for look in revival.later})
    assert (revival.later[0].step, revival.later[-1].step, len(revival.later)) == (60, 119, 8)
    assert revival.sentence.endswith("; 1 of 2 alive 60 steps later")
    (told,) = report([run])["runs"][0]["revivals"]
    assert told["units"] == [2, 5]
    assert told["later"][-1] == {"step": 119, "alive": 1, "of": 2}
    assert Application(tmp_path).data("overview", run=".").json["revivals"] == [told]
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_run(run, console)
    assert f"revived  {revival.sentence}" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_unit_that_had_to_be_revived_again_was_not_saved_the_first_time(
    monitor: Monitor, tmp_path: pathlib.Path
) -> None:
    monitor.revived("hidden", [2, 5])
    observe(monitor, range(60, 80), [5])
    monitor.revived("hidden", [5])
    observe(monitor, range(80, 100), [])
    monitor.close()
    first, second = revivals(history(tmp_path))
    assert [(look.alive, look.of) for look in (first.later[-1], second.later[-1])] == [(1, 2), (1, 1)]


def test_judging_anew_gives_what_the_writer_stored(monitor: Monitor, tmp_path: pathlib.Path) -> None:
    monitor.revived("hidden", [2, 5])
    observe(monitor, range(60, 80), [5])
    monitor.close()
    layer = history(tmp_path).layer("hidden")
    states, since = rejudge(layer, layer.thresholds)
    np.testing.assert_array_equal(states, layer.states())
    np.testing.assert_array_equal(since, layer.since())


def test_a_revival_before_the_first_observation_is_told_with_the_first_record(tmp_path: pathlib.Path) -> None:
    monitor = Monitor(tmp_path, RUN, every=1)
    monitor.revived("hidden", [1])
    observe(monitor, range(5), [])
    monitor.close()
    (revival,) = revivals(history(tmp_path))
    assert revival.event == RunEvent(-1, "revived", "hidden", 1, (1,))
    assert revival.later[-1].alive == 1


def test_a_large_revival_names_the_first_units(tmp_path: pathlib.Path) -> None:
    units = EVENT_UNITS + 100
    run = RunInfo(layers=(LayerInfo("hidden", "Dense", 0, units, "relu", witness="pre_activation"),))
    monitor = Monitor(tmp_path, run, every=1)
    observe(monitor, range(3), [], units)
    monitor.revived("hidden", range(units))
    observe(monitor, range(3, 6), [], units)
    monitor.close()
    (revival,) = revivals(history(tmp_path))
    assert (revival.event.count, len(revival.event.units)) == (units, EVENT_UNITS)
    assert (revival.later[-1].alive, revival.later[-1].of) == (EVENT_UNITS, EVENT_UNITS)


def test_an_unknown_layer_stops_the_monitor_and_not_the_training(monitor: Monitor) -> None:
    with pytest.warns(UserWarning, match="there is no layer 'hiden'"):
        monitor.revived("hiden", [0])
    assert monitor.stopped

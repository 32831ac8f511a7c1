"""Deaths, recoveries and revivals of units, told from real records, with the right steps."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.observation import StepObservation
from deadunits_tb.capture.reductions import observe_arrays
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.judging import rejudge
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.unit_events import KINDS, EventGroup, groups, unit_events, written_events
from deadunits_tb.run_record import EVENT_UNITS, RunInfo
from deadunits_tb.units import LayerInfo

UNITS, BATCH = 8, 256


def observe(monitor: Monitor, steps: range, silent: dict[int, range], units: int = UNITS) -> None:
    """Training steps of which each is observed; some units are silent in some of them."""
    for step in steps:
        rng = np.random.default_rng(step)
        values = np.maximum(rng.normal(size=(BATCH, units)), 0)
        values[0] = 1
        values[:, [unit for unit, during in silent.items() if step in during]] = 0
        seen = observe_arrays(
            values, activation_function="relu", gradients=rng.normal(size=values.shape) * (values > 0)
        )
        monitor.observe(step, lambda seen=seen: StepObservation({"hidden": seen}))  # type: ignore[misc]


def begin(log_dir: pathlib.Path, units: int = UNITS, first: int = 0) -> Monitor:
    info = LayerInfo("hidden", "Dense", 0, units, "relu", witness="pre_activation")
    return Monitor(log_dir, RunInfo(layers=(info,)), every=1, initial_step=first)


def read(log_dir: pathlib.Path) -> RunHistory:
    return RunReader(LocalDataProvider(log_dir)).history(".")


def told(run: RunHistory) -> dict[int, list[tuple[str, int]]]:
    events = written_events(run, run.layers["hidden"])
    assert np.all(np.diff(events.step) >= 0)
    return {unit: events.of(unit) for unit in sorted(set(events.unit.tolist()))}  # type: ignore[misc]


def test_born_dead_died_and_fired_again(tmp_path: pathlib.Path) -> None:
    monitor = begin(tmp_path)
    silent = {1: range(120), 2: range(23, 120), 3: range(40, 77), 4: range(30, 36), 5: range(60)}
    observe(monitor, range(120), silent)
    monitor.close()
    assert told(read(tmp_path)) == {
        1: [("born_dead", 0)],
        2: [("died", 23)],
        3: [("died", 40), ("recovered", 77)],
        5: [("born_dead", 0), ("recovered", 60)],
    }  # unit 4 was silent on too few examples to be called dead


def test_a_revival_is_told_by_its_step_and_a_second_death_after_it(tmp_path: pathlib.Path) -> None:
    monitor = begin(tmp_path)
    observe(monitor, range(40), {2: range(10, 90), 5: range(10, 40), 6: range(10, 90)})
    monitor.revived("hidden", [2, 5], policy="dead units")
    observe(monitor, range(40, 90), {2: range(10, 90), 6: range(10, 90)})
    monitor.close()
    assert told(read(tmp_path)) == {
        2: [("died", 10), ("revived", 39), ("died", 40)],
        5: [("died", 10), ("revived", 39)],
        6: [("died", 10)],
    }


def test_a_revival_of_more_units_than_an_event_names(tmp_path: pathlib.Path) -> None:
    units = EVENT_UNITS + 40
    monitor = begin(tmp_path, units)
    dying = {unit: range(4, 50) for unit in range(units - 1)}
    observe(monitor, range(20), dying, units)
    monitor.revived("hidden", list(dying))
    observe(monitor, range(20, 24), {}, units)
    monitor.close()
    run = read(tmp_path)
    found = groups(written_events(run, run.layers["hidden"]))
    assert found == [
        EventGroup("died", units - 1, units - 1, 4, 4, 4),
        EventGroup("revived", units - 1, units - 1, 19, 19, 19),
    ]


def test_a_resumed_run_tells_no_death_twice(tmp_path: pathlib.Path) -> None:
    dead = {1: range(200), 2: range(20, 200), 3: range(20, 75)}
    for first in (0, 60):
        monitor = begin(tmp_path, first=first)
        observe(monitor, range(first, first + 60), {**dead, 4: range(60, 200)})
        monitor.close()
    assert told(read(tmp_path)) == {
        1: [("born_dead", 0)],
        2: [("died", 20)],
        3: [("died", 20), ("recovered", 75)],
        4: [("found_dead", 60)],  # it may have fallen silent between the two runs
    }


def test_other_thresholds_tell_other_deaths(tmp_path: pathlib.Path) -> None:
    monitor = begin(tmp_path)
    observe(monitor, range(60), {2: range(10, 18), 3: range(10, 60)})
    monitor.close()
    run = read(tmp_path)
    layer = run.layers["hidden"]
    strict = unit_events(run, layer, *rejudge(layer, layer.thresholds.replace(dead_examples=13_000)))
    eager = unit_events(run, layer, *rejudge(layer, layer.thresholds.replace(dead_examples=600)))
    assert len(strict) == 0
    assert (eager.of(2), eager.of(3)) == ([("died", 10), ("recovered", 18)], [("died", 10)])


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        (EventGroup("born_dead", 1, 1, 0, 0, 0), "1 unit born dead"),
        (EventGroup("found_dead", 3, 3, 60, 60, 60), "3 units dead since records begin"),
        (EventGroup("died", 2, 2, 1000, 1000, 1200), "2 units died from step 1,000 to 1,200"),
        (EventGroup("died", 80, 80, 230, 260, 410), "80 units died from step 230 to 410, half of them by step 260"),
        (
            EventGroup("died", 90, 62, 2, 36, 415),
            "62 units died, 90 times in all, from step 2 to 415, half of them by step 36",
        ),
        (EventGroup("recovered", 1, 1, 77, 77, 77), "1 unit fired again by itself at step 77"),
        (EventGroup("revived", 2, 2, 39, 39, 39), "2 units were given new weights at step 39"),
    ],
)
def test_sentences(group: EventGroup, sentence: str) -> None:
    assert group.sentence == sentence
    assert group.kind in KINDS

"""A run at a glance: how many units are in each state, at a few hundred steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deadunits_tb.reading.columns import evenly_spaced, peaks
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.record import Byte, Int
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import ALARM, FLAGGED, UnitState

LayerLevel = Literal["ok", "warning", "alarm"]

_STATES = len(UnitState)


@dataclass(frozen=True, slots=True)
class Strips:
    """Counts of states over steps, for a strip of each layer.

    Attributes:
        steps: ``int64 [columns]``, evenly spaced records, the first and the last among them.
        layers: Layer name to ``int64 [columns, states]`` units by state code: at the record with most units in an alarm
            state since the column before. So an alarm that lasted for one record is seen.
    """

    steps: Int
    layers: dict[str, Int]


def strips(run: RunHistory, states_of: Callable[[str], Byte], *, written: bool) -> Strips:
    """Sum up the states of all layers.

    Args:
        run: The run.
        states_of: Layer name to ``uint8 [records, units]`` state codes, as judged now.
        written: Whether these are the writer's own verdicts, whose counts are in the run's records already.
    """
    steps = run_steps(run)
    columns = evenly_spaced(len(steps))
    layers = {}
    for name, layer in run.layers.items():
        counts = _written_counts(run, name) if written else None
        known = _aligned(steps, *(counts or (layer.steps, count_by_record(states_of(name)))))
        layers[name] = known[peaks(known @ ALARM, columns)]
    return Strips(steps[columns], layers)


def run_steps(run: RunHistory) -> Int:
    """``int64 [records]`` steps of all records, of the run or of any layer, ascending."""
    written = np.array([record.step for record in run.records], np.int64)
    return np.unique(np.concatenate([written, *(layer.steps for layer in run.layers.values())]))


def count_by_record(states: Byte) -> Int:
    """``int64 [records, states]`` units by state code.

    Args:
        states: ``uint8 [records, units]`` state codes.
    """
    counts = [np.bincount(row, minlength=_STATES) for row in states]
    return np.array(counts, np.int64).reshape(len(states), _STATES)


def by_label(counts: Int) -> dict[str, Int]:
    """State label to ``int64 [columns]``, states that never occur left out.

    Args:
        counts: ``int64 [columns, states]``.
    """
    return {state.label: counts[:, state] for state in UnitState if counts[:, state].any()}


def _written_counts(run: RunHistory, name: str) -> tuple[Int, Int] | None:
    """Steps and counts that the run's records hold of a layer, None where they hold fewer than the layer has."""
    found = [(r.step, r.counts[name]) for r in run.records if name in r.counts]
    if len(found) < len(run.layers[name]) or any(len(counts) != _STATES for _, counts in found):
        return None
    return np.array([step for step, _ in found], np.int64), np.array([counts for _, counts in found], np.int64)


def _aligned(steps: Int, at: Int, counts: Int) -> Int:
    """Counts at each of the run's steps: a layer without a record of its own is as it was; nothing before its first."""
    before = np.searchsorted(at, steps, side="right")
    return np.concatenate([np.zeros((1, _STATES), np.int64), counts])[before]


def layer_level(states: Byte, thresholds: Thresholds) -> LayerLevel:
    """How much a layer as a whole asks for attention: by the share of its units in alarm states, or on their way there.

    Dormant and stagnant units are flagged, but healthy layers have many: they ask for nothing by themselves.

    Args:
        states: ``uint8 [units]`` state codes.
        thresholds: For the shares from which a state is more than chance.
    """
    alarms = float(np.mean(ALARM[states])) if len(states) else 0.0
    fading = float(np.mean(ALARM[states] | (states == UnitState.DYING))) if len(states) else 0.0
    if alarms >= thresholds.alarm_share or bool((states == UnitState.NON_FINITE).any()):
        return "alarm"
    return "warning" if fading >= thresholds.warning_share and fading else "ok"


def onset_step(states: Byte, since: Int) -> int | None:
    """The earliest step since which a unit is flagged, None if none is.

    Args:
        states: ``uint8 [units]`` state codes.
        since: ``int64 [units]`` step since which each holds.
    """
    steps = since[FLAGGED[states]]
    return int(steps.min()) if len(steps) else None

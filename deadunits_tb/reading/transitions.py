"""When units changed state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deadunits_tb.record import Byte, Int
from deadunits_tb.units import UnitState


@dataclass(frozen=True, slots=True)
class Transition:
    """One unit's change of state: at ``step`` it went from one state to another."""

    step: int
    before: UnitState
    after: UnitState


@dataclass(frozen=True, slots=True)
class Transitions:
    """Every change of state of a layer, sparse: one entry each, ordered by unit, then by record.

    Attributes:
        unit: ``int64 [changes]``.
        record: ``int64 [changes]`` index of the first record in the new state.
        before: ``uint8 [changes]`` code of the state left.
        after: ``uint8 [changes]`` code of the state entered.
    """

    unit: Int
    record: Int
    before: Byte
    after: Byte


def transitions(states: Byte) -> Transitions:
    """Find every change of state.

    Args:
        states: ``uint8 [R, U]`` state codes.
    """
    changed = (states[1:] != states[:-1]).T
    unit, previous = np.nonzero(changed)
    return Transitions(unit, previous + 1, states[previous, unit], states[previous + 1, unit])


def unit_transitions(steps: Int, states: Byte) -> list[Transition]:
    """Every change of state of one unit, in order.

    Args:
        steps: ``int64 [R]`` step of each record.
        states: ``uint8 [R]`` state codes of the unit.
    """
    found = transitions(states[:, None])
    return [
        Transition(int(steps[record]), UnitState(before), UnitState(after))
        for record, before, after in zip(found.record, found.before.tolist(), found.after.tolist(), strict=True)
    ]


def died_at(states: Byte, since: Int) -> Int:
    """``int64 [U]`` step since which a unit is dead for the last time, -1 if it never was.

    Args:
        states: ``uint8 [R, U]`` state codes.
        since: ``int64 [R, U]`` step since which each holds.
    """
    dead = states == UnitState.DEAD
    last = len(states) - 1 - np.argmax(dead[::-1], axis=0)
    return np.where(dead.any(axis=0), since[last, np.arange(states.shape[1])], -1)


def revived_at(steps: Int, states: Byte) -> Int:
    """``int64 [U]`` step of the last record at which a dead unit was dead no more, -1 if that never happened.

    Args:
        steps: ``int64 [R]`` step of each record.
        states: ``uint8 [R, U]`` state codes.
    """
    found = transitions(states)
    revived = np.full(states.shape[1], -1, np.int64)
    back = (found.before == UnitState.DEAD) & (found.after != UnitState.NON_FINITE)
    revived[found.unit[back]] = steps[found.record[back]]  # records rise within a unit: the last one stays
    return revived

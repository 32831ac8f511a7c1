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

"""Why a unit is in its state: one sentence with the numbers that decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deadunits_tb.reading.grounds import Number, ground
from deadunits_tb.reading.moment import Moment
from deadunits_tb.reading.phrases import count
from deadunits_tb.record import NEVER, Evidence, Memory, Statistics, Window
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import SEVERITY, LayerInfo, UnitState
from deadunits_tb.verdicts import LINGERING, candidates, judges_silence

__all__ = ["Explainer", "Explanation", "Number", "explain"]

_NO_NUMBERS_NEEDED = frozenset({UnitState.DEAD, UnitState.UNKNOWN, UnitState.FROZEN})
"""States that the carried counters explain, also where a record holds no statistics."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a unit is in its state.

    Attributes:
        rule: The rule that decided: the label of the state.
        why: One sentence with the numbers; the unit is its subject.
        numbers: The numbers that decided, each with the threshold that it met.
        examples: How many examples the verdict rests on.
        rate_upper_bound: Upper 95 % confidence bound of the firing rate per example, None where it cannot be told.
        born: Whether the unit has never fired since the first step of training; None where that step was not observed.
    """

    rule: str
    why: str
    numbers: tuple[Number, ...]
    examples: int
    rate_upper_bound: float | None
    born: bool | None


def explain(
    info: LayerInfo,
    window: Window,
    statistics: Statistics | None,
    evidence: Evidence,
    memory: Memory | None,
    state: UnitState,
    unit: int,
    thresholds: Thresholds,
) -> Explanation:
    """Explain the state of one unit at one record; for many units of a layer keep an :class:`Explainer`."""
    return Explainer(info, window, statistics, evidence, memory, thresholds).explain(state, unit)


class Explainer:
    """Explains any number of units of one layer at one record; what concerns the layer is worked out once.

    Args:
        info: The layer.
        window: What the record covers.
        statistics: All statistics of the record, None where it holds none.
        evidence: Counters up to and including the record.
        memory: What confirmation remembered before the record; None where other thresholds than the writer's decided.
        thresholds: The numbers that decided.
    """

    def __init__(
        self,
        info: LayerInfo,
        window: Window,
        statistics: Statistics | None,
        evidence: Evidence,
        memory: Memory | None,
        thresholds: Thresholds,
    ) -> None:
        self._memory = memory
        with np.errstate(all="ignore"):  # what a stranger recorded may be any number
            self._moment = Moment.of(info, window, statistics, evidence, thresholds)
            self._found = None if statistics is None else candidates(info, window, statistics, evidence, thresholds)

    def explain(self, state: UnitState, unit: int) -> Explanation:
        """Explain why a unit is in a state.

        Args:
            state: The state to explain.
            unit: Index of the unit.
        """
        m = self._moment
        sentence, numbers = ground(m, state, unit)
        if self._found is None:
            if state not in _NO_NUMBERS_NEEDED:
                sentence, numbers = f"was found {_words(state)} from statistics that were not kept, to save bytes", []
        else:
            alone = UnitState(int(self._found[unit]))
            if alone != state and not all(number.holds for number in numbers):
                sentence, numbers = f"was found {_words(state)} at earlier records", []
            if SEVERITY[alone] > SEVERITY[state] or (alone != state and LINGERING[state]):
                sentence += f"; {self._waiting(alone, unit)}"
        return Explanation(
            rule=state.label,
            why=sentence,
            numbers=tuple(numbers),
            examples=self._examples(state, unit),
            rate_upper_bound=m.rate_upper_bound(unit),
            born=bool(m.evidence.last_active_step[unit] == NEVER) if m.window.from_start else None,
        )

    def _examples(self, state: UnitState, unit: int) -> int:
        m = self._moment
        if state == UnitState.UNKNOWN:
            return m.window.examples_seen
        silent = int(m.evidence.examples_since_active[unit])
        return max(silent, m.window.examples) if judges_silence(m.info) else m.window.examples

    def _waiting(self, alone: UnitState, unit: int) -> str:
        """This record says otherwise than the state, and confirmation has not agreed yet."""
        t, agreed = self._moment.thresholds, ""
        needed = max(t.confirm_records, t.stagnant_records if alone == UnitState.STAGNANT else 0)
        if self._memory is not None:
            held, waiting = SEVERITY[self._memory.state[unit]], SEVERITY[self._memory.pending[unit]]
            going_on = (waiting > held) if SEVERITY[alone] > held else (waiting < held)
            agreed = f"{int(self._memory.pending_records[unit]) + 1 if going_on else 1} of "
        examples = count(t.confirm_examples, "example")
        records = f"{agreed}{count(needed, 'record')}"
        return f"this record alone says {_words(alone)}, for which {records} over {examples} must agree"


def _words(state: UnitState) -> str:
    return state.label.replace("_", "-")

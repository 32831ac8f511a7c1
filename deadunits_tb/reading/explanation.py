"""Why a unit is in its state: one sentence with the numbers that decided."""

from __future__ import annotations

from dataclasses import dataclass

from deadunits_tb.record import Evidence, Memory, Statistics, Window
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, UnitState


@dataclass(frozen=True, slots=True)
class Number:
    """A measured number beside the threshold that it was compared with.

    Attributes:
        name: What was measured, in words.
        value: The measured number.
        comparison: Such as ``"at least"``.
        threshold: The number it was compared with.
        threshold_name: The field of :class:`Thresholds` behind it, None where the rule knows no threshold.
    """

    name: str
    value: float
    comparison: str
    threshold: float
    threshold_name: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a unit is in its state.

    Attributes:
        rule: The rule that decided: the label of the state.
        why: One sentence with the numbers.
        numbers: The numbers that decided.
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


class Explainer:
    """Explains any number of units of one layer at one record; what concerns the layer is worked out once.

    Args:
        info: The layer.
        window: What the record covers.
        statistics: All statistics of the record, None where it holds none.
        evidence: Counters up to and including the record.
        memory: What confirmation remembered before the record; None where verdicts were recomputed with other thresholds.
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
    ) -> None: ...

    def explain(self, state: UnitState, unit: int) -> Explanation:
        """Explain why a unit is in a state."""
        raise NotImplementedError

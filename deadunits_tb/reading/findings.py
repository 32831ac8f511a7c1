"""Findings: what the states of a run's layers add up to, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deadunits_tb.reading.history import RunHistory
from deadunits_tb.record import Byte, Int
from deadunits_tb.units import Level

StatesOf = Callable[[str], tuple[Byte, Int]]
"""Layer name to its states ``uint8 [records, units]`` and since-steps ``int64 [records, units]`` under the thresholds in force."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A judgement on a run.

    Attributes:
        cause: Name of the cause, such as ``"learning_rate_too_high"``.
        level: ``INFORMATION``, ``WARNING`` or ``ALARM``.
        layers: The layers concerned, in the model's order.
        step: Step at which it began, None if it cannot be told.
        confidence: 0 to 1.
        evidence: Sentences with the numbers that support it.
        ruled_out: Sentences on the alternatives that the numbers exclude.
        remedies: What to do, the best first.
    """

    cause: str
    level: Level
    layers: tuple[str, ...]
    step: int | None
    confidence: float
    evidence: tuple[str, ...]
    ruled_out: tuple[str, ...]
    remedies: tuple[str, ...]


def find(run: RunHistory, states_of: StatesOf) -> list[Finding]:
    """Weigh states, chance and cause.

    Args:
        run: The run.
        states_of: States of each layer, under the thresholds that are in force.

    Returns:
        Findings, the most severe and most certain first.
    """
    return []

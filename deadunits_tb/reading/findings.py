"""Findings: what the states of a run's layers add up to, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deadunits_tb.reading.causes import StatesOf, Suspicion, suspect
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import Level

__all__ = ["Finding", "StatesOf", "find"]


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


def find(run: RunHistory, states_of: StatesOf, thresholds: Thresholds | None = None) -> list[Finding]:
    """Weigh states, chance and cause.

    A state is a fact, and healthy networks have some dead units: a finding needs a share of a layer that chance does
    not explain, or a cause that shows in the numbers.

    Args:
        run: The run.
        states_of: States of each layer, under the thresholds that are in force.
        thresholds: Those thresholds; the writer's own if None.

    Returns:
        Findings, the most severe and most certain first.
    """
    suspicions = suspect(run, states_of, thresholds or run.info.thresholds)
    by_cause: dict[str, list[Suspicion]] = {}
    for suspicion in suspicions:
        by_cause.setdefault(suspicion.cause, []).append(suspicion)
    found = [_merge(cause, group) for cause, group in by_cause.items()]
    return sorted(found, key=lambda f: (-f.level, -f.confidence, f.cause))


def _merge(cause: str, group: list[Suspicion]) -> Finding:
    """One finding for all layers that suffer from the same cause."""
    steps = [s.step for s in group if s.step is not None]
    return Finding(
        cause=cause,
        level=max(s.level for s in group),
        layers=tuple(dict.fromkeys(layer for s in group for layer in s.layers)),
        step=min(steps) if steps else None,
        confidence=max(s.confidence for s in group),
        evidence=_distinct(s.evidence for s in group),
        ruled_out=_distinct(s.ruled_out for s in group),
        remedies=_distinct(s.remedies for s in group),
    )


def _distinct(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentence for group in groups for sentence in group))

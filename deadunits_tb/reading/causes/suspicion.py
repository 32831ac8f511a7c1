"""A cause that the numbers of some layers speak for."""

from __future__ import annotations

from dataclasses import dataclass

from deadunits_tb.units import Level


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A cause that the numbers of some layers speak for. The fields are those of a finding."""

    cause: str
    level: Level
    layers: tuple[str, ...]
    step: int | None
    confidence: float
    evidence: tuple[str, ...] = ()
    ruled_out: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()

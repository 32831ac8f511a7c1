"""How certain it is that dead units stay dead: one word for each, with the numbers or the reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from deadunits_tb.certificate import PROVABLE, Certainty, Certificate, Certificates
from deadunits_tb.reading.history import LayerHistory
from deadunits_tb.reading.phrases import count, listing, measured
from deadunits_tb.record import Byte, Int
from deadunits_tb.units import LayerInfo, UnitState


@dataclass(frozen=True, slots=True)
class Proof:
    """How certain it is that a dead unit stays dead.

    Attributes:
        certainty: The word for it.
        why: One sentence with the numbers, or the reason why nothing could be proved; the unit is its subject.
        margin: How far below zero its pre-activation stays for any input within the observed ranges, in units of the
            pre-activation; below zero where it may get above. None if there is no bound.
        could_move: What still changes the unit, in words.
        step: Optimizer step after which that was found; None if nothing was.
    """

    certainty: Certainty
    why: str
    margin: float | None
    could_move: tuple[str, ...]
    step: int | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "word": self.certainty.value,
            "why": self.why,
            "margin": self.margin,
            "could_move": list(self.could_move),
            "step": self.step,
        }


class Prover:
    """Tells how certain it is that the dead units of a layer stay dead, at its last record.

    Args:
        layer: The layer.

    Attributes:
        held: What was proved of its units, None if nobody looked.
    """

    def __init__(self, layer: LayerHistory) -> None:
        self._info = layer.info
        self.held: Certificates | None = None
        if layer.info.activation_function in PROVABLE:
            self.held = layer.certificates(-1)

    def prove(self, unit: int, since: int) -> Proof:
        """Of one dead unit.

        Args:
            unit: Its index.
            since: Step since which it is dead: what was proved before concerns an earlier death.
        """
        found = self.held.of(unit) if self.held is not None and self.held.step >= since else None
        if found is None:
            return Proof(Certainty.SILENT, _reason(self._info, self.held), None, (), None)
        margin = -found.bound if math.isfinite(found.bound) else None
        return Proof(found.certainty, _sentence(found), margin, tuple(found.movers.words), found.step)


def certainties(layer: LayerHistory, states: Byte, since: Int) -> dict[str, int]:
    """Count the dead units of a layer at its last record by how certain that is.

    Args:
        layer: The layer.
        states: ``uint8 [units]`` state codes at the last record.
        since: ``int64 [units]`` step since which each holds.

    Returns:
        Word to units, words without units left out; empty without dead units.
    """
    dead = states == UnitState.DEAD
    held = Prover(layer).held if dead.any() else None
    certain = recoverable = 0
    if held is not None:
        counts = dead[held.units] & (held.step >= since[held.units])
        recoverable = int(np.count_nonzero(counts & (held.rise > 0)))
        certain = int(np.count_nonzero(counts & ~(held.rise > 0) & (held.bound < 0)))
    silent = int(np.count_nonzero(dead)) - certain - recoverable
    found = {Certainty.CERTAIN: certain, Certainty.SILENT: silent, Certainty.RECOVERABLE: recoverable}
    return {certainty.value: units for certainty, units in found.items() if units}


def _sentence(found: Certificate) -> str:
    seen = f"the ranges that its inputs had in {count(found.observations, 'observed step')} since step {found.since:,}"
    moved = listing(found.movers.words)
    towards = f"{measured(found.rise)} a step"
    if not math.isfinite(found.bound):
        return f"nothing bounds its input: {seen} are not finite"
    if found.bound < 0:
        sentence = (
            f"cannot fire for any input within {seen}: its pre-activation stays {measured(-found.bound)} below zero"
        )
        if found.rise > 0:
            return f"{sentence} at step {found.step:,}, but this bound rises by {towards} ({moved})"
        return f"{sentence}; " + (f"what still moves it ({moved}) does not lead it up" if moved else "nothing moves it")
    sentence = f"might fire for some input within {seen}: its pre-activation may reach {measured(found.bound)}"
    if found.rise > 0:
        return f"{sentence}, and this bound rises by {towards} ({moved})"
    return f"{sentence}, though no input seen so far was like that"


def _reason(info: LayerInfo, held: Certificates | None) -> str:
    if info.activation_function not in PROVABLE:
        function = info.activation_function or "its unknown activation function"
        return f"nothing can be proved: {function} has no input up to which it is exactly silent"
    if held is None:
        return "nothing was proved: the ranges of its inputs were not recorded"
    if held.reason:
        return f"nothing can be proved: {held.reason}"
    return "nothing was proved: it has been dead for too short a time to have been looked at"

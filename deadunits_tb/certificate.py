"""What can be proved of dead units: the words that the record, the tab, the report and the API share.

A certificate says how high the pre-activation of a unit can be for *any* input within the ranges that were observed, by
the interval bound ``bias + sum(max(weight * low, weight * high))``. Below zero a ReLU cannot fire, whatever comes. It
also says what still moves the unit although no error signal reaches it, and whether that leads towards firing.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]

PROVABLE = frozenset({"relu", "relu6", "squared_relu", "threshold"})
"""Activation functions that are silent exactly where their input is not above zero (or above a threshold over it)."""


class Mover(enum.IntFlag):
    """What still changes a unit that has no error signal. The values are wire codes: they never change."""

    WEIGHT_DECAY = 1
    MOMENTUM = 2
    STATISTICS = 4
    WEIGHTS = 8
    BIAS = 16

    @property
    def words(self) -> list[str]:
        """Each of them in words, such as ``"weight decay"``."""
        return [words for mover, words in _WORDS.items() if mover in self]


_WORDS = {
    Mover.WEIGHT_DECAY: "weight decay",
    Mover.MOMENTUM: "momentum",
    Mover.STATISTICS: "normalisation statistics",
    Mover.WEIGHTS: "its weights change",
    Mover.BIAS: "its bias changes",
}


class Certainty(enum.Enum):
    """How certain it is that a dead unit stays dead. The values are the words for people."""

    CERTAIN = "dead for certain"
    SILENT = "silent so far"
    RECOVERABLE = "could recover"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known of one dead unit.

    Attributes:
        bound: Upper bound of its pre-activation for any input within the observed ranges, infinite if there is none.
        rise: By how much one optimizer step raises the bound, as far as that leads towards firing; 0 if it does not.
        movers: What still changes the unit.
        step: Last optimizer step before which its weights were looked at.
        since: Step since which the ranges of the inputs were observed.
        observations: Training steps in which they were.
    """

    bound: float
    rise: float
    movers: Mover
    step: int
    since: int
    observations: int

    @property
    def certainty(self) -> Certainty:
        """The word for it. A unit that is led towards firing may recover even if it cannot fire now."""
        if self.rise > 0:
            return Certainty.RECOVERABLE
        return Certainty.CERTAIN if self.bound < 0 else Certainty.SILENT


@dataclass(frozen=True, slots=True)
class Certificates:
    """Of the dead units of one layer at one record. ``k`` units.

    Attributes:
        step: Optimizer step after which the weights were looked at.
        since: Step since which the ranges of the inputs were observed.
        observations: Training steps in which they were.
        units: ``int64 [k]`` indices, ascending.
        bound: ``float32 [k]`` as in :class:`Certificate`; exactly representable in bfloat16, rounded up.
        rise: ``float32 [k]``, just so.
        movers: ``uint8 [k]`` codes of :class:`Mover`.
        reason: Why nothing can be proved of this layer, in words; empty where there are units.
    """

    step: int
    since: int
    observations: int
    units: npt.NDArray[np.int64]
    bound: Float
    rise: Float
    movers: npt.NDArray[np.uint8]
    reason: str = ""

    @classmethod
    def none(cls, step: int, reason: str) -> Certificates:
        """Of a layer of whose units nothing can be proved."""
        nothing = np.zeros(0, np.float32)
        return cls(step, step, 0, np.zeros(0, np.int64), nothing, nothing, np.zeros(0, np.uint8), reason)

    @classmethod
    def joined(cls, parts: Sequence[tuple[int, Certificates]]) -> Certificates | None:
        """Those of a layer, of parts that begin at some unit, as :meth:`between` gives them; None without parts."""
        parts = sorted(parts, key=lambda part: part[0])
        if not parts:
            return None
        held = [part for _, part in parts]
        return replace(
            held[0],
            units=np.concatenate([part.units + start for start, part in parts]),
            bound=np.concatenate([part.bound for part in held]),
            rise=np.concatenate([part.rise for part in held]),
            movers=np.concatenate([part.movers for part in held]),
        )

    def only(self, units: npt.NDArray[np.bool_]) -> Certificates:
        """Those of some of a layer's units, ``bool [units]``."""
        kept = units[self.units]
        return self if kept.all() else self._of(kept)

    def between(self, start: int, stop: int) -> Certificates:
        """Those of a range of units, counted from its start."""
        kept = self._of((self.units >= start) & (self.units < stop))
        return replace(kept, units=kept.units - start)

    def of(self, unit: int) -> Certificate | None:
        """That of one unit, None if there is none."""
        at = int(np.searchsorted(self.units, unit))
        if at == len(self.units) or self.units[at] != unit:
            return None
        return Certificate(
            float(self.bound[at]),
            float(self.rise[at]),
            Mover(int(self.movers[at]) & _KNOWN),
            self.step,
            self.since,
            self.observations,
        )

    def _of(self, kept: npt.NDArray[np.bool_]) -> Certificates:
        arrays = {name: getattr(self, name)[kept] for name in ("units", "bound", "rise", "movers")}
        return replace(self, **arrays)


_KNOWN = sum(Mover)


def round_up(values: npt.NDArray[np.floating]) -> Float:
    """The smallest bfloat16 that is not below each value, as float32; infinity for NaN: a bound stays a bound."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = np.where(np.isnan(values), np.inf, values).astype(np.float32)
        rounded = np.where(rounded < values, np.nextafter(rounded, np.float32(np.inf)), rounded)
    bits = rounded.view(np.uint32)
    up = np.where((rounded > 0) & ((bits & 0xFFFF) != 0), np.uint32(0x10000), np.uint32(0))
    return np.asarray(((bits & np.uint32(0xFFFF0000)) + up).view(np.float32))

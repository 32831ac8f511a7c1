"""The firing rate that a unit is used to: what a dying unit has lost, and a sparse one never had."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.observation import Array
from deadunits_tb.record import Int
from deadunits_tb.thresholds import Thresholds


class ReferenceRate:
    """The peak of a unit's recent firing rate, slowly forgotten.

    Over the first ``reference_examples`` the rate is a plain mean. From then on the *recent* rate is an exponential
    average with that horizon; the reference follows it up, and down only with the horizon ``reference_memory``.

    Two stages, because an average that itself rises faster than it falls would be drawn up by chance: a unit that fires
    on 0.5 % of examples would have a reference of 7 % in batches of eight, and look as if it had lost 93 % of its rate.

    Args:
        units: How many.
        thresholds: For the two horizons.
    """

    def __init__(self, units: int, thresholds: Thresholds) -> None:
        self._rises_over = thresholds.reference_examples
        self._falls_over = thresholds.reference_memory
        self._seen = 0
        self.recent: npt.NDArray[np.float64] = np.zeros(units)
        """``[units]``: share of the examples of late on which the unit fired."""
        self.rate: npt.NDArray[np.float64] = np.zeros(units)
        """``[units]``: share of examples on which the unit fires when it is itself."""

    def forget(self, units: Int) -> None:
        """Let units that were just given new weights show anew what they are used to."""
        self.recent, self.rate = self.recent.copy(), self.rate.copy()
        self.recent[units] = self.rate[units] = 0

    def add(self, fired_examples: Array, examples: Int, known: npt.NDArray[np.bool_]) -> None:
        """Take in observations, one after the other.

        Args:
            fired_examples: ``[observations, units]`` examples on which each fired.
            examples: ``[observations]`` how many there were.
            known: ``[observations, units]`` whether the unit's output was finite; others keep what they have.
        """
        shares = np.divide(fired_examples, examples[:, None], dtype=np.float64)
        unknown = ~(known & np.isfinite(fired_examples))
        recent, rate, apart = self.recent.copy(), self.rate.copy(), np.empty(len(self.recent))
        for at, count in enumerate(examples.tolist()):
            weight = max(count / (self._seen + count), -math.expm1(-count / self._rises_over))
            self._seen += count
            np.subtract(shares[at], recent, out=apart)
            apart[unknown[at]] = 0
            apart *= weight
            recent += apart
            if self._seen <= self._rises_over:
                rate[:] = recent
                continue
            np.subtract(recent, rate, out=apart)
            apart *= -math.expm1(-count / self._falls_over)
            rate += apart
            np.maximum(recent, rate, out=rate)
        self.recent, self.rate = recent, rate

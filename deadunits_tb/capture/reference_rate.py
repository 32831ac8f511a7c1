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

    def add(self, fired_examples: Array, examples: int, known: npt.NDArray[np.bool_]) -> None:
        """Take in one observation.

        Args:
            fired_examples: ``[units]`` examples on which each fired.
            examples: How many there were.
            known: ``[units]`` whether the unit's output was finite; others keep what they have.
        """
        weight = max(examples / (self._seen + examples), -math.expm1(-examples / self._rises_over))
        self._seen += examples
        known = known & np.isfinite(fired_examples)
        share = fired_examples / examples
        apart = (share if known.all() else np.where(known, share, self.recent)) - self.recent
        self.recent = self.recent + weight * apart
        if self._seen <= self._rises_over:
            self.rate = self.recent
        else:
            forgotten = -math.expm1(-examples / self._falls_over)
            self.rate = np.maximum(self.recent, self.rate + forgotten * (self.recent - self.rate))

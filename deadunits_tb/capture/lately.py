"""What a unit does of late that a single record cannot tell: how large it is, and since when it has fired seldom."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.observation import Array
from deadunits_tb.rates import LOW_SHARE, SIZE_EXAMPLES, TELLING_FIRINGS, lately_code
from deadunits_tb.record import Int
from deadunits_tb.thresholds import Thresholds


class Lately:
    """Recent sizes and low stretches of a layer's units, carried from record to record.

    The *recent size* is the mean absolute output, averaged over a horizon of
    :data:`~deadunits_tb.rates.SIZE_EXAMPLES`. The *low stretch* goes back from the
    last record as far as the unit fired on fewer than :data:`~deadunits_tb.rates.LOW_SHARE` of its examples, counted
    from any of its records on. So it begins where the rate fell, as a CUSUM test does (Page 1954), and one firing does
    not end it: an average over a fixed horizon would go on to hold what came before. It is forgotten, too, lest a unit
    that recovers count as low for as long as it was: it weighs at most as much as a recent rate.

    Args:
        units: How many.
        thresholds: For how long the low stretch is remembered.
    """

    def __init__(self, units: int, thresholds: Thresholds) -> None:
        self._memory = 2 * thresholds.reference_examples
        self._seen = 0
        self._size: npt.NDArray[np.float64] = np.zeros(units)
        self._low_examples: npt.NDArray[np.float64] = np.zeros(units)
        self._low_fired: npt.NDArray[np.float64] = np.zeros(units)

    def add(self, fired_examples: Array, sizes: Array, examples: int) -> None:
        """Take in one record.

        Args:
            fired_examples: ``[units]`` examples on which each fired.
            sizes: ``[units]`` mean absolute outputs; a unit keeps what it has where its own is not finite.
            examples: How many there were.
        """
        weight = max(examples / (self._seen + examples), -math.expm1(-examples / SIZE_EXAMPLES))
        self._seen += examples
        self._size += weight * np.where(np.isfinite(sizes), sizes - self._size, 0)
        kept = math.exp(-examples / self._memory)
        self._low_examples = self._low_examples * kept + examples
        self._low_fired = self._low_fired * kept + fired_examples
        self._end(~(self._low_fired < LOW_SHARE * self._low_examples))  # NaN ends it, too

    def forget(self, units: Int) -> None:
        """Begin anew for units that were just given new weights."""
        self._size[units] = 0
        self._end(units)

    def code(self, units: Int, fired_examples: Array) -> Int:
        """What of some units is to be recorded.

        Args:
            units: Their indices.
            fired_examples: Of each, in the record: where they tell its size the recent one is not asked.
        """
        mean = self._size.mean()
        sizes = np.where(fired_examples < TELLING_FIRINGS, self._size[units] / (mean if mean > 0 else 1.0), 0)
        return lately_code(sizes, self._low_examples[units], self._low_fired[units])

    def _end(self, units: Int | npt.NDArray[np.bool_]) -> None:
        self._low_examples[units] = self._low_fired[units] = 0

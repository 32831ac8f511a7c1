"""What observing adds to a training step, by the clock. Knows no framework."""

from __future__ import annotations

from collections import deque
from statistics import median

_USUAL_SHARE = 0.1


class StepCosts:
    """What observing adds to a step, from the durations of observed and other steps.

    The difference of two medians, as single steps vary by more than what is added.
    """

    def __init__(self) -> None:
        self._plain: deque[float] = deque(maxlen=32)
        self._observed: deque[float] = deque(maxlen=32)

    def plain(self, seconds: float) -> None:
        """Note a step without taps."""
        self._plain.append(seconds)

    def observed(self, seconds: float, *, traced: bool) -> float:
        """Note an observed step; returns what observing added to it, in seconds.

        Args:
            seconds: Its duration.
            traced: Whether it was traced and compiled for this; then all of it was added.
        """
        if traced:
            return seconds
        self._observed.append(seconds)
        if len(self._plain) < 3:  # all steps are observed: nothing to compare with, so what is usual (docs/capture.md)
            return _USUAL_SHARE * seconds
        return max(0.0, median(self._observed) - median(self._plain))

"""How long our own work takes, and how long the steps of the training do."""

from __future__ import annotations

from collections import deque
from statistics import median
from time import perf_counter


class OwnTime:
    """Adds up the time spent in our own work, within ``with`` blocks that may lie in one another."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._began = 0.0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._began = perf_counter()

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += perf_counter() - self._began

    def take(self) -> float:
        """What was spent since it was last asked."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class StepTime:
    """Durations of steps: each lasts until the next one ends."""

    def __init__(self) -> None:
        self._known: deque[float] = deque(maxlen=16)
        self._last_end = perf_counter()

    def end(self) -> float:
        """A step ends now; how long it took, without what an evaluation before it took."""
        now = perf_counter()
        seconds, self._last_end = now - self._last_end, now
        if len(self._known) >= 3 and seconds > 2 * min(self._known):  # seldom: the median costs more
            self._known.append(seconds)
            return min(seconds, 10 * median(self._known))
        self._known.append(seconds)
        return seconds

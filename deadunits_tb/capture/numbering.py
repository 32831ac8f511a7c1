"""What a user calls the steps of a training, where that is not how they are counted."""

from __future__ import annotations

import operator


class StepNumbers:
    """Steps are counted by ones; a user may number them in any other way that rises, such as by examples seen.

    What is observed is chosen by the count, which is known before a step; records bear the numbers, which may be told
    only after it.

    Args:
        first: Number of the first step, and where counting begins.
    """

    def __init__(self, first: int) -> None:
        self._ahead = 0
        self.last = first - 1
        """The number that was last given to a record's observation."""

    def of(self, step: int) -> int:
        """What a counted step is called, as far as was told: numbers go on by ones from the last that was."""
        return step + self._ahead

    def take(self, step: int) -> int:
        """What a counted step is called from now on: its observation is handed over."""
        self.last = self.of(step)
        return self.last

    def tell(self, step: int, number: object) -> str | None:
        """Learn what a counted step is called.

        Args:
            step: As counted.
            number: As the user calls it.

        Returns:
            What is wrong with that, as a sentence without its full stop; None if it was taken.
        """
        try:
            told = operator.index(number)  # type: ignore[arg-type]  # whole numbers of any library
        except TypeError:
            told = self.last
        if told == self.of(step) and not isinstance(number, bool):
            return None
        if isinstance(number, bool) or told <= self.last:
            return (
                f"step() was told that this is step {number!r}, after step {self.last}: the monitor goes on to count "
                "by itself"
            )
        self._ahead = told - step
        return None

"""What the observations since the last record say of the run as a whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from deadunits_tb.capture.observation import StepObservation, StepObservations
from deadunits_tb.run_record import InputSummary


class RunWindow:
    """Examples, loss and inputs between two records."""

    def __init__(self) -> None:
        self.examples = 0
        """Rows of axis 0 that the model saw in observed steps."""
        self.observations = 0
        """Observed steps."""
        self._losses: list[float] = []
        self._inputs: tuple[int, float, float, float, float] | None = None

    def add(self, observation: StepObservation) -> int:
        """Take in one observed step.

        Returns:
            Its examples: the number that most layers agree on; a layer called twice sees more.
        """
        examples = _agreed([layer.examples for layer in observation.layers.values()])
        self.examples += examples
        self.observations += 1
        if observation.loss is not None:
            self._losses.append(observation.loss)
        if observation.inputs is not None and observation.inputs[0]:
            self._inputs = _merge(self._inputs, observation.inputs) if self._inputs else observation.inputs
        return examples

    def add_steps(self, steps: int, observed: StepObservations) -> int:
        """Take in several observed steps, as :meth:`add` does one by one.

        Args:
            steps: How many.
            observed: What they showed.

        Returns:
            Their examples.
        """
        counts = zip(*(layer.examples.tolist() for layer in observed.layers.values()), strict=True)
        examples = sum(map(_agreed, counts))
        self.examples += examples
        self.observations += steps
        self._losses += observed.losses
        return examples

    @property
    def loss(self) -> float | None:
        """Mean loss; NaN and Inf stay to be seen."""
        return sum(self._losses) / len(self._losses) if self._losses else None

    @property
    def inputs(self) -> InputSummary | None:
        """Of all values fed to the model."""
        if self._inputs is None:
            return None
        count, mean, squares, low, high = self._inputs
        return InputSummary(mean, math.sqrt(squares / count) if squares >= 0 else math.nan, low, high)


def _agreed(counts: Sequence[int]) -> int:
    """What most layers say."""
    first = counts[0] if counts else 0
    return first if all(count == first for count in counts) else Counter(counts).most_common(1)[0][0]


def _merge(
    one: tuple[int, float, float, float, float], other: tuple[int, float, float, float, float]
) -> tuple[int, float, float, float, float]:
    count = one[0] + other[0]
    apart = other[1] - one[1]
    mean = one[1] + apart * other[0] / count
    squares = one[2] + other[2] + apart * apart * one[0] * other[0] / count
    known = not (math.isnan(one[3]) or math.isnan(other[3]))  # min() and max() would lose a NaN
    low, high = (min(one[3], other[3]), max(one[4], other[4])) if known else (math.nan, math.nan)
    return count, mean, squares, low, high

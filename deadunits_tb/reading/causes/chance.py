"""How many units are silent from the start by chance alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deadunits_tb.reading.causes.case import LayerCase

SIGNIFICANCE = 1e-3
"""Chance below which more silent units than always firing ones are not called chance."""
_MANY = 1000


@dataclass(frozen=True, slots=True)
class Start:
    """Units of a ReLU-like layer at the first record, before any update.

    Weights drawn symmetrically about zero, with biases at zero, make ``w`` and ``-w`` equally likely. So a unit is
    silent on every input with the same probability as it fires on every one, whatever the inputs are; no assumption on
    their distribution is needed, only that units are drawn independently.

    Attributes:
        units: Of the layer.
        silent: Units that fired at no position.
        always: Units that fired at every position; in a layer with several positions an example, wherever any did.
        examples: That the record covers.
    """

    units: int
    silent: int
    always: int
    examples: int

    @property
    def explained(self) -> int:
        """Silent units that chance explains."""
        return min(self.silent, self.always)

    @property
    def probability(self) -> float:
        """That chance makes so many of the silent and always firing units silent, or more: a sign test."""
        n = self.silent + self.always
        if n > _MANY:  # the normal approximation, with its correction for whole numbers
            return 0.5 * math.erfc((self.silent - 0.5 - n / 2) / math.sqrt(n / 2))
        return float(sum(math.comb(n, k) for k in range(self.silent, n + 1)) / 2**n)

    @property
    def by_chance(self) -> bool:
        """Whether chance alone explains the silent units."""
        return self.probability > SIGNIFICANCE

    def __str__(self) -> str:
        chance = f"{self.probability:.2g}" if self.probability >= 1e-99 else "below 1e-99"
        return (
            f"on the first {self.examples:,} examples {self.silent:,} of {self.units:,} units were silent and "
            f"{self.always:,} fired on every one; where the signs of weights are drawn evenly both are equally likely, "
            f"so chance explains {self.explained:,} silent ones (probability of more: {chance})"
        )


def at_start(case: LayerCase) -> Start | None:
    """What the first record shows; None where it does not show the first training step of a ReLU-like layer."""
    window, share = case.layer.window(0), case.at_start("active_positions")
    if share is None or not window.from_start or not case.layer.info.relu_like or not np.isfinite(share).all():
        return None
    if window.observations > 1:
        return None  # updates have been made since the weights were drawn
    spatial = window.positions > window.examples  # where an input is zero, as at an image's edge, no unit fires
    always = share >= (0.98 * share.max() if spatial else 1.0)
    return Start(len(share), int((share == 0).sum()), int((always & (share > 0.5)).sum()), window.examples)

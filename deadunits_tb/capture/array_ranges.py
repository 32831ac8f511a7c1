"""The ranges of a layer's inputs as a caller hands them over, and what can be proved by them of its silent units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.arrays import Matrix, as_numbers
from deadunits_tb.capture.certificates import Affine, Part, Terms, certificates
from deadunits_tb.certificate import Certificates
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.record import Int

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class InputRanges:
    """Smallest and largest value of what each weight takes in at one step, and the biases. ``float64``.

    Attributes:
        low: ``[fan_in]``.
        high: ``[fan_in]``.
        biases: ``[units]``.
    """

    low: Vector
    high: Vector
    biases: Vector

    @classmethod
    def of(
        cls, low: object, high: object, biases: object, weights: tuple[int, ...] | None, axis: int, units: int
    ) -> InputRanges | None:
        """Take in what a caller gave; None for nothing.

        Args:
            low: Fits ``weights`` without their axis of units.
            high: Just so.
            biases: ``[units]``; None for none.
            weights: Shape of the weights, None if they were not given.
            axis: Of the units in it.
            units: How many there are.

        Raises:
            InvalidArgumentError: Something has the wrong shape or is missing.
        """
        if low is None and high is None and biases is None:
            return None
        if low is None or high is None or weights is None:
            raise InvalidArgumentError("inputs_low, inputs_high and weights must be given together, biases with them")
        at = axis % len(weights)
        shape = weights[:at] + weights[at + 1 :]
        ends = [_spread(name, given, shape) for name, given in (("inputs_low", low), ("inputs_high", high))]
        if (ends[0] > ends[1]).any():
            raise InvalidArgumentError("inputs_low must not be above inputs_high")
        added = np.zeros(units) if biases is None else as_numbers("biases", biases).astype(np.float64)
        if added.shape != (units,):
            raise InvalidArgumentError(f"biases must have the shape ({units},), not {added.shape}")
        return cls(ends[0], ends[1], added)


class ArrayRanges:
    """The ranges of one layer's inputs since units of it fell silent."""

    def __init__(self) -> None:
        self._low: Vector | None = None
        self._high: Vector | None = None
        self._before: tuple[Int, Matrix, Vector] | None = None
        self._since = self._observations = 0

    def look(
        self, step: int, ranges: InputRanges, weights: Matrix, silent: Int | None, *, due: bool
    ) -> Certificates | None:
        """Take in one step.

        Args:
            step: Its number.
            ranges: Of this step.
            weights: ``[fan_in, units]``.
            silent: Units that were dead or dying at the last record, None without any: then all begins anew.
            due: Whether a record is expected of this step.

        Returns:
            What can be proved of the silent units, None where nothing is due.
        """
        if silent is None or self._low is None or self._high is None:
            self._low, self._high, self._since, self._observations = ranges.low, ranges.high, step, 0
        self._low, self._high = np.minimum(self._low, ranges.low), np.maximum(self._high, ranges.high)
        if silent is None:
            self._low = self._high = self._before = None
            return None
        self._observations += 1
        now, before = (silent, weights[:, silent], ranges.biases[silent]), self._before
        self._before = now
        if not due or before is None:
            return None
        # What still moves a unit is told by two looks at it.
        units, at, earlier = np.intersect1d(silent, before[0], return_indices=True)
        if not len(units):
            return None
        old, new = (before[1][:, earlier], before[2][earlier]), (now[1][:, at], now[2][at])
        was, after = (Affine(Terms.of(weights, self._low, self._high, biases)) for weights, biases in (old, new))
        nothing = np.zeros(len(units), bool)
        parts = [
            Part((old[0] != new[0]).any(axis=0), False, nothing, 0.0, bias=False),
            Part(old[1] != new[1], False, nothing, 0.0, bias=True),
        ]
        exact = weights.dtype.kind == "f"  # others may be bfloat16
        precision = float(np.finfo(weights.dtype).eps) / 2 if exact else 2.0**-8
        return certificates(
            units,
            was,
            after,
            parts,
            rounding=(len(weights) + 4) * precision,
            precision=precision,
            step=step,
            since=self._since,
            observations=self._observations,
        )


def _spread(name: str, given: object, shape: tuple[int, ...]) -> Vector:
    array = as_numbers(name, given).astype(np.float64)
    try:
        return np.broadcast_to(array, shape).reshape(-1)
    except ValueError:
        raise InvalidArgumentError(
            f"{name} of shape {array.shape} does not fit weights of which each unit has {shape}"
        ) from None

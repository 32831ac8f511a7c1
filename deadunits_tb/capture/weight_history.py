"""How far the weights of each unit moved, with bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.reductions import Matrix, Vector, squared_sum

EXACT_BYTES = 64 * 2**20
"""Weights are copied as long as all copies of a run together take no more than this."""
_SIGNS = 32  # random signs per unit: the estimated norm has a standard deviation of 1 / sqrt(2 * 32) = 12.5 %
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Moved:
    """``[units]`` norms of change; ``change`` is None at the first look."""

    change: Vector | None
    change_since_first: Vector
    norm_first: Vector


@dataclass(slots=True)
class _Copies:
    """The weights themselves."""

    weights: Matrix

    @classmethod
    def of(cls, weights: Matrix) -> _Copies:
        return cls(weights.copy())

    def distance(self, other: Any) -> Vector:
        with np.errstate(invalid="ignore"):
            return np.sqrt(squared_sum(self.weights - other.weights))


def _bits(weights: Matrix) -> Matrix:
    return np.ascontiguousarray(weights).view(f"u{weights.dtype.itemsize}")


@dataclass(slots=True)
class _Projection:
    """Random sums of the weights of each unit, ``[signs, units]``, and a digest of their bits, ``[units]``.

    Rounding makes the sums of unchanged weights depend on how they were added up; the digest, in integers, does not: so
    exactly unchanged weights have moved by exactly zero.
    """

    sums: npt.NDArray[np.float64]
    digest: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, weights: Matrix) -> _Projection:
        rows, units = weights.shape
        sums, digest = np.zeros((_SIGNS, units)), np.zeros(units, np.uint64)
        for start in range(0, rows, _ROWS):
            part = weights[start : start + _ROWS]
            random = np.random.default_rng((20, start))  # the same signs each time, without keeping them
            signs = random.integers(0, 2, (_SIGNS, len(part)), np.int8) * 2.0 - 1.0
            odd = random.integers(0, 2**63, (len(part), 1), np.uint64) * np.uint64(2) + np.uint64(1)
            with np.errstate(invalid="ignore", over="ignore"):
                sums += signs @ part.astype(np.float64)
                digest += (_bits(part).astype(np.uint64) * odd).sum(axis=0, dtype=np.uint64)
        return cls(sums, digest)

    def distance(self, other: Any) -> Vector:
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.sqrt(np.mean(np.square(self.sums - other.sums), axis=0))
        return np.where(self.digest == other.digest, 0.0, apart)


class WeightHistory:
    """The incoming weights of one layer at the first and the latest look.

    Args:
        method: ``"exact"`` keeps copies; ``"projection"`` keeps 32 random sums per unit, whatever the fan-in (Johnson
            and Lindenstrauss 1984).
    """

    def __init__(self, method: Literal["exact", "projection"]) -> None:
        self._look: Callable[[Matrix], _Copies | _Projection] = _Copies.of if method == "exact" else _Projection.of
        self._first: Any = None
        self._latest: Any = None
        self._norm_first: Vector | None = None

    def look(self, weights: Matrix) -> Moved:
        """Compare with the looks before, and remember.

        Args:
            weights: ``[fan_in, units]``, the same shape and type at each look.
        """
        now = self._look(weights)
        if self._norm_first is None:
            self._first, self._norm_first = now, np.sqrt(squared_sum(weights))
            moved = Moved(None, np.zeros(weights.shape[1]), self._norm_first)
        else:
            moved = Moved(now.distance(self._latest), now.distance(self._first), self._norm_first)
        self._latest = now
        return moved


class WeightBudget:
    """How the changes of each layer are measured: exactly, as long as the copies of all of them are small.

    Args:
        exact_bytes: Memory for exact copies, two of each weight.
    """

    def __init__(self, exact_bytes: int = EXACT_BYTES) -> None:
        self._left = exact_bytes

    def method(self, weights: Matrix) -> Literal["exact", "projection"]:
        """Decide for one more layer, whose weights are ``[fan_in, units]``."""
        if 2 * weights.nbytes > self._left:
            return "projection"
        self._left -= 2 * weights.nbytes
        return "exact"

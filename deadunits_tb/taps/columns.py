"""Where the units of an array of weights lie, and how much of the weights is remembered. Knows no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.weight_history import EXACT_BYTES

SIGNS = 32  # random signs: the estimated norm has a standard deviation of 1 / sqrt(2 * 32) = 12.5 %

Method = Literal["exact", "projection"]


@dataclass(frozen=True, slots=True)
class Columns:
    """An array of weights seen as ``[rows, units]``.

    Attributes:
        shape: Of the array.
        axes: Of the units, in the order of the units.
        groups: The last unit axis holds this many blocks of all units.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    groups: int = 1

    @property
    def order(self) -> tuple[int, ...]:
        """The axes, those of the units last."""
        axes = [axis % len(self.shape) for axis in self.axes]
        return (*(axis for axis in range(len(self.shape)) if axis not in axes), *axes)

    @property
    def units(self) -> int:
        """How many units."""
        return math.prod(self.shape[axis] for axis in self.axes) // self.groups

    @property
    def rows(self) -> int:
        """How many weights each unit has."""
        return math.prod(self.shape) // self.units


def methods(
    incoming: Mapping[str, Sequence[Columns]], *, copies: int, exact_bytes: int = EXACT_BYTES
) -> dict[str, Method]:
    """Decide how changes of each layer's weights are measured: exactly, as long as the copies of all are small.

    Args:
        incoming: Name of a layer to its weights, in float32.
        copies: How many of each weight are held at a time.
        exact_bytes: Memory for all copies.
    """
    chosen: dict[str, Method] = {}
    for name, columns in incoming.items():
        size = copies * 4 * sum(each.rows * each.units for each in columns)
        chosen[name] = "exact" if size <= exact_bytes else "projection"
        exact_bytes -= size if size <= exact_bytes else 0
    return chosen


def random_numbers(rows: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """What weights ``[rows, units]`` are summed with where they are too many to copy; always the same, so never kept.

    Returns:
        Signs ``[SIGNS, rows]``, and odd numbers ``[rows, 1]`` for a digest of the weights' bits.
    """
    random = np.random.default_rng((20, rows))
    signs = random.integers(0, 2, (SIGNS, rows), np.int8) * np.int8(2) - np.int8(1)
    return signs, random.integers(0, 2**30, (rows, 1)) * 2 + 1

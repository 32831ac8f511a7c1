"""Where the units of an array of weights lie, and how much of the weights is remembered. Knows no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

EXACT_BYTES = 64 * 2**20
"""First weights are copied as long as the copies of a run together take no more than this."""

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


def methods(incoming: Mapping[str, Sequence[Columns]], exact_bytes: int = EXACT_BYTES) -> dict[str, Method]:
    """Decide how changes of each layer's weights are measured: exactly, as long as the copies of all are small.

    Args:
        incoming: Name of a layer to its weights, in float32.
        exact_bytes: Memory for copies.
    """
    chosen: dict[str, Method] = {}
    for name, columns in incoming.items():
        size = 4 * sum(each.rows * each.units for each in columns)
        chosen[name] = "exact" if size <= exact_bytes else "projection"
        exact_bytes -= size if size <= exact_bytes else 0
    return chosen

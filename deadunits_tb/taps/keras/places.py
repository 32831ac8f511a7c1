"""Where the units of a tensor are, and where a layer moves them to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from deadunits_tb.taps.keras.layers import RESHAPES


def covers(mask: Any, tensor: Any) -> bool:
    """Whether a mask can say what is real of a tensor's leading axes."""
    if mask is None or len(mask.shape) >= len(tensor.shape):
        return False
    return all(one == other for one, other in zip(mask.shape[1:], tensor.shape[1:], strict=False))


def axes_after(
    layer: Any, before: Sequence[int | None], after: Sequence[int | None], axes: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Where the units went; None if they were mixed with positions."""
    moved: tuple[int, ...] | None = axes
    if isinstance(layer, keras.layers.Permute):
        moved = tuple((0, *layer.dims).index(axis) for axis in axes)
    elif isinstance(layer, RESHAPES):
        moved = _axes_after_reshape(tuple(before), tuple(after), axes)
    elif len(before) != len(after) and axes[-1] == len(before) - 1:  # the last axes stay the last ones
        moved = tuple(axis + len(after) - len(before) for axis in axes)
    if moved is None or max(moved) >= len(after):
        return None
    return moved if _size(after, moved) == _size(before, axes) else None


def _axes_after_reshape(
    before: tuple[int | None, ...], after: tuple[int | None, ...], axes: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The axes that together are as long as the units were, behind as many positions as before."""
    if axes[-1] == len(before) - 1:  # the last ones, perhaps split into several: positions may be of unknown number
        return next(
            (
                tuple(range(first, len(after)))
                for first in range(len(after) - 1, 0, -1)
                if _size(after, range(first, len(after))) == _size(before, axes)
            ),
            None,
        )
    positions = _size(before, range(1, axes[0]))
    places = (place for place in range(1, len(after)) if _size(after, range(1, place)) == positions)
    return next(((place,) for place in places if len(axes) == 1 and after[place] == before[axes[0]]), None)


def _size(shape: Sequence[int | None], axes: Sequence[int]) -> int | None:
    lengths = [shape[axis] for axis in axes]
    return None if None in lengths else math.prod(length for length in lengths if length is not None)

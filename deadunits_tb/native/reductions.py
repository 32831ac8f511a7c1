"""Per-unit sums of float32 in the memory of the host, each in one pass. Knows no framework: addresses and strides.

``reductions.c`` says what is summed up. A library that cannot be loaded is as good as none.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

from deadunits_tb.native import library

_Three = ctypes.c_int64 * 3


class Layout:
    """Of values ``[examples, positions, units]``; the units or the positions lie side by side in memory.

    Args:
        size: Of each axis.
        stride: Of each axis, in numbers.
    """

    __slots__ = ("_size", "_stride", "size")

    def __init__(self, size: Sequence[int], stride: Sequence[int]) -> None:
        self.size = tuple(size)
        self._size, self._stride = _Three(*size), _Three(*stride)


def activation(
    values: int,
    layout: Layout,
    shift: int | None,
    out: int,
    *,
    relu_like: bool,
    limits: tuple[float, float] | None,
    limit: float,
) -> None:
    """Reduce the outputs of an activation function. Needs :data:`AVAILABLE`.

    Args:
        values: Address of the outputs.
        layout: Of them.
        shift: Address of ``[units]``, about which sums are taken; None for each unit's first value.
        out: Address of ``[rows, units]``: sum of sizes (unless ``relu_like``), saturated (with ``limits``), sum (about
            the shift unless ``relu_like``), sum of squares about the shift, positions and examples in which it fired,
            largest, smallest, and without a shift the one that was taken.
        relu_like: Whether firing means greater than zero.
        limits: Outputs at which it is saturated, None without.
        limit: Size beyond which a unit has fired; unused where ``relu_like``.
    """
    low, high = limits or (math.nan, math.nan)
    low = math.nan if low == -math.inf else low  # is below nothing
    _LIBRARY.deadunits_activation(
        values, layout._size, layout._stride, shift, relu_like, limits is not None, limit, low, high, out
    )


def squares(values: int, layout: Layout, out: int, factor: float) -> None:
    """Sum up the squares of values times a factor. Needs :data:`AVAILABLE`.

    Args:
        values: Their address.
        layout: Of them.
        out: Address of the sums, ``[units]``.
        factor: They are multiplied by.
    """
    _LIBRARY.deadunits_squares(values, layout._size, layout._stride, factor, out)


def _load() -> Any:
    try:
        found = ctypes.CDLL(str(library.path()))
        address, number, whole = ctypes.c_void_p, ctypes.c_float, ctypes.c_int
        of_values: list[Any] = [address, _Three, _Three]
        found.deadunits_activation.argtypes = [*of_values, address, whole, whole, number, number, number, address]
        found.deadunits_squares.argtypes = [*of_values, number, address]
        found.deadunits_activation.restype = found.deadunits_squares.restype = None
    except (OSError, AttributeError):
        return None
    return found


_LIBRARY = _load()
AVAILABLE = _LIBRARY is not None
"""Whether there is a library; without it frameworks reduce by their own operations, several times as slowly."""

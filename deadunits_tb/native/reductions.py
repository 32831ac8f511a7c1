"""Per-unit sums of float32 in the memory of the host, each in one pass. Knows no framework: addresses and strides.

``reductions.c`` says what is summed up. A library that cannot be loaded is as good as none.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

from deadunits_tb.native import library


class Array(NamedTuple):
    """Values ``[examples, positions, units]``; the units or the positions lie side by side in memory.

    Attributes:
        address: Of the first value.
        size: Of each axis.
        stride: Of each axis, in numbers.
    """

    address: int
    size: tuple[int, int, int]
    stride: tuple[int, int, int]


def activation(
    values: Array, shift: int | None, *, relu_like: bool, limits: tuple[float, float] | None, limit: float, out: int
) -> None:
    """Reduce the outputs of an activation function. Needs :data:`AVAILABLE`.

    Args:
        values: The outputs.
        shift: Address of ``[units]``, about which sums are taken; None for each unit's first value.
        relu_like: Whether firing means greater than zero.
        limits: Outputs at which it is saturated, None without.
        limit: Size beyond which a unit has fired; unused where ``relu_like``.
        out: Address of ``[rows, units]``: sum of sizes (unless ``relu_like``), saturated (with ``limits``), sum (about
            the shift unless ``relu_like``), sum of squares about the shift, positions and examples in which it fired,
            largest, smallest, and without a shift the one that was taken.
    """
    low, high = limits or (math.nan, math.nan)
    low = math.nan if low == -math.inf else low  # is below nothing
    size, stride = _THREE(*values.size), _THREE(*values.stride)
    _LIBRARY.deadunits_activation(
        values.address, size, stride, shift, relu_like, limits is not None, limit, low, high, out
    )


def squares(values: Array, factor: float, out: int) -> None:
    """Sum up the squares of ``values * factor`` into ``[units]``. Needs :data:`AVAILABLE`.

    Args:
        values: To be squared.
        factor: They are multiplied by.
        out: Address of the sums.
    """
    _LIBRARY.deadunits_squares(values.address, _THREE(*values.size), _THREE(*values.stride), factor, out)


_THREE = ctypes.c_int64 * 3


def _load() -> Any:
    try:
        found = ctypes.CDLL(str(library.path()))
        three, address, number = ctypes.POINTER(ctypes.c_int64), ctypes.c_void_p, ctypes.c_float
        found.deadunits_activation.argtypes = [
            address, three, three, address, ctypes.c_int, ctypes.c_int, number, number, number, address
        ]  # fmt: skip
        found.deadunits_squares.argtypes = [address, three, three, number, address]
        found.deadunits_activation.restype = found.deadunits_squares.restype = None
    except (OSError, AttributeError):
        return None
    return found


_LIBRARY = _load()
AVAILABLE = _LIBRARY is not None
"""Whether there is a library; without it frameworks reduce by their own operations, several times as slowly."""

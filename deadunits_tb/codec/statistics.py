"""Statistics as bfloat16 numbers, of which each 16-bit pattern is stored as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deadunits_tb.errors import FormatError
from deadunits_tb.record import Statistics, from_bfloat16_bits, to_bfloat16_bits
from deadunits_tb.units import STATISTIC_BY_NAME

Bits = npt.NDArray[np.uint16]


def encode_statistics(statistics: Statistics, unit_start: int, unit_stop: int) -> Bits:
    """The bfloat16 bits of a range of units, ``uint16 [statistics, units]``.

    Not the tensor type bfloat16: TensorBoard reads no such tensor.
    """
    return to_bfloat16_bits(statistics.values[:, unit_start:unit_stop])


def decode_statistics(bits: npt.NDArray[Any], names: Sequence[str], units: int) -> Statistics:
    """Undo :func:`encode_statistics`.

    Args:
        bits: The tensor of one record of a ``statistics`` tag.
        names: Of its rows, as the tag's metadata says. Rows of statistics that this version does not know are left out.
        units: How many units the tag covers.

    Raises:
        FormatError: The tensor has another type or shape.
    """
    if bits.dtype != np.uint16 or bits.shape != (len(names), units):
        raise FormatError(f"statistics are {bits.dtype} {bits.shape}, not uint16 ({len(names)}, {units})")
    known = [row for row, name in enumerate(names) if name in STATISTIC_BY_NAME]
    values = from_bfloat16_bits(bits if len(known) == len(names) else bits[known])
    return Statistics(tuple(names[row] for row in known), values)

"""What a unit did before and of late, each rounded to a byte of one integer, as a record's evidence carries it.

From the lowest: the reference rate, the recent rate, the recent size, and the examples and the rate of the low stretch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]

REFERENCE_SHARE = 0.1
"""A unit's rates are recorded where it fired on fewer examples than this, in the record or of late: no other verdict
consults them. One firing in a record of eight is one in eight, also of a unit that fires on 1 %."""
TELLING_FIRINGS = 10
"""A ReLU's size is told by a record in which it fired on so many examples; by fewer no better than within a half."""
SIZE_EXAMPLES = 500
"""Horizon of the recent size. It weighs as much as twice so many examples: a unit that fires on 1 % of them, the rarest
of which it is asked, does so :data:`TELLING_FIRINGS` times."""
SMALLEST_SIZE = 2.0**-7
"""Recent sizes below this, over the layer's mean, are recorded as this: that of a silent unit would never stay."""
LOW_SHARE = 0.01
"""A low stretch is one on which a unit fired on fewer examples than this, counted from any record of it on."""


def rates_code(reference: npt.NDArray[np.floating], recent: npt.NDArray[np.floating]) -> Int:
    """Both rates of a unit in one integer: the code of its reference rate, and 256 times that of its recent rate."""
    return reference_code(reference) + 256 * recent_code(recent)


def reference_code(rate: npt.NDArray[np.floating]) -> Int:
    """Half octaves below 1, from 1 for a rate of 1 to 255; 0 for a rate of zero. The rate is rounded down."""
    with np.errstate(divide="ignore"):
        code = np.ceil(-2 * np.log2(rate)) + 1
    return np.where(rate > 0, np.clip(code, 1, 255), 0).astype(np.int64)


def recent_code(rate: npt.NDArray[np.floating]) -> Int:
    """Quarter octaves below 1, from 1 for a rate of 1 to 255, to the nearest; 0 for a rate of zero."""
    with np.errstate(divide="ignore"):
        code = np.rint(-4 * np.log2(rate)) + 1
    return np.where(rate > 0, np.clip(code, 1, 255), 0).astype(np.int64)


def reference_rate(code: Int) -> npt.NDArray[np.float64]:
    """The reference rate in a code of both, at most the one that was coded."""
    code = code & 255
    return np.where(code > 0, 2.0 ** (-(np.maximum(code, 1) - 1) / 2), 0.0)


def recent_rate(code: Int) -> npt.NDArray[np.float64]:
    """The recent rate in a code of both, within a tenth of the one that was coded."""
    code = (code >> 8) & 255
    return np.where(code > 0, 2.0 ** (-(np.maximum(code, 1) - 1) / 4), 0.0)


def lately_code(
    size: npt.NDArray[np.floating], low_examples: npt.NDArray[np.floating], low_fired: npt.NDArray[np.floating]
) -> Int:
    """What else is known of a unit of late, in the three bytes above those of :func:`rates_code`, to be added to them.

    Args:
        size: ``[units]`` recent size, over the layer's mean; 0 for not to be recorded.
        low_examples: ``[units]`` examples of the low stretch, see :data:`LOW_SHARE`.
        low_fired: ``[units]`` on how many of them the unit fired; 0 for not to be recorded.
    """
    code = recent_code(np.where(size > 0, np.maximum(size, SMALLEST_SIZE), 0)) << 16
    known = np.flatnonzero(low_fired)
    if len(known):
        fired, of = low_fired[known], low_examples[known]
        examples = np.clip(np.floor(8 * np.log2(of)) + 1, 1, 255).astype(np.int64)  # rounded down, and the rate up:
        rate = np.clip(np.floor(-4 * np.log2(fired / of)) + 1, 1, 255).astype(np.int64)  # less evidence, never more
        code[known] += (examples << 24) + (rate << 32)
    return code


def recent_size(code: Int) -> npt.NDArray[np.float64]:
    """The recent size in a code, over the layer's mean, within a tenth; infinity where it was not recorded."""
    code = (code >> 16) & 255
    return np.where(code > 0, 2.0 ** (-(np.maximum(code, 1) - 1) / 4), np.inf)


def has_low_stretch(code: Int) -> npt.NDArray[np.bool_]:
    """Whether a code holds a low stretch."""
    return code >= 1 << 24


def low_stretch(code: Int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rate and examples of the low stretch in a code, within a fifth and a tenth; no examples where there is none."""
    examples, rate = (code >> 24) & 255, (code >> 32) & 255
    return 2.0 ** (-(np.maximum(rate, 1) - 1) / 4), np.where(examples > 0, 2.0 ** ((examples - 1) / 8), 0.0)

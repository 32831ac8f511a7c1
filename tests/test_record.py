"""Rounding to bfloat16 keeps what a verdict rests on: zeros, infinities and NaN are what they were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from deadunits_tb.record import from_bfloat16_bits, round_bfloat16, to_bfloat16_bits

LARGEST, SMALLEST = 3.3895313892515355e38, 9.183549615799121e-41
"""Of the finite positive bfloat16 numbers."""

floats32 = st_numpy.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_subnormal=True))
floats64 = st_numpy.arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_subnormal=True))


def nearest(value: float) -> float:
    """The nearest bfloat16, by looking at the neighbours: slow and obvious."""
    if np.isnan(value) or np.isinf(value) or value == 0:
        return value
    size = abs(value)
    if size >= LARGEST:
        return float(np.copysign(LARGEST, value))
    bits = int(np.float32(size).view(np.uint32)) >> 16
    around = [(float(from_bfloat16_bits(np.array([b], np.uint16))[0]), b) for b in range(max(bits - 1, 1), bits + 2)]
    *_, best = min((abs(x - size), b & 1, x) for x, b in around)
    return float(np.copysign(best, value))


@given(st.one_of(floats32, floats64))
def test_rounding_takes_the_nearest_bfloat16(values):
    found = round_bfloat16(values)
    # Beyond single precision a double is rounded twice: to float32, then to bfloat16.
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype(np.float32).astype(np.float64)
    single = np.where(np.isinf(single) & np.isfinite(values), np.copysign(LARGEST, values), single)
    single = np.where((single == 0) & (values != 0), np.copysign(SMALLEST, values), single)
    expected = np.array([nearest(float(value)) for value in single], np.float32)
    np.testing.assert_array_equal(found, expected)


@given(floats64)
def test_zero_infinity_and_nan_stay_what_they_are(values):
    found = round_bfloat16(values)
    np.testing.assert_array_equal(found == 0, values == 0)
    np.testing.assert_array_equal(np.isinf(found), np.isinf(values))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))


@given(floats32)
def test_bits_of_rounded_numbers_come_back(values):
    rounded = round_bfloat16(values)
    bits = to_bfloat16_bits(rounded)
    assert bits.dtype == np.uint16
    np.testing.assert_array_equal(from_bfloat16_bits(bits), rounded)


def test_bits_of_unrounded_numbers_are_rounded_and_their_array_is_left_alone():
    values = np.array([1.0039, -1.0001, np.nan, np.inf], np.float32)
    before = values.copy()
    bits = to_bfloat16_bits(values)
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(from_bfloat16_bits(bits), np.array([1.0, -1.0, np.nan, np.inf], np.float32))


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001])
def test_no_pattern_of_nan_becomes_a_number(bits):
    nan = np.array([bits], np.uint32).view(np.float32)
    assert np.isnan(round_bfloat16(nan)).all()
    assert np.isnan(from_bfloat16_bits(to_bfloat16_bits(nan))).all()

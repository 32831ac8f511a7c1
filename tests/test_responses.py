"""Strict JSON, and rounding that loses nothing."""

from __future__ import annotations

import gzip
import json

import numpy as np

from deadunits_tb.record import from_bfloat16_bits, to_bfloat16_bits
from deadunits_tb.serving.responses import array_reply, csv_reply, json_reply, significant


def test_what_json_does_not_know_is_null() -> None:
    values = {
        "a": np.array([1, np.nan, np.inf], np.float32),
        "b": [float("nan"), -float("inf"), 2.5],
        "c": np.float32("inf"),
        "d": np.int64(3),
        "e": np.bool_(True),
        "f": np.array([[1.0, np.nan]]),
        "g": ("x", None, True),
        "h": np.array([True, False]),
        3: {},
    }
    assert json.loads(json_reply(values).body) == {
        "a": [1, None, None],
        "b": [None, None, 2.5],
        "c": None,
        "d": 3,
        "e": True,
        "f": [[1, None]],
        "g": ["x", None, True],
        "h": [True, False],
        "3": {},
    }


def test_a_lone_surrogate_breaks_nothing() -> None:
    assert json_reply({"layer": "a\ud800"}).body.decode("utf-8")
    assert csv_reply("a\ud800", "x.csv").body.decode("utf-8")


def test_arrays_are_little_endian_and_row_major() -> None:
    array = np.arange(6, dtype=">u2").reshape(2, 3).T
    assert gzip.decompress(array_reply(array).body) == np.array([[0, 3], [1, 4], [2, 5]], "<u2").tobytes()
    assert array_reply(array).body == array_reply(array.copy()).body  # the same each time


def test_four_digits_tell_all_stored_numbers_apart() -> None:
    everything = from_bfloat16_bits(np.arange(2**16, dtype=np.uint16))
    finite = everything[np.isfinite(everything)]
    normal = finite[(np.abs(finite) >= np.finfo(np.float32).tiny) | (finite == 0)]
    rounded = significant(normal)
    back = from_bfloat16_bits(to_bfloat16_bits(rounded.astype(np.float32)))
    np.testing.assert_array_equal(back, normal)
    usual = [value for value in rounded.tolist() if 1e-4 < abs(value) < 1e15]
    digits = [repr(abs(value)).partition("e")[0].replace(".", "").strip("0") for value in usual]
    assert max(map(len, digits)) == 4


def test_rounding_keeps_zero_and_what_is_no_number() -> None:
    found = significant(np.array([0.0, np.nan, np.inf, -np.inf, 123456.0, -1.23456e-30]))
    np.testing.assert_array_equal(found, [0.0, np.nan, np.inf, -np.inf, 123500.0, -1.235e-30])

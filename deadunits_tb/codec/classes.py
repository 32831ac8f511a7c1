"""Units that have the same state and the same counters form a class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deadunits_tb.record import Int

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, and without a pattern in its bits, so that a product spreads the low bits of a word over the high ones."""


def find_classes(columns: Int) -> tuple[Int, Int]:
    """Find the distinct columns.

    Args:
        columns: ``[columns, units]``.

    Returns:
        ``[columns, classes]`` the distinct ones, sorted by the first row, and ``[units]`` the class of each unit.
        Should two distinct ones share a hash, each unit is a class of its own: right, and merely longer.
    """
    units = columns.shape[1]
    words = _words(columns)
    # Sorting one hash is many times faster than sorting several words.
    key = np.zeros(units, np.uint64)
    for word in words:
        key ^= word
        key *= _FACTOR
        key ^= key >> np.uint64(32)
    keys = np.sort(key)
    keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    index = np.searchsorted(keys, key)
    member = np.empty(len(keys), np.intp)
    member[index] = np.arange(units)
    if any((word[member].take(index) != word).any() for word in words):
        member = index = np.arange(units)
    classes = columns[:, member]
    order = np.argsort(classes[0], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return classes[:, order], place[index]


def _words(columns: Int) -> list[npt.NDArray[np.uint64]]:
    """Put the rows, most of which need few bits, into as few 64-bit words for each unit as tell them all apart."""
    words: list[npt.NDArray[np.uint64]] = []
    used = 64
    lows, highs = columns.min(axis=1).tolist(), columns.max(axis=1).tolist()
    for row, low, high in zip(columns, lows, highs, strict=True):
        width = (high - low).bit_length()
        if width and used + width > 64:
            words.append((row - low).view(np.uint64))
            used = width
        elif width:
            words[-1] |= (row - low).view(np.uint64) << np.uint64(used)
            used += width
    return words

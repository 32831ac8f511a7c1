"""Columns of 64-bit integers in as few bytes as their values need."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from deadunits_tb.errors import FormatError
from deadunits_tb.record import Int

_COLUMN = struct.Struct("<Bq")
_WIDTHS = (0, 1, 2, 4, 8)
_WIDTH_OF = (0, 1, 2, 4, 4, 8, 8, 8, 8)
"""Bytes needed to the width that has them."""


def pack_columns(rows: Int) -> Iterator[bytes]:
    """For each row its smallest value, then what each is beyond it, in as few bytes as all need, lowest bytes first."""
    lows = rows.min(axis=1)
    beyond = (rows - lows[:, np.newaxis]).view(np.uint64)
    for low, largest, row in zip(lows.tolist(), beyond.max(axis=1).tolist(), beyond, strict=True):
        width = _WIDTH_OF[(largest.bit_length() + 7) // 8]
        yield _COLUMN.pack(width, low)
        if width:
            yield row.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T.tobytes()


def most_bytes(length: int) -> int:
    """What a column of so many values takes at most."""
    return _COLUMN.size + 8 * length


class Body:
    """Reads unpacked bytes from front to end.

    Args:
        data: The bytes.
        header: What they begin with.
        what: They should be, for messages.
    """

    def __init__(self, data: bytes, header: struct.Struct, what: str = "states") -> None:
        self._data = data
        self._what = what
        self._at = 0
        self.header = self._read(header)

    def column(self, length: int) -> Int:
        """``int64 [length]``, undoing :func:`pack_columns`."""
        width, low = self._read(_COLUMN)
        if width not in _WIDTHS:
            raise FormatError(f"{self._what} hold a column of width {width}")
        if not width:
            return np.full(length, low, np.int64)
        stop = self._at + width * length
        if stop > len(self._data):
            raise FormatError(f"{self._what} end within a column")
        planes = np.frombuffer(self._data, np.uint8, width * length, self._at).reshape(width, length)
        self._at = stop
        beyond = np.ascontiguousarray(planes.T).view(f"<u{width}")[:, 0]
        values: Int = beyond.astype(np.uint64).view(np.int64) + low
        return values

    def text(self, length: int) -> str:
        """So many bytes of UTF-8."""
        if self._at + length > len(self._data):
            raise FormatError(f"{self._what} end too early")
        self._at += length
        return self._data[self._at - length : self._at].decode("utf-8", "replace")

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise FormatError(f"{self._what} hold {len(self._data) - self._at} bytes too many")

    def _read(self, layout: struct.Struct) -> tuple[Any, ...]:
        if self._at + layout.size > len(self._data):
            raise FormatError(f"{self._what} end too early")
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

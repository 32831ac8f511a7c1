"""Compressed bytes of a stranger."""

from __future__ import annotations

import zlib

from deadunits_tb.errors import FormatError


def unpack(data: bytes, limit: int, what: str) -> bytes:
    """Decompress at most so many bytes.

    Args:
        data: A zlib stream, and nothing after it.
        limit: What it may unpack to. No more than that is ever unpacked.
        what: What it should be, for messages.

    Raises:
        FormatError: It is damaged, or would unpack to more.
    """
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise FormatError(f"{what}: {error}") from None
    if len(body) > limit:
        raise FormatError(f"{what} would unpack to more than {limit:,} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise FormatError(f"{what}: the compressed bytes do not end where they should")
    return bytes(body)

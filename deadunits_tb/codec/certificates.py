"""Certificates of the dead units of a layer, in five or six bytes for each."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from deadunits_tb.certificate import Certificates
from deadunits_tb.codec.columns import Body, most_bytes, pack_columns
from deadunits_tb.codec.compression import unpack
from deadunits_tb.errors import FormatError
from deadunits_tb.record import Float, Int, from_bfloat16_bits, to_bfloat16_bits

_HEADER = struct.Struct("<qqqIH")
_MOST_REASON = 1024


def encode_certificates(certificates: Certificates, unit_start: int, unit_stop: int) -> bytes:
    """Pack the certificates of those dead units that lie in a range.

    Args:
        certificates: Of a layer.
        unit_start: First unit.
        unit_stop: One after the last.
    """
    some = certificates.between(unit_start, unit_stop)
    reason = some.reason.encode("utf-8", "replace")[:_MOST_REASON]
    units = len(some.units)
    header = _HEADER.pack(some.step, some.since, some.observations, units, len(reason))
    columns = np.stack(
        [
            np.diff(some.units, prepend=0),
            some.movers.astype(np.int64),
            to_bfloat16_bits(some.bound).astype(np.int64),
            to_bfloat16_bits(some.rise).astype(np.int64),
        ]
    )
    return zlib.compress(b"".join([header, reason, *(pack_columns(columns) if units else ())]))


def decode_certificates(data: bytes, units: int) -> Certificates:
    """Unpack :func:`encode_certificates`.

    Args:
        data: The bytes of one record of a ``certificates`` tag.
        units: How many units the tag covers, as its metadata says.

    Raises:
        FormatError: The bytes are damaged, or speak of other units.
    """
    body = Body(
        unpack(data, _HEADER.size + _MOST_REASON + 4 * most_bytes(units), "certificates"), _HEADER, "certificates"
    )
    step, since, observations, held, length = body.header
    if held > units or length > _MOST_REASON or observations < 0:
        raise FormatError(f"certificates of {units} units speak of {held}")
    reason = body.text(length)
    apart, movers, bound, rise = (body.column(held) if held else np.zeros(0, np.int64) for _ in range(4))
    body.end()
    limits = ((apart[:1], 0, units), (apart[1:], 1, units), (movers, 0, 255), (bound, 0, 65535), (rise, 0, 65535))
    if not all(column.min() >= low and column.max() <= high for column, low, high in limits if len(column)):
        raise FormatError("certificates hold a number that cannot be")
    named = np.cumsum(apart)
    if held and named[-1] >= units:
        raise FormatError("certificates name a unit that does not exist")
    return Certificates(
        step, since, observations, named, _numbers(bound), _numbers(rise), movers.astype(np.uint8), reason
    )


def _numbers(bits: Int) -> Float:
    values = from_bfloat16_bits(bits.astype(np.uint16))
    return np.where(np.isnan(values), np.float32(np.inf), values)  # no bound is as good as none

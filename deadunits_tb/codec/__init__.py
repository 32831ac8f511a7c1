"""Records to bytes and back, exactly. ``docs/format.md`` describes the bytes for everyone else.

Every decoder takes its bytes from a stranger: it raises :class:`~deadunits_tb.errors.FormatError` for whatever is
damaged, and never unpacks more than the declared count of units can need.
"""

from deadunits_tb.codec.certificates import decode_certificates, encode_certificates
from deadunits_tb.codec.run import decode_run, encode_run
from deadunits_tb.codec.states import StatesBlock, decode_states, encode_states
from deadunits_tb.codec.statistics import Bits, decode_statistics, encode_statistics

__all__ = [
    "Bits",
    "StatesBlock",
    "decode_certificates",
    "decode_run",
    "decode_states",
    "decode_statistics",
    "encode_certificates",
    "encode_run",
    "encode_states",
    "encode_statistics",
]

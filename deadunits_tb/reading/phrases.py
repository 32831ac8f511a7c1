"""How numbers and lists read in sentences for people."""

from __future__ import annotations

import math
from collections.abc import Sequence


def count(value: int, noun: str = "", plural: str = "") -> str:
    """A whole number with thousands separators, and the noun in the right number: ``1 unit``, ``51,200 examples``."""
    word = noun if value == 1 else plural or f"{noun}s"
    return f"{value:,} {word}" if noun else f"{value:,}"


def percent(share: float) -> str:
    """A share as people write it: ``12.5 %``, ``0.6 %``, ``0.006 %``. Never 0 % or 100 % for what only comes close."""
    value = 100 * share
    if not math.isfinite(value):
        return "an undefined share"
    if 99.95 <= value < 100:
        return "over 99.9 %"
    digits = max(0, 1 if value >= 1 else -_exponent(value)) if value > 0 else 0
    return f"{_plain(round(value, digits), digits)} %"


def percent_bound(share: float) -> str:
    """An upper bound as a percentage: rounded up, so that the sentence stays true."""
    value = 100 * share
    digits = max(0, 1 if value >= 1 else -_exponent(value)) if value > 0 else 0
    return f"{_plain(math.ceil(round(value * 10**digits, 6)) / 10**digits, digits)} %"


def measured(value: float) -> str:
    """A measured number to the two digits that bfloat16 holds: ``0.012``, ``4.1e-09``, ``1,230``, ``NaN``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "minus infinity"
    return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.2g}"


def listing(words: Sequence[str], limit: int = 5) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c and 7 more``."""
    shown = list(words[:limit])
    if len(words) > limit:
        shown.append(f"{len(words) - limit:,} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control characters, line ends and changes of direction become escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _exponent(value: float) -> int:
    return math.floor(math.log10(value))


def _plain(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}" if digits <= 8 else f"{value:.0e}"
    return text.rstrip("0").rstrip(".") if "." in text else text

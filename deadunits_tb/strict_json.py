"""JSON in our event files: written strictly, and read as what a stranger may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from deadunits_tb.errors import FormatError

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DIGITS = 20
"""More digits than any int64 has; Python would take quadratic time over a million."""
_SHOWN = 80


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON. NaN and Inf must have gone through :func:`number` before.

    Raises:
        ValueError: A float is not finite.
    """
    return _ENCODER.encode(value).encode("utf-8", "replace")


def number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: NaN and Inf become strings that :meth:`Fields.number` reads back."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def loads(data: bytes, *, limit: int, what: str) -> Fields:
    """Parse a JSON object of at most ``limit`` bytes.

    Args:
        data: UTF-8 JSON.
        limit: Bytes beyond which it is refused unread.
        what: What it should be, for messages, such as ``"metadata of a tag"``.

    Raises:
        FormatError: It is too large, too deeply nested, not strict JSON, or not an object.
    """
    if len(data) > limit:
        raise FormatError(f"{what} is {len(data):,} bytes long; at most {limit:,} are read")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, parse_int=_bounded_int)
    except RecursionError:
        raise FormatError(f"{what} is nested too deeply to be ours") from None
    except ValueError as error:  # of UTF-8, of JSON, of the two functions above
        raise FormatError(f"{what} is not strict JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{what} is {_shown(value)}, not a JSON object")
    return Fields(value, what)


class Fields:
    """Typed access to the keys of a JSON object. Keys that nobody asks for are ignored, as the format promises.

    A key without a default must be there. ``None`` as the default also allows ``null``.

    Raises:
        FormatError: From every method: the key is missing, or its value is of another type or out of bounds.
    """

    _REQUIRED: Any = object()

    def __init__(self, values: Mapping[str, Any], what: str) -> None:
        self._values = values
        self._what = what

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        """A string. Unpaired surrogates, which no UTF-8 can hold, become question marks."""
        value = self._value(key, str, "a string", default)
        return value if value is default else value.encode("utf-8", "replace").decode("utf-8")

    def choice(self, key: str, choices: Sequence[str], default: Any = _REQUIRED) -> Any:
        """One of a few strings."""
        value = self._value(key, str, "a string", default)
        if value is not default and value not in choices:
            raise FormatError(f"{self._what}: {key!r} is {_shown(value)}, not one of {', '.join(choices)}")
        return value

    def flag(self, key: str, default: Any = _REQUIRED) -> Any:
        """A boolean."""
        return self._value(key, bool, "true or false", default)

    def whole(self, key: str, default: Any = _REQUIRED, *, low: int = 0, high: int = 2**63 - 1) -> Any:
        """An integer within bounds, both included."""
        value = self._value(key, int, "a whole number", default)
        if value is not default and not low <= value <= high:
            raise FormatError(f"{self._what}: {key!r} is {_shown(value)}, not between {low} and {high}")
        return value

    def number(self, key: str, default: Any = _REQUIRED, *, finite: bool = False) -> Any:
        """A float; NaN and Inf, as :func:`number` writes them, unless it must be finite."""
        value = self._values.get(key)
        if isinstance(value, str) and value in _NON_FINITE and not finite:
            return _NON_FINITE[value]
        value = self._value(key, (int, float), "a number", default)
        if value is not default and finite and not math.isfinite(value):  # such as 1e999
            raise FormatError(f"{self._what}: {key!r} is not finite")
        return value if value is default else float(value)

    def object(self, key: str, default: Any = _REQUIRED) -> Any:
        """Another object, as :class:`Fields`."""
        value = self._value(key, dict, "an object", default)
        return value if value is default else Fields(value, f"{self._what}: {key}")

    def array(self, key: str, default: Any = _REQUIRED) -> Any:
        """A list, its items as they are."""
        return self._value(key, list, "a list", default)

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of counts; an absent one is empty."""
        return tuple(Fields({"": item}, f"{self._what}: {key}").whole("") for item in self.array(key, []))

    def objects(self, key: str) -> list[Fields]:
        """A list of objects; an absent one is empty."""
        return [Fields({"": item}, f"{self._what}: {key}").object("") for item in self.array(key, [])]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; an absent one is empty."""
        return tuple(Fields({"": item}, f"{self._what}: {key}").text("") for item in self.array(key, []))

    def strings(self) -> dict[str, str]:
        """All keys whose value is a string; the rest is ignored."""
        return {key: value for key, value in self._values.items() if isinstance(value, str)}

    def scalars(self) -> dict[str, str | float]:
        """All keys whose value is a string or a number, NaN and Inf among them; the rest is ignored."""
        return {
            key: _NON_FINITE.get(value, value) if isinstance(value, str) else float(value)
            for key, value in self._values.items()
            if isinstance(value, (str, int, float)) and not isinstance(value, bool)
        }

    def _value(self, key: str, kind: type | tuple[type, ...], name: str, default: Any) -> Any:
        value = self._values.get(key, default)
        if value is self._REQUIRED:
            raise FormatError(f"{self._what} has no {key!r}")
        if value is default:
            return default
        # bool is an int to Python, not to us
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise FormatError(f"{self._what}: {key!r} is {_shown(value)}, not {name}")
        return value


def _shown(value: object) -> str:
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _bounded_int(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)

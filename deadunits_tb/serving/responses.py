"""Replies: strict JSON, arrays as bytes, CSV; and how they become HTTP."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.backend import http_util

_YEAR = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers.

    Attributes:
        body: Bytes to send.
        content_type: Media type.
        gzipped: Whether the body is compressed already.
        immutable: Whether the same URL will always give the same answer.
        headers: Further headers.
    """

    body: bytes
    content_type: str
    gzipped: bool = False
    immutable: bool = False
    headers: tuple[tuple[str, str], ...] = ()


def json_reply(value: Mapping[str, Any]) -> Reply:
    """Strict JSON: NaN and infinity become null."""
    text = json.dumps(plain(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return Reply(text.encode("utf-8", "backslashreplace"), "application/json")


def array_reply(array: npt.NDArray[Any]) -> Reply:
    """An array, row-major and little-endian, without header; its shape follows from what was asked for."""
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return Reply(gzip.compress(data, 1, mtime=0), "application/octet-stream", gzipped=True)


def csv_reply(text: str, filename: str) -> Reply:
    """CSV, as a download."""
    disposition = ("Content-Disposition", f'attachment; filename="{filename}"')
    return Reply(text.encode("utf-8", "backslashreplace"), "text/csv", headers=(disposition,))


def respond(request: Any, reply: Reply) -> Any:
    """Make the HTTP response.

    Args:
        request: The werkzeug request.
        reply: What to answer.

    Returns:
        A werkzeug response.
    """
    return http_util.Respond(
        request,
        reply.body,
        reply.content_type,
        content_encoding="gzip" if reply.gzipped else None,
        expires=_YEAR if reply.immutable else 0,
        headers=list(reply.headers),
    )


def plain(value: Any) -> Any:
    """Only what JSON knows: dicts, lists, strings, finite numbers, booleans and None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        finite = value.dtype.kind != "f" or np.isfinite(value).all()
        return value.tolist() if finite else plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def significant(values: npt.NDArray[np.floating], digits: int = 4) -> npt.NDArray[np.float64]:
    """Round to some significant digits: four tell all bfloat16 numbers apart, in half the bytes of JSON."""
    x = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = digits - 1 - np.floor(np.log10(np.abs(x)))
    usable = np.isfinite(x) & np.isfinite(exponent)
    exponent = np.where(usable, exponent, 0)
    up, down = 10.0 ** np.maximum(exponent, 0), 10.0 ** np.maximum(-exponent, 0)
    return np.where(usable, np.round(x * up / down) * down / up, x)

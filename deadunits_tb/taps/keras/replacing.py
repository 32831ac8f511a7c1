"""Wrap what objects call, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any


@contextlib.contextmanager
def replaced(attributes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Give attributes of objects other values for a while.

    Straight into the object's dictionary, past Keras's tracking: this entry is all that has to be undone.

    Args:
        attributes: Object, name of its attribute, other value.
    """
    absent = object()
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for owner, name, value in attributes:
            entries = vars(owner)
            before.append((entries, name, entries.get(name, absent)))
            entries[name] = value
        yield
    finally:
        for entries, name, value in reversed(before):
            if value is absent:
                entries.pop(name, None)
            else:
                entries[name] = value

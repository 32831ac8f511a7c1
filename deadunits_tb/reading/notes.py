"""What could not be read, said once each and never without end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

_LIMIT = 20


def hidden_run(session: int, held: str, why: str) -> str:
    """What is said of a session of which nothing is shown.

    Args:
        session: As :class:`~deadunits_tb.metadata.TagInfo` has it.
        held: Its records.
        why: Nothing is shown of them.
    """
    began = str(np.datetime64(session // 10**6, "s")).replace("T", " ")
    return (
        f"an earlier run in the same directory, begun {began} UTC, is hidden with its {held}: {why}. "
        "Give each run a log directory of its own"
    )


class Notes(Sequence[str]):
    """Sentences on what was left out, in the order in which it was found. Grows while more is read; thread safe.

    A sentence that is there already is not added again; beyond 20 they are only counted.

    Args:
        sources: Notes that these go on with.
    """

    def __init__(self, *sources: Notes) -> None:
        self._sources = sources
        self._sentences: dict[str, None] = {}
        self._lock = threading.Lock()

    def add(self, sentence: str) -> None:
        """Say it, unless it was said."""
        with self._lock:
            self._sentences.setdefault(sentence)

    def _said(self) -> dict[str, None]:
        with self._lock:
            said = dict(self._sentences)
        for source in self._sources:
            said |= source._said()
        return said

    def _shown(self) -> list[str]:
        said = list(self._said())
        more = len(said) - _LIMIT
        return [*said[:_LIMIT], f"{more:,} more of the like"] if more > 0 else said

    def __len__(self) -> int:
        return len(self._shown())

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._shown()[index]

    def __repr__(self) -> str:
        return repr(self._shown())

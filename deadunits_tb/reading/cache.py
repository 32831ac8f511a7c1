"""A bounded cache in which every value is computed once, also when many threads ask for it together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Keeps what was used last, up to a number of bytes; what failed is not kept.

    Args:
        max_bytes: Limit on all values together; a single value beyond it is computed at every call.
        size: Bytes of a value.
    """

    def __init__(self, max_bytes: int, size: Callable[[Value], int]) -> None:
        self._max_bytes, self._size = max_bytes, size
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._running: dict[Hashable, Future[Value]] = {}
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Sum of the sizes of all values that are kept."""
        return self._bytes

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value of a key, computed at the first call; those who ask meanwhile wait for it.

        Args:
            key: Stands for exactly one value: what changes needs a new key.
            compute: Makes the value. It must not ask for the same key.

        Raises:
            Exception: Whatever ``compute`` raised, in every caller that waited for it.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
            running = self._running.get(key)
            if running is None:
                mine = self._running[key] = Future()
        if running is not None:
            return running.result()
        try:
            value = compute()
        except BaseException as error:
            self._finish(key)
            mine.set_exception(error)
            raise
        self._finish(key, value)
        mine.set_result(value)
        return value

    def _finish(self, key: Hashable, *values: Value) -> None:
        with self._lock:
            del self._running[key]
            for value in values:
                self._values[key] = value, self._size(value)
                self._bytes += self._values[key][1]
            while self._bytes > self._max_bytes:
                self._bytes -= self._values.popitem(last=False)[1][1]

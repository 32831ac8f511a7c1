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
        max_bytes: Limit on all values together. The value just computed is always kept.
        size: Bytes of a value.
    """

    def __init__(self, max_bytes: int, size: Callable[[Value], int]) -> None:
        self._max_bytes, self._size = max_bytes, size
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, Future[Value]] = OrderedDict()
        self._bytes: dict[Hashable, int] = {}

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value of a key, computed at the first call; later callers wait for it.

        Raises:
            Exception: Whatever ``compute`` raised, in every caller that waited for it.
        """
        with self._lock:
            future = self._values.get(key)
            first = future is None
            if future is None:
                future = self._values[key] = Future()
            self._values.move_to_end(key)
        if first:
            try:
                value = compute()
            except BaseException as error:
                with self._lock:
                    del self._values[key]
                future.set_exception(error)
                raise
            future.set_result(value)
            self._make_room(key, self._size(value))
        return future.result()

    def _make_room(self, key: Hashable, size: int) -> None:
        with self._lock:
            self._bytes[key] = size
            for oldest in list(self._values):
                if sum(self._bytes.values()) <= self._max_bytes:
                    break
                if oldest != key and oldest in self._bytes:
                    del self._values[oldest], self._bytes[oldest]

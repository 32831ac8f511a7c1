"""The cache: bounded, computed once, and never holding what failed."""

from __future__ import annotations

import concurrent.futures
import threading
import time

import pytest

from deadunits_tb.reading.cache import Cache


def test_what_was_used_least_recently_goes_first() -> None:
    cache: Cache[str] = Cache(10, len)
    computed: list[str] = []

    def get(key: str, size: int = 4) -> str:
        def compute() -> str:
            computed.append(key)
            return key * size

        return cache.get(key, compute)

    assert [get("a"), get("b"), get("a"), get("c"), get("a")] == ["aaaa", "bbbb", "aaaa", "cccc", "aaaa"]
    assert computed == ["a", "b", "c"]
    assert cache.bytes == 8
    get("b")
    get("c")
    assert computed == ["a", "b", "c", "b", "c"]
    assert get("large", 30) == "large" * 30
    assert cache.bytes <= 10


def test_many_who_ask_together_wait_for_one() -> None:
    cache: Cache[object] = Cache(10, lambda value: 1)
    together, calls = threading.Barrier(8), []

    def compute() -> object:
        calls.append(1)
        return object()

    def ask(_: int) -> object:
        together.wait()
        return cache.get("key", compute)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ask, range(8)))
    assert len(found) == len(calls) == 1


def test_those_who_wait_for_a_failure_get_it_and_the_next_tries_again() -> None:
    cache: Cache[int] = Cache(10, lambda value: 1)
    started, waiting = threading.Event(), threading.Event()

    def fail() -> int:
        started.set()
        waiting.wait(10)
        raise OSError("gone")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "key", fail)
        started.wait(10)
        second = pool.submit(cache.get, "key", lambda: 5)
        while not second.running():
            time.sleep(0.01)
        time.sleep(0.3)  # until it waits for the first
        waiting.set()
        with pytest.raises(OSError, match="gone"):
            first.result(10)
        with pytest.raises(OSError, match="gone"):
            second.result(10)
    assert cache.get("key", lambda: 7) == 7
    assert cache.bytes == 1

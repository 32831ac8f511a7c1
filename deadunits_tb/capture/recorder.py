"""Records go to the event file in the background, so that training never waits for a disk."""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deadunits_tb.capture.record_file import RecordFile
from deadunits_tb.metadata import SUBDIRECTORY
from deadunits_tb.record import LayerRecord
from deadunits_tb.run_record import RunInfo, RunRecord
from deadunits_tb.units import LayerInfo

QUEUE_BYTES = 2**27
"""Memory that waiting records may hold."""
QUEUE_RECORDS = 1000
"""Many, as the bytes are bounded anyway: a busy loop that never releases the interpreter makes hundreds at a time."""
FLUSH_SECONDS = 30.0
"""How old records on a remote file system may be before readers see them. Each flush there uploads the whole file."""
CLOSE_SECONDS = 120.0
"""How long closing waits for a file system that has stopped answering."""


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to write: how much memory it holds, how many records it is, and how to write it."""

    size: int
    records: int
    write: Callable[[], str | None]


class Recorder:
    """Writes records below a log directory. Once made it never raises, and only flush and close wait.

    Safe at exit, where it closes by itself, and at fork: in a child it does nothing.

    Args:
        log_dir: What the user named; the event file goes to a directory of its own below it.
        run: Facts of the run.
        max_bytes: At most so many bytes in that directory. Statistics thin out first, to every 2nd, 4th, ... record.

    Raises:
        LogDirectoryError: The directory cannot be written.
    """

    def __init__(self, log_dir: str | os.PathLike[str], run: RunInfo, *, max_bytes: int = 2**30) -> None:
        path = os.fspath(log_dir)
        if "://" in path:
            directory = f"{path.rstrip('/')}/{SUBDIRECTORY}"
        else:
            directory = str(Path(path).expanduser() / SUBDIRECTORY)
        self._directory = directory
        self._process = os.getpid()
        self._file = RecordFile(directory, run, max_bytes)
        self._queue: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting_bytes = 0
        self._flush_wanted = False
        self._closed = False
        self._dropped = 0
        self._failures: dict[str, None] = {}
        atexit.register(self.close)

    @property
    def bytes_written(self) -> int:
        """Bytes in all event files of the run."""
        return self._file.bytes_written

    @property
    def dropped(self) -> int:
        """Records lost so far, because the queue was full or the file could not be written."""
        return self._dropped

    @property
    def failures(self) -> tuple[str, ...]:
        """What went wrong so far, one sentence each, each once."""
        return tuple(self._failures)

    @property
    def statistics_interval(self) -> int:
        """1 where every record holds statistics; 2, 4, ... where the byte budget thinned them."""
        return self._file.statistics_interval

    def write(self, run_record: RunRecord, records: Sequence[LayerRecord], infos: Mapping[str, LayerInfo]) -> None:
        """Record the run and its layers at one step.

        The arrays are encoded later: they must not be changed any more.

        Args:
            run_record: Facts of the run at the step.
            records: Of the layers that were observed.
            infos: Of all layers by name, those in ``records`` among them.
        """
        records, infos = tuple(records), dict(infos)
        size = sum(_size(record) for record in records)
        self._put(_Item(size, 1, lambda: self._file.write(replace(run_record, dropped=self._dropped), records, infos)))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Record a plain scalar, for Time Series."""
        wall_time = time.time()
        self._put(_Item(0, 0, lambda: self._file.scalar(tag, value, step, wall_time)))

    def flush(self) -> None:
        """Wait until readers can see all that was recorded."""
        if self._ours and not self._closed:
            with self._changed:
                self._flush_wanted = self._thread is not None
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._flush_wanted, CLOSE_SECONDS)

    def close(self) -> None:
        """Wait until everything is in the file, and close it. May be called again."""
        if not self._ours or self._closed:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        if self._thread is None:
            self._guard(self._file.close)
            return
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._fail(f"{self._directory!r} has not taken the last records within {CLOSE_SECONDS:.0f} seconds")

    @property
    def _ours(self) -> bool:
        # In a forked child the thread is gone, and the lock may be held for ever by a thread that is gone too.
        return os.getpid() == self._process

    def _put(self, item: _Item) -> None:
        if not self._ours or self._closed:
            return
        with self._changed:
            full = len(self._queue) >= QUEUE_RECORDS or self._waiting_bytes + item.size > QUEUE_BYTES
            if full and self._queue:
                self._dropped += item.records
                self._fail(f"records come faster than {self._directory!r} takes them: some are lost")
                return
            self._queue.append(item)
            self._waiting_bytes += item.size
            self._changed.notify_all()
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="deadunits-recorder", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is on its way out
            self._queue.clear()
            self._dropped += 1
            self._fail(f"no thread to write records: {error}")
        else:
            self._thread = thread

    def _work(self) -> None:
        flush_at = math.inf
        while True:
            with self._changed:
                timeout = max(flush_at - time.monotonic(), 0) if flush_at < math.inf else None
                self._changed.wait_for(lambda: self._queue or self._flush_wanted or self._closed, timeout)
                item = self._queue.popleft() if self._queue else None
            if item is not None:
                self._attempt(item)
                flush_at = min(flush_at, time.monotonic() + FLUSH_SECONDS) if self._file.remote else math.inf
            if item is None or time.monotonic() >= flush_at:
                self._guard(self._file.flush)
                flush_at = math.inf
            with self._changed:
                if not self._queue:
                    self._flush_wanted = False
                    self._changed.notify_all()
                    if self._closed:
                        break
        self._guard(self._file.close)

    def _attempt(self, item: _Item) -> None:
        if not self._guard(item.write):
            self._dropped += item.records
        with self._changed:
            self._waiting_bytes -= item.size

    def _guard(self, act: Callable[[], str | None]) -> bool:
        """Act, and say what went wrong or was left out.

        Returns:
            Whether nothing was raised.
        """
        try:
            left_out = act()
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self._fail(f"cannot write to {self._directory!r}: {reason}")
            return False
        if left_out:
            self._fail(left_out)
        return True

    def _fail(self, sentence: str) -> None:
        self._failures.setdefault(sentence)


def _size(record: LayerRecord) -> int:
    statistics = 0 if record.statistics is None else record.statistics.values.nbytes
    return statistics + 14 * 8 * record.units

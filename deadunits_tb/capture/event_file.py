"""One TensorBoard event file: unique, never appended to, written in whole records."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tensorboard.compat import tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, SummaryMetadata
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING, DT_UINT16

from deadunits_tb.errors import LogDirectoryError
from deadunits_tb.tfrecord import frame

Value = bytes | npt.NDArray[np.uint16] | float

_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.(\d{6})\.")


def value_event(step: int, wall_time: float, tag: str, value: Value, metadata: SummaryMetadata | None) -> bytes:
    """A framed event with one value.

    Args:
        step: Of the event.
        wall_time: Seconds since the epoch.
        tag: Of the value.
        value: Bytes become a string tensor, ``uint16 [rows, columns]`` stays one, a number becomes a scalar.
        metadata: Of the tag, for its first event; None for all others.
    """
    event = Event(wall_time=wall_time, step=step)
    # Filled in place: a message given to a constructor is copied, several times over in a nest of them.
    entry = event.summary.value.add(tag=tag)
    tensor = entry.tensor
    if isinstance(value, bytes):
        tensor.dtype = DT_STRING
        tensor.string_val.append(value)
    elif isinstance(value, np.ndarray):
        tensor.dtype = DT_UINT16
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = value.astype("<u2", copy=False).tobytes()
    else:
        tensor.dtype = DT_FLOAT
        tensor.float_val.append(value)
    if metadata is not None:
        entry.metadata.CopyFrom(metadata)
    return frame(event.SerializeToString())


def scalar_metadata() -> SummaryMetadata:
    """Makes a tag a plain scalar, which Time Series and HParams show."""
    metadata = SummaryMetadata(data_class=DATA_CLASS_SCALAR)
    metadata.plugin_data.plugin_name = "scalars"
    return metadata


class EventFile:
    """A new event file. Local files reach the disk with each :meth:`write`, remote ones with :meth:`flush`.

    Args:
        directory: Where it is made, along with the directory itself: a path, or a URL of TensorBoard's file layer.

    Raises:
        LogDirectoryError: The directory or the file cannot be made.

    Attributes:
        path: Of the file.
        session: Microseconds since the epoch. Rises from file to file in one directory, also when the clock does not.
        size: Bytes written.
        others: Bytes in event files that were in the directory before.
        remote: Whether writes reach the store only with :meth:`flush`.
        broken: A write failed, and its first half may be in the file: go on in a new one.
    """

    def __init__(self, directory: str) -> None:
        self.remote = "://" in directory
        try:
            files = _list_url(directory) if self.remote else _list_local(directory)
            self.session = _new_session(files)
            self.others = sum(files.values())
            seconds, micros = divmod(self.session, 10**6)
            host = re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname()) or "host"
            name = f"events.out.tfevents.{seconds:010d}.{micros:06d}.{host}.{os.getpid()}"
            self.path = f"{directory.rstrip('/')}/{name}" if self.remote else str(Path(directory) / name)
            self._file: _File = _RemoteFile(self.path) if self.remote else _LocalFile(self.path)
            self.size = 0
            self.broken = False
            self._started = False
            self.write(frame(Event(wall_time=self.session / 1e6, file_version="brain.Event:2").SerializeToString()))
            self.flush()
        except Exception as error:  # file systems behind TensorBoard's file layer raise errors of their own
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise LogDirectoryError(f"cannot write to log directory {directory!r}: {reason}") from error

    def start(self, step: int, wall_time: float) -> None:
        """Say at which step the session begins, so that TensorBoard drops what an earlier one wrote from there on."""
        if not self._started:
            log = SessionLog(status=SessionLog.START)
            self.write(frame(Event(wall_time=wall_time, step=step, session_log=log).SerializeToString()))
            self._started = True

    def write(self, data: bytes) -> None:
        """Append framed events, all or nothing.

        Raises:
            Exception: They could not be written; OSError for a local file.
        """
        try:
            self._file.write(data)
        except Exception:
            self.broken = not self._file.cut(self.size)
            raise
        self.size += len(data)

    def flush(self) -> None:
        """Make sure that a reader sees what was written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; one in which nothing was ever started is removed."""
        self._file.close()
        if not self._started:
            self._file.remove()


class _File(Protocol):
    def write(self, data: bytes) -> None: ...
    def cut(self, size: int) -> bool: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    def remove(self) -> None: ...


class _LocalFile:
    def __init__(self, path: str) -> None:
        self._path = Path(path)
        # Without a buffer nothing is lost with the process, and a forked child has nothing of ours to write at exit.
        self._stream = self._path.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._stream.write(rest) :]

    def cut(self, size: int) -> bool:
        """Remove half a record: it would hide all that follow it once there is room again."""
        try:
            self._stream.seek(size)
            self._stream.truncate()
        except OSError:
            return False
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._stream.close()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class _RemoteFile:
    def __init__(self, path: str) -> None:
        self._path = path
        self._stream: Any = tf.io.gfile.GFile(path, "wb")

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    def cut(self, size: int) -> bool:
        return False

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    def remove(self) -> None:
        if hasattr(tf.io.gfile, "remove"):  # not so where TensorFlow is not installed
            tf.io.gfile.remove(self._path)


def _list_local(directory: str) -> dict[str, int]:
    here = Path(directory)
    here.mkdir(parents=True, exist_ok=True)
    return {path.name: path.stat().st_size for path in here.iterdir() if "tfevents" in path.name}


def _list_url(directory: str) -> dict[str, int]:
    tf.io.gfile.makedirs(directory)
    names = [name for name in tf.io.gfile.listdir(directory) if "tfevents" in name]
    return {name: int(tf.io.gfile.stat(f"{directory.rstrip('/')}/{name}").length) for name in names}


def _new_session(files: dict[str, int]) -> int:
    earlier = [int(match[1] + match[2]) for match in map(_NAME.match, files) if match]
    return max(time.time_ns() // 1000, *(session + 1 for session in earlier), 0)

"""A TensorBoard ``DataProvider`` straight over event files, for the command line and for ``load``.

TensorBoard has two readers of its own. The Rust server is fast, but a process to start, to reach over gRPC and to
poll until it has read everything; the Python loader needs TensorFlow to be fast. Neither says what it left out. This
one reads what is there, in this process, and notes what was damaged.
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat import tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING, DT_UINT16
from tensorboard.data import provider

from deadunits_tb.errors import FormatError, InvalidArgumentError, LogDirectoryError
from deadunits_tb.metadata import PLUGIN_NAME
from deadunits_tb.tfrecord import read_frames

T = TypeVar("T")


class LocalDataProvider(provider.DataProvider):  # type: ignore[misc]  # published without types
    """The tensors of our plugin in all event files below a directory.

    Runs are called as TensorBoard calls them: by their directory relative to the log directory, ``"."`` for itself.
    Tensors are kept as raw bytes and become arrays when they are read. Safe to share between threads.

    Args:
        logdir: A log directory; also a URL that TensorBoard's file layer knows, such as ``gs://bucket/runs``.

    Raises:
        LogDirectoryError: There is no such directory, or it cannot be listed.
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        path = os.fspath(logdir)
        self._logdir = path if _is_url(path) else str(Path(path).expanduser())
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._unlisted: list[str] = []
        self.reload()

    @property
    def notes(self) -> list[str]:
        """What was left out so far, one sentence each."""
        with self._lock:
            return [*self._unlisted, *(note for run in self._runs.values() for note in run.notes())]

    def reload(self) -> None:
        """Read what was added since; costs little more than listing the directories.

        Raises:
            LogDirectoryError: The directory is gone.
        """
        with self._lock:
            self._unlisted = []
            found = dict(_directories(self._logdir, self._unlisted.append))
            self._runs = {name: self._runs.get(name) or _Run() for name in sorted(found)}
            for name, files in found.items():
                self._runs[name].read(files)

    def experiment_metadata(self, ctx: Any = None, *, experiment_id: str = "") -> provider.ExperimentMetadata:
        """Where the data lie."""
        return provider.ExperimentMetadata(data_location=self._logdir)

    def list_plugins(self, ctx: Any = None, *, experiment_id: str = "") -> list[str]:
        """Ours alone: nothing else is read."""
        return [PLUGIN_NAME]

    def list_runs(self, ctx: Any = None, *, experiment_id: str = "") -> list[provider.Run]:
        """All directories with event files, also those without data of ours."""
        with self._lock:
            return [provider.Run(name, name, run.start_time) for name, run in self._runs.items()]

    def list_tensors(
        self,
        ctx: Any = None,
        *,
        experiment_id: str = "",
        plugin_name: str,
        run_tag_filter: provider.RunTagFilter | None = None,
    ) -> dict[str, dict[str, provider.TensorTimeSeries]]:
        """Run to tag to what is known of its points."""
        return self._select(plugin_name, run_tag_filter, _Series.describe)

    def read_tensors(
        self,
        ctx: Any = None,
        *,
        experiment_id: str = "",
        plugin_name: str,
        downsample: int | None = None,
        run_tag_filter: provider.RunTagFilter | None = None,
    ) -> dict[str, dict[str, list[provider.TensorDatum]]]:
        """Run to tag to points, sorted by step; at most ``downsample`` of each tag, the last always among them.

        Raises:
            InvalidArgumentError: ``downsample`` is not a number of points.
        """
        if not isinstance(downsample, int) or downsample < 0:
            raise InvalidArgumentError(f"downsample must be a number of points, not {downsample!r}")
        return self._select(plugin_name, run_tag_filter, lambda series: series.read(downsample))

    def list_scalars(
        self, ctx: Any = None, *, experiment_id: str = "", plugin_name: str, run_tag_filter: Any = None
    ) -> Any:
        """None: only tensors are read."""
        return {}

    def read_scalars(
        self,
        ctx: Any = None,
        *,
        experiment_id: str = "",
        plugin_name: str,
        downsample: int | None = None,
        run_tag_filter: Any = None,
    ) -> Any:
        """None: only tensors are read."""
        return {}

    def read_last_scalars(
        self, ctx: Any = None, *, experiment_id: str = "", plugin_name: str, run_tag_filter: Any = None
    ) -> Any:
        """None: only tensors are read."""
        return {}

    def _select(
        self, plugin_name: str, run_tag_filter: provider.RunTagFilter | None, take: Callable[[_Series], T]
    ) -> dict[str, dict[str, T]]:
        if plugin_name != PLUGIN_NAME:
            return {}
        runs = run_tag_filter and run_tag_filter.runs
        tags = run_tag_filter and run_tag_filter.tags
        with self._lock:
            selected = {
                name: {
                    tag: take(series)
                    for tag, series in run.series.items()
                    if series.points and (tags is None or tag in tags)
                }
                for name, run in self._runs.items()
                if runs is None or name in runs
            }
        return {name: series for name, series in selected.items() if series}


@dataclass(frozen=True, slots=True)
class _Point:
    """A tensor at a step: a byte string where there is no shape, otherwise 16-bit unsigned integers."""

    step: int
    wall_time: float
    data: bytes
    shape: tuple[int, ...] | None

    def datum(self) -> provider.TensorDatum:
        if self.shape is None:
            array = np.array(self.data, dtype=object)
        else:
            array = np.frombuffer(self.data, "<u2").reshape(self.shape)
        return provider.TensorDatum(step=self.step, wall_time=self.wall_time, numpy=array)


@dataclass(slots=True)
class _Series:
    """One tag of a run. Its points have rising steps."""

    metadata: SummaryMetadata
    points: list[_Point] = field(default_factory=list)

    def drop_from(self, step: int) -> None:
        """Training went back to this step: what was written from there on is void."""
        while self.points and self.points[-1].step >= step:
            self.points.pop()

    def describe(self) -> provider.TensorTimeSeries:
        return provider.TensorTimeSeries(
            max_step=self.points[-1].step,
            max_wall_time=max(point.wall_time for point in self.points),
            plugin_content=self.metadata.plugin_data.content,
            description=self.metadata.summary_description,
            display_name=self.metadata.display_name,
        )

    def read(self, downsample: int) -> list[provider.TensorDatum]:
        points = self.points
        if downsample < len(points):
            # Seeded, as the interface asks: tags with the same steps keep the same steps.
            kept = sorted(random.Random(0).sample(range(len(points) - 1), max(downsample - 1, 0)))
            points = [points[at] for at in kept] + points[-1:] * (downsample > 0)
        return [point.datum() for point in points]


@dataclass(slots=True)
class _File:
    """How far an event file was read, and what was wrong with it."""

    offset: int = 0
    size: int = 0
    lost: str = ""
    unreadable: str = ""
    damaged: int = 0
    foreign: int = 0

    def notes(self) -> Iterator[str]:
        if self.lost or self.unreadable:
            yield self.lost or self.unreadable
        elif self.offset < self.size:
            yield f"the last {self.size - self.offset:,} bytes are no whole record: still being written, or cut off"
        if self.damaged:
            yield f"{self.damaged:,} damaged records were left out"
        if self.foreign:
            yield f"{self.foreign:,} tensors under our plugin's name were not written by us and were left out"


@dataclass(slots=True)
class _Run:
    """The event files of one directory, merged in the order of their names, which begin with a time."""

    start_time: float | None = None
    series: dict[str, _Series] = field(default_factory=dict)
    strange_tags: set[str] = field(default_factory=set)
    files: dict[str, _File] = field(default_factory=dict)

    def read(self, sizes: Mapping[str, int]) -> None:
        """Read what is new in the files of the directory, given with their sizes."""
        known = list(self.files)
        replaced = any(sizes.get(path, -1) < file.size for path, file in self.files.items())
        if replaced or known != sorted(sizes, key=_file_name)[: len(known)]:
            # What was read came from files that are gone, or should have come later: begin anew.
            self.start_time, self.series, self.strange_tags, self.files = None, {}, set(), {}
        for path in sorted(sizes, key=_file_name):
            self._read_file(path, self.files.setdefault(path, _File()), sizes[path])

    def notes(self) -> Iterator[str]:
        for path, file in self.files.items():
            for note in file.notes():
                yield f"{path}: {note}"

    def _read_file(self, path: str, file: _File, size: int) -> None:
        if file.lost or (size <= file.size and not file.unreadable):
            return
        file.size, file.unreadable = size, ""
        try:
            with _open(path, file.offset) as stream:
                for frame in read_frames(stream, file.offset, size):
                    file.offset = frame.stop
                    try:
                        event = None if frame.payload is None else Event.FromString(frame.payload)
                    except DecodeError:
                        event = None
                    if event is None:
                        file.damaged += 1
                    else:
                        self._add(event, file)
        except FormatError as error:
            file.lost = str(error)
        except Exception as error:  # file systems behind TensorBoard's file layer raise errors of their own
            file.unreadable = f"cannot be read: {error}"

    def _add(self, event: Event, file: _File) -> None:
        if self.start_time is None:
            self.start_time = event.wall_time
        if event.session_log.status == SessionLog.START:
            for series in self.series.values():
                series.drop_from(event.step)
        for value in event.summary.value:
            ours = self._series_of(value)
            if ours is None:
                continue
            content = _content(value.tensor)
            if content is None or event.step < 0 or not math.isfinite(event.wall_time):
                file.foreign += 1
                continue
            ours.drop_from(event.step)
            ours.points.append(_Point(event.step, event.wall_time, *content))

    def _series_of(self, value: Any) -> _Series | None:
        """The series of a value, None if it is not ours. The metadata of a tag's first value are those of the tag."""
        tag = value.tag
        if tag not in self.series and tag not in self.strange_tags:
            metadata = value.metadata
            if metadata.plugin_data.plugin_name == PLUGIN_NAME and metadata.data_class == DATA_CLASS_TENSOR:
                self.series[tag] = _Series(metadata)
            else:
                self.strange_tags.add(tag)
        return self.series.get(tag)


def _content(tensor: TensorProto) -> tuple[bytes, tuple[int, ...] | None] | None:
    """Bytes and shape of a tensor, None if it is not of the kinds that we write.

    Checked here, because a few bytes of tensor can claim a shape of many gigabytes.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype == DT_STRING and not shape and len(tensor.string_val) == 1:
        return tensor.string_val[0], None
    if tensor.dtype == DT_UINT16 and len(shape) == 2 and min(shape) > 0:
        return (tensor.tensor_content, shape) if len(tensor.tensor_content) == 2 * math.prod(shape) else None
    return None


def _directories(logdir: str, note: Callable[[str], None]) -> Iterator[tuple[str, dict[str, int]]]:
    """Run names with their event files and sizes."""
    walk, size_of = (_walk_url, _size_of_url) if _is_url(logdir) else (_walk_local, _size_of_local)
    for name, paths in walk(logdir, note):
        sizes = {}
        for path in paths:
            file_name = _file_name(path)
            if "tfevents" in file_name and not file_name.endswith(".profile-empty"):
                try:
                    sizes[path] = size_of(path)
                except Exception as error:
                    note(f"{path}: cannot be read: {error}")
        if sizes:
            yield name, sizes


def _walk_local(logdir: str, note: Callable[[str], None]) -> Iterator[tuple[str, list[str]]]:
    top = Path(logdir)
    if not top.is_dir():
        reason = "is a file: give its directory" if top.exists() else "does not exist"
        raise LogDirectoryError(f"log directory {logdir!r} {reason}")
    if not os.access(top, os.R_OK | os.X_OK):
        raise LogDirectoryError(f"log directory {logdir!r} cannot be read: permission denied")
    for directory, below, files in os.walk(top, followlinks=True, onerror=lambda error: note(str(error))):
        here = Path(directory)
        real = here.resolve()
        loops = [name for name in below if (here / name).is_symlink() and real.is_relative_to((here / name).resolve())]
        below[:] = [name for name in below if name not in loops]
        yield str(here.relative_to(top)), [str(here / name) for name in files]


def _walk_url(logdir: str, note: Callable[[str], None]) -> Iterator[tuple[str, list[str]]]:
    try:
        if not tf.io.gfile.isdir(logdir):
            raise LogDirectoryError(f"log directory {logdir!r} does not exist")
        for directory, _, files in tf.io.gfile.walk(logdir):
            directory = directory.rstrip("/")
            yield directory[len(logdir.rstrip("/")) :].strip("/") or ".", [f"{directory}/{name}" for name in files]
    except LogDirectoryError:
        raise
    except Exception as error:  # of a type that depends on the file system
        raise LogDirectoryError(f"log directory {logdir!r} cannot be read: {error}") from error


def _size_of_local(path: str) -> int:
    return Path(path).stat().st_size


def _size_of_url(path: str) -> int:
    return int(tf.io.gfile.stat(path).length)


def _open(path: str, offset: int) -> Any:
    stream = tf.io.gfile.GFile(path, "rb") if _is_url(path) else Path(path).open("rb")
    if hasattr(stream, "seek"):
        stream.seek(offset)
    elif offset:  # TensorBoard's file layer without TensorFlow knows no other way
        stream.read(offset)
    return stream


def _is_url(path: str) -> bool:
    return "://" in path


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]

"""The event files of one directory, merged: what a run has recorded, and what was wrong with the files.

What a later session made void is kept, as TensorBoard's data server keeps it: whoever reads on hides it, and says so.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat import tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING, DT_UINT16
from tensorboard.data import provider

from deadunits_tb.errors import FormatError
from deadunits_tb.metadata import PLUGIN_NAME
from deadunits_tb.reading.phrases import count
from deadunits_tb.tfrecord import read_frames


@dataclass(frozen=True, slots=True)
class Point:
    """A tensor at a step: a byte string where there is no shape, otherwise 16-bit unsigned integers."""

    step: int
    wall_time: float
    data: bytes
    shape: tuple[int, ...] | None

    def datum(self) -> provider.TensorDatum:
        """The point as the ``DataProvider`` interface has it."""
        if self.shape is None:
            array = np.array(self.data, dtype=object)
        else:
            array = np.frombuffer(self.data, "<u2").reshape(self.shape)
        return provider.TensorDatum(step=self.step, wall_time=self.wall_time, numpy=array)


@dataclass(slots=True)
class Series:
    """One tag of a run. Its points have rising steps."""

    metadata: SummaryMetadata
    points: list[Point] = field(default_factory=list)

    def drop_from(self, step: int) -> None:
        """Of several points of one tag at one step, or where its steps go back, the last counts."""
        while self.points and self.points[-1].step >= step:
            self.points.pop()

    def describe(self) -> provider.TensorTimeSeries:
        """What a listing says of it; there must be points."""
        return provider.TensorTimeSeries(
            max_step=self.points[-1].step,
            max_wall_time=max(point.wall_time for point in self.points),
            plugin_content=self.metadata.plugin_data.content,
            description=self.metadata.summary_description,
            display_name=self.metadata.display_name,
        )

    def read(self, downsample: int) -> list[provider.TensorDatum]:
        """At most so many points, the last always among them."""
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
    unmarked: int = 0

    def notes(self) -> Iterator[str]:
        if self.lost or self.unreadable:
            yield self.lost or self.unreadable
        elif self.offset < self.size:
            yield f"the last {self.size - self.offset:,} bytes are no whole record: still being written, or cut off"
        if self.damaged:
            yield f"{self.damaged:,} damaged records were left out"
        if self.foreign:
            yield f"{self.foreign:,} tensors under our plugin's name were not written by us and were left out"
        if self.unmarked:
            tags = count(self.unmarked, "tag")
            yield f"{tags} under our plugin's name not marked as tensors (data_class) were left out, as by TensorBoard"


@dataclass(slots=True)
class EventDirectory:
    """The event files of one directory, merged in the order of their names, which begin with a time."""

    start_time: float | None = None
    series: dict[str, Series] = field(default_factory=dict)
    strange_tags: set[str] = field(default_factory=set)
    files: dict[str, _File] = field(default_factory=dict)

    def read(self, sizes: Mapping[str, int]) -> None:
        """Read what is new in the files of the directory, given with their sizes."""
        known = list(self.files)
        replaced = any(sizes.get(path, -1) < file.size for path, file in self.files.items())
        if replaced or known != sorted(sizes, key=file_name)[: len(known)]:
            # What was read came from files that are gone, or should have come later: begin anew.
            self.start_time, self.series, self.strange_tags, self.files = None, {}, set(), {}
        for path in sorted(sizes, key=file_name):
            self._read_file(path, self.files.setdefault(path, _File()), sizes[path])

    def notes(self) -> Iterator[str]:
        """What was left out, file by file."""
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
        for value in event.summary.value:
            ours = self._series_of(value, file)
            if ours is None:
                continue
            content = _content(value.tensor)
            if content is None or event.step < 0 or not math.isfinite(event.wall_time):
                file.foreign += 1
                continue
            ours.drop_from(event.step)
            ours.points.append(Point(event.step, event.wall_time, *content))

    def _series_of(self, value: Any, file: _File) -> Series | None:
        """The series of a value, None if it is not ours. The metadata of a tag's first value are those of the tag."""
        tag = value.tag
        if tag not in self.series and tag not in self.strange_tags:
            metadata = value.metadata
            mine = metadata.plugin_data.plugin_name == PLUGIN_NAME
            if mine and metadata.data_class == DATA_CLASS_TENSOR:
                self.series[tag] = Series(metadata)
            else:
                self.strange_tags.add(tag)
                file.unmarked += mine
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


def is_url(path: str) -> bool:
    """Whether TensorBoard's file layer must open a path."""
    return "://" in path


def file_name(path: str) -> str:
    """The last part of a path or URL."""
    return path.replace("\\", "/").rpartition("/")[2]


@contextlib.contextmanager
def _open(path: str, offset: int) -> Iterator[Any]:
    open_file: Any = tf.io.gfile.GFile if is_url(path) else open
    with open_file(path, "rb") as stream:
        if hasattr(stream, "seek"):
            stream.seek(offset)
        elif offset:  # TensorBoard's file layer without TensorFlow knows no other way
            stream.read(offset)
        yield stream

"""One tag's records in memory: payloads as they were read, arrays decoded when they are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deadunits_tb import codec
from deadunits_tb.certificate import Certificates
from deadunits_tb.codec import Bits, StatesBlock
from deadunits_tb.errors import FormatError
from deadunits_tb.metadata import TagInfo
from deadunits_tb.reading.cache import Cache
from deadunits_tb.reading.notes import Notes
from deadunits_tb.reading.phrases import count
from deadunits_tb.record import Byte, Int, Window
from deadunits_tb.run_record import RunRecord

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]
Arrays = Cache[Pair]
"""Decoded arrays, bounded by bytes and shared by all runs."""
_ids = itertools.count()
"""Name contents in the cache: the same tag, read again after it has grown, is another content."""


@dataclass(frozen=True, slots=True)
class Point:
    """One datum of a tensor time series.

    Attributes:
        step: As the event says.
        wall_time: Seconds since the epoch, as the event says.
        value: The tensor.
    """

    step: int
    wall_time: float
    value: npt.NDArray[Any]

    @property
    def payload(self) -> bytes:
        """The single byte string that the tensor holds.

        Raises:
            FormatError: It holds something else.
        """
        value = self.value.item() if self.value.size == 1 else None
        if not isinstance(value, bytes):
            raise FormatError(f"a tensor of type {self.value.dtype} and shape {self.value.shape} is no record of ours")
        return value


def array_cache(max_bytes: int) -> Arrays:
    """Room for decoded arrays."""
    return Cache(max_bytes, lambda pair: pair[0].nbytes + pair[1].nbytes)


def in_order(points: Iterable[Point]) -> list[Point]:
    """Points in order of steps; of several at one step the one written last."""
    latest = {point.step: point for point in sorted(points, key=lambda point: point.wall_time)}
    return [latest[step] for step in sorted(latest)]


class _Row(NamedTuple):
    window: Window
    states: Byte
    since: Int


class StatesSeries:
    """States and carried evidence of one range of units over one range of records: ``n`` records of ``u`` units.

    Every payload is decoded once, to see whether it can be, and the planes go into the cache. A plane that has fallen
    out of it is decoded again.

    Args:
        info: What the tag holds.
        points: Its data.
        arrays: Where planes are kept.
        before: The same tag as it was read earlier, while it was shorter: what it begins with is not decoded again.

    Attributes:
        info: What the tag holds.
        steps: ``int64 [n]``, ascending.
        wall_times: ``float64 [n]``.
        windows: What each record covers.
        damage: One message for each record that was left out.
    """

    def __init__(
        self, info: TagInfo, points: Iterable[Point], arrays: Arrays, before: StatesSeries | None = None
    ) -> None:
        self.info, self._arrays, self._id = info, arrays, next(_ids)
        self.damage: list[str] = []
        self._payloads: list[bytes] = []
        decoded = before._decoded() if before else {}
        times, rows = [], []
        for point in in_order(points):
            try:
                payload = point.payload
                row = decoded[payload] if payload in decoded else self._decode(payload)
                if row.window.step != point.step:
                    raise FormatError(f"a record of step {row.window.step} lies at step {point.step}")
            except FormatError as error:
                self.damage.append(str(error))
                continue
            self._payloads.append(payload)
            times.append(point.wall_time)
            rows.append(row)
        self.windows = [row.window for row in rows]
        self.steps = np.array([window.step for window in self.windows], np.int64)
        self.wall_times = np.array(times, np.float64)
        self._arrays.get(self._id, lambda: self._stack(rows))

    def planes(self) -> tuple[Byte, Int]:
        """``uint8 [n, u]`` state codes, and ``int64 [n, u]`` steps since which they hold."""
        return self._arrays.get(self._id, lambda: self._stack([self._decode(payload) for payload in self._payloads]))

    def block(self, row: int) -> StatesBlock:
        """Everything that one record holds."""
        return codec.decode_states(self._payloads[row], self.info.units)

    def _decode(self, payload: bytes) -> _Row:
        block = codec.decode_states(payload, self.info.units)
        return _Row(block.window, block.states, block.since.copy())  # a view would keep all of the block in memory

    def _decoded(self) -> dict[bytes, _Row]:
        return dict(zip(self._payloads, map(_Row, self.windows, *self.planes()), strict=True))

    def _stack(self, rows: list[_Row]) -> Pair:
        states = np.array([row.states for row in rows], np.uint8)
        since = np.array([row.since for row in rows], np.int64)
        return states.reshape(-1, self.info.units), since.reshape(-1, self.info.units)


class SummarySeries:
    """Facts of a run over one range of records.

    Args:
        info: What the tag holds.
        points: Its data.

    Attributes:
        info: What the tag holds.
        steps: ``int64 [n]``, ascending.
        records: The facts, ``n`` of them.
        damage: One message for each record that was left out.
    """

    def __init__(self, info: TagInfo, points: Iterable[Point]) -> None:
        self.info = info
        self.damage: list[str] = []
        self.records: list[RunRecord] = []
        layers = [layer.name for layer in info.run.layers] if info.run else []
        for point in in_order(points):
            try:
                record = codec.decode_run(point.payload, layers)
                if record.step != point.step:
                    raise FormatError(f"a record of step {record.step} lies at step {point.step}")
            except FormatError as error:
                self.damage.append(str(error))
            else:
                self.records.append(record)
        self.steps = np.array([record.step for record in self.records], np.int64)


class StatisticsSeries:
    """Statistics of one range of units over one range of records, read from the provider when they are asked for.

    Args:
        info: What the tag holds.
        last_step: Step of its last record.
        read: Reads its data; raises FormatError if that cannot be done.
        arrays: Where they are kept.

    Attributes:
        info: What the tag holds.
        last_step: Step of its last record.
        notes: What was left out; known once it was read.
    """

    def __init__(self, info: TagInfo, last_step: int, read: Callable[[], Iterable[Point]], arrays: Arrays) -> None:
        self.info, self.last_step, self.notes = info, last_step, Notes()
        self._read, self._arrays, self._id = read, arrays, next(_ids)
        self._steps: Int | None = None

    @property
    def steps(self) -> Int:
        """``int64 [n]`` steps of its records, ascending."""
        if self._steps is None:
            return self.rows()[0]
        return self._steps

    def rows(self) -> tuple[Int, Bits]:
        """Steps ``int64 [n]``; bits of bfloat16 ``uint16 [n, statistics, u]``, statistics as ``info`` orders them."""
        try:
            pair = self._arrays.get(self._id, self._load)
        except FormatError as error:  # not kept: the next call tries again
            self.notes.add(f"{of_tag(self.info)}: statistics left out: {error}")
            return np.empty(0, np.int64), np.empty((0, *self._shape), np.uint16)
        self._steps = pair[0]
        return pair

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.info.statistics), self.info.units

    def _load(self) -> Pair:
        points = in_order(self._read())
        kept = [point for point in points if point.value.dtype == np.uint16 and point.value.shape == self._shape]
        if len(kept) < len(points):
            wrong = count(len(points) - len(kept), "record")
            self.notes.add(f"{of_tag(self.info)}: {wrong} of statistics left out: not of the declared type and shape")
        bits = np.array([point.value for point in kept], np.uint16)
        _quieten(bits)
        return np.array([point.step for point in kept], np.int64), bits.reshape(-1, *self._shape)


class CertificatesSeries:
    """Certificates of one range of units over one range of records, read from the provider when they are asked for.

    Args:
        info: What the tag holds.
        read: Reads its data; raises FormatError if that cannot be done.

    Attributes:
        info: What the tag holds.
        notes: What was left out; known once it was read.
    """

    def __init__(self, info: TagInfo, read: Callable[[], Iterable[Point]]) -> None:
        self.info, self.notes = info, Notes()
        self._read = read
        self._points: list[Point] | None = None

    def until(self, step: int) -> tuple[int, Certificates] | None:
        """The step of the last record up to a step, and what it holds; None where there is none."""
        if self._points is None:
            try:
                self._points = in_order(self._read())
            except FormatError as error:  # not kept: the next call tries again
                self._leave_out(error)
                return None
        for point in reversed(self._points):
            if point.step <= step:
                try:
                    return point.step, codec.decode_certificates(point.payload, self.info.units)
                except FormatError as error:
                    self._leave_out(error)
        return None

    def _leave_out(self, error: FormatError) -> None:
        self.notes.add(f"{of_tag(self.info)}: certificates left out: {error}")


def _quieten(bits: Bits) -> None:
    """Signalling NaNs, which we never write and NumPy warns about, become quiet ones. In place."""
    special = (bits & 0x7FC0) == 0x7F80
    if special.any():
        special &= (bits & 0x3F) != 0
        bits[special] |= 0x40


def of_tag(info: TagInfo) -> str:
    """What a tag is about, in a note."""
    return f"layer {info.layer.name!r}" if info.layer else "the run's summary"

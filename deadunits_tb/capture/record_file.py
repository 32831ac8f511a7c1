"""Records to the tags of an event file, within a budget of bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from deadunits_tb import codec, metadata
from deadunits_tb.capture.event_file import EventFile, Value, scalar_metadata, value_event
from deadunits_tb.metadata import RECORD_BLOCK, UNIT_BLOCK, TagInfo
from deadunits_tb.record import LayerRecord
from deadunits_tb.run_record import RunInfo, RunRecord
from deadunits_tb.units import LayerInfo, UnitState

DEAD_FRACTION = "dead_units/dead_fraction"
"""Tag of the plain scalar that Time Series and HParams show: the share of all units that are dead."""

_HORIZON = 2048
"""No run has more records than this, so the budget is spread over as many."""
_SUMMARIES = 64
"""One part in so many of the budget is left for the summaries, when even the states no longer fit."""


class RecordFile:
    """Encodes records and writes them, one after the other, in the thread that calls.

    Args:
        directory: Where the event file is made.
        run: Facts of the run.
        max_bytes: What all event files in the directory may have together.

    Raises:
        LogDirectoryError: The directory or the file cannot be made.

    Attributes:
        statistics_interval: Every so many-th record holds statistics at present.
    """

    def __init__(self, directory: str, run: RunInfo, max_bytes: int) -> None:
        self._directory = directory
        self._run = run
        self._max_bytes = max_bytes
        self._layers = {layer.name: layer for layer in run.layers}
        self.statistics_interval = 1
        self._summary_size = 512
        self._once = 0  # bytes of metadata, which later records of a tag do not have
        self._open()

    @property
    def bytes_written(self) -> int:
        """Bytes in all event files of the directory."""
        return self._file.others + self._file.size

    @property
    def remote(self) -> bool:
        """Whether a reader sees what was written only after :meth:`flush`."""
        return self._file.remote

    def write(
        self, run_record: RunRecord, records: Sequence[LayerRecord], infos: Mapping[str, LayerInfo]
    ) -> str | None:
        """Write a record of the run and its layers, all or nothing.

        Returns:
            What the budget left out, None for nothing.

        Raises:
            Exception: It could not be written; OSError for a local file.
        """
        if self._file.broken:
            self._open()
        self._layers.update(infos)
        if self._records % RECORD_BLOCK == 0:
            self._tags.clear()
            layers = tuple(sorted(self._layers.values(), key=lambda layer: layer.order))
            self._run = replace(self._run, layers=layers)
        try:
            return self._write(run_record, records)
        except Exception:
            self._tags.clear()  # metadata that may not be in the file come again
            self._scalars.clear()
            raise

    def scalar(self, tag: str, value: float, step: int, wall_time: float) -> None:
        """Write a plain scalar, if the budget has room for it.

        Raises:
            Exception: As for :meth:`write`.
        """
        event = self._scalar(tag, value, step, wall_time)
        if self.bytes_written + len(event) <= self._max_bytes:
            self._file.start(step, wall_time)
            self._file.write(event)

    def flush(self) -> None:
        """Make sure that a reader sees what was written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        self._file = EventFile(self._directory)
        self._records = 0
        self._tags: dict[object, str] = {}
        self._scalars: set[str] = set()

    def _write(self, run_record: RunRecord, records: Sequence[LayerRecord]) -> str | None:
        time = run_record.step, run_record.wall_time
        left_out = None
        self._once = 0
        states = [event for record in records for event in self._states(record, *time)]
        scalars = [self._scalar(DEAD_FRACTION, dead_fraction(run_record), *time)] if records else []
        expected = sum(map(len, (*states, *scalars))) + self._summary_size
        if self.bytes_written + expected > self._max_bytes - self._max_bytes // _SUMMARIES:
            states, scalars = [], []
            left_out = f"the budget of {self._max_bytes:,} bytes is used up: only summaries are recorded from now on"
        statistics: list[bytes] = []
        if states and self._has_statistics(records, expected - self._once):
            statistics = [event for record in records for event in self._statistics(record, *time)]
            statistics += [event for record in records for event in self._certificates(record, *time)]
        self._once = 0
        summary = self._summary(run_record)
        events = [summary, *scalars, *states, *statistics]
        size = sum(map(len, events))
        if self.bytes_written + size > self._max_bytes:
            raise BudgetError(f"the budget of {self._max_bytes:,} bytes is used up: nothing more is recorded")
        self._file.start(*time)
        self._file.write(b"".join(events))
        self._records += 1
        self._summary_size = len(summary) - self._once
        return left_out

    def _has_statistics(self, records: Sequence[LayerRecord], expected: int) -> bool:
        """Whether this record holds statistics; lengthens the interval when the budget asks for it.

        Args:
            records: Of the layers.
            expected: Bytes of everything else in a record, for which the budget must have room until the end.
        """
        size = sum(2 * record.statistics.values.size + 256 for record in records if record.statistics is not None)
        size += sum(6 * record.certificates.units.size + 256 for record in records if record.certificates is not None)
        number = self._records + 1
        left = self._max_bytes - self.bytes_written - expected * max(_HORIZON - number, 1)
        # Going on like this, and half as often whenever the number of records has doubled, must fit to the end.
        wanted = size * number * math.log2(max(_HORIZON / number, 1))
        while wanted > left * self.statistics_interval and self.statistics_interval < _HORIZON:
            self.statistics_interval *= 2
        return size <= left and self._records % self.statistics_interval == 0

    def _summary(self, record: RunRecord) -> bytes:
        info = TagInfo("summary", run=self._run, block=self._block, session=self._file.session)
        record = replace(record, statistics_interval=self.statistics_interval)
        data = codec.encode_run(record, [layer.name for layer in self._run.layers])
        return self._event("summary", info, record.step, record.wall_time, data)

    def _states(self, record: LayerRecord, step: int, wall_time: float) -> Iterator[bytes]:
        for start, stop in _unit_blocks(record.units):
            info = TagInfo("states", self._layers[record.layer], start, stop, self._block, session=self._file.session)
            yield self._event(info, info, step, wall_time, codec.encode_states(record, start, stop))

    def _statistics(self, record: LayerRecord, step: int, wall_time: float) -> Iterator[bytes]:
        if record.statistics is None or not record.statistics.names:
            return
        layer, names = self._layers[record.layer], record.statistics.names
        for start, stop in _unit_blocks(record.units):
            info = TagInfo("statistics", layer, start, stop, self._block, names, session=self._file.session)
            yield self._event(info, info, step, wall_time, codec.encode_statistics(record.statistics, start, stop))

    def _certificates(self, record: LayerRecord, step: int, wall_time: float) -> Iterator[bytes]:
        certificates = record.certificates
        if certificates is None:
            return
        layer, session = self._layers[record.layer], self._file.session
        for start, stop in _unit_blocks(record.units):
            if certificates.reason or certificates.between(start, stop).units.size:
                info = TagInfo("certificates", layer, start, stop, self._block, session=session)
                yield self._event(info, info, step, wall_time, codec.encode_certificates(certificates, start, stop))

    def _scalar(self, tag: str, value: float, step: int, wall_time: float) -> bytes:
        about = None if tag in self._scalars else scalar_metadata()
        self._scalars.add(tag)
        return value_event(step, wall_time, tag, float(value), about)

    def _event(self, key: object, info: TagInfo, step: int, wall_time: float, value: Value) -> bytes:
        tag, about = self._tags.get(key), None
        if tag is None:
            tag, about = self._tags.setdefault(key, metadata.tag_name(info)), metadata.make(info)
            self._once += about.ByteSize()
        return value_event(step, wall_time, tag, value, about)

    @property
    def _block(self) -> int:
        return self._records // RECORD_BLOCK


class BudgetError(Exception):
    """Not even a summary fits any more."""


def dead_fraction(record: RunRecord) -> float:
    """Share of all units that are dead, NaN without any."""
    units = sum(map(sum, record.counts.values()))
    dead = sum(counts[UnitState.DEAD] for counts in record.counts.values())
    return dead / units if units else math.nan


def _unit_blocks(units: int) -> Iterator[tuple[int, int]]:
    for start in range(0, units, UNIT_BLOCK):
        yield start, min(start + UNIT_BLOCK, units)

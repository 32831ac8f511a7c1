"""What a run recorded, decoded: typed objects over arrays, the dense ones built when they are asked for."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from deadunits_tb.certificate import Certificates
from deadunits_tb.codec import Bits, StatesBlock
from deadunits_tb.errors import UnknownNameError
from deadunits_tb.reading.series import Arrays, CertificatesSeries, StatesSeries, StatisticsSeries
from deadunits_tb.record import (
    Byte,
    Evidence,
    Float,
    Int,
    LayerRecord,
    Memory,
    Statistics,
    Window,
    from_bfloat16_bits,
)
from deadunits_tb.run_record import RunInfo, RunRecord
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import STATISTIC_BY_NAME, LayerInfo, UnitState

_Columns = TypeVar("_Columns", Evidence, Memory)
_ids = itertools.count()


@dataclass(frozen=True, slots=True)
class Place:
    """Where one record of a layer lies.

    Attributes:
        session: Of the writer, as :class:`~deadunits_tb.metadata.TagInfo` has it.
        step: Its step.
        pieces: For each range of units, the series and the row in it.
    """

    session: int
    step: int
    pieces: tuple[tuple[StatesSeries, int], ...]


class LayerHistory:
    """All records of one layer. ``R`` records in order of steps, ``U`` units. Read only; safe to share between threads.

    Args:
        info: The layer.
        thresholds: In force while writing.
        places: Where its records lie, in order of steps; at least one.
        statistics: Where its statistics lie.
        arrays: Keeps dense arrays.
        certificates: Where its certificates lie.

    Attributes:
        info: The layer.
        steps: ``int64 [R]`` optimizer steps since the start of training.
        wall_times: ``float64 [R]`` seconds since the epoch.
        thresholds: In force while writing.
    """

    def __init__(
        self,
        info: LayerInfo,
        thresholds: Thresholds,
        places: Sequence[Place],
        statistics: Sequence[StatisticsSeries],
        arrays: Arrays,
        certificates: Sequence[CertificatesSeries] = (),
    ) -> None:
        self.info = info
        self.thresholds = thresholds
        self.steps: Int = np.array([place.step for place in places], np.int64)
        times = [series.wall_times[row] for place in places for series, row in place.pieces[:1]]
        self.wall_times: npt.NDArray[np.float64] = np.array(times, np.float64)
        self._places = places
        self._sessions: Int = np.array([place.session for place in places], np.int64)
        self._series = statistics
        self._proofs = certificates
        self._arrays, self._id = arrays, next(_ids)
        self._block = lru_cache(maxsize=4)(self._assemble)  # neighbours ask for evidence, memory and record of the same

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._places)

    @property
    def units(self) -> int:
        """How many units the layer has."""
        return self.info.units

    @cached_property
    def recorded(self) -> npt.NDArray[np.bool_]:
        """``bool [R]``: whether the record holds statistics of all units (the byte budget thins them first)."""
        covered: dict[str, Int] = defaultdict(lambda: np.zeros(len(self), np.int64))
        for series in self._series:
            records, _ = self._match(series, series.steps)
            for name in series.info.statistics:
                covered[name][records] += series.info.units
        whole = [units >= self.units for units in covered.values()]
        return np.logical_or.reduce(whole) if whole else np.zeros(len(self), np.bool_)

    @cached_property
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics that any record holds, in the order of ``STATISTICS``."""
        held = {name for series in self._series for name in series.info.statistics}
        return tuple(name for name in STATISTIC_BY_NAME if name in held)

    def states(self) -> Byte:
        """``uint8 [R, U]`` codes of :class:`~deadunits_tb.units.UnitState`, as the writer judged. Read-only."""
        return self._planes()[0]

    def since(self) -> Int:
        """``int64 [R, U]`` step since which each state holds. Read-only."""
        return self._planes()[1]

    def window(self, index: int) -> Window:
        """What the record of that index covers. Negative indices count from the end."""
        series, row = self._places[index].pieces[0]
        return series.windows[row]

    def evidence(self, index: int) -> Evidence:
        """Counters ``[U]`` up to and including the record of that index."""
        return self._block(index).evidence

    def memory(self, index: int) -> Memory:
        """What confirmation remembered ``[U]`` before the record of that index."""
        return self._block(index).memory

    def statistic(self, name: str, units: Int | None = None) -> Float:
        """One statistic at every record.

        Args:
            name: Of the statistic.
            units: Indices of the units wanted, all if None. A few of them cost far less than all.

        Returns:
            ``float32 [R, U]``, or ``[R, len(units)]``; NaN where it was not recorded.

        Raises:
            UnknownNameError: No record of this layer holds such a statistic.
        """
        if name not in self.statistics:
            raise UnknownNameError.of("statistic", name, self.statistics)
        if units is not None and 4 * len(units) > self.units:  # gathering costs several times more than copying
            return self.statistic(name)[:, units]
        values = np.full((len(self), self.units if units is None else len(units)), np.nan, np.float32)
        for series in self._series:
            if name in series.info.statistics:
                steps, bits = series.rows()
                records, rows = self._match(series, steps)
                column = bits[:, series.info.statistics.index(name)]
                if units is None:
                    values[records, _units(series)] = from_bfloat16_bits(column[rows])
                else:
                    held = np.flatnonzero((units >= series.info.unit_start) & (units < series.info.unit_stop))
                    chosen = column[np.ix_(rows, units[held] - series.info.unit_start)]
                    values[np.ix_(records, held)] = from_bfloat16_bits(chosen)
        return values

    def statistic_at(self, index: int) -> Statistics | None:
        """All statistics of one record that are there for all units, None where there are none."""
        found: dict[str, list[tuple[slice, Bits]]] = defaultdict(list)
        for series, rows in self._rows_at(self._places[index]):
            for name, row in zip(series.info.statistics, rows, strict=True):
                found[name].append((_units(series), row))
        names = [name for name in self.statistics if sum(len(row) for _, row in found[name]) == self.units]
        if not names:
            return None
        bits = np.zeros((len(names), self.units), np.uint16)
        for whole, name in zip(bits, names, strict=True):
            for units, row in found[name]:
                whole[units] = row
        return Statistics(tuple(names), from_bfloat16_bits(bits))

    def certificates(self, index: int) -> Certificates | None:
        """What the last record up to that index that tells it says of dead units; None where none does."""
        place = self._places[index]
        found: list[tuple[int, int, Certificates]] = []
        for series in self._proofs:
            fits = series.info.layer is not None and series.info.layer.units == self.units
            held = series.until(place.step) if fits and series.info.session == place.session else None
            if held is not None:
                found.append((held[0], series.info.unit_start, held[1]))
        latest = max((step for step, _, _ in found), default=None)
        return Certificates.joined([(start, held) for step, start, held in found if step == latest])

    def record(self, index: int) -> LayerRecord:
        """The record of that index, whole; with the certificates that held then."""
        block, window, name = self._block(index), self.window(index), self.info.name
        statistics, proofs = self.statistic_at(index), self.certificates(index)
        return LayerRecord(name, window, statistics, block.evidence, block.memory, block.states, block.since, proofs)

    @property
    def last(self) -> LayerRecord:
        """The last record."""
        return self.record(-1)

    def _planes(self) -> tuple[Byte, Int]:
        return self._arrays.get((self._id, "planes"), self._build_planes)

    def _build_planes(self) -> tuple[Byte, Int]:
        states = np.full((len(self), self.units), UnitState.UNKNOWN, np.uint8)
        since = np.repeat(self.steps[:, None], self.units, axis=1)
        placed: dict[StatesSeries, list[tuple[int, int]]] = defaultdict(list)
        for record, place in enumerate(self._places):
            for series, row in place.pieces:
                placed[series].append((record, row))
        for series, pairs in placed.items():
            records, rows = np.array(pairs).T
            series_states, series_since = series.planes()
            states[records, _units(series)] = series_states[rows]
            since[records, _units(series)] = series_since[rows]
        states.setflags(write=False)
        since.setflags(write=False)
        return states, since

    def _assemble(self, index: int) -> StatesBlock:
        """One record of all units; what no series holds is as before the first record."""
        place = self._places[index]
        blocks = [(series, series.block(row)) for series, row in place.pieces]
        if len(blocks) == 1 and blocks[0][0].info.units == self.units:
            return blocks[0][1]
        evidence, memory = Evidence.none(self.units), Memory.none(self.units, place.step)
        return StatesBlock(
            window=self.window(index),
            evidence=_filled(evidence, [(series, block.evidence) for series, block in blocks]),
            memory=_filled(memory, [(series, block.memory) for series, block in blocks]),
            states=_fill(memory.state.astype(np.uint8), [(series, block.states) for series, block in blocks]),
            since=_fill(memory.since, [(series, block.since) for series, block in blocks]),
        )

    def _match(self, series: StatisticsSeries, steps: Int) -> tuple[Int, Int]:
        """Records of this layer that a series holds statistics of, and the rows of the series."""
        records = np.minimum(np.searchsorted(self.steps, steps), len(self) - 1)
        same = (self.steps[records] == steps) & (self._sessions[records] == series.info.session)
        return records[same], np.flatnonzero(same)

    def _rows_at(self, place: Place) -> Iterator[tuple[StatisticsSeries, Bits]]:
        """Statistics ``uint16 [statistics, units]`` of one record; of each range of units only one series is read."""
        nearest: dict[tuple[int, tuple[str, ...]], StatisticsSeries] = {}
        for series in self._series:
            info, key = series.info, (series.info.unit_start, series.info.statistics)
            reaches = info.session == place.session and series.last_step >= place.step
            if reaches and (key not in nearest or series.last_step < nearest[key].last_step):
                nearest[key] = series
        for series in nearest.values():
            steps, bits = series.rows()
            row = int(np.searchsorted(steps, place.step))
            if row < len(steps) and steps[row] == place.step:
                yield series, bits[row]


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Everything recorded of a run, at the moment it was read.

    Attributes:
        run: The directory that the user named, relative to the log directory; ``"."`` for the log directory itself.
        version: Changes whenever the run has grown; safe inside a URL.
        info: Facts that do not change.
        records: Facts of each record, in order of steps.
        layers: Layer name to its history, in the model's order.
        notes: What was left out, and why: one sentence each. May grow while statistics are read.
    """

    run: str
    version: str
    info: RunInfo
    records: tuple[RunRecord, ...]
    layers: Mapping[str, LayerHistory]
    notes: Sequence[str] = ()

    @property
    def first_step(self) -> int:
        """Step of the first record, 0 if there is none."""
        steps = [record.step for record in self.records[:1]] + [int(layer.steps[0]) for layer in self.layers.values()]
        return min(steps, default=0)

    @property
    def last_step(self) -> int:
        """Step of the last record, 0 if there is none."""
        steps = [record.step for record in self.records[-1:]] + [int(layer.steps[-1]) for layer in self.layers.values()]
        return max(steps, default=0)

    @property
    def records_written(self) -> int:
        """How many records the writers say they wrote up to the last one; more than there are if some were lost."""
        numbers = [record.records_written for record in self.records]
        began_anew = [before for before, after in itertools.pairwise(numbers) if after <= before]  # a resumed run
        return sum(began_anew) + sum(numbers[-1:])

    def layer(self, name: str) -> LayerHistory:
        """The history of one layer.

        Raises:
            UnknownNameError: The run has no such layer.
        """
        if name not in self.layers:
            raise UnknownNameError.of("layer", name, self.layers)
        return self.layers[name]


def _units(series: StatesSeries | StatisticsSeries) -> slice:
    return slice(series.info.unit_start, series.info.unit_stop)


def _fill(whole: npt.NDArray[Any], parts: Sequence[tuple[StatesSeries, npt.NDArray[Any]]]) -> npt.NDArray[Any]:
    filled: npt.NDArray[Any] = whole.copy()
    for series, part in parts:
        filled[_units(series)] = part
    return filled


def _filled(whole: _Columns, parts: Sequence[tuple[StatesSeries, _Columns]]) -> _Columns:
    columns = {
        field.name: _fill(getattr(whole, field.name), [(series, getattr(part, field.name)) for series, part in parts])
        for field in fields(whole)
    }
    return type(whole)(**columns)

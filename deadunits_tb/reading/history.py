"""What a run recorded, decoded: typed objects over arrays, the dense ones built when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deadunits_tb.errors import UnknownNameError
from deadunits_tb.record import Byte, Evidence, Float, Int, LayerRecord, Memory, Statistics, Window
from deadunits_tb.run_record import RunInfo, RunRecord
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo


class LayerHistory:
    """All records of one layer. ``R`` records in order of steps, ``U`` units. Read only; safe to share between threads.

    Attributes:
        info: The layer.
        steps: ``int64 [R]`` optimizer steps since the start of training.
        wall_times: ``float64 [R]`` seconds since the epoch.
        thresholds: In force while writing.
    """

    info: LayerInfo
    steps: Int
    wall_times: npt.NDArray[np.float64]
    thresholds: Thresholds

    def __len__(self) -> int:
        """How many records there are."""
        raise NotImplementedError

    @property
    def units(self) -> int:
        """How many units the layer has."""
        raise NotImplementedError

    @property
    def recorded(self) -> npt.NDArray[np.bool_]:
        """``bool [R]``: whether the record holds statistics (the byte budget thins them first)."""
        raise NotImplementedError

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics that any record holds, in the order of ``STATISTICS``."""
        raise NotImplementedError

    def states(self) -> Byte:
        """``uint8 [R, U]`` codes of :class:`~deadunits_tb.units.UnitState`, as the writer judged. Read-only."""
        raise NotImplementedError

    def since(self) -> Int:
        """``int64 [R, U]`` step since which each state holds. Read-only."""
        raise NotImplementedError

    def window(self, index: int) -> Window:
        """What the record of that index covers. Negative indices count from the end."""
        raise NotImplementedError

    def evidence(self, index: int) -> Evidence:
        """Counters ``[U]`` up to and including the record of that index."""
        raise NotImplementedError

    def memory(self, index: int) -> Memory:
        """What confirmation remembered ``[U]`` before the record of that index."""
        raise NotImplementedError

    def statistic(self, name: str) -> Float:
        """One statistic at every record.

        Returns:
            ``float32 [R, U]``, NaN where it was not recorded. Read-only.

        Raises:
            UnknownNameError: No record of this layer holds such a statistic.
        """
        raise NotImplementedError

    def statistic_at(self, index: int) -> Statistics | None:
        """All statistics of one record, None where it holds none."""
        raise NotImplementedError

    def record(self, index: int) -> LayerRecord:
        """The record of that index, whole."""
        raise NotImplementedError

    @property
    def last(self) -> LayerRecord:
        """The last record."""
        return self.record(-1)


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Everything recorded of a run, at the moment it was read.

    Attributes:
        run: The directory that the user named, relative to the log directory; ``"."`` for the log directory itself.
        version: Changes whenever the run has grown; safe inside a URL.
        info: Facts that do not change.
        records: Facts of each record, in order of steps.
        layers: Layer name to its history, in the model's order.
        notes: What was left out, and why: one sentence each.
    """

    run: str
    version: str
    info: RunInfo
    records: tuple[RunRecord, ...]
    layers: Mapping[str, LayerHistory]
    notes: tuple[str, ...] = ()

    @property
    def first_step(self) -> int:
        """Step of the first record."""
        return min([r.step for r in self.records[:1]] + [int(layer.steps[0]) for layer in self.layers.values()])

    @property
    def last_step(self) -> int:
        """Step of the last record."""
        return max([r.step for r in self.records[-1:]] + [int(layer.steps[-1]) for layer in self.layers.values()])

    def layer(self, name: str) -> LayerHistory:
        """The history of one layer.

        Raises:
            UnknownNameError: The run has no such layer.
        """
        if name not in self.layers:
            raise UnknownNameError.of("layer", name, self.layers)
        return self.layers[name]

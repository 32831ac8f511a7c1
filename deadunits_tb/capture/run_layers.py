"""All layers of a run: their open windows, and what their last records say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deadunits_tb.capture.accumulators import LayerAccumulator, largest_update
from deadunits_tb.capture.observation import StepObservation, StepObservations
from deadunits_tb.errors import UnknownNameError
from deadunits_tb.record import NEVER, LayerRecord
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, UnitState


class RunLayers:
    """The layers of a run, in the order in which they became known.

    Args:
        thresholds: In force while writing.
        dataset_examples: Examples in one pass over the data, 0 if unknown.
    """

    def __init__(self, thresholds: Thresholds, dataset_examples: int) -> None:
        self._thresholds = thresholds
        self._dataset_examples = dataset_examples
        self._windows: dict[str, LayerAccumulator] = {}
        self._first_step = NEVER
        self.infos: dict[str, LayerInfo] = {}
        """Layer name to what is known of it."""
        self.last_records: dict[str, LayerRecord] = {}
        """Layer name to its last record."""
        self.counts: dict[str, tuple[int, ...]] = {}
        """Layer name to units in each state, by wire code, at its last record."""
        self.dead_fraction = math.nan
        """Share of all units that are dead at the last record, NaN before the first."""

    def add_layer(self, info: LayerInfo) -> None:
        """Make a layer known, or correct what is said of it."""
        self.infos[info.name] = info
        known = self._windows.get(info.name)
        if known is not None:
            known.info = info
        else:
            self._windows[info.name] = LayerAccumulator(info, self._thresholds, dataset_examples=self._dataset_examples)

    def window(self, layer: str) -> LayerAccumulator:
        """The open window of a layer.

        Raises:
            UnknownNameError: There is no such layer.
        """
        if layer not in self._windows:
            raise UnknownNameError.of("layer", layer, self._windows)
        return self._windows[layer]

    def add(self, step: int, observation: StepObservation) -> None:
        """Take in one observed step.

        Raises:
            UnknownNameError: It is of a layer that is not known.
            ValueError: It is of another number of units.
        """
        if self._first_step == NEVER:
            self._first_step = step
        for name, layer in observation.layers.items():
            self.window(name).add(step, layer)

    def add_steps(self, steps: Sequence[int], observed: StepObservations) -> None:
        """Take in several observed steps, as :meth:`add` does one by one."""
        if self._first_step == NEVER:
            self._first_step = steps[0]
        for name, layer in observed.layers.items():
            self.window(name).add_steps(steps, layer, observed.weights.get(name))

    def close_windows(self, *, step: int, wall_time: float, from_start: bool) -> list[LayerRecord]:
        """Judge what was observed since the last record.

        Args:
            step: Of the records.
            wall_time: Seconds since the epoch.
            from_start: Whether the first step of the run's life was observed.

        Returns:
            A record of each layer that was observed.
        """
        seen = {name: window.statistics() for name, window in self._windows.items() if window.examples}
        moves = [move for move in map(largest_update, seen.values()) if not math.isnan(move)]
        records = [
            self._windows[name].record(
                statistics,
                step=step,
                wall_time=wall_time,
                run_moves=max(moves, default=math.nan),
                from_start=from_start and self._windows[name].first_step == self._first_step,
            )
            for name, statistics in seen.items()
        ]
        for record in records:
            self.last_records[record.layer] = record
            self.counts[record.layer] = tuple(np.bincount(record.states, minlength=len(UnitState)).tolist())
        units = sum(map(sum, self.counts.values()))
        self.dead_fraction = sum(c[UnitState.DEAD] for c in self.counts.values()) / units if units else math.nan
        return records

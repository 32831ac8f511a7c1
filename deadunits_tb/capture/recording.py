"""What observed steps have shown is added up, judged, and goes to the log as records."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import time as wall_clock

import numpy as np

from deadunits_tb.capture.alarms import AlarmCallback, AlarmWatch
from deadunits_tb.capture.certificates import Proofs, silent_units
from deadunits_tb.capture.journal import RunJournal
from deadunits_tb.capture.observation import Deferred
from deadunits_tb.capture.pending import PendingSteps
from deadunits_tb.capture.run_layers import RunLayers
from deadunits_tb.capture.run_window import RunWindow
from deadunits_tb.capture.schedule import MOST_RECORDS, ObservationSchedule, RecordSchedule
from deadunits_tb.record import NEVER, Int, LayerRecord
from deadunits_tb.run_record import EVENT_UNITS, RunEvent, RunInfo, RunRecord
from deadunits_tb.units import LayerInfo

LearningRate = Callable[[], float | None] | float | None


class Recording:
    """Makes the records of a run.

    Steps are counted, which tells when a record is due; what they are called in records is their number.

    Args:
        log_dir: The run's log directory.
        run: Facts of the run.
        costs: Knows what observing has cost.
        max_bytes: Most bytes of the run's event files.
        total_steps: The step at which training is expected to end; None if unknown.
        initial_step: The first step of this process.
        dataset_examples: Examples in one pass over the data, 0 if unknown.
        on_alarm: Called when units enter an alarm state. If it raises it is not called again.

    Raises:
        LogDirectoryError: The log directory cannot be written.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        run: RunInfo,
        costs: ObservationSchedule,
        *,
        max_bytes: int,
        total_steps: int | None,
        initial_step: int,
        dataset_examples: int,
        on_alarm: AlarmCallback | None,
    ) -> None:
        self.layers = RunLayers(run.thresholds, dataset_examples)
        """Those that are known."""
        self.journal = RunJournal(log_dir, run, self.layers.infos, max_bytes=max_bytes)
        """The log."""
        self.pending = PendingSteps()
        """Observed steps that wait."""
        self.proofs = Proofs()
        """Certificates that wait for the next record."""
        self._costs = costs
        self._on_alarm = on_alarm
        self._alarms = AlarmWatch()
        self._window = RunWindow()
        self._learning_rate: LearningRate = None
        self._silent: dict[str, Int] | None = None
        self._initial_step = initial_step
        self._schedule = RecordSchedule(initial_step=initial_step, total_steps=total_steps)
        self._last_step = self._last_number = self._record_step = NEVER
        self._from_start = False

    def start_at(self, step: int) -> None:
        """Learn the first step of this process, before anything is observed."""
        self._initial_step = step
        self._schedule = RecordSchedule(initial_step=step)

    def expect(self, total_steps: int | None) -> None:
        """Learn, or correct, the step at which training is expected to end, as counted."""
        self._schedule.expect(total_steps)

    def due(self, step: int) -> bool:
        """Whether an observation of this step becomes a record, if there are enough examples."""
        return self._schedule.due(step)

    def add_layer(self, info: LayerInfo) -> None:
        """Make a layer known, or correct what is said of it from now on."""
        self.layers.add_layer(info)
        self.pending.make_room_for(sum(layer.units for layer in self.layers.infos.values()))
        self.journal.no_longer_skipped(info.name)

    def take(self, step: int, number: int, deferred: Deferred, learning_rate: LearningRate) -> int:
        """Take in an observed step.

        Returns:
            Examples that became known by that; they may be of earlier steps.

        Raises:
            ValueError: Steps ran backwards.
        """
        if number < self._last_number:
            raise ValueError(f"steps ran backwards, from {self._last_number} to {number}: begin a new monitor")
        if self._last_step == NEVER:
            self._from_start = step == self._initial_step <= 1  # counted from 0, or by a user's loop from 1
        self._last_step, self._last_number, self._learning_rate = step, number, learning_rate
        self.pending.add(number, deferred)
        due = self.due(step)
        examples = self.fetch() if due or self.pending.full else 0
        if due:
            self._record_if_enough()
        return examples

    def fetch(self) -> int:
        """Take in what waits; returns its examples."""
        return self.pending.take_in(self.layers, self._window)

    def finish(self) -> None:
        """Make a record of what is left."""
        self.fetch()
        self._record_if_enough()  # a handful of examples more would only make the last states flicker

    @property
    def room(self) -> bool:
        """Whether there may be another record before that of the end."""
        return self._schedule.records < MOST_RECORDS - 1

    @property
    def silent(self) -> dict[str, Int]:
        """Layer to the units that were dead or dying at its last record; the same object until the next record."""
        if self._silent is None:
            self._silent = silent_units(self.layers.last_records)
        return self._silent

    def revived(self, layer: str, units: Sequence[int], step: int | None, policy: str) -> None:
        """Units were given new weights: what was observed before is of them as they were."""
        self.fetch()
        if self.room:
            self._record_if_enough()
        indices = np.unique(np.asarray(units, np.int64))
        at = self._last_number if step is None else max(int(step), self._last_number)
        self.layers.window(layer).revived(indices, at)
        named = tuple(indices[:EVENT_UNITS].tolist())
        self.journal.happened(RunEvent(at, "revived", layer, len(indices), named, policy))

    def failed(self, where: str, error: BaseException | str) -> None:
        """Say once what failed, and record it; what waits is given up."""
        self.pending.drop()
        self.journal.failed(where, error, "deadunits_tb stopped monitoring and training goes on.")
        step = max(self._last_number, self._initial_step)
        nothing = RunRecord(step, wall_clock(), examples=0, observations=0, optimizer_steps=0, records_written=0)
        self.journal.write_again(otherwise=nothing)

    def _record_if_enough(self) -> None:
        if self._window.examples and self._schedule.enough(self._window.examples):
            self._record()

    def _record(self) -> None:
        """Make a record of what was observed since the last one, at the step observed last."""
        wall_time = wall_clock()
        records = self.layers.close_windows(step=self._last_number, wall_time=wall_time, from_start=self._from_start)
        records, self._silent = self.proofs.attach(records), None
        self._schedule.recorded(self._last_step)
        run_record = self._run_record(wall_time)
        self._record_step = self._last_step
        self._window = RunWindow()
        self.journal.write(run_record, records)
        self._raise_alarms(records)

    def _run_record(self, wall_time: float) -> RunRecord:
        rate, costs = self._learning_rate, self._costs
        rate = rate() if callable(rate) else rate
        since = self._initial_step - 1 if self._record_step == NEVER else self._record_step
        return RunRecord(
            step=self._last_number,
            wall_time=wall_time,
            examples=self._window.examples,
            observations=self._window.observations,
            optimizer_steps=self._last_step - since,
            learning_rate=None if rate is None else float(rate),
            loss=self._window.loss,
            inputs=self._window.inputs,
            overhead=costs.own_seconds / costs.training_seconds if costs.training_seconds else None,
            overhead_seconds=costs.own_seconds,
            opening_seconds=costs.opening_seconds,
            interval=costs.interval,
            records_written=self._schedule.records,
            counts=dict(self.layers.counts),
        )

    def _raise_alarms(self, records: Sequence[LayerRecord]) -> None:
        if self._on_alarm is None:
            return
        try:
            for alarm in self._alarms.news(records):
                self._on_alarm(alarm)
        except Exception as error:  # the user's own code; what we do ourselves is not at fault and goes on
            self._on_alarm = None
            self.journal.failed("on_alarm", error, "deadunits_tb will not call on_alarm again.")

"""Between the taps of a framework and the event file: schedules, accumulates, judges, records. Knows no framework."""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from time import time as wall_clock
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from deadunits_tb.capture.alarms import AlarmCallback, AlarmWatch
from deadunits_tb.capture.arguments import check_log_dir, check_whole
from deadunits_tb.capture.certificates import Proofs, silent_units
from deadunits_tb.capture.messages import MonitorWarning, one_line, say
from deadunits_tb.capture.observation import Deferred
from deadunits_tb.capture.packed import PackedStep, unpack_steps
from deadunits_tb.capture.recorder import Recorder
from deadunits_tb.capture.run_layers import RunLayers
from deadunits_tb.capture.run_window import RunWindow
from deadunits_tb.capture.schedule import MOST_RECORDS, ObservationSchedule, RecordSchedule
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.record import NEVER, Int, LayerRecord
from deadunits_tb.run_record import EVENT_UNITS, RunEvent, RunInfo, RunRecord, Skipped
from deadunits_tb.units import LayerInfo, count_states

__all__ = ["LearningRate", "Monitor", "MonitorWarning"]

LearningRate = Callable[[], float | None] | float | None
P = ParamSpec("P")
M = TypeVar("M", bound="Monitor")

MOST_PENDING = 32
"""Observations that may wait on the device; more are fetched although no record is due. Many are taken in at once for
little more than one."""
PENDING_NUMBERS = 1 << 21
"""Fewer wait where they would be more numbers than this, of about 14 for each unit."""
FEWEST_PENDING = 8


def _guarded(method: Callable[Concatenate[M, P], None]) -> Callable[Concatenate[M, P], None]:
    """Never let an exception reach the training: report it and step aside."""

    @functools.wraps(method)
    def call(self: M, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.stopped:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.report(method.__name__, error)

    return call


class Monitor:
    """Takes in observed steps and writes records. One per process and run; not thread-safe.

    Call :meth:`wants` before each training step. If it agrees, tap the step and hand what was seen to :meth:`observe`.
    Call :meth:`time` after each step, observed or not. Call :meth:`close` at the end.

    Steps count optimizer steps since the start of training and never run backwards. After construction nothing here
    raises: whatever fails is said once with a :class:`MonitorWarning`, recorded, and the monitor is :attr:`stopped`.

    Args:
        log_dir: The run's log directory; records go into its sub-directory ``dead_units``.
        run: Facts of the run. Its layers are known to the monitor; others are added with :meth:`add_layer`.
        every: Observe every n-th step; None to choose by cost.
        max_overhead: Share of the training time that observing may take beyond the opening allowance, where ``every``
            is None.
        max_bytes: Most bytes of the run's event files.
        total_steps: The step at which training is expected to end, counted like ``step``; None if unknown.
        initial_step: The first step of this process; above 0 in a resumed run.
        dataset_examples: Examples in one pass over the data, 0 if unknown.
        on_alarm: Called with an :class:`~deadunits_tb.capture.alarms.Alarm` as
            :class:`~deadunits_tb.capture.alarms.AlarmWatch` says. If it raises it is not called again.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value.
        LogDirectoryError: The log directory cannot be written.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        run: RunInfo,
        *,
        every: int | None = None,
        max_overhead: float = 0.01,
        max_bytes: int = 2**30,
        total_steps: int | None = None,
        initial_step: int = 0,
        dataset_examples: int = 0,
        on_alarm: AlarmCallback | None = None,
    ) -> None:
        check_log_dir(log_dir)
        check_whole("max_bytes", max_bytes, 1)
        check_whole("total_steps", total_steps, 0, none="if unknown")
        check_whole("initial_step", initial_step, 0)
        check_whole("dataset_examples", dataset_examples, 0)
        if on_alarm is not None and not callable(on_alarm):
            raise InvalidArgumentError(f"on_alarm must be a function of one argument, an Alarm, not {on_alarm!r}")
        self._schedule = ObservationSchedule(
            every=every, max_overhead=max_overhead, initial_step=initial_step, total_steps=total_steps
        )
        self._records = RecordSchedule(initial_step=initial_step, total_steps=total_steps)
        self._initial_step = initial_step
        self._on_alarm = on_alarm
        self._alarms = AlarmWatch()
        self._layers = RunLayers(run.thresholds, dataset_examples)
        self._skipped: dict[str, Skipped] = {}
        self._errors: list[str] = []
        self._events: list[RunEvent] = []
        self._failures_said = 0
        self._pending: list[tuple[int, Deferred]] = []
        self._most_pending = MOST_PENDING
        self._window = RunWindow()
        self._last_step = self._record_step = NEVER
        self._learning_rate: LearningRate = None
        self._last_run_record: RunRecord | None = None
        self._closed = False
        self.proofs = Proofs()
        """Certificates that wait for the next record."""
        self._silent: dict[str, Int] | None = None
        self.stopped = False
        """True once the monitor has stepped aside: nothing more is observed."""
        for info in run.layers:
            self.add_layer(info)
        self._recorder = Recorder(log_dir, run, max_bytes=max_bytes)
        self._process = os.getpid()
        atexit.register(self.close)  # after the recorder's own, so that it runs before it

    def wants(self, step: int) -> bool:
        """Whether this step should be observed."""
        return not self.stopped and self._schedule.wants(step)

    def will_record(self, step: int) -> bool:
        """Whether an observation of this step becomes a record, if there are enough examples."""
        return self._records.due(step)

    def add_layer(self, info: LayerInfo) -> None:
        """Make a layer known before its first observation, or correct what is said of it."""
        self._layers.add_layer(info)
        numbers = 14 * sum(known.units for known in self._layers.infos.values())
        self._most_pending = max(FEWEST_PENDING, min(MOST_PENDING, PENDING_NUMBERS // max(1, numbers)))
        self._skipped.pop(info.name, None)  # it was not called before

    def skip(self, layer: str, reason: str) -> None:
        """Note, once, that a layer is not observed, and why in one sentence."""
        self._skipped.setdefault(layer, Skipped(layer, reason))

    def expect(self, total_steps: int | None) -> None:
        """Learn, or correct, the step at which training is expected to end."""
        self._schedule.expect(total_steps)
        self._records.expect(total_steps)

    def start_at(self, step: int) -> None:
        """Learn the first step of this process, before anything is observed."""
        self._initial_step = step
        self._records = RecordSchedule(initial_step=step)

    @_guarded
    def observe(
        self, step: int, deferred: Deferred, *, learning_rate: LearningRate = None, seconds: float = 0.0
    ) -> None:
        """Take in an observed step.

        Args:
            step: The observed step.
            deferred: Fetches what was seen; called when a record is due, or when several wait.
            learning_rate: Of this step, or a function that gives it and is called when a record is made.
            seconds: The tap's own added work for this step.
        """
        began = perf_counter()
        if step < self._last_step:
            raise ValueError(f"steps ran backwards, from {self._last_step} to {step}: begin a new monitor")
        self._last_step = step
        self._learning_rate = learning_rate
        self._pending.append((step, deferred))
        due, examples = self._records.due(step), 0
        if due or len(self._pending) >= self._most_pending:
            examples = self._fetch()
        if due and self._records.enough(self._window.examples):
            self._record(step)
        self._schedule.observed(step, examples=examples, seconds=seconds + perf_counter() - began)

    @_guarded
    def revived(self, layer: str, units: Sequence[int], *, step: int | None = None, policy: str = "") -> None:
        """Learn that units were given new weights: they are judged anew, and the log has an event.

        What was observed before belongs to the units as they were: it is fetched, and becomes a record of its own where
        it is enough for one.

        Args:
            layer: Of the units.
            units: Their indices.
            step: The last training step before it; None for the last one observed.
            policy: What decided, in words.
        """
        self._fetch()
        room = self._records.records < MOST_RECORDS - 1
        if self._window.examples and room and self._records.enough(self._window.examples):
            self._record(self._last_step)
        indices = np.unique(np.asarray(units, np.int64))
        at = self._last_step if step is None else max(int(step), self._last_step)
        self._layers.window(layer).revived(indices, at)
        named = tuple(indices[:EVENT_UNITS].tolist())
        self._events.append(RunEvent(at, "revived", layer, len(indices), named, policy))
        if self._last_run_record is not None:
            self._write_again()

    def time(self, observed: bool, seconds: float) -> None:
        """Note the duration of a whole training step, the tap's own work in it included."""
        self._schedule.trained(observed=observed, seconds=seconds)

    def report(self, where: str, error: BaseException | str) -> None:
        """Say once what failed, record it, and step aside: the training goes on without the monitor."""
        if self.stopped:
            return
        self.stopped = True
        self._pending.clear()
        message = one_line(where, error)
        self._errors.append(message)
        say(f"deadunits_tb stopped monitoring and training goes on. {message}")
        with contextlib.suppress(Exception):  # what failed may fail again
            self._write_again()

    def flush(self) -> None:
        """Fetch what waits, and wait until the records made so far are in the file."""
        self._fetch_waiting()
        with contextlib.suppress(Exception):
            self._recorder.flush()

    def settle(self) -> None:
        """Make a record of what is left and wait until it is in the file; more may follow, as in a second ``fit``."""
        if self._closed:
            return
        if self._records.records < MOST_RECORDS - 1:  # many short fits must not make more records than a long one
            self._finish()
        self.flush()

    def close(self) -> None:
        """Make a record of the last window, if it is large enough, and wait for the file. May be called again."""
        if self._closed or os.getpid() != self._process:  # a forked child must not touch its parent's device or file
            return
        self._closed = True
        atexit.unregister(self.close)
        self._finish()
        self.stopped = True
        try:
            self._recorder.close()
        except Exception as error:
            say(f"deadunits_tb could not finish its event file. {one_line('close', error)}")
        self._say_failures()

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong so far, in the monitor and in the file, each once."""
        return (*self._errors, *self._recorder.failures)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Layers that are not observed, and why."""
        return tuple(self._skipped.values())

    @property
    def infos(self) -> Mapping[str, LayerInfo]:
        """Layer to what is known of it."""
        return self._layers.infos

    @property
    def last_records(self) -> Mapping[str, LayerRecord]:
        """Layer to its last record."""
        return self._layers.last_records

    @property
    def silent_units(self) -> dict[str, Int]:
        """Layer to the units that were dead or dying at its last record, ascending; layers without any are absent.

        The same object until the next record.
        """
        if self._silent is None:
            self._silent = silent_units(self.last_records)
        return self._silent

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Layer to state label to units, at each layer's last record."""
        return {name: count_states(record.states) for name, record in self.last_records.items()}

    @property
    def dead_fraction(self) -> float:
        """Share of all units that are dead at the last record, NaN before the first."""
        return self._layers.dead_fraction

    @property
    def interval(self) -> int:
        """Steps from the last observation to the next, as the schedule has it now."""
        return self._schedule.interval

    def mean_abs(self, layer: str) -> float:
        """Mean absolute activation of a layer at its last record, NaN before the first."""
        self._layers.window(layer)
        record = self.last_records.get(layer)
        sizes = record.statistics.get("mean_abs") if record is not None and record.statistics is not None else None
        return math.nan if sizes is None else float(np.mean(sizes, dtype=np.float64))

    def scale(self, layer: str) -> float | None:
        """Root mean square of a layer's activations at its last record, None before the first.

        For functions that are not ReLU-like "fired" is told against it.
        """
        return self._layers.window(layer).scale

    @_guarded
    def _fetch_waiting(self) -> None:
        self._fetch()

    @_guarded
    def _finish(self) -> None:
        self._fetch()
        if self._window.examples and self._records.enough(self._window.examples):
            self._record(self._last_step)  # a handful of examples more would only make the last states flicker

    def _fetch(self) -> int:
        """Take in what waits; returns its examples."""
        waiting, self._pending = self._pending, []
        packed: list[PackedStep] = []
        for _, deferred in waiting:
            if not isinstance(deferred, PackedStep):
                break
            packed.append(deferred)
        together = unpack_steps(packed) if len(packed) > 1 else None
        examples = 0
        if together is not None:
            self._layers.add_steps([step for step, _ in waiting[: len(packed)]], together)
            examples += self._window.add_steps(len(packed), together)
            waiting = waiting[len(packed) :]
        for step, deferred in waiting:
            observation = deferred()
            self._layers.add(step, observation)
            examples += self._window.add(observation)
        return examples

    def _record(self, step: int) -> None:
        wall_time = wall_clock()
        records = self._layers.close_windows(step=step, wall_time=wall_time, initial_step=self._initial_step)
        records, self._silent = self.proofs.attach(records), None
        self._records.recorded(step)
        self._last_run_record = self._run_record(step, wall_time)
        self._record_step = step
        self._window = RunWindow()
        self._recorder.write(self._last_run_record, records, self._layers.infos)
        self._say_failures()
        self._raise_alarms(records)

    def _run_record(self, step: int, wall_time: float) -> RunRecord:
        rate, schedule = self._learning_rate, self._schedule
        rate = rate() if callable(rate) else rate
        since = self._initial_step - 1 if self._record_step == NEVER else self._record_step
        return RunRecord(
            step=step,
            wall_time=wall_time,
            examples=self._window.examples,
            observations=self._window.observations,
            optimizer_steps=step - since,
            learning_rate=None if rate is None else float(rate),
            loss=self._window.loss,
            inputs=self._window.inputs,
            overhead=schedule.own_seconds / schedule.training_seconds if schedule.training_seconds else None,
            overhead_seconds=schedule.own_seconds,
            opening_seconds=schedule.opening_seconds,
            interval=schedule.interval,
            records_written=self._records.records,
            dropped=self._recorder.dropped,
            statistics_interval=self._recorder.statistics_interval,
            errors=self.errors,
            skipped=self.skipped,
            counts=dict(self._layers.counts),
            events=self._new_events(),
        )

    def _new_events(self) -> tuple[RunEvent, ...]:
        events, self._events = tuple(self._events), []
        return events

    def _write_again(self) -> None:
        """Write the last run record with what happened since then: readers take the last of a step."""
        last = self._last_run_record
        if last is None:
            step = max(self._last_step, self._initial_step)
            last = RunRecord(step, wall_clock(), examples=0, observations=0, optimizer_steps=0, records_written=0)
        last = replace(last, errors=self.errors, skipped=self.skipped, events=(*last.events, *self._new_events()))
        self._last_run_record = last
        self._recorder.write(last, (), self._layers.infos)

    def _say_failures(self) -> None:
        failures = self._recorder.failures
        for failure in failures[self._failures_said :]:
            say(f"deadunits_tb: {failure}")
        self._failures_said = len(failures)

    def _raise_alarms(self, records: Sequence[LayerRecord]) -> None:
        if self._on_alarm is None:
            return
        try:
            for alarm in self._alarms.news(records):
                self._on_alarm(alarm)
        except Exception as error:  # the user's own code; what we do ourselves is not at fault and goes on
            self._on_alarm = None
            message = one_line("on_alarm", error)
            self._errors.append(message)
            say(f"deadunits_tb will not call on_alarm again. {message}")

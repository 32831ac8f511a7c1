"""Between the taps of a framework and the event file: schedules, accumulates, judges, records. Knows no framework."""

from __future__ import annotations

import atexit
import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from deadunits_tb.capture.alarms import AlarmCallback
from deadunits_tb.capture.arguments import check_log_dir, check_on_alarm, check_whole
from deadunits_tb.capture.certificates import Proofs
from deadunits_tb.capture.messages import MonitorWarning
from deadunits_tb.capture.observation import Deferred
from deadunits_tb.capture.recording import LearningRate, Recording
from deadunits_tb.capture.schedule import ObservationSchedule
from deadunits_tb.record import Int, LayerRecord
from deadunits_tb.run_record import RunInfo, Skipped
from deadunits_tb.units import LayerInfo, count_states

__all__ = ["LearningRate", "Monitor", "MonitorWarning"]

P = ParamSpec("P")
M = TypeVar("M", bound="Monitor")


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
        check_on_alarm(on_alarm)
        self._schedule = ObservationSchedule(
            every=every, max_overhead=max_overhead, initial_step=initial_step, total_steps=total_steps
        )
        self._initial_step, self._total_steps = initial_step, total_steps
        self._recording = Recording(
            log_dir,
            run,
            self._schedule,
            max_bytes=max_bytes,
            total_steps=total_steps,
            initial_step=initial_step,
            dataset_examples=dataset_examples,
            on_alarm=on_alarm,
        )
        self._closed = False
        self.stopped = False
        """True once the monitor has stepped aside: nothing more is observed."""
        for info in run.layers:
            self.add_layer(info)
        self._process = os.getpid()
        atexit.register(self.close)  # after the recorder's own, so that it runs before it

    def wants(self, step: int) -> bool:
        """Whether this step should be observed."""
        return not self.stopped and self._schedule.wants(step)

    def will_record(self, step: int) -> bool:
        """Whether an observation of this step becomes a record, if there are enough examples."""
        return self._recording.due(step)

    def add_layer(self, info: LayerInfo) -> None:
        """Make a layer known before its first observation, or correct what is said of it from now on."""
        known = self.infos.get(info.name)
        if known is not None and known.units != info.units:
            self._finish()
            self.report(
                f"layer {info.name!r}",
                f"it had {known.units} units and now has {info.units}: begin a new monitor for the changed model",
            )
            return
        if known is not None and known.activation_function != info.activation_function:
            self._fetch()  # what waits is of the layer as it was
        self._recording.add_layer(info)

    def skip(self, layer: str, reason: str) -> None:
        """Note, once, that a layer is not observed, and why in one sentence."""
        self._recording.journal.skip(layer, reason)

    def expect(self, total_steps: int | None) -> None:
        """Learn, or correct, the step at which training is expected to end, as the steps are called in records."""
        self._total_steps = total_steps
        self._expect(total_steps)

    def _expect(self, total_steps: int | None) -> None:
        self._schedule.expect(total_steps)
        self._recording.expect(total_steps)

    def start_at(self, step: int) -> None:
        """Learn the first step of this process, before anything is observed."""
        self._initial_step = step
        self._recording.start_at(step)

    @_guarded
    def observe(
        self,
        step: int,
        deferred: Deferred,
        *,
        number: int | None = None,
        learning_rate: LearningRate = None,
        seconds: float = 0.0,
    ) -> None:
        """Take in an observed step.

        Args:
            step: The observed step.
            deferred: Fetches what was seen; called when a record is due, or when several wait.
            number: What the step is called in records, where that is not how it is counted.
            learning_rate: Of this step, or a function that gives it and is called when a record is made.
            seconds: The tap's own added work for this step.
        """
        began = perf_counter()
        called = step if number is None else number
        if called != step and self._total_steps is not None:  # what is told in numbers, counted
            each = (called + 1 - self._initial_step) / (step + 1 - self._initial_step)
            self._expect(step + round((self._total_steps - called) / each))
        examples = self._recording.take(step, called, deferred, learning_rate)
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
        self._recording.revived(layer, units, step, policy)

    def time(self, observed: bool, seconds: float) -> None:
        """Note the duration of a whole training step, the tap's own work in it included."""
        self._schedule.trained(observed=observed, seconds=seconds)

    def report(self, where: str, error: BaseException | str) -> None:
        """Say once what failed, record it, and step aside: the training goes on without the monitor."""
        if self.stopped:
            return
        self.stopped = True
        self._recording.failed(where, error)

    def flush(self) -> None:
        """Fetch what waits, and wait until the records made so far are in the file."""
        self._fetch()
        self._recording.journal.flush()

    def settle(self) -> None:
        """Make a record of what is left and wait until it is in the file; more may follow, as in a second ``fit``."""
        if self._closed:
            return
        if self._recording.room:  # many short fits must not make more records than a long one
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
        self._recording.journal.close()

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong so far, in the monitor and in the file, each once."""
        return self._recording.journal.errors

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Layers that are not observed, and why."""
        return self._recording.journal.skipped

    @property
    def infos(self) -> Mapping[str, LayerInfo]:
        """Layer to what is known of it."""
        return self._recording.layers.infos

    @property
    def last_records(self) -> Mapping[str, LayerRecord]:
        """Layer to its last record."""
        return self._recording.layers.last_records

    @property
    def silent_units(self) -> dict[str, Int]:
        """Layer to the units that were dead or dying at its last record, ascending; layers without any are absent.

        The same object until the next record.
        """
        return self._recording.silent

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Layer to state label to units, at each layer's last record."""
        return {name: count_states(record.states) for name, record in self.last_records.items()}

    @property
    def dead_fraction(self) -> float:
        """Share of all units that are dead at the last record, NaN before the first."""
        return self._recording.layers.dead_fraction

    @property
    def interval(self) -> int:
        """Steps from the last observation to the next, as the schedule has it now."""
        return self._schedule.interval

    def mean_abs(self, layer: str) -> float:
        """Mean absolute activation of a layer at its last record, NaN before the first."""
        self._recording.layers.window(layer)
        record = self.last_records.get(layer)
        sizes = record.statistics.get("mean_abs") if record is not None and record.statistics is not None else None
        return math.nan if sizes is None else float(np.mean(sizes, dtype=np.float64))

    def scale(self, layer: str) -> float | None:
        """Root mean square of a layer's activations at its last record, None before the first.

        For functions that are not ReLU-like "fired" is told against it.
        """
        return self._recording.layers.window(layer).scale

    @property
    def proofs(self) -> Proofs:
        """Certificates that wait for the next record."""
        return self._recording.proofs

    @_guarded
    def _fetch(self) -> None:
        self._recording.fetch()

    @_guarded
    def _finish(self) -> None:
        self._recording.finish()

"""What the log says of a run as a whole beside its records: what went wrong, what is left out, what happened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deadunits_tb.capture.messages import one_line, say
from deadunits_tb.capture.recorder import Recorder
from deadunits_tb.record import LayerRecord
from deadunits_tb.run_record import RunEvent, RunInfo, RunRecord, Skipped
from deadunits_tb.units import LayerInfo


class RunJournal:
    """Writes the records of a run, and puts into each what was noted before it.

    Args:
        log_dir: The run's log directory.
        run: Facts of the run.
        infos: Of all layers by name, as they become known.
        max_bytes: Most bytes of its event files.

    Raises:
        LogDirectoryError: The log directory cannot be written.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str], run: RunInfo, infos: Mapping[str, LayerInfo], *, max_bytes: int
    ) -> None:
        self._infos = infos
        self._recorder = Recorder(log_dir, run, max_bytes=max_bytes)
        self._skipped: dict[str, Skipped] = {}
        self._errors: list[str] = []
        self._events: list[RunEvent] = []
        self._failures_said = 0
        self._last: RunRecord | None = None

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong so far, in the monitor and in the file, each once."""
        return (*self._errors, *self._recorder.failures)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Layers that are not observed, and why."""
        return tuple(self._skipped.values())

    def skip(self, layer: str, reason: str) -> None:
        """Note, once, that a layer is not observed, and why in one sentence."""
        self._skipped.setdefault(layer, Skipped(layer, reason))

    def no_longer_skipped(self, layer: str) -> None:
        """It was not called before."""
        self._skipped.pop(layer, None)

    def failed(self, where: str, error: BaseException | str, sentence: str) -> None:
        """Note what went wrong, and say it after a sentence of what that means."""
        message = one_line(where, error)
        self._errors.append(message)
        say(f"{sentence} {message}")

    def happened(self, event: RunEvent) -> None:
        """Note an event: with the last record, if there is one."""
        self._events.append(event)
        if self._last is not None:
            self._write_again(self._last)

    def write(self, record: RunRecord, records: Sequence[LayerRecord]) -> None:
        """Write a record of the run and those of its layers.

        Args:
            record: Of the run; what is known here is added.
            records: Of the layers that were observed.
        """
        self._last = replace(
            record,
            dropped=self._recorder.dropped,
            statistics_interval=self._recorder.statistics_interval,
            errors=self.errors,
            skipped=self.skipped,
            events=self._new_events(),
        )
        self._recorder.write(self._last, records, self._infos)
        self._say_failures()

    def write_again(self, otherwise: RunRecord) -> None:
        """Write the last record of the run with what happened since then: readers take the last of a step.

        Args:
            otherwise: Where there is none yet.
        """
        with contextlib.suppress(Exception):  # what failed may fail again
            self._write_again(self._last or otherwise)

    def flush(self) -> None:
        """Wait until the records made so far are in the file."""
        with contextlib.suppress(Exception):
            self._recorder.flush()

    def close(self) -> None:
        """Wait for the file, and finish it."""
        try:
            self._recorder.close()
        except Exception as error:
            say(f"deadunits_tb could not finish its event file. {one_line('close', error)}")
        self._say_failures()

    def _write_again(self, last: RunRecord) -> None:
        events = (*last.events, *self._new_events())
        self._last = replace(last, errors=self.errors, skipped=self.skipped, events=events)
        self._recorder.write(self._last, (), self._infos)

    def _new_events(self) -> tuple[RunEvent, ...]:
        events, self._events = tuple(self._events), []
        return events

    def _say_failures(self) -> None:
        failures = self._recorder.failures
        for failure in failures[self._failures_said :]:
            say(f"deadunits_tb: {failure}")
        self._failures_said = len(failures)

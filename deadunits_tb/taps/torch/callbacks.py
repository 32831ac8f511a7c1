"""What callbacks of trainers on PyTorch share: arguments checked early, one monitor over several trainings."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch.distributed as dist

from deadunits_tb.capture.alarms import Alarm, stopping
from deadunits_tb.capture.arguments import check_flag, check_options
from deadunits_tb.thresholds import Thresholds


class Watching:
    """Begins and ends the watching of a model for a callback.

    Args:
        watch: That of :mod:`deadunits_tb.torch`.
        log_dir: The run's directory.
        stop_on_alarm: Whether training is to end when units enter an alarm state.
        on_alarm: Called then.
        every: As ``watch`` has it, and so are the others.
        layers: As there.
        thresholds: As there.
        max_overhead: As there.
        max_bytes: As there.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value.
    """

    def __init__(
        self,
        watch: Callable[..., Any],
        log_dir: str | os.PathLike[str],
        *,
        stop_on_alarm: bool,
        on_alarm: Callable[[Alarm], object] | None,
        every: int | None,
        layers: Iterable[str] | None,
        thresholds: Thresholds | Mapping[str, float] | None,
        max_overhead: float,
        max_bytes: int,
    ) -> None:
        check_options(log_dir, every=every, max_overhead=max_overhead, max_bytes=max_bytes, on_alarm=on_alarm)
        check_flag("stop_on_alarm", stop_on_alarm)
        if isinstance(thresholds, Mapping):
            thresholds = Thresholds.from_dict(thresholds)
        self.log_dir = log_dir
        self.alarmed = False
        """Whether training is to end."""
        self.monitor: Any = None
        self._watch = watch
        self._stop, self._on_alarm = stop_on_alarm, on_alarm
        self._options: dict[str, Any] = {
            "every": every, "layers": layers, "thresholds": thresholds, "max_overhead": max_overhead,
            "max_bytes": max_bytes,
        }  # fmt: skip

    def begin(
        self, model: Any, optimizer: Any, *, step: int, total_steps: int | None, processes: int = 1, scaler: Any = None
    ) -> Any:
        """Watch a model from now on; what was watched before is ended.

        Args:
            model: The model.
            optimizer: Trains it; None where several do.
            step: Optimizer steps so far.
            total_steps: At which training is expected to end, None if unknown.
            processes: How many train the model together.
            scaler: A ``GradScaler``, None without or where it is not known yet.

        Raises:
            InvalidArgumentError: The model or the optimizer cannot be watched.
            LogDirectoryError: The log directory cannot be written.
        """
        self.end()
        self.alarmed = False
        self.monitor = self._watch(
            model,
            self.log_dir,
            optimizer,
            initial_step=step,
            scaler=scaler,
            process_group=dist.group.WORLD if processes > 1 and dist.is_initialized() else None,
            on_alarm=stopping(weakref.WeakMethod(self._stop_training), self._on_alarm)
            if self._stop
            else self._on_alarm,
            **self._options,
        )
        self.monitor.expect(total_steps)
        return self.monitor

    def end(self) -> None:
        """Take everything off the model, and finish the file."""
        monitor, self.monitor = self.monitor, None
        if monitor is not None:
            monitor.close()

    def _stop_training(self) -> None:
        self.alarmed = True

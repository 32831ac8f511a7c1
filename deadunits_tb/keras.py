"""Watch the units of a Keras model while ``fit`` trains it."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deadunits_tb.errors import InvalidArgumentError, MissingDependencyError

try:
    import keras
except ImportError as error:
    raise MissingDependencyError("Keras is not installed: pip install 'deadunits-tb[tensorflow]'") from error

from deadunits_tb.capture.alarms import Alarm, stopping
from deadunits_tb.capture.arguments import check_flag, check_options, check_whole, checked_layers, checked_thresholds
from deadunits_tb.capture.epoch_table import epoch_table
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.revive.keras import ReviveCallback, revive
from deadunits_tb.run_record import RunInfo
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.backends import backend_facts, check_backend
from deadunits_tb.taps.keras.fit_tap import FitTap
from deadunits_tb.taps.keras.parts import model_parts, optimizer_facts
from deadunits_tb.thresholds import Thresholds

__all__ = ["DeadUnitsCallback", "ReviveCallback", "revive"]


class DeadUnitsCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is published without types
    """Records which units die, since when and why, for the Dead Units tab of TensorBoard.

    Give it to ``fit``, before callbacks that read ``logs["dead_fraction"]``, the share of dead units::

        model.fit(x, y, callbacks=[DeadUnitsCallback("runs/mlp")])

    Training is the same to the last bit as without it. Steps are counted as the optimizer counts them, from what it had
    done before; another ``fit`` with the same callback goes on in the same run.

    Args:
        log_dir: The run's directory; records go into its sub-directory ``dead_units``.
        every: Observe every n-th step; None to choose by cost.
        layers: Which layers to watch, by name, path or object; a model or composite layer stands for all within it.
            None for all.
        thresholds: The numbers behind the verdicts, as :class:`~deadunits_tb.Thresholds` or some of them by name.
        max_overhead: Share of the training time that observing may take, beyond an opening allowance of two seconds,
            where ``every`` is None.
        max_bytes: Most bytes of the run's event files.
        dataset_examples: Examples in one pass over the data, where each pass shows the same ones, not augmented: then
            units are dead that were silent for two passes, however short. 0 if unknown.
        on_alarm: Called with an :class:`~deadunits_tb.Alarm` when units enter an alarm state.
        stop_on_alarm: Whether training ends then.
        verbose: 1 to print, after each epoch and for each layer, the mean absolute activation and the number of units
            in each alarm state.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value, or Keras runs on a backend without taps.
        UnknownNameError: There is no such threshold; or, when training begins, no such layer.
        LogDirectoryError: The log directory cannot be written; when training begins.
        MissingDependencyError: This version of Keras cannot be watched.
    """

    async_safe = True
    """Keras may run the end of a batch in another thread: there we only read a number."""

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        *,
        every: int | None = None,
        layers: Iterable[str | keras.Layer] | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        max_overhead: float = 0.01,
        max_bytes: int = 2**30,
        dataset_examples: int = 0,
        on_alarm: Callable[[Alarm], object] | None = None,
        stop_on_alarm: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        check_options(log_dir, every=every, max_overhead=max_overhead, max_bytes=max_bytes, on_alarm=on_alarm)
        check_whole("dataset_examples", dataset_examples, 0)
        check_flag("stop_on_alarm", stop_on_alarm)
        if verbose not in (0, 1):
            raise InvalidArgumentError(f"verbose must be 0 or 1, not {verbose!r}")
        check_backend()
        keras_private.check_version()
        self.log_dir = log_dir
        self._every = every
        self._layers = checked_layers(layers, keras.Layer)
        self._thresholds = checked_thresholds(thresholds)
        self._max_overhead = max_overhead
        self._max_bytes = max_bytes
        self._dataset_examples = dataset_examples
        self._on_alarm = on_alarm
        self._stop_on_alarm = stop_on_alarm
        self._verbose = verbose
        self._monitor: Monitor | None = None
        self._tap: FitTap | None = None
        self._watched_model: keras.Model | None = None
        self._to_print = ""
        self._epoch_begun = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make sure of the arguments and the log directory, then build what observes."""
        self._fit_ended()  # an earlier one may have ended with an exception
        model = self._model
        if self._monitor is None:
            self._begin_run(model)
        elif self._watched_model is not model:
            raise InvalidArgumentError(
                f"this callback has recorded another model into {os.fspath(self.log_dir)}: "
                "make a DeadUnitsCallback with a log directory of its own for each model"
            )
        self._epoch_begun = False
        if self._tap is not None:
            self._tap.begin_fit(self._optimizer_steps())
            self._finish_with(keras_private.fit_callbacks(sys._getframe(1)))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Print what the epoch before has left, below Keras's progress bar."""
        self._print()
        steps, epochs = (self.params or {}).get("steps"), (self.params or {}).get("epochs")
        if not self._epoch_begun and self._tap is not None and self._monitor is not None and steps and epochs:
            self._monitor.expect(self._tap.step + (epochs - epoch) * steps)
        self._epoch_begun = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Get ready for the step that comes next."""
        if self._tap is None:
            return
        steps, in_epoch = int(self._model.steps_per_execution), (self.params or {}).get("steps")
        self._tap.arm(min(steps, max(1, in_epoch - batch)) if in_epoch else steps)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the share of dead units into the logs."""
        self._log(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the share of dead units into the logs."""
        self._log(logs)
        if self._verbose and self._monitor is not None:
            epochs = (self.params or {}).get("epochs")
            self._to_print = epoch_table(self._monitor, f"epoch {epoch + 1}" + (f"/{epochs}" if epochs else ""))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Record what is left, and wait for the file."""
        self._print()
        self._fit_ended()

    def _begin_run(self, model: keras.Model) -> None:
        first_step = self._optimizer_steps()
        monitor = Monitor(
            self.log_dir,
            _run_info(model, self._thresholds, self._every),
            every=self._every,
            max_overhead=self._max_overhead,
            max_bytes=self._max_bytes,
            initial_step=first_step,
            dataset_examples=self._dataset_examples,
            on_alarm=stopping(weakref.WeakMethod(self._stop_training), self._on_alarm)
            if self._stop_on_alarm
            else self._on_alarm,
        )
        weakref.finalize(self, monitor.close).atexit = False  # there the monitor closes by itself
        self._monitor, self._watched_model = monitor, model
        self._tap = FitTap(model, self._layers, self._thresholds, monitor, first_step, every=self._every)

    def _stop_training(self) -> None:
        self._model.stop_training = True

    def _optimizer_steps(self) -> int:
        optimizer = self._model.optimizer
        return 0 if optimizer is None else int(keras.ops.convert_to_numpy(optimizer.iterations))

    def _finish_with(self, callbacks: keras.callbacks.CallbackList | None) -> None:
        """Finish also where ``fit`` ends with an exception: then nobody tells us, but its list of callbacks dies."""
        if callbacks is not None:
            weakref.finalize(callbacks, _fit_ended, weakref.ref(self)).atexit = False

    def _fit_ended(self) -> None:
        if self._tap is not None:
            self._tap.disarm()
            self._tap.ending = True
        if self._monitor is not None:
            self._monitor.settle()

    def _log(self, logs: dict[str, Any] | None) -> None:
        if logs is not None and self._monitor is not None:
            logs["dead_fraction"] = self._monitor.dead_fraction

    def _print(self) -> None:
        if self._to_print:
            sys.stdout.write(self._to_print + "\n")
            sys.stdout.flush()
        self._to_print = ""


def _fit_ended(callback: weakref.ref[DeadUnitsCallback]) -> None:
    watching = callback()
    if watching is not None:
        watching._fit_ended()


def _run_info(model: keras.Model, thresholds: Thresholds, every: int | None) -> RunInfo:
    framework, versions = backend_facts()
    return RunInfo(
        framework=framework,
        versions=versions,
        optimizer=optimizer_facts(model.optimizer),
        thresholds=thresholds,
        every=every,
        model=model_parts(model),
    )

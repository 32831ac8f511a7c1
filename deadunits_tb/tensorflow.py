"""Watch the units of a Keras model while a loop with ``tf.GradientTape`` trains it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from deadunits_tb.errors import InvalidArgumentError, MissingDependencyError

try:
    import tensorflow  # noqa: F401  # what is missing is said here, by name
except ImportError as error:
    raise MissingDependencyError("TensorFlow is not installed: pip install 'deadunits-tb[tensorflow]'") from error

from deadunits_tb.capture.alarms import Alarm
from deadunits_tb.capture.arguments import check_options, check_whole, checked_thresholds
from deadunits_tb.taps.tensorflow import keras_loop
from deadunits_tb.taps.tensorflow.keras_loop_tap import LoopTap
from deadunits_tb.taps.tensorflow.private import check_version
from deadunits_tb.taps.tensorflow.wrapped import WrappedFunction
from deadunits_tb.thresholds import Thresholds

__all__ = ["TensorFlowMonitor", "watch"]

F = TypeVar("F", bound=Callable[..., Any])


def watch(
    model: Any,
    log_dir: str | os.PathLike[str],
    optimizer: Any = None,
    *,
    every: int | None = None,
    layers: Iterable[Any] | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    max_overhead: float = 0.01,
    max_bytes: int = 2**30,
    initial_step: int = 0,
    on_alarm: Callable[[Alarm], object] | None = None,
) -> TensorFlowMonitor:
    """Record which units of a model die, since when and why, for the Dead Units tab of TensorBoard.

    Training is the same to the last bit as without it. Where the training step is a ``tf.function``, wrap it::

        monitor = watch(model, "runs/mlp", optimizer)

        @monitor.wrap
        @tf.function
        def train_step(x, y):
            with tf.GradientTape() as tape:
                loss = loss_of(y, model(x, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
            return loss

        with monitor:
            for x, y in data:
                loss = train_step(x, y)
                monitor.step(loss)

    An eager loop needs no ``wrap``. Calls of the model count under a gradient tape and in training mode, so evaluation
    does not. A step is all that happens between two calls of :meth:`TensorFlowMonitor.step`: gradients may be
    accumulated over several calls.

    Args:
        model: A Keras model. Build it before (``keras.Input``), or its first step may not be observed.
        log_dir: The run's directory; records go into its sub-directory ``dead_units``.
        optimizer: The Keras optimizer that trains the model, or a list of several; needed for gradients of weights, the
            learning rate and loss scaling. None for that which the model was compiled with, if it was.
        every: Observe every n-th step; None to choose by cost.
        layers: Which layers to watch, by name, path or object; a model or composite layer stands for all within it.
            None for all.
        thresholds: The numbers behind the verdicts, as :class:`~deadunits_tb.Thresholds` or some of them by name.
        max_overhead: Share of the training time that observing may take, beyond an opening allowance of two seconds,
            where ``every`` is None.
        max_bytes: Most bytes of the run's event files.
        initial_step: Number of the first step; above 0 where training is resumed.
        on_alarm: Called with an :class:`~deadunits_tb.Alarm` when units enter an alarm state.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value, the optimizer trains another model, the model is
            being watched already, or training under its strategy cannot be watched.
        UnknownNameError: There is no such layer or threshold.
        LogDirectoryError: The log directory cannot be written.
        MissingDependencyError: This version of TensorFlow or Keras cannot be watched.
    """
    check_options(log_dir, every=every, max_overhead=max_overhead, max_bytes=max_bytes, on_alarm=on_alarm)
    check_whole("initial_step", initial_step, 0)
    check_version()
    keras_loop.check_model(model)
    optimizers = keras_loop.checked_optimizers(model, optimizer)
    tap = keras_loop.watching(
        model,
        optimizers,
        keras_loop.checked_layers(layers),
        checked_thresholds(thresholds),
        log_dir,
        every=every,
        max_overhead=max_overhead,
        max_bytes=max_bytes,
        initial_step=initial_step,
        on_alarm=on_alarm,
    )
    return TensorFlowMonitor(tap)


class TensorFlowMonitor:
    """What :func:`watch` returns; a context manager that closes itself."""

    def __init__(self, tap: LoopTap) -> None:
        self._tap = tap
        weakref.finalize(self, tap.close).atexit = False  # there the monitor closes by itself

    def __enter__(self) -> TensorFlowMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wrap(self, function: F) -> F:
        """Look into a function that trains the model: what ``tf.function`` gave, or one of Python.

        Of a ``tf.function`` a second one is made that is traced with taps, with the same settings; observed steps run
        it, and all others the user's own. Several functions of one step may be wrapped, and one by several monitors.
        One that loops over a data set inside cannot be observed: wrap the function of a single step.

        Args:
            function: Called from Python, once or more in each step.

        Raises:
            InvalidArgumentError: It is no function.
        """
        if not callable(function):
            raise InvalidArgumentError(f"wrap takes a function, or what tf.function gave, not {function!r}")
        if isinstance(function, WrappedFunction):
            return function.with_tap(self._tap)  # type: ignore[return-value]
        return WrappedFunction(function, self._tap)  # type: ignore[return-value]

    def step(self, loss: Any = None, step: int | None = None) -> None:
        """Say that a step is over. Never raises.

        Args:
            loss: Of the step: a number or a scalar tensor, which is not waited for.
            step: Number of the step that is over, where it is not what was counted; the count goes on from there.
        """
        self._tap.end_step(loss, step)

    def close(self) -> None:
        """Leave nothing behind, record what is left, and wait for the file. May be called again."""
        self._tap.close()

    def flush(self) -> None:
        """Wait until the records made so far are in the file."""
        self._tap.monitor.flush()

    @property
    def dead_fraction(self) -> float:
        """Share of all units that are dead at the last record, NaN before the first."""
        return self._tap.dead_fraction

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Layer to state to number of units, at each layer's last record."""
        return self._tap.monitor.counts

    @property
    def skipped(self) -> dict[str, str]:
        """Layer that is not observed to the reason."""
        return {one.layer: one.reason for one in self._tap.monitor.skipped}

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong so far, each once."""
        return self._tap.monitor.errors

    @property
    def current_step(self) -> int:
        """Number of the step that is under way."""
        return self._tap.number

"""Watch the units of a model while the Trainer of Hugging Face Transformers trains it."""

from __future__ import annotations

import math
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

from deadunits_tb.errors import MissingDependencyError

try:
    import torch
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingDependencyError(
        "Transformers with PyTorch is not installed: pip install 'deadunits-tb[transformers]'"
    ) from error

from deadunits_tb.capture.alarms import Alarm
from deadunits_tb.taps.torch.callbacks import Watching
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.torch import watch

__all__ = ["DeadUnitsCallback"]


class DeadUnitsCallback(TrainerCallback):  # type: ignore[misc]  # its types are not read
    """Records which units die, since when and why, for the Dead Units tab of TensorBoard.

    ::

        Trainer(model, args, train_dataset=data, callbacks=[DeadUnitsCallback("runs/bert")])

    The share of dead units appears as ``dead_fraction`` in what the Trainer logs. Training is the same to the last bit
    as without it.

    Args:
        log_dir: The run's directory; records go into its sub-directory ``dead_units``.
        every: Observe every n-th optimizer step; None to choose by cost.
        layers: Which layers to watch, by name as in ``named_modules``; a module stands for all within it. None for all.
        thresholds: The numbers behind the verdicts, as :class:`~deadunits_tb.Thresholds` or some of them by name.
        max_overhead: Share of the training time that observing may take, beyond an opening allowance of two seconds,
            where ``every`` is None.
        max_bytes: Most bytes of the run's event files.
        on_alarm: Called with an :class:`~deadunits_tb.Alarm` when units enter an alarm state.
        stop_on_alarm: Whether training ends then.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value; when training begins, there is nothing to watch.
        UnknownNameError: There is no such threshold; or, when training begins, no such layer.
        LogDirectoryError: The log directory cannot be written; when training begins.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        *,
        every: int | None = None,
        layers: Iterable[str] | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        max_overhead: float = 0.01,
        max_bytes: int = 2**30,
        on_alarm: Callable[[Alarm], object] | None = None,
        stop_on_alarm: bool = False,
    ) -> None:
        self._watching = Watching(
            watch,
            log_dir,
            every=every,
            layers=layers,
            thresholds=thresholds,
            max_overhead=max_overhead,
            max_bytes=max_bytes,
            on_alarm=on_alarm,
            stop_on_alarm=stop_on_alarm,
        )
        self._hook: Any = None
        self._losses: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to watch."""
        self._end()  # what was trained before may have ended with an exception
        model = kwargs["model"]
        self._watching.begin(
            model,
            kwargs.get("optimizer"),
            step=state.global_step,
            total_steps=state.max_steps or None,
            processes=args.world_size,
        )
        self._hook = model.register_forward_hook(_LossHook(self._losses))
        _when_training_ends(sys._getframe(1), weakref.WeakMethod(self._end))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the loss to what was seen."""
        losses, self._losses[:] = list(self._losses), []
        if self._watching.monitor is not None:
            self._watching.monitor.step(loss=torch.stack(losses).mean() if losses else None)
        if self._watching.alarmed:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Put the share of dead units into the logs."""
        monitor = self._watching.monitor
        if logs is not None and monitor is not None and math.isfinite(share := monitor.dead_fraction):
            logs["dead_fraction"] = share

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finish."""
        self._end()

    def _end(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()
        self._losses.clear()
        self._watching.end()


class _LossHook:
    """Keeps the loss that a model returns in training, on its device."""

    def __init__(self, losses: list[Any]) -> None:
        self._losses = losses

    def __call__(self, module: Any, args: Any, output: Any) -> None:
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if module.training and isinstance(loss, torch.Tensor) and loss.numel() == 1:
            self._losses.append(loss.detach().float().reshape(()))

    def __deepcopy__(self, memo: Any) -> _LossHook:
        return _LossHook([])

    def __reduce__(self) -> tuple[Any, ...]:
        return _LossHook, ([],)


def _when_training_ends(frame: FrameType | None, end: weakref.WeakMethod[Callable[[], None]]) -> None:
    """Finish also where ``train`` ends with an exception, of which no callback is told: then its own variables die."""

    def ended() -> None:
        method = end()
        if method is not None:
            method()

    while frame is not None:
        loop = frame.f_locals.get("inner_training_loop") if frame.f_code.co_name == "train" else None
        if loop is not None:
            weakref.finalize(loop, ended).atexit = False
            return
        frame = frame.f_back

"""Watch the units of a LightningModule while Lightning trains it."""

from __future__ import annotations

import functools
import math
import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deadunits_tb.errors import MissingDependencyError

try:
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning import Callback  # the same under its older name: the one that the program uses
    else:
        from lightning.pytorch import Callback
except ImportError as error:
    try:
        from pytorch_lightning import Callback
    except ImportError:
        raise MissingDependencyError("Lightning is not installed: pip install 'deadunits-tb[lightning]'") from error

from deadunits_tb.capture.alarms import Alarm
from deadunits_tb.taps.torch.callbacks import Watching
from deadunits_tb.taps.torch.looking import fed
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.torch import TorchMonitor, watch

__all__ = ["DeadUnitsCallback"]


class DeadUnitsCallback(Callback):  # type: ignore[misc]  # its types are not read
    """Records which units die, since when and why, for the Dead Units tab of TensorBoard.

    ::

        Trainer(callbacks=[DeadUnitsCallback("runs/mlp")])

    What ``training_step`` computes is a forward pass, whether it calls the module itself or parts of it. After each
    epoch the share of dead units is logged as ``dead_fraction``. Training is the same to the last bit as without it.

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
        super().__init__()
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
        self._module: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch."""
        total = trainer.estimated_stepping_batches
        # One optimizer tells when it makes a step; of several, the end of a batch is the end of a step.
        optimizer = trainer.optimizers[0] if len(trainer.optimizers) == 1 else None
        monitor = self._watching.begin(
            pl_module,
            optimizer,
            step=trainer.global_step // max(1, len(trainer.optimizers)),
            total_steps=int(total) if math.isfinite(total) and total >= 0 else None,
            processes=trainer.world_size,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
        )
        self._module = pl_module
        vars(pl_module)["training_step"] = _TrainingStep(pl_module.training_step, monitor)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add the loss to what was seen."""
        if self._watching.monitor is not None:
            self._watching.monitor.step(loss=outputs.get("loss") if isinstance(outputs, Mapping) else outputs)
        if self._watching.alarmed:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the share of dead units."""
        if self._watching.monitor is not None and math.isfinite(share := self._watching.monitor.dead_fraction):
            pl_module.log("dead_fraction", share, on_step=False, on_epoch=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Finish."""
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Finish, with what was seen until then."""
        self._end()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Make sure that nothing of ours stays."""
        if stage == "fit":
            self._end()

    def _end(self) -> None:
        module, self._module = self._module, None
        if module is not None:
            vars(module).pop("training_step", None)
        self._watching.end()


class _TrainingStep:
    """A module's ``training_step``, followed as a forward pass. Copied or pickled with the module, it is the plain one.

    Args:
        original: The method.
        monitor: Follows it.
    """

    def __init__(self, original: Callable[..., Any], monitor: TorchMonitor) -> None:
        self._original, self._monitor = original, monitor
        functools.update_wrapper(self, original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        batch = next(iter((*args, *kwargs.values())), ())
        with self._monitor.forward_pass(*fed(batch)):
            return self._original(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return types.MethodType, (self._original.__func__, self._original.__self__)  # type: ignore[attr-defined]

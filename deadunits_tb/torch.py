"""Watch the units of a PyTorch model while a loop of one's own trains it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from deadunits_tb.errors import InvalidArgumentError, MissingDependencyError

try:
    import torch
    from torch import nn
except ImportError as error:
    raise MissingDependencyError("PyTorch is not installed: pip install 'deadunits-tb[torch]'") from error

from deadunits_tb.capture.alarms import Alarm
from deadunits_tb.capture.arguments import check_options, check_whole, checked_layers, checked_thresholds
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.silent_monitor import SilentMonitor
from deadunits_tb.revive.torch import ReviveHook, revive
from deadunits_tb.run_record import RunInfo
from deadunits_tb.taps.torch import private as torch_private
from deadunits_tb.taps.torch.compiled import Around, check_compiled, compiled_parts
from deadunits_tb.taps.torch.distributed import Processes, group_of
from deadunits_tb.taps.torch.known_layers import FRAMEWORK
from deadunits_tb.taps.torch.layers import survey
from deadunits_tb.taps.torch.parts import model_parts
from deadunits_tb.taps.torch.tap import UnitTap
from deadunits_tb.thresholds import Thresholds

__all__ = ["ReviveHook", "TorchMonitor", "revive", "watch"]


def watch(
    model: nn.Module,
    log_dir: str | os.PathLike[str],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    every: int | None = None,
    layers: Iterable[str | nn.Module] | None = None,
    output_layers: Iterable[str | nn.Module] | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    max_overhead: float = 0.01,
    max_bytes: int = 2**30,
    initial_step: int = 0,
    dataset_examples: int = 0,
    on_alarm: Callable[[Alarm], object] | None = None,
    process_group: Any = None,
) -> TorchMonitor:
    """Record which units of a model die, since when and why, for the Dead Units tab of TensorBoard.

    Training is the same to the last bit as without it::

        with watch(model, "runs/mlp", optimizer=optimizer) as monitor:
            for x, y in data:
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                monitor.step(loss=loss)
                optimizer.zero_grad()  # this may come anywhere

    A step is a step of the optimizer, with all forward passes before it: :meth:`TorchMonitor.step` adds the loss and
    may be left out. Forward passes count in training mode and with gradients enabled, if the model itself is called.

    Args:
        model: The model. Call it as ``model(...)``. If it is compiled, compile it before, and watch what
            ``torch.compile`` has returned.
        log_dir: The run's directory; records go into its sub-directory ``dead_units``.
        optimizer: Trains the model. None for updates of one's own: then each call of :meth:`TorchMonitor.step` is the
            end of a step.
        every: Observe every n-th step; None to choose by cost.
        layers: Which layers to watch, by name (as in ``named_modules``) or object; a module stands for all within it.
            Rows of an embedding are watched only if it is named here. None for all.
        output_layers: Which of them give the model's output; None to see it by what the model returns.
        thresholds: The numbers behind the verdicts, as :class:`~deadunits_tb.Thresholds` or some of them by name.
        scaler: The ``GradScaler``, if there is one. It is also found by itself, when it first makes a step.
        max_overhead: Share of the training time that observing may take, beyond an opening allowance of two seconds,
            where ``every`` is None.
        max_bytes: Most bytes of the run's event files.
        initial_step: Number of the first step; above 0 where training is resumed.
        dataset_examples: Examples in one pass over the data, where each pass shows the same ones, not augmented: then
            units are dead that were silent for two passes, however short. 0 if unknown.
        on_alarm: Called with an :class:`~deadunits_tb.Alarm` when units enter an alarm state.
        process_group: Of processes that train the model together and average its gradients. None to find it by
            ``DistributedDataParallel`` and ``fully_shard``. All of them call this function; what they see is added up
            and the first one writes. The loss is the one that the first one is told.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value, nothing can be watched, the optimizer trains
            another model, or is missing for one that is compiled, or the model is being watched already.
        UnknownNameError: There is no such layer or threshold.
        LogDirectoryError: The log directory cannot be written.
        MissingDependencyError: This version of PyTorch cannot be watched, or not where the model is compiled.
    """
    check_options(log_dir, every=every, max_overhead=max_overhead, max_bytes=max_bytes, on_alarm=on_alarm)
    check_whole("initial_step", initial_step, 0)
    check_whole("dataset_examples", dataset_examples, 0)
    torch_private.check_version()
    wrappers = _checked_model(model)
    group = group_of(wrappers, process_group)
    root = wrappers[-1]
    inner = _checked_optimizer(optimizer, root)
    check_compiled(model, inner)
    if scaler is not None and not (hasattr(scaler, "unscale_") and hasattr(scaler, "is_enabled")):
        raise InvalidArgumentError(f"scaler must be a torch.amp.GradScaler, or None without one, not {scaler!r}")
    numbers = checked_thresholds(thresholds)
    chosen = checked_layers(layers, nn.Module, "modules")
    outputs = checked_layers(output_layers, nn.Module, "modules", name="output_layers")
    survey(root, chosen, outputs)  # what is wrong there is said before there is a file
    processes = None if group is None else Processes(group, averaged=True, first_step=initial_step)
    run = RunInfo(
        framework=FRAMEWORK,
        versions={"torch": torch.__version__},
        optimizer=_optimizer_facts(inner),
        thresholds=numbers,
        every=every,
        model=model_parts(root),
    )
    monitor: Monitor | SilentMonitor = SilentMonitor()
    if processes is None or processes.first:
        monitor = Monitor(
            log_dir,
            run,
            every=every,
            max_overhead=max_overhead,
            max_bytes=max_bytes,
            initial_step=initial_step,
            dataset_examples=dataset_examples,
            on_alarm=on_alarm,
        )
    tap = UnitTap(
        root,
        inner,
        monitor,
        chosen=chosen,
        outputs=outputs,
        thresholds=numbers,
        scaler=scaler,
        first_step=initial_step,
        processes=processes,
        compiled=compiled_parts(model),
    )
    return TorchMonitor(monitor, tap)


class TorchMonitor:
    """What :func:`watch` returns; a context manager that closes itself."""

    def __init__(self, monitor: Monitor | SilentMonitor, tap: UnitTap) -> None:
        self._monitor = monitor
        self._tap = tap

    def __enter__(self) -> TorchMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def step(self, loss: torch.Tensor | float | None = None, step: int | None = None) -> None:
        """Say that a step is over. Never raises.

        With an optimizer its steps are counted where they are made: this only adds what is said here, and calling it
        twice, or never, changes no count; nor does a call after a step that a ``GradScaler`` has skipped. Without an
        optimizer this is the end of a step, if there was a forward pass since the last one: call it after the weights
        were updated, or their change is not known.

        Args:
            loss: Of the step. A tensor is not waited for.
            step: Number of the step that is over, where it is not what was counted; the count goes on from there.
        """
        self._tap.end_step(loss, step)

    @contextmanager
    def forward_pass(self, *inputs: Any) -> Iterator[None]:
        """Take what the body computes for a forward pass of the model, where ``model(...)`` itself is not called.

        ::

            with monitor.forward_pass(x):
                loss = F.cross_entropy(model.head(model.features(x)), y)

        Calls of the model in the body belong to it and are not counted again.

        Args:
            inputs: What the model is given: tensors, or structures of them.
        """
        opened = self._tap.begin_pass(None, inputs)
        try:
            yield
        except BaseException:
            self._tap.finish_pass(opened, None, failed=True)
            raise
        self._tap.finish_pass(opened, None, failed=False)

    def expect(self, total_steps: int | None) -> None:
        """Say at which step training is expected to end: what observing may cost is spread over that.

        Args:
            total_steps: Counted like the steps; None if unknown.
        """
        check_whole("total_steps", total_steps, 0, none="if unknown")
        self._monitor.expect(total_steps)

    def close(self) -> None:
        """Take all hooks away, record what is left, and wait for the file. May be called again."""
        self._tap.close()
        self._monitor.close()

    def flush(self) -> None:
        """Wait until the records made so far are in the file."""
        self._tap.hand_over()
        self._monitor.flush()

    @property
    def dead_fraction(self) -> float:
        """Share of all units that are dead at the last record, NaN before the first."""
        self._tap.hand_over()
        return self._monitor.dead_fraction

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Layer to state to number of units, at each layer's last record."""
        self._tap.hand_over()
        return self._monitor.counts

    @property
    def skipped(self) -> dict[str, str]:
        """Layer that is not observed to the reason."""
        return {one.layer: one.reason for one in self._monitor.skipped}

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong so far, each once."""
        return self._monitor.errors

    @property
    def current_step(self) -> int:
        """Number of the step that is under way."""
        return self._tap.number


def _checked_model(model: Any) -> list[nn.Module]:
    """A model and what it wraps; the last of them is the module whose forward passes count."""
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    wrappers = torch_private.unwrapped(model)
    for module in wrappers:
        around = isinstance(torch_private.compiled_call(module), Around)
        if around or any(isinstance(hook, torch_private.RootHook) for hook in torch_private.forward_hooks(module)):
            raise InvalidArgumentError(
                f"this {type(wrappers[-1]).__name__} is being watched already: close that monitor before you begin "
                "another"
            )
    return wrappers


def _checked_optimizer(optimizer: Any, model: nn.Module) -> Any:
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):  # wrapped, as by Accelerate
        optimizer = optimizer.optimizer
    if optimizer is None:
        return None
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidArgumentError(
            f"optimizer must be a torch.optim.Optimizer, or None for updates of your own, not {optimizer!r}"
        )
    of_model = {id(parameter) for parameter in model.parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(id(parameter) in of_model for parameter in held):
        raise InvalidArgumentError(
            f"the {type(optimizer).__name__} holds none of the {len(of_model)} parameters of this "
            f"{type(model).__name__}, but {len(held)} others: give the optimizer that trains this model"
        )
    return optimizer


def _optimizer_facts(optimizer: Any) -> dict[str, str | float]:
    if optimizer is None:
        return {}
    settings = {
        name: value if isinstance(value, str) else float(value)
        for name, value in optimizer.param_groups[0].items()
        if isinstance(value, (str, int, float))
    }
    return {"class": type(optimizer).__name__, **settings}

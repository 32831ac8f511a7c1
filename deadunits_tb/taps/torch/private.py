"""Everything of PyTorch that is not public, in one place, so that a new version of it breaks one file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import nn

from deadunits_tb.errors import MissingDependencyError

OLDEST = (2, 1)
"""Older versions have no hooks that are called also where ``forward`` raises."""

BATCH_NORMS = nn.modules.batchnorm._NormBase
CONVOLUTIONS = nn.modules.conv._ConvNd
TRANSPOSED = nn.modules.conv._ConvTransposeNd
FUNCTIONS = torch._C._nn
"""Where functions live that ``torch.nn.functional`` shows under the same name."""


def check_version() -> None:
    """Find out whether this version of PyTorch can be watched.

    Raises:
        MissingDependencyError: It is too old.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise MissingDependencyError(
            f"PyTorch {torch.__version__} is too old to be watched: install {oldest} or later, or write arrays with "
            "DeadUnitsWriter"
        )


def in_backward() -> bool:
    """Whether autograd is at work in this thread: a forward pass there is a checkpoint's, for the second time."""
    return bool(torch._C._current_graph_task_id() != -1)


def transformed() -> bool:
    """Whether ``torch.func`` transforms what is computed: its tensors cannot be carried out."""
    return torch._C._functorch.maybe_current_level() is not None


def compiled(module: Any) -> bool:
    """Whether a module was given to ``torch.compile``, or its own ``compile`` was called."""
    return is_wrapper(module) or compiled_call(module) is not None


def is_wrapper(module: Any) -> bool:
    """Whether a module is what ``torch.compile`` has made of another one."""
    return "_orig_mod" in module._modules


def unwrapped(module: Any) -> list[Any]:
    """A module and what is in it, if it wraps another one: the last of them is the user's own."""
    found = [module]
    while True:
        if is_wrapper(found[-1]):
            found.append(found[-1]._modules["_orig_mod"])
        elif isinstance(found[-1], (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            found.append(found[-1].module)
        else:
            return found


def own_path(path: str) -> str:
    """The path of a module as it would be if nothing was compiled."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


def compiled_call(module: Any) -> Any:
    """What a module runs instead of itself once its own ``compile`` was called; else None."""
    return vars(module).get("_compiled_call_impl")


def set_compiled_call(module: Any, call: Any) -> None:
    """Put something else there."""
    module._compiled_call_impl = call


def map_tensors(function: Callable[[Any], Any], values: Any) -> Any:
    """The same structure, each tensor replaced."""
    return torch.utils._pytree.tree_map_only(torch.Tensor, function, values)


def class_name(module: Any) -> str:
    """Of a module, as it was before ``fully_shard`` gave it a class of its own."""
    name = type(module).__name__
    return name.removeprefix("FSDP") if hasattr(module, "set_requires_gradient_sync") else name


def forward_hooks(module: Any) -> Iterator[Any]:
    """The hooks before and after a module's forward pass."""
    yield from module._forward_pre_hooks.values()
    yield from module._forward_hooks.values()


def scale_of(scaler: Any) -> Any:
    """The scale of a ``GradScaler``: a tensor that changes in place, None before its first use or where it is off."""
    return getattr(scaler, "_scale", None) if scaler is not None and scaler.is_enabled() else None


def calling_scaler(frame: FrameType | None) -> Any:
    """The ``GradScaler`` that is about to run an optimizer's step, found on the stack; None if there is none."""
    codes = {torch.amp.GradScaler.step.__code__}
    for _ in range(12):  # scaler.step, _maybe_opt_step, optimizer.step and what schedulers wrap around it
        if frame is None:
            return None
        if frame.f_code in codes:
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


def running(frame: FrameType | None) -> bool:
    """Whether a frame of this thread has not returned yet."""
    at: FrameType | None = sys._getframe(1)
    while at is not None:
        if at is frame:
            return True
        at = at.f_back
    return False


def remove_mode(mode: Any) -> None:
    """Take a function mode out of this thread's stack, wherever it stands there; it may be gone already."""
    kept = []
    for _ in range(torch._C._len_torch_function_stack()):
        top = torch._C._pop_torch_function_stack()
        if top is mode:
            break
        kept.append(top)
    for other in reversed(kept):
        torch._C._push_on_torch_function_stack(other)


class RootHook:
    """A hook of ours on a model. Copied or pickled with it, it becomes one that does nothing, of the standard library.

    Args:
        call: What it does.
    """

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> None:
        """Do it; but nothing where a model that was compiled later is traced, hooks and all."""
        if not torch.compiler.is_compiling():
            self._call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")  # takes any three arguments and returns None

"""Observe compiled modules by repeating them, as nothing of ours may be where ``torch.compile`` looks.

A hook or a function mode that the compiler sees breaks the user's graph or changes it. So on an observed step only what
surrounds a compiled call is kept: its arguments, the random state, autocast, its buffers, and the gradient that arrives
at its outputs. Before the optimizer changes the weights, the module itself runs once more without being compiled, in
the state in which it was then; the gradients at its outputs are carried back to the units, and everything is put back.
"""

from __future__ import annotations

import contextlib
import random
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from deadunits_tb.errors import InvalidArgumentError, MissingDependencyError
from deadunits_tb.taps.torch import private as torch_private
from deadunits_tb.taps.torch.distributed import is_sharded
from deadunits_tb.taps.torch.follow import tensors_of
from deadunits_tb.taps.torch.step import StepSums

LATE = "it was compiled after watch(): compile the model first, then watch it"
"""Why a module is not observed."""


def compiled_parts(model: Any) -> dict[Any, Any]:
    """The outermost compiled modules of a model, as they are called, to what they were before they were compiled."""
    found: dict[Any, Any] = {}
    inside: set[int] = set()
    for module in model.modules():  # those outside come first
        if torch_private.compiled(module) and id(module) not in inside:
            found[module] = torch_private.unwrapped(module)[-1]
            inside.update(id(inner) for inner in module.modules())
    return found


def check_compiled(model: Any, optimizer: Any) -> None:
    """Find out whether the compiled modules of a model can be watched.

    Raises:
        InvalidArgumentError: There is no optimizer, or the parameters are sharded.
        MissingDependencyError: PyTorch is too old for this.
    """
    parts = compiled_parts(model)
    if not parts:
        return
    kind = type(next(iter(parts.values()))).__name__
    if optimizer is None:
        raise InvalidArgumentError(
            f"{kind} is compiled: what it computes is observed just before the optimizer changes its weights, so give "
            "watch the optimizer"
        )
    if any(is_sharded(parameter) for parameter in model.parameters()):
        raise InvalidArgumentError(f"{kind} is compiled and sharded, which cannot be watched: leave out one of the two")
    if not hasattr(torch.compiler, "set_stance"):
        raise MissingDependencyError(
            f"PyTorch {torch.__version__} cannot run {kind} without its being compiled: install 2.6 or later, or watch "
            "it without compiling it"
        )


@dataclass(eq=False, slots=True)
class Call:
    """One call of a compiled module in an observed step.

    Attributes:
        module: As it was before it was compiled.
        args: Of the call, cut off from what computed them.
        kwargs: Others.
        versions: Tensors that must not change until the call is repeated, and what tells whether they have.
        buffers: Of which module, under which name, with which value.
        random: All states of random numbers.
        autocast: Kind of device, type of the numbers, and whether it is on.
        gives_output: Whether its outputs are those of the model.
        outputs: What it gave, None if it raised.
        gradients: Number of the output to the gradient that arrived there.
        arrivals: Most gradients that arrived at one output.
        scale: Of the loss then.
        closed: Whether what arrives now is no longer of this step.
    """

    module: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    versions: list[tuple[Any, int]]
    buffers: list[tuple[Any, str, Any]]
    random: list[tuple[Callable[..., None], tuple[Any, ...]]]
    autocast: list[tuple[str, Any, bool]]
    gives_output: bool
    outputs: list[weakref.ref[Any]] | None = None
    gradients: dict[int, Any] = field(default_factory=dict)
    arrivals: int = 0
    scale: Any = None
    closed: bool = False

    @classmethod
    def of(cls, module: Any, args: Any, kwargs: Any, *, gives_output: bool) -> Call:
        """Keep what is needed to repeat a call that is about to be made."""
        args, kwargs = torch_private.map_tensors(_cut_off, (args, kwargs))
        held = [*tensors_of((args, kwargs)), *module.parameters()]
        devices = {parameter.device for parameter in module.parameters()}
        kinds = dict.fromkeys(["cpu", *(device.type for device in devices)])
        return cls(
            module,
            args,
            kwargs,
            [(one, one._version) for one in held if not one.is_inference()],
            [
                (inner, name, value.detach().clone())
                for inner in module.modules()
                for name, value in inner.named_buffers(recurse=False)
            ],
            _random_states(devices),
            [(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)) for kind in kinds],
            gives_output,
        )

    def returned(self, outputs: Any, loss_scale: Callable[[], Any]) -> None:
        """The call was made: wait for the gradients at its outputs."""
        self.outputs = []
        seen = set()
        for at, output in enumerate(tensors_of(outputs)):
            self.outputs.append(weakref.ref(output))
            if output.requires_grad and id(output) not in seen:
                seen.add(id(output))
                output.register_hook(lambda gradient, at=at: self._arrived(at, gradient, loss_scale))

    @property
    def unchanged(self) -> bool:
        """Whether its inputs and weights are still those of the call."""
        return all(tensor._version == version for tensor, version in self.versions)

    @contextlib.contextmanager
    def as_it_was(self) -> Iterator[None]:
        """Everything as at the call, and afterwards as before; also what ``forward`` assigns to its modules."""
        devices = {parameter.device for parameter in self.module.parameters()}
        with contextlib.ExitStack() as stack:
            stack.callback(_restore_random, _random_states(devices))
            for inner in self.module.modules():
                stack.callback(_restore, vars(inner), dict(vars(inner)))
                stack.callback(_restore, inner._buffers, dict(inner._buffers))
            for inner, name, value in self.buffers:
                inner._buffers[name] = value
            _restore_random(self.random)
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield

    @contextlib.contextmanager
    def autocasting(self) -> Iterator[None]:
        """Autocast as at the call."""
        with contextlib.ExitStack() as stack:
            for kind, dtype, enabled in self.autocast:
                stack.enter_context(torch.autocast(kind, dtype if enabled else None, enabled, cache_enabled=False))
            yield

    def _arrived(self, at: int, gradient: Any, loss_scale: Callable[[], Any]) -> None:
        if self.closed or gradient is None:  # None at an output that nothing took in, where others have a gradient
            return
        self.arrivals = max(self.arrivals, 2 if at in self.gradients else 1)
        self.gradients[at] = gradient.detach()
        with contextlib.suppress(Exception):  # it must not reach the backward pass; without a scale it is 1
            self.scale = loss_scale()


class CompiledModules:
    """Stands around compiled modules, and keeps their calls.

    Args:
        wanted: Says, before a call of a module (as it was), whether it is of an observed pass, and of which step.
        aside: Takes the function mode away, if there is one, and gives what puts it back.
        failed: Told what went wrong.
        root: The model, as it was before it was compiled.
    """

    def __init__(
        self,
        wanted: Callable[[Any, Sequence[Any]], StepSums | None],
        aside: Callable[[], Callable[[], None]],
        failed: Callable[[Exception], None],
        root: Any,
    ) -> None:
        self._wanted, self._aside, self._failed, self._root = wanted, aside, failed, root
        self._local = threading.local()
        self._parts: dict[Any, Any] = {}
        self._handles: list[Any] = []
        self._around: list[tuple[Any, Around]] = []
        self._kept: list[Call] = []
        self.repeating = False
        """Whether a call is being repeated."""
        self.inside: set[int] = set()
        """All modules that are compiled, or within one that is, by ``id``."""

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.inside)

    def stand_around(self, parts: Mapping[Any, Any]) -> None:
        """Look at compiled modules from outside.

        Args:
            parts: As :func:`compiled_parts` gives them; with None for what is not to be observed: then the compiler is
                only spared the sight of us.
        """
        for module, original in parts.items():
            self._parts[module] = original
            self.inside.update(id(inner) for inner in module.modules())
            if torch_private.is_wrapper(module):  # its own hooks run outside of the graph
                self._handles += [
                    module.register_forward_pre_hook(
                        torch_private.RootHook(self.before), prepend=True, with_kwargs=True
                    ),
                    module.register_forward_hook(torch_private.RootHook(self._after_hook), always_call=True),
                ]
            else:
                self._around.append((module, Around(self, module, torch_private.compiled_call(module))))
                torch_private.set_compiled_call(module, self._around[-1][1])

    def later(self, model: Any) -> dict[Any, Any]:
        """Parts that were compiled since."""
        return {module: original for module, original in compiled_parts(model).items() if id(module) not in self.inside}

    def before(self, module: Any, args: Any, kwargs: Any) -> None:
        """A compiled module is about to be called."""
        if self.repeating or torch.compiler.is_compiling():
            return
        kept: tuple[Call, StepSums] | None = None
        original, putting_back = self._parts.get(module), self._aside()
        if original is not None:
            try:
                sums = self._wanted(original, (*args, *kwargs.values()))
                if sums is not None:
                    kept = Call.of(original, args, kwargs, gives_output=original is self._root), sums
            except Exception as error:
                self._failed(error)
        self._local_calls().append((module, kept, putting_back))

    def after(self, module: Any, output: Any, *, failed: bool) -> None:
        """It was called."""
        calls = self._local_calls()
        if self.repeating or torch.compiler.is_compiling() or all(one is not module for one, *_ in calls):
            return
        opened, kept, putting_back = calls.pop()
        while opened is not module:  # an interrupt from the keyboard calls no hook
            opened, kept, putting_back = calls.pop()
        if kept is not None and not failed:
            call, sums = kept
            try:
                with torch.no_grad():
                    call.returned(output, sums.loss_scale)
                self._kept.append(call)
            except Exception as error:
                self._failed(error)
        putting_back()

    def ends(self, outputs: Any) -> None:
        """A pass has given its outputs: see whether those are what a compiled part has given."""
        given = {id(one) for one in tensors_of(outputs)}
        for call in self._kept:
            for reference in call.outputs or ():
                one = reference()
                call.gives_output = call.gives_output or (one is not None and id(one) in given)

    def take(self) -> list[Call]:
        """The calls of the step so far, to be repeated."""
        calls, self._kept = self._kept, []
        return calls

    def forget(self) -> None:
        """The step is over."""
        for call in self.take():
            call.closed = True

    def close(self) -> None:
        """Take everything away."""
        self.forget()
        while self._handles:
            self._handles.pop().remove()
        while self._around:
            module, around = self._around.pop()
            if torch_private.compiled_call(module) is around:  # the user may have compiled it anew
                torch_private.set_compiled_call(module, around.call)
        self._parts.clear()

    def _after_hook(self, module: Any, args: Any, output: Any) -> None:
        self.after(module, output, failed=output is None)

    def _local_calls(self) -> list[tuple[Any, tuple[Call, StepSums] | None, Callable[[], None]]]:
        calls: list[Any] | None = getattr(self._local, "calls", None)
        if calls is None:
            calls = self._local.calls = []
        return calls


class Around:
    """Stands where a module keeps its compiled call.

    Args:
        modules: Is told of calls.
        module: The module.
        call: Its compiled call.
    """

    def __init__(self, modules: CompiledModules, module: Any, call: Callable[..., Any]) -> None:
        self._modules, self._module, self.call = modules, module, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        self._modules.before(self._module, args, kwargs)
        output, failed = None, True
        try:
            output = self.call(*args, **kwargs)
            failed = False
        finally:
            self._modules.after(self._module, output, failed=failed)
        return output


def _cut_off(tensor: Any) -> Any:
    if isinstance(tensor, torch.nn.Parameter):  # weights are known by what they are
        return tensor
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _random_states(devices: Any) -> list[tuple[Callable[..., None], tuple[Any, ...]]]:
    """What restores each state of random numbers, with its arguments."""
    states: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (random.setstate, (random.getstate(),)),
        (np.random.set_state, (np.random.get_state(),)),  # noqa: NPY002
        (torch.set_rng_state, (torch.get_rng_state(),)),
    ]
    for device in devices:
        if device.type not in ("cpu", "meta"):
            which = () if device.type == "mps" else (device,)
            of = torch.get_device_module(device)
            states.append((of.set_rng_state, (of.get_rng_state(*which), *which)))
    return states


def _restore_random(states: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    for put, state in states:
        put(*state)


def _restore(values: dict[str, Any], before: dict[str, Any]) -> None:
    """Touch only what has changed: the compiler watches these."""
    for name in values.keys() - before.keys():
        del values[name]
    for name, value in before.items():
        if name not in values or values[name] is not value:
            values[name] = value

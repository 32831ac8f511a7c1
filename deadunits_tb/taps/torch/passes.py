"""Forward passes that are followed, and the hooks that exist only meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deadunits_tb.taps.torch import private as torch_private
from deadunits_tb.taps.torch.follow import Follow
from deadunits_tb.taps.torch.layers import Survey, UnitLayer


@dataclass(eq=False, slots=True)
class Pass:
    """One forward pass that is followed.

    Attributes:
        follow: Sees its calls.
        hooks: Of modules, as long as it lasts.
    """

    follow: Follow
    hooks: list[Any] = field(default_factory=list)

    def hook_modules(self, survey: Survey, allowed: Callable[[Any], bool]) -> None:
        """Have modules tell of their calls.

        Args:
            survey: Of the model.
            allowed: Whether a module may be given a hook.
        """
        follow = self.follow

        def output_of(layer: UnitLayer) -> Callable[..., None]:
            return lambda module, args, output: follow.module_output(layer, args, output)

        for layer in survey.by_module:
            if allowed(layer.module):
                self.hooks.append(layer.module.register_forward_hook(output_of(layer)))
        for module, function in survey.activations:
            if allowed(module):
                enter = module.register_forward_pre_hook(
                    lambda _, args, name=function: follow.enter_activation(args, name)
                )
                leave = module.register_forward_hook(lambda _, __, output: follow.leave_activation(output))
                self.hooks += [enter, leave]


class Passes:
    """Those under way: at most one in each thread, and a repeated one within it."""

    def __init__(self) -> None:
        self._local = threading.local()
        self.open: list[Pass] = []
        """Those of all threads."""

    @property
    def here(self) -> Pass | None:
        """The one under way in this thread."""
        stack = self._stack()
        return stack[-1] if stack else None

    def begin(self, opened: Pass) -> None:
        """One is under way in this thread."""
        self.open.append(opened)
        self._stack().append(opened)

    def end(self, opened: Pass) -> None:
        """One is over: what there was for it is taken away."""
        torch_private.remove_mode(opened.follow)
        while opened.hooks:
            opened.hooks.pop().remove()
        for passes in (self.open, self._stack()):
            if opened in passes:
                passes.remove(opened)

    def end_all(self) -> None:
        """End those of all threads."""
        for opened in list(self.open):
            self.end(opened)

    def drop_interrupted(self) -> None:
        """End passes that an interrupt from the keyboard has left open: PyTorch calls no hook then."""
        for opened in list(self._stack()):
            if opened.follow.frame is not None and not torch_private.running(opened.follow.frame):
                self.end(opened)

    def step_aside(self) -> Callable[[], None]:
        """The compiler must not see our function mode; gives what puts it back."""
        opened = self.here
        if opened is not None:
            torch_private.remove_mode(opened.follow)

        def put_back() -> None:
            if opened is not None and opened in self.open:
                opened.follow.__enter__()

        return put_back

    def _stack(self) -> list[Pass]:
        stack: list[Pass] | None = getattr(self._local, "stack", None)
        if stack is None:
            stack = self._local.stack = []
        return stack

"""Calls of compiled modules, made once more where we can see what happens in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.silent_monitor import SilentMonitor
from deadunits_tb.taps.torch.compiled import Call, CompiledModules
from deadunits_tb.taps.torch.follow import Follow, tensors_of
from deadunits_tb.taps.torch.layers import Survey
from deadunits_tb.taps.torch.passes import Pass, Passes
from deadunits_tb.taps.torch.ranges import Ranges
from deadunits_tb.taps.torch.step import StepSums
from deadunits_tb.taps.torch.trails import Tap, Trail

_CHANGED = (
    "inputs or weights of a compiled module were changed between its call and the optimizer's step: such calls cannot "
    "be observed"
)


class Repeated:
    """Takes in a call that is repeated: gradients are asked for instead of waited for.

    Args:
        sums: Of the step.
    """

    def __init__(self, sums: StepSums) -> None:
        self._sums = sums
        self._staged: list[tuple[Any, Tap]] = []
        self.reduce = sums.reduce
        self.count_rows = sums.count_rows

    def stage(self, tensor: Any, tap: Tap) -> None:
        """Remember where the gradient is wanted: by its place in the graph, as functions may work on it in place."""
        if tensor.requires_grad:
            tap.differentiable = True
            self._staged.append((torch.autograd.graph.get_gradient_edge(tensor), tap))

    def add(self, trail: Trail) -> None:
        """Take in a trail at the end of its pass."""
        self._sums.add(trail)

    def differentiate(self, call: Call, outputs: Any) -> str | None:
        """Carry the gradients at the outputs back to the units.

        Returns:
            Why that was not possible, None if it was.
        """
        given = list(tensors_of(outputs))
        at = [one for one in call.gradients if one < len(given) and given[one].requires_grad]
        if not at or not self._staged:
            return None
        try:
            found = torch.autograd.grad(
                [given[one] for one in at],
                [edge for edge, _ in self._staged],
                [call.gradients[one] for one in at],
                allow_unused=True,
            )
        except RuntimeError as error:  # reentrant checkpoints cannot be differentiated like this
            return " ".join(str(error).split())[:100]
        with torch.no_grad():
            for (_, tap), gradient in zip(self._staged, found, strict=True):
                if gradient is not None:
                    self._sums.arrived(gradient, tap)
                    tap.scale, tap.arrivals = call.scale, call.arrivals
        return None

    @property
    def layers(self) -> list[str]:
        """Where gradients are wanted."""
        return [tap.layer.name for _, tap in self._staged]


class Repeats:
    """Makes calls of compiled modules once more, and observes them.

    Args:
        compiled: Whose calls.
        passes: Those under way.
        clock: Runs while we work.
        ranges: Of inputs.
        monitor: Told what cannot be had.
        say: Warns once, of what, in which words.
    """

    def __init__(
        self,
        compiled: CompiledModules,
        passes: Passes,
        clock: contextlib.AbstractContextManager[None],
        ranges: Ranges,
        monitor: Monitor | SilentMonitor,
        say: Callable[[str, str], None],
    ) -> None:
        self._compiled, self._passes, self._clock, self._ranges = compiled, passes, clock, ranges
        self._monitor, self._say = monitor, say

    def make(self, survey: Survey, sums: StepSums | None) -> None:
        """Observe what was compiled, while the weights are still those of the forward pass.

        Args:
            survey: Of the model.
            sums: Of the step, None if it is not observed.
        """
        self._compiled.repeating = True
        try:
            for call in self._compiled.take():
                if call.outputs is None or sums is None:
                    continue
                call.closed = True
                if call.unchanged:
                    self._repeat(call, survey, Repeated(sums))
                else:
                    self._say("changed", _CHANGED)
        finally:
            self._compiled.repeating = False

    def _repeat(self, call: Call, survey: Survey, sink: Repeated) -> None:
        opened = Pass(Follow(survey, sink, None, self._clock, self._ranges.of_pass()))
        inside = {id(module) for module in call.module.modules()}
        with call.as_it_was():
            try:
                opened.hook_modules(survey, lambda module: id(module) in inside)
                with call.autocasting():
                    opened.follow.__enter__()
                    outputs = call.module(*call.args, **call.kwargs)
            finally:
                self._passes.end(opened)
            if opened.follow.failure is not None:
                raise opened.follow.failure
            with torch.no_grad():
                opened.follow.finish(outputs, whole=call.gives_output)
            problem = sink.differentiate(call, outputs)
        for name in sink.layers if problem is not None else ():
            self._monitor.skip(
                f"{name} (gradient)", f"it could not be computed again outside of the compiler: {problem}"
            )

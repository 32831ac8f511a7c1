"""Observe training steps by hooks on the model and on the optimizer, and nothing else.

Two hooks sit on the model: before a forward pass of a step that is to be observed, the first begins to follow what is
called; the second ends that, also where ``forward`` raises. Two hooks on the optimizer say when a step is done. Between
passes no other module has a hook, and on other steps these return at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

import torch

from deadunits_tb.capture.messages import say
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.numbering import StepNumbers
from deadunits_tb.capture.silent_monitor import SilentMonitor
from deadunits_tb.taps.torch import private as torch_private
from deadunits_tb.taps.torch.clock import OwnTime, StepTime
from deadunits_tb.taps.torch.compiled import LATE, CompiledModules
from deadunits_tb.taps.torch.distributed import Processes
from deadunits_tb.taps.torch.follow import Follow
from deadunits_tb.taps.torch.handing_over import Finished, HandOver
from deadunits_tb.taps.torch.known_layers import KnownLayers
from deadunits_tb.taps.torch.layers import UnitLayer, renamed, signature, survey
from deadunits_tb.taps.torch.looking import Look, fed
from deadunits_tb.taps.torch.pack import named
from deadunits_tb.taps.torch.passes import Pass, Passes
from deadunits_tb.taps.torch.ranges import Ranges
from deadunits_tb.taps.torch.reductions import Reductions
from deadunits_tb.taps.torch.repeats import Repeats
from deadunits_tb.taps.torch.step import Seen, StepSums, known_consumers
from deadunits_tb.taps.torch.together import meet
from deadunits_tb.taps.torch.weights import WeightWatch
from deadunits_tb.thresholds import Thresholds

_CALL_SECONDS = 3e-6
"""What a function mode costs for each call that it sees, on top of what is done there."""
_COUNT_SECONDS = 25e-6
"""What our hooks cost in a step that is only counted (measured; to measure it each time would double it)."""


class UnitTap:
    """Observes the training of one model for a monitor.

    Args:
        model: The module whose forward passes count.
        optimizer: Whose steps count; None where :meth:`end_step` is called for each.
        monitor: Takes the observations.
        chosen: Layers to watch, None for all.
        outputs: Layers to be called output layers, None to find them.
        thresholds: In force.
        scaler: A ``GradScaler``, None without or where it is to be found.
        first_step: Number of the first step.
        processes: Those that train the model together, None where it is one alone.
        compiled: What is compiled, as :func:`~deadunits_tb.taps.torch.compiled.compiled_parts` gives it.

    Raises:
        InvalidArgumentError: There is nothing to watch, or no such layer.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        monitor: Monitor | SilentMonitor,
        *,
        chosen: Sequence[Any] | None,
        outputs: Sequence[Any] | None,
        thresholds: Thresholds,
        scaler: Any,
        first_step: int,
        processes: Processes | None = None,
        compiled: Mapping[Any, Any] | None = None,
    ) -> None:
        self._model, self._optimizer, self._monitor = model, optimizer, monitor
        self._processes = processes
        self._chosen, self._outputs, self._thresholds, self._scaler = chosen, outputs, thresholds, scaler
        self._survey = survey(model, chosen, outputs)
        for name, reason in self._survey.skipped.items():
            monitor.skip(name, reason)
        self._reductions = Reductions()
        self._weights = WeightWatch()
        self._ranges = Ranges()
        self._passes = Passes()
        self._compiled = CompiledModules(self._call_wanted, self._passes.step_aside, self._fail, model)
        self._clock, self._step_time = OwnTime(), StepTime()
        self._repeats = Repeats(self._compiled, self._passes, self._clock, self._ranges, monitor, self._say_once)
        self._known = KnownLayers(monitor, outputs_named=outputs is not None)
        self._said: set[str] = set()
        self._passed = self._ever_passed = False
        self._finished: Finished | None = None
        self._numbers = StepNumbers(first_step)
        self._over = HandOver(monitor, self._numbers, optimized=optimizer is not None)
        self.step = first_step
        """The current step, as counted."""
        self._new_step()
        self._compiled.stand_around(compiled or {})
        self._handles: list[Any] = []
        if id(model) not in self._compiled.inside:
            self._handles += [
                model.register_forward_pre_hook(torch_private.RootHook(self._enter), prepend=True, with_kwargs=True),
                model.register_forward_hook(torch_private.RootHook(self._leave), always_call=True),
            ]
        if optimizer is not None:
            self._handles += [
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            ]

    def close(self) -> None:
        """Take every hook away, and hand over what there is for the last record."""
        self._over.ending = True
        while self._handles:
            self._handles.pop().remove()
        self._passes.end_all()
        self._compiled.close()
        if self._sums is not None:
            self._sums.close()
        self.hand_over()
        self._reductions.release()

    @property
    def number(self) -> int:
        """What the current step is called, as far as was told."""
        return self._numbers.of(self.step)

    @property
    def _idle(self) -> bool:
        """Whether the current step is one of those, by far the most, that need only be counted."""
        return not (
            self._sums is not None
            or self._finished is not None
            or self._passes.open
            or self._processes is not None
            or self._compiled.any
            or self._monitor.wants(self.step)
        )

    # Forward passes

    def begin_pass(self, frame: FrameType | None, inputs: Sequence[Any] = ()) -> Pass | None:
        """Begin to follow a forward pass, if it is to be observed.

        Args:
            frame: In which it runs, None where its end will be told for certain.
            inputs: Of the model.
        """
        if self._idle:
            if self._model.training and torch.is_grad_enabled():
                self._passed = self._ever_passed = True
            return None
        self._passes.drop_interrupted()
        if self._passes.here is not None or not self._counts():
            return None
        try:
            with self._clock, torch.no_grad():
                if not self._observes(inputs):
                    return None
                assert self._sums is not None
                self._avoid_late_compiled()
                opened = Pass(Follow(self._survey, self._sums, frame, self._clock, self._ranges.of_pass()))
                self._passes.begin(opened)
                # The model's own hooks are being run already.
                opened.hook_modules(
                    self._survey,
                    lambda module: module is not self._model and id(module) not in self._compiled.inside,
                )
                opened.follow.__enter__()
            return opened
        except Exception as error:
            self._fail(error)
            return None

    def _observes(self, inputs: Sequence[Any]) -> bool:
        """Whether the forward pass that begins now is one of a step that is observed."""
        self._passed = self._ever_passed = True
        self.hand_over()
        if not self._decide():
            return False
        assert self._sums is not None
        self._sums.settle()
        self._sums.passes += 1
        self._look.prepare(inputs, self._layers, tokens=self._survey.tokens)
        return True

    def finish_pass(self, opened: Pass | None, outputs: Any, *, failed: bool) -> None:
        """The pass is over.

        Args:
            opened: What :meth:`begin_pass` gave.
            outputs: Of the model, None if unknown.
            failed: Whether it raised: then it counts for nothing.
        """
        if opened is None:
            return
        follow = opened.follow
        self._passes.end(opened)
        if failed or self._monitor.stopped:
            return
        try:
            with self._clock, torch.no_grad():
                if follow.failure is None:
                    follow.finish(outputs)
                    self._compiled.ends(outputs)
            self._clock.seconds += follow.calls * _CALL_SECONDS
            if follow.failure is not None:
                self._fail(follow.failure)
        except Exception as error:
            self._fail(error)

    def _enter(self, module: Any, args: Any, kwargs: Any) -> None:
        if module is self._model:
            self.begin_pass(sys._getframe(2), (*args, *fed(kwargs)))

    def _leave(self, module: Any, args: Any, output: Any) -> None:
        opened, frame = self._passes.here if self._passes.open else None, sys._getframe(2)
        if module is not self._model or opened is None:
            return
        began = opened.follow.frame
        if began is None or frame not in (began, began.f_back):  # f_back where forward raised
            return  # a model may call itself
        failed = output is None and sys.exc_info()[0] is not None
        for layer in self._survey.by_module:
            if layer.module is module and not failed:
                opened.follow.module_output(layer, args, output)
        self.finish_pass(opened, output, failed=failed)

    def _counts(self) -> bool:
        """Whether a forward pass that begins now is one of training."""
        return (
            not self._monitor.stopped
            and self._model.training
            and torch.is_grad_enabled()
            and not torch_private.in_backward()
            and not torch_private.transformed()
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )

    # Compiled modules

    def _call_wanted(self, module: Any, inputs: Sequence[Any]) -> StepSums | None:
        """The step of which a compiled module's call is observed, None if it is not."""
        if self._passes.here is not None:
            return self._sums
        if module is not self._model or not self._counts():
            return None
        with self._clock, torch.no_grad():
            return self._sums if self._observes(inputs) else None

    def _avoid_late_compiled(self) -> None:
        late = self._compiled.later(self._model)
        if late:
            self._compiled.stand_around(dict.fromkeys(late))
            self._say_late(late)

    def _say_late(self, parts: Iterable[Any]) -> None:
        inside = {id(inner) for module in parts for inner in module.modules()}
        names = [name for name, layer in self._survey.watched.items() if id(layer.module) in inside]
        self._say_once("late", f"{', '.join(names)} cannot be observed any more: {LATE}")
        for name in names:
            self._monitor.skip(name, LATE)

    # Steps

    def end_step(self, loss: Any = None, step: int | None = None) -> None:
        """What a user says at the end of a step: its loss, and its number where that is not as counted here."""
        if self._optimizer is not None and step is None and self._ever_passed and self._idle:
            return
        self._passes.drop_interrupted()
        if self._monitor.stopped:
            return
        if not self._ever_passed:
            self._say_once(
                "no pass",
                "step() was called before any forward pass of the model in training mode: call it after each "
                "optimizer step, and call the model as model(...), in training mode and with gradients enabled",
            )
            return
        try:
            with self._clock, torch.no_grad():
                if self._optimizer is None and self._passed:
                    self._end_own_step()
                if step is not None and (problem := self._numbers.tell(self.step - 1, step)):
                    self._say_once("number", problem)
                self.hand_over(loss)
        except Exception as error:
            self._fail(error)

    def hand_over(self, loss: Any = None) -> None:
        """Give the step that is over to the monitor."""
        finished, self._finished = self._finished, None
        if finished is None or self._monitor.stopped:
            return
        try:
            with torch.no_grad():
                seen = finished.merged or finished.sums.fields()
                # Calls that were repeated come last.
                in_order, methods = not self._compiled.any, self._weights.methods
                self._known.learn(self._survey, finished.sums.layers, methods, in_order=in_order)
                self._over.give(finished, seen, loss)
        except Exception as error:
            self._fail(error)

    def _new_step(self) -> None:
        self._decided: bool | None = None
        self._sums: StepSums | None = None
        self._look = Look(self._weights, self._optimizer, self._model.parameters)
        self._passed = False
        self._compiled.forget()

    def _decide(self) -> bool:
        """Whether the current step is observed."""
        if self._decided is None:
            together = self._processes
            if together is None:
                self._decided = self._monitor.wants(self.step)
            else:
                self._decided = self.step == together.next_step and not self._monitor.stopped
            if self._decided:
                self._look.wanted = self._monitor.will_record(self.step) if together is None else together.looks
                self._sums = StepSums(
                    self._reductions, self._thresholds, self._scale, lambda: self._scaler, lambda: self._clock
                )
                if self._look.wanted and signature(self._model) != self._survey.signature:
                    self._survey = renamed(survey(self._model, self._chosen, self._outputs), self._survey)
                if isinstance(self._monitor, Monitor):  # of several processes the first
                    self._ranges.begin(self.number, self._monitor.silent_units, self._survey.watched)
        return self._decided

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if self._idle or self._monitor.stopped or torch.compiler.is_compiling():
            return None
        try:
            self._passes.drop_interrupted()
            with self._clock, torch.no_grad():
                if self._passed or _closure(args, kwargs):
                    self.hand_over()
                if not self._decide():
                    return None
                assert self._sums is not None
                if self._scaler is None:
                    self._scaler = torch_private.calling_scaler(sys._getframe(1))
                    self._sums.scaled_by(torch_private.scale_of(self._scaler))
                self._repeats.make(self._survey, self._sums)
                self._look.skipping()
                if self._look.wanted:
                    self._look.before(self._layers)
                    self._ranges.before_step()
                    if not _closure(args, kwargs):
                        self._look.gradients(self._layers)
                if self._compiled.any and _closure(args, kwargs):
                    return self._repeating_closures(args, kwargs)
        except Exception as error:
            self._fail(error)
        return None

    def _repeating_closures(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """A closure runs the passes, and then the optimizer changes the weights: calls are repeated in between."""

        def repeating(value: Any) -> Any:
            if not callable(value):
                return value

            def closure() -> Any:
                loss = value()
                if not self._monitor.stopped:
                    try:
                        with self._clock, torch.no_grad():
                            self._repeats.make(self._survey, self._sums)
                    except Exception as error:
                        self._fail(error)
                return loss

            return closure

        return tuple(map(repeating, args)), {name: repeating(value) for name, value in kwargs.items()}

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if self._passed and self._idle:
            self._passed, self._decided = False, None
            self.step += 1
            self._monitor.time(False, self._step_time.end())
            self._clock.seconds += _COUNT_SECONDS
            return
        try:
            with self._clock, torch.no_grad():
                if self._look.wanted and _closure(args, kwargs) and not self._monitor.stopped:
                    self._look.gradients(self._layers)
                if not self._passed and not self._monitor.stopped:
                    self._say_not_passed()
                self._finish_step(moved=True)
        except Exception as error:
            self._fail(error)

    def _say_not_passed(self) -> None:
        if self._compiled.later(self._model):
            self._say_late([self._model])
            return
        self._say_once(
            "no pass",
            "the optimizer made a step without a forward pass of the model in training mode before it: such steps "
            "cannot be observed. Call the model as model(...), in training mode and with gradients enabled, and if it "
            "is compiled, compile it first and then watch what torch.compile has returned",
        )
        if not self._ever_passed:
            for name in self._survey.watched:
                self._monitor.skip(name, "no forward pass of the model was seen: it was not called, or compiled later")

    def _end_own_step(self) -> None:
        """Without an optimizer, a step is what lies between two calls of :meth:`end_step` with a pass between them."""
        moved = False
        if self._look.wanted:
            moved = self._look.moved
            self._look.gradients(self._layers)
        self._finish_step(moved=moved)

    def _finish_step(self, *, moved: bool) -> None:
        seconds, sums = self._step_time.end(), self._sums
        step, self.step = self.step, self.step + 1
        if self._processes is not None and step == self._processes.next_step:
            self._finish_together(self._processes, step, seconds, moved=moved)
            return
        if self._monitor.stopped:
            self._new_step()
            return
        if sums is None or not (sums.layers or sums.failure):
            self._monitor.time(False, seconds)
            self._new_step()
            return
        if sums.failure is not None:
            self._fail(sums.failure)
            return
        self._look_around(sums, moved=moved)
        proofs = self._ranges.after_step(self._optimizer) if self._look.wanted and moved else None
        self._finished = Finished(step, sums, self._look, self._clock.take(), seconds, None, proofs)
        self._new_step()

    def _finish_together(self, together: Processes, step: int, seconds: float, *, moved: bool) -> None:
        """Meet the other processes; the first goes on with what all have seen."""
        sums, monitor = self._sums, self._monitor

        def seen() -> Seen | None:
            if sums is None:
                return None
            self._look_around(sums, moved=moved)
            found = sums.fields()
            if sums.failure is not None:
                raise sums.failure
            return found._replace(tensors=named(found.tensors))

        met = meet(
            together,
            monitor,
            seen,
            self._look.fields,
            self._known.scale,
            next_step=step + (monitor.interval if isinstance(monitor, Monitor) else 1),
            device=next(self._model.parameters()).device,
        )
        if met.failure is not None:
            self._fail(met.failure)
            return
        if not met.alike:
            self._say_once(
                "alike", "the processes did not call the same layers in one step: such steps cannot be observed"
            )
        if sums is not None and met.merged is not None:
            self._look.fields = {}
            proofs = self._ranges.after_step(self._optimizer) if self._look.wanted and moved else None
            self._finished = Finished(step, sums, self._look, self._clock.take(), seconds, met.merged, proofs)
        elif sums is not None:
            sums.close()
        self._new_step()

    def _look_around(self, sums: StepSums, *, moved: bool) -> None:
        self._look.around(self._layers, lambda: known_consumers(sums.layers.values()), moved=moved)

    def _layers(self) -> dict[str, UnitLayer]:
        """Those whose weights are known, by name."""
        found = dict(self._survey.watched)
        if self._sums is not None:
            found |= {step.layer.name: step.layer for step in self._sums.layers.values()}
        return found

    def _scale(self, layer: str) -> float | None:
        if self._processes is not None:
            return self._processes.scales.get(layer)
        return self._known.scale(layer)

    def _say_once(self, what: str, sentence: str) -> None:
        if what not in self._said:
            self._said.add(what)
            say(f"deadunits_tb: {sentence}.")

    def _fail(self, error: Exception) -> None:
        self._monitor.report("tap", error)
        self._passes.end_all()
        if self._sums is not None:
            self._sums.close()
        self._finished = None
        self._new_step()


def _closure(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an optimizer's step was given a function that runs the forward and backward passes."""
    return any(callable(value) for value in (*args, *kwargs.values()))

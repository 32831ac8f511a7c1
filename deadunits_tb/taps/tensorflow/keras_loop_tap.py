"""A Keras model in a loop of the user's own: what is tapped, and when.

Calls of the model, or of layers of it, count where a ``tf.GradientTape`` records and the call is in training mode. A
gradient counts where the tape differentiates with respect to weights of the model: not those that another network gets
through it, nor those with respect to inputs.
"""

from __future__ import annotations

import contextlib
import functools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deadunits_tb.capture.messages import say
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.replacing import replaced
from deadunits_tb.taps.keras.tap import UnitTap
from deadunits_tb.taps.keras.tensorflow import value_of
from deadunits_tb.taps.tensorflow.distributed import Workers, workers
from deadunits_tb.taps.tensorflow.keras_loop_step import LoopStep, Part, StepNumbers
from deadunits_tb.taps.tensorflow.private import is_recording
from deadunits_tb.thresholds import Thresholds

_NEVER = 2**63
_MOST_MISSES = 10
"""Steps in which nothing was seen, after which it is no use to look for more."""
_WATCHED: weakref.WeakSet[keras.Model] = weakref.WeakSet()
_ELSEWHERE = (
    "the layers are called in a loop inside of the tf.function, or in a function within it, and their values cannot be "
    "carried out of there: have the function do one step, and wrap the one that is called from Python"
)
_NOT_WRAPPED = (
    "deadunits_tb cannot look into a tf.function that was not given to it: train_step = monitor.wrap(train_step)"
)
_NOTHING_SEEN = (
    "deadunits_tb saw no training call of the model in this step. Training calls are those under a tf.GradientTape "
    "with training=True; and where the step is a tf.function, it must be wrapped: train_step = monitor.wrap(train_step)"
)


def is_watched(model: keras.Model) -> bool:
    """Whether a tap observes a model now."""
    return model in _WATCHED


class LoopTap(UnitTap):
    """Observes the steps of a loop for a monitor.

    Args:
        model: In training.
        optimizers: That train it, as far as they are known.
        chosen: The layers to watch, None for all.
        thresholds: In force.
        monitor: Takes the observations.
        first_step: Number of the first step.
        every: Interval of the observations, None to choose by cost.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizers: Sequence[keras.optimizers.Optimizer],
        chosen: Sequence[str | keras.Layer] | None,
        thresholds: Thresholds,
        monitor: Monitor,
        first_step: int,
        *,
        every: int | None,
    ) -> None:
        super().__init__(model, chosen, thresholds, monitor, first_step, every=every)
        self.monitor = monitor
        self._optimizers = optimizers
        self._loop: LoopStep | None = None
        self._hooks: contextlib.ExitStack = contextlib.ExitStack()
        self._before_step: dict[str, list[Any]] | None = None
        self._parts: list[Any] = []
        self._eager: Part | None = None
        self._traced_seconds = 0.0
        self._suspended = False
        self._said: set[str] = set()
        self._misses = 0
        self._began = perf_counter()
        strategy = model.distribute_strategy
        self._workers = Workers(strategy) if workers(strategy) > 1 else None
        self._agreed = first_step
        self._dead_fraction = math.nan
        self.observing = False
        """Whether the present step is observed."""

    @property
    def number(self) -> int:
        """What the present step is called, as far as was told."""
        return self._numbers.of(self.step)

    @property
    def dead_fraction(self) -> float:
        """Share of all units that are dead at the last record, NaN before the first; the same on all workers."""
        return self._dead_fraction if self._workers is not None else self.monitor.dead_fraction

    def begin(self) -> None:
        """Get ready, as far as that can be done before the first step.

        Raises:
            InvalidArgumentError: There is no such layer to watch.
        """
        _WATCHED.add(self._model)
        self.get_ready()
        self._begin_step()

    def end_step(self, loss: Any, step: int | None) -> None:
        """A step is over.

        Args:
            loss: Of the step, None if unknown.
            step: Its number, None to count.
        """
        seconds = perf_counter() - self._began
        at, self.step = self.step, self.step + 1
        if step is not None and (problem := self._numbers.tell(at, step)):
            self._say_once("number", f"deadunits_tb: {problem}.")
        if not self.observing:
            self._costs.plain(seconds)
            self._monitor.time(False, seconds)
        else:
            with self._guarded():
                self._end_observed(at, loss, seconds)
        self._begin_step()

    def close(self) -> None:
        """Leave nothing behind, record what is left, and wait for the file."""
        self.observing, self.ending = False, True
        self._hooks.close()
        self._parts, self._eager, self._before_step = [], None, None
        _WATCHED.discard(self._model)
        self.monitor.close()

    def get_ready(self) -> bool:
        """Survey the model, if that can be done now, and remember its weights before the step."""
        with self._guarded():
            if self._loop is None and keras_private.is_built(self._model):
                layers = self._surveyed()
                self._loop = LoopStep(
                    self._model, layers, self._outgoing, self._thresholds, self._optimizers, compiled=self._often
                )
                self._loop.begin()
            if self._loop is not None and self.observing and self._before_step is None:
                self._look()
        return self._loop is not None and not self._monitor.stopped and self._loop.failure is None

    def agrees(self, ready: bool) -> bool:
        """Whether all workers are ready: otherwise some would wait in an observed step for others in a plain one."""
        if self._workers is None:
            return ready
        return bool(self._workers.exchange([float(ready)]).all())

    # What functions that the user wrapped ask for

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Leave alone what runs in the body."""
        before, self._suspended = self._suspended, True
        try:
            yield
        finally:
            self._suspended = before

    @contextlib.contextmanager
    def part(self) -> Iterator[Part | None]:
        """Look into what runs in the body."""
        if self._loop is None or self._loop.failure is not None:
            with self.suspended():
                yield None
            return
        part = self._loop.new_part()
        with self._loop.looking_into(part):
            yield part

    def pack(self, part: Part | None) -> Any:
        """Numbers on the device; None where there are none."""
        if part is None or self._loop is None:
            return None
        try:
            return self._loop.pack_part(part)
        except Exception as error:
            self._loop.failure = self._loop.failure or error
            return None

    def took(self, numbers: Any, seconds: float, *, traced: bool) -> None:
        """A function of this step ran."""
        self._parts.append(numbers)
        self._traced_seconds += seconds if traced else 0.0

    def report(self, error: Exception | str) -> None:
        """Nothing will be observed any more."""
        failure = self._loop.failure if self._loop is not None else None
        self._monitor.report("watch", failure or error)

    # Steps

    def _begin_step(self) -> None:
        self._hooks.close()
        self._parts, self._eager, self._before_step, self._traced_seconds = [], None, None, 0.0
        self.observing = self._wants()
        if self.observing and not self._monitor.stopped:
            self._hooks.enter_context(replaced(self._eager_hooks()))
            if self._loop is not None:
                with self._guarded():
                    self._look()
        self._began = perf_counter()

    def _look(self) -> None:
        assert self._loop is not None
        look = self._monitor.will_record(self.step)
        self._loop.look_at_weights(look)
        self._look_for_proofs(self._loop, self.step, look)
        self._before_step = self._loop.weights.before() if look else {}
        if self._loop.around is not None:
            self._loop.around.before(value_of)

    def _end_observed(self, step: int, loss: Any, seconds: float) -> None:
        self._hooks.close()
        loop = self._loop
        if loop is not None and loop.around is not None:
            loop.around.after(value_of)
        if loop is not None and self._eager is not None:
            self._parts.append(self.pack(self._eager))
        parts = [part for part in self._parts if part is not None]
        if self._workers is not None:
            self._with_workers(self._workers, step, parts, loss, seconds)
            return
        joined = loop.join_traces() if loop is not None else None
        if joined is not None and joined.elsewhere and not joined.trails:
            self._monitor.report("watch", _ELSEWHERE)
        elif loop is None or not (loop.failure or parts):
            self._missed()
        else:
            self._misses = 0
            weights = loop.weights_around(self._before_step) if self._before_step else {}
            numbers = StepNumbers(parts, weights, loss) if parts else None
            self._hand_over(loop, step, numbers, self._traced_seconds or seconds, bool(self._before_step))

    def _wants(self) -> bool:
        # All workers observe the same steps; one that has stepped aside comes once more, to say so.
        return self._monitor.wants(self.step) if self._workers is None else self.step >= self._agreed

    def _with_workers(self, others: Workers, step: int, parts: list[Any], loss: Any, seconds: float) -> None:
        """The end of an observed step on several workers: the chief writes, and says when to observe again.

        Every worker comes to each of these exchanges, also one whose monitor has failed: so nobody waits in vain.
        """
        loop = self._loop
        failed = loop is None or loop.failure is not None or self._monitor.stopped or not parts
        together = others.together(None if failed else [np.asarray(part) for part in parts])
        if together is None or loop is None:
            self._agreed = _NEVER
            if loop is not None and loop.failure is not None:
                self._monitor.report("watch", loop.failure)
            self._monitor.report("watch", "a worker failed to look, or saw other calls: all step aside")
            return
        loop.join_traces()
        interval, scales = 1.0, np.full(len(loop.order), -1, np.float32)
        if others.number == 0:
            weights = loop.weights_around(self._before_step) if self._before_step else {}
            numbers = StepNumbers(together, weights, loss)
            with self._guarded():  # whatever happens, the others wait for an answer
                self._hand_over(loop, step, numbers, self._traced_seconds or seconds, bool(self._before_step))
            interval = float(self._monitor.interval)
            for name in self._monitor.last_records:
                scale = self._monitor.scale(name)
                scales[loop.order[name]] = -1 if scale is None else scale
        else:
            loop.traces.clear()
        answer = others.exchange([interval, self._monitor.dead_fraction if others.number == 0 else 0.0, *scales])[0]
        self._agreed, self._dead_fraction = step + max(1, round(float(answer[0]))), float(answer[1])
        if others.number:
            loop.set_scales(
                {name: None if answer[2 + i] < 0 else float(answer[2 + i]) for name, i in loop.order.items()}
            )

    def _missed(self) -> None:
        """Nothing was seen in a step that was to be observed."""
        if self._monitor.stopped:  # it has said why
            return
        self._misses += 1
        if self._misses == _MOST_MISSES:
            self._monitor.report("watch", f"no training call of the model was seen in {_MOST_MISSES} steps")
        else:
            self._say_once("unseen", _NOTHING_SEEN)

    def _say_once(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            say(message)

    # Eager calls

    def _eager_hooks(self) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
        for layer in (self._model, *keras_private.sublayers(self._model)):
            yield layer, "call", self._hook(layer, "call", self._is_training_call)
        for optimizer in self._optimizers:
            yield optimizer, "apply", self._hook(optimizer, "apply", lambda: self._eager is not None)

    def _hook(self, owner: Any, name: str, wanted: Callable[[], bool]) -> Callable[..., Any]:
        """The outermost call is looked into, and nothing is wrapped any longer than it lasts."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not (self._can_look() and wanted() and self.get_ready()):
                return original(*args, **kwargs)
            assert self._loop is not None
            self._eager = self._eager or self._loop.new_part()
            with self._loop.looking_into(self._eager):
                return getattr(owner, name)(*args, **kwargs)

        return call

    def _can_look(self) -> bool:
        inside = self._loop is not None and self._loop.inside
        return self.observing and not self._suspended and not inside

    def _is_training_call(self) -> bool:
        if not is_recording() or keras_private.training_mode() is False:
            return False
        eager = tf.executing_eagerly()
        if not eager or tf.distribute.get_strategy().num_replicas_in_sync > 1:
            self._say_once("unseen", _NOT_WRAPPED)
            return False
        return True

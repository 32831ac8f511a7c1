"""Put observed steps into ``fit``, and nothing else.

``fit`` looks up ``model.train_function`` before each step. Just before it does, :meth:`FitTap.arm` puts a dispatcher
there, which takes itself out again as soon as it is called, and runs either the model's own train function or a second
one with taps, made from the same ``train_step``. So between steps, and wherever an exception comes from, the model is
as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import keras

from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.backends import ObservedStep, observed_step
from deadunits_tb.taps.keras.tap import UnitTap
from deadunits_tb.thresholds import Thresholds


class FitTap(UnitTap):
    """Observes the training steps of ``fit`` for a monitor.

    Args:
        model: Compiled.
        chosen: The layers to watch, None for all.
        thresholds: In force.
        monitor: Takes the observations.
        first_step: Number of the first step.
        every: Interval of the observations, None to choose by cost.
    """

    def __init__(
        self,
        model: keras.Model,
        chosen: Sequence[str | keras.Layer] | None,
        thresholds: Thresholds,
        monitor: Monitor,
        first_step: int,
        *,
        every: int | None,
    ) -> None:
        super().__init__(model, chosen, thresholds, monitor, first_step, every=every)
        self._observed: ObservedStep | None = None
        self._plain: Any = None
        self._made_for: Any = None
        self._steps = 1
        self._first_step = first_step
        self._tried = False

    def begin_fit(self, optimizer_steps: int) -> None:
        """Get ready, as far as that can be done before the first batch is there.

        Args:
            optimizer_steps: That the optimizer has done.

        Raises:
            InvalidArgumentError: There is no such layer to watch.
        """
        self.step = max(self.step, optimizer_steps)
        self.ending = False
        self._plain = self._model.train_function
        if keras_private.is_built(self._model):
            self._get_ready()

    def arm(self, steps: int) -> None:
        """Put the dispatcher in place for one call.

        Args:
            steps: How many steps the call will run.
        """
        if self._monitor.stopped and not (self._observed is not None and self._observed.only):
            return
        self._steps = steps
        entries = vars(self._model)
        if entries.get("train_function") != self._dispatch:
            self._plain = entries.get("train_function")
            entries["train_function"] = self._dispatch

    def disarm(self) -> None:
        """Take the dispatcher out, if it is there."""
        if vars(self._model).get("train_function") == self._dispatch:
            vars(self._model)["train_function"] = self._plain

    def _dispatch(self, *args: Any) -> Any:
        self.disarm()
        last = self.step + self._steps - 1
        self.step += self._steps
        observed = self._observed_step(args) if self._monitor.wants(last) else None
        if observed is None:
            began = perf_counter()
            result = self._unobserved(*args)
            seconds = perf_counter() - began
            self._costs.plain(seconds)
            self._monitor.time(False, seconds)
            return result
        looked = self._monitor.will_record(last)
        observed.look_at_weights(looked)
        with self._guarded():
            self._look_for_proofs(observed, last, looked)
        began = perf_counter()
        result, numbers = observed(*args)
        seconds = perf_counter() - began
        with self._guarded():
            self._hand_over(observed, last, numbers, seconds, looked)
        return result

    def _unobserved(self, *args: Any) -> Any:
        observed = self._observed
        if observed is None or not observed.only or self._plain is not self._made_for:
            return self._plain(*args)
        observed.look_at_weights(False)
        observed.look_at_ranges(False)
        observed.around = None
        return observed(*args)[0]

    def _observed_step(self, args: tuple[Any, ...]) -> ObservedStep | None:
        """What runs an observed step, if one can be. What can fail of that is done here, before the step."""
        if self._survey is None and not keras_private.is_built(self._model):
            if not self._tried:
                self._tried = True
                with contextlib.suppress(Exception):
                    keras_private.build(self._model, args[0].element_spec)
            if not keras_private.is_built(self._model) and self.step <= self._first_step + self._steps:
                return None  # it is built by its first step, and what is not by then is not called
        self._get_ready()
        return None if self._monitor.stopped else self._observed

    def _get_ready(self) -> None:
        """Survey the model, and build the second train function if the model has a new one.

        Raises:
            InvalidArgumentError: There is no such layer to watch.
        """
        with self._guarded():
            if self._observed is None:
                layers = self._surveyed()
                self._observed = observed_step(
                    self._model, layers, self._outgoing, self._thresholds, compiled=self._often
                )
            if self._plain is not self._made_for:  # the first fit, or a model compiled anew
                self._observed.make()
                self._made_for = self._plain
            self._observed.begin()

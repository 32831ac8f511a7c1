"""What every tap of a Keras model does: hand observed steps over to a monitor, and tell it of the layers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import keras

from deadunits_tb.capture import packed
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.numbering import StepNumbers
from deadunits_tb.capture.observation import StepObservation, WeightObservation
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.taps.costs import StepCosts
from deadunits_tb.taps.keras.backends import ObservedStep
from deadunits_tb.taps.keras.consumers import Outgoing, outgoing_weights
from deadunits_tb.taps.keras.layers import Survey, survey
from deadunits_tb.taps.keras.proving import Proving
from deadunits_tb.taps.keras.trails import StepTrace, Trail
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import RELU_LIKE, LayerInfo, Witness

_SELDOM = 10
"""From this interval on, compiling reductions takes longer than it saves in all but the longest runs."""


class UnitTap:
    """What is known of a model in training, and the way of what is seen of it to a monitor.

    Args:
        model: In training.
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
        self._model = model
        self._often = every is not None and every < _SELDOM
        self._chosen = chosen
        self._thresholds = thresholds
        self._monitor = monitor
        self._survey: Survey | None = None
        self._outgoing: dict[str, Outgoing] = {}
        self._costs = StepCosts()
        self._infos: dict[str, LayerInfo] = {}
        self._proving: Proving | None = None
        self._scaled_at: int | None = None
        self._latest: object = None
        self._looked: dict[str, WeightObservation] = {}
        self.ending = False
        """Whether what is fetched now is for the last record."""
        self._numbers = StepNumbers(first_step)
        self.step = first_step
        """The next step, as counted."""

    def _surveyed(self) -> Survey:
        """The layers of the model, whose weights exist.

        Raises:
            InvalidArgumentError: There is no such layer to watch.
        """
        if self._survey is None:
            self._survey = survey(self._model, self._chosen)
            for name, reason in self._survey.skipped.items():
                self._monitor.skip(name, reason)
            self._outgoing = outgoing_weights(self._model, self._survey.watched)
        return self._survey

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Report what fails in our own work, but raise what the user did wrong."""
        try:
            yield
        except InvalidArgumentError:
            raise
        except Exception as error:
            self._monitor.report("tap", error)

    def _look_for_proofs(self, observed: ObservedStep, step: int, looked: bool) -> None:
        """Before an observed step: have it look at what layers with silent units take in.

        Args:
            observed: Runs it.
            step: As counted.
            looked: Whether it is one that looks at weights.
        """
        assert self._survey is not None
        if self._proving is None:
            self._proving = Proving(self._model, self._survey, observed)
        wanted = self._proving.begin(self._numbers.of(step), self._monitor.silent_units)
        observed.look_at_ranges(wanted)
        observed.around = self._proving if wanted and looked else None

    def _hand_over(self, observed: ObservedStep, step: int, numbers: Any, seconds: float, looked: bool) -> None:
        began = perf_counter()
        traced = any(trace.graph is not None for trace in observed.traces)
        if observed.failure is not None or numbers is None:
            self._monitor.report("tap", observed.failure or "the train_step gives no dictionary of logs")
            return
        self._learn(observed)
        proving = self._proving
        assert proving is not None  # it is there since the step began
        spent, proving.seconds = proving.seconds, 0.0
        packed_step = self._latest = packed.PackedStep(
            lambda: proving.take_in(*observed.fetch(numbers)), self._known_weights
        )
        own = self._costs.observed(seconds - spent, traced=traced) + spent + perf_counter() - began
        if observed.around is not None:
            number = self._numbers.of(step)
            self._monitor.proofs.wait(lambda: proving.prove(number))
        self._monitor.observe(
            step,
            (lambda: self._with_history(observed, packed_step())) if looked else packed_step,
            number=self._numbers.take(step),
            learning_rate=packed_step.learning_rate,
            seconds=own,
        )
        self._monitor.time(True, seconds + perf_counter() - began)
        self._rescale(observed)

    def _with_history(self, observed: ObservedStep, observation: StepObservation) -> StepObservation:
        """With what is known of the weights as they are now: a step that looks at them is fetched at once."""
        for name, since in observed.since_first().items():
            if name in observation.layers:
                self._looked[name] = replace(
                    observation.layers[name].weights or WeightObservation(),
                    norm_out=since.norm_out,
                    change_since_first=since.change_since_first,
                    norm_first=since.norm_first,
                )
        return packed.with_weights(observation, self._looked)

    def _known_weights(self, step: packed.PackedStep) -> Mapping[str, WeightObservation]:
        return self._looked if self.ending and step is self._latest else {}

    def _rescale(self, observed: ObservedStep) -> None:
        """After a record: what counts as firing goes by the layers' sizes in it."""
        records = self._monitor.last_records
        at = max((record.window.step for record in records.values()), default=None)
        if at is None or at == self._scaled_at:
            return
        self._scaled_at = at
        unlike = [name for name in records if self._infos[name].activation_function not in RELU_LIKE]
        if unlike:
            observed.set_scales({name: self._monitor.scale(name) for name in unlike})

    def _learn(self, observed: ObservedStep) -> None:
        """Tell the monitor which layers a new trace of the step has shown."""
        assert self._survey is not None
        traces = list(observed.traces)
        observed.traces.clear()
        if self._proving is not None:
            self._proving.learn(traces)
        for trace in traces:
            for name, trails in _by_layer(trace).items():
                info = self._info(observed, name, trails)
                if self._infos.get(name) != info:
                    self._infos[name] = info
                    self._monitor.add_layer(info)
            for unit_layer in self._survey.watched:
                if unit_layer.name not in self._infos:
                    self._monitor.skip(unit_layer.name, _why_absent(trace, unit_layer.name))

    def _info(self, observed: ObservedStep, name: str, trails: list[Trail]) -> LayerInfo:
        assert self._survey is not None
        trail, known = trails[0], self._infos.get(name)
        shape, axes, outgoing = trail.output.shape, trail.tap.axes, self._outgoing.get(name)
        units = math.prod(int(shape[axis]) for axis in axes)
        witness: Witness = "none"
        if trail.tap.gradient is not None:
            witness = "output" if trail.layer.loop or trail.tap.function is None else "pre_activation"
        return LayerInfo(
            name=name,
            kind=type(trail.layer.layer).__name__,
            order=known.order if known else len(self._infos),
            units=units,
            activation_function=trail.tap.function,
            fan_in=trail.layer.fan_in,
            fan_out=None if outgoing is None else sum(weights.size for weights in outgoing) // units,
            role="output" if any(each.is_output for each in trails) else "hidden",
            framework=observed.framework,
            witness=witness,
            tokens=self._survey.tokens and not trail.layer.convolution and len(shape) - len(axes) > 1,
            weight_delta=observed.weight_methods.get(name, "none"),
        )


def _by_layer(trace: StepTrace) -> dict[str, list[Trail]]:
    found: dict[str, list[Trail]] = {}
    for trail in trace.trails:
        found.setdefault(trail.layer.name, []).append(trail)
    return found


def _why_absent(trace: StepTrace, name: str) -> str:
    if name in trace.elsewhere:
        return "called inside a loop or a function of its own, out of which its values cannot be carried"
    return "not called in the training step"

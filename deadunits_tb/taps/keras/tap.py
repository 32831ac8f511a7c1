"""Put observed steps into ``fit``, and nothing else.

``fit`` looks up ``model.train_function`` before each step. Just before it does, :meth:`UnitTap.arm` puts a dispatcher
there, which takes itself out again as soon as it is called, and runs either the model's own train function or a second
one with taps, made from the same ``train_step``. So between steps, and wherever an exception comes from, the model is
as it was.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Literal, Protocol

import keras
import numpy as np
import numpy.typing as npt

from deadunits_tb.capture import packed
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.observation import StepObservation, WeightObservation
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.taps.costs import StepCosts
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.consumers import Outgoing, outgoing_weights
from deadunits_tb.taps.keras.follow import StepTrace, Trail
from deadunits_tb.taps.keras.layers import Survey, survey
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import RELU_LIKE, LayerInfo, Witness


class ObservedStep(Protocol):
    """A backend's training step with taps."""

    traces: list[StepTrace]
    failure: Exception | None
    only: bool

    @property
    def framework(self) -> str:
        """Such as ``"keras/tensorflow"``."""

    @property
    def weight_methods(self) -> Mapping[str, Literal["exact", "projection"]]:
        """Layer to how changes of its weights are measured."""

    def make(self) -> None:
        """Build the second train function."""

    def begin(self) -> None:
        """Remember the weights before the first observed step."""

    def __call__(self, *args: Any) -> tuple[Any, Any]:
        """Run a step: what the train function returns, and numbers on the device, or None where that failed."""

    def fetch(self, numbers: Any) -> tuple[packed.Layout, npt.NDArray[np.floating]]:
        """Wait for the numbers of a step."""

    def since_first(self) -> dict[str, WeightObservation]:
        """Of the weights as they are now."""

    def look_at_weights(self, look: bool) -> None:
        """Whether the next observed step looks at the weights."""

    def set_scales(self, scales: Mapping[str, float | None]) -> None:
        """Root mean square of each layer's activations at the previous record."""


def observed_step(
    model: keras.Model,
    survey: Survey,
    outgoing: Mapping[str, Outgoing],
    thresholds: Thresholds,
    *,
    compiled: bool,
) -> ObservedStep:
    """The observed step of the backend that Keras runs on.

    Args:
        model: Built and compiled.
        survey: Its layers.
        outgoing: Layer to the weights that take in its units.
        thresholds: In force.
        compiled: Whether big reductions are worth compiling.

    Raises:
        InvalidArgumentError: There is none for it.
    """
    made: ObservedStep = _step_class()(model, survey, outgoing, thresholds, compiled=compiled)
    return made


def check_backend() -> None:
    """Find out whether there are taps for the backend that Keras runs on.

    Raises:
        InvalidArgumentError: There are none.
        MissingDependencyError: This version of the backend cannot be watched.
    """
    _step_class()
    if keras.backend.backend() == "jax":
        from deadunits_tb.taps.jax.private import check_version

        check_version()


def backend_facts() -> tuple[str, dict[str, str]]:
    """Name of the framework, and the versions of its packages."""
    step = _step_class()
    return step.framework, {"keras": keras.__version__, **step.versions}


def _step_class() -> Any:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from deadunits_tb.taps.keras.tensorflow import TensorFlowStep

        return TensorFlowStep
    if backend == "jax":
        from deadunits_tb.taps.keras.jax import JaxStep

        return JaxStep
    if backend == "torch":
        from deadunits_tb.taps.keras.torch import TorchStep

        return TorchStep
    raise InvalidArgumentError(
        f"DeadUnitsCallback works with Keras on TensorFlow, JAX and PyTorch, and Keras runs on {backend!r}: set the "
        "environment variable KERAS_BACKEND to one of them, or write arrays with DeadUnitsWriter"
    )


class UnitTap:
    """Observes the training steps of one model for a monitor.

    Args:
        model: Compiled.
        chosen: The layers to watch, None for all.
        thresholds: In force.
        monitor: Takes the observations.
        first_step: Number of the first step.
        often: Whether so many steps will be observed that compiling what observes them pays.
    """

    def __init__(
        self,
        model: keras.Model,
        chosen: Sequence[str | keras.Layer] | None,
        thresholds: Thresholds,
        monitor: Monitor,
        first_step: int,
        *,
        often: bool,
    ) -> None:
        self._model = model
        self._often = often
        self._chosen = chosen
        self._thresholds = thresholds
        self._monitor = monitor
        self._survey: Survey | None = None
        self._outgoing: dict[str, Outgoing] = {}
        self._observed: ObservedStep | None = None
        self._plain: Any = None
        self._made_for: Any = None
        self._costs = StepCosts()
        self._infos: dict[str, LayerInfo] = {}
        self._scaled_at: int | None = None
        self._latest: object = None
        self._looked: dict[str, WeightObservation] = {}
        self.ending = False
        """Whether what is fetched now is for the last record."""
        self._steps = 1
        self._first_step = first_step
        self._tried = False
        self.step = first_step
        """Number of the next step."""

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
            if self._survey is None:
                self._survey = survey(self._model, self._chosen)
                for name, reason in self._survey.skipped.items():
                    self._monitor.skip(name, reason)
                self._outgoing = outgoing_weights(self._model, self._survey.watched)
                self._observed = observed_step(
                    self._model, self._survey, self._outgoing, self._thresholds, compiled=self._often
                )
            assert self._observed is not None
            if self._plain is not self._made_for:  # the first fit, or a model compiled anew
                self._observed.make()
                self._made_for = self._plain
            self._observed.begin()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Report what fails in our own work, but raise what the user did wrong."""
        try:
            yield
        except InvalidArgumentError:
            raise
        except Exception as error:
            self._monitor.report("tap", error)

    def _hand_over(self, observed: ObservedStep, step: int, numbers: Any, seconds: float, looked: bool) -> None:
        began = perf_counter()
        traced = any(trace.graph is not None for trace in observed.traces)
        if observed.failure is not None or numbers is None:
            self._monitor.report("tap", observed.failure or "the train_step gives no dictionary of logs")
            return
        self._learn(observed)
        packed_step = self._latest = packed.PackedStep(lambda: observed.fetch(numbers), self._known_weights)
        own = self._costs.observed(seconds, traced=traced) + perf_counter() - began
        self._monitor.observe(
            step,
            (lambda: self._with_history(observed, packed_step())) if looked else packed_step,
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

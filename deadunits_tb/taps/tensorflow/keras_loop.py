"""A Keras model in a loop of the user's own: what is tapped, and when.

Calls of the model, or of layers of it, count where a ``tf.GradientTape`` records and the call is in training mode. A
gradient counts where the tape differentiates with respect to weights of the model: not those that another network gets
through it, nor those with respect to inputs.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deadunits_tb.capture import arguments
from deadunits_tb.capture.alarms import Alarm
from deadunits_tb.capture.messages import say
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.packed import Layout
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.run_record import RunInfo
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.consumers import outgoing_weights
from deadunits_tb.taps.keras.follow import Follower, StepTrace, replaced
from deadunits_tb.taps.keras.layers import Survey, Weights, survey
from deadunits_tb.taps.keras.parts import model_parts, optimizer_facts
from deadunits_tb.taps.keras.tap import UnitTap
from deadunits_tb.taps.keras.tensorflow import TensorFlowStep
from deadunits_tb.taps.merge import join, merge_vectors
from deadunits_tb.taps.tensorflow.apart import marked
from deadunits_tb.taps.tensorflow.distributed import Workers, check_strategy, summed_gradients, worker, workers
from deadunits_tb.taps.tensorflow.private import is_recording, sources_of_gradient
from deadunits_tb.taps.tensorflow.reductions import value_summary
from deadunits_tb.taps.tensorflow.silent import SilentMonitor
from deadunits_tb.thresholds import Thresholds

_NEVER = 2**63
_MOST_MISSES = 10
"""Steps in which nothing was seen, after which it is no use to look for more."""
_SELDOM = 10
"""From this interval on, compiling reductions takes longer than it saves in all but the longest runs."""
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


@dataclass(eq=False)
class Part:
    """What one function of a step called, or one eager step.

    Attributes:
        graph: Of the function; None eagerly.
        look: Whether to look at weights.
        steps: Replica to what it called.
        inputs: Replica to summaries of what was fed to the model.
        gradients: Replica to those of the weights, added up over replicas, by ``id`` of the variable.
        applied: Replica to fields of the optimizer's step, if there was one.
    """

    graph: object
    look: Any
    steps: dict[int, StepTrace] = field(default_factory=dict)
    inputs: dict[int, list[Any]] = field(default_factory=dict)
    gradients: dict[int, dict[int, Any]] = field(default_factory=dict)
    applied: dict[int, dict[str, Any]] = field(default_factory=dict)

    def is_here(self) -> bool:
        """Whether what is made now can be carried out of the step: not in a loop's body, or a function within."""
        return (None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()) is self.graph


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """All numbers of one step.

    Attributes:
        parts: Of each function, ``[replicas, numbers]``.
        weights: Norms of weights and of their changes in the step, by field.
        loss: As the user gave it.
    """

    parts: Sequence[Any]
    weights: Mapping[str, Any]
    loss: Any


class LoopFollower(Follower):
    """Follows training calls under a tape, on each replica a step of its own."""

    _backend: LoopStep

    def _step(self) -> StepTrace | None:
        step = self._backend.present()
        if step is None or step.inside or step.failure is not None:
            return None
        return step if is_recording() and keras_private.training_mode() is not False else None

    def _wrap_model(self, original: Callable[..., Any]) -> Callable[..., Any]:
        followed = super()._wrap_model(original)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            step = self._step()
            if step is not None:
                with step.guard():
                    self._backend.fed(step, args[0] if args else next(iter(kwargs.values()), None))
            return followed(*args, **kwargs)

        return call


class LoopStep(TensorFlowStep):
    """Looks into functions of the user's own.

    Args:
        model: Built.
        survey: Its layers.
        outgoing: Layer to the weights that take in its units.
        thresholds: In force.
        optimizers: That may train the model.
        compiled: Whether big reductions are worth compiling.
    """

    framework = "tensorflow"
    several_workers = True

    def __init__(
        self,
        model: keras.Model,
        survey: Survey,
        outgoing: Mapping[str, tuple[Weights, ...]],
        thresholds: Thresholds,
        optimizers: Sequence[keras.optimizers.Optimizer],
        *,
        compiled: bool,
    ) -> None:
        super().__init__(model, survey, outgoing, thresholds, compiled=compiled)
        self._follower: LoopFollower = LoopFollower(model, survey, self)
        self._optimizers = optimizers
        self._own = {id(variable.value) for variable in model.variables}
        self._part: Part | None = None
        self._around = tf.function(self.weights.around, autograph=False)

    @property
    def order(self) -> Mapping[str, int]:
        """Watched layer to its number."""
        return self._order

    @property
    def inside(self) -> bool:
        """Whether a part of a step is being looked into."""
        return self._part is not None

    @contextlib.contextmanager
    def looking_into(self, part: Part) -> Iterator[None]:
        """Look into what the body calls. Raises nothing of its own."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._follower.installed())
                stack.enter_context(replaced(self._optimizers_wrapped()))
            except Exception as error:
                stack.close()
                self.failure = self.failure or error
            self._part = part if self.failure is None else None
            try:
                yield
            finally:
                self._part = None

    def new_part(self) -> Part:
        """Of the function that is being traced, or of an eager step."""
        eager = tf.executing_eagerly()
        look = self._looks if eager else True if self._replicas > 1 else self._look.read_value()
        return Part(None if eager else tf.compat.v1.get_default_graph(), look)

    def present(self) -> StepTrace | None:
        """Of this replica."""
        part, replica = self._part, _replica()
        if part is None or replica is None:
            return None
        return part.steps.setdefault(replica, StepTrace(part.graph))

    def fed(self, step: StepTrace, inputs: Any) -> None:
        """Summarize what the model is fed."""
        replica = _replica()
        if self._part is None or replica is None:
            return
        numbers = [x for x in keras.tree.flatten(inputs) if self._is_numeric(x) and self.belongs(x, step.graph)]
        if numbers:
            self._part.inputs.setdefault(replica, []).append(value_summary(numbers))

    def pack_part(self, part: Part) -> Any:
        """``[replicas, numbers]`` on the device; None where it failed or there is nothing."""
        rows = []
        for replica, step in sorted(part.steps.items()):
            applied = part.applied.get(replica, {})
            self.failure = self.failure or step.failure
            if not step.trails and not applied:
                self.traces.append(step)
                continue
            with step.guard(), marked():
                self._follower.finish(step)
                inputs = part.inputs.get(replica)
                fields = applied | ({"inputs": tf.concat(inputs, 0)} if inputs else {})
                gradients = part.gradients.get(replica, {})
                if self._replicas > 1:  # they were added up where replicas can talk to each other
                    fields, gradients = fields | self.weights.gradients(gradients, part.look), {}
                rows.append(self._pack(step, fields, gradients, part.look))
            self.failure = self.failure or step.failure
            if replica == min(part.steps):
                self.traces.append(step)
        return tf.stack(rows) if rows and self.failure is None else None

    def weights_around(self, before: dict[str, list[Any]]) -> dict[str, Any]:
        """Norms of the weights before the step, and of their changes in it."""
        found: dict[str, Any] = self._around(before)
        return found

    def fetch(self, packed: StepNumbers) -> tuple[Layout, npt.NDArray[np.floating]]:
        """Wait for a step's numbers."""
        parts = []
        for rows in packed.parts:
            rows = np.asarray(rows)
            numbers = {int(number) for number in rows[:, 0]}
            if len(numbers) > 1:
                raise ValueError("the replicas of one step did not call the same layers")
            parts.append(merge_vectors(self._layouts[numbers.pop()], rows[:, 1:], loss="sum"))
        more = {name: np.asarray(values, np.float64) for name, values in packed.weights.items()}
        more["looked"] = np.array([float(bool(packed.weights))])
        loss = _scalar(packed.loss)
        return join(parts, more if loss is None else more | {"loss": np.array([loss])})

    def gradient_tap(self, tensor: Any, arrived: Callable[[Any], None]) -> Any:
        """An identity that sees the gradient on its way back to the model's own weights."""

        def of_loss(gradient: Any) -> None:
            sources = sources_of_gradient()
            if sources is None or any(id(getattr(source, "value", source)) in self._own for source in sources):
                arrived(gradient)

        return super().gradient_tap(tensor, of_loss)

    def _waits(self, tensor: Any) -> bool:
        return self._replicas == 1 and super()._waits(tensor)  # replicas talk to each other where they run

    def _is_compiled(self) -> bool:
        return True  # the user's function may be

    def _optimizers_wrapped(self) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
        for optimizer in self._optimizers:
            yield optimizer, "apply", self._wrap_apply(optimizer)

    def _wrap_apply(self, optimizer: keras.optimizers.Optimizer) -> Callable[..., Any]:
        original = optimizer.apply

        def apply(grads: Any, trainable_variables: Any = None) -> Any:
            part, replica = self._part, _replica()
            step = self.present()
            if part is None or replica is None or step is None or step.failure is not None or not part.is_here():
                return original(grads, trainable_variables)
            grads = list(grads)
            trainable_variables = None if trainable_variables is None else list(trainable_variables)
            fields: dict[str, Any] = {}
            with step.guard(), marked():
                gradients = self._by_variable(optimizer, grads, trainable_variables, step.graph)
                gradients = gradients if self._replicas == 1 else summed_gradients(gradients)
                part.gradients.setdefault(replica, {}).update(gradients)
                fields = self._of_optimizer(optimizer)
            result = original(grads, trainable_variables)
            with step.guard(), marked():
                if "skipped" in fields:  # a loss scaler that skips a step does not count it
                    fields["skipped"] = tf.identity(optimizer.iterations.value) == fields["skipped"]
                part.applied.setdefault(replica, {}).update(fields)
            return result

        return apply


class LoopTap(UnitTap):
    """Observes the steps of a loop for a monitor.

    Args:
        model: In training.
        optimizers: That train it, as far as they are known.
        chosen: The layers to watch, None for all.
        thresholds: In force.
        monitor: Takes the observations.
        first_step: Number of the first step.
        often: Whether so many steps will be observed that compiling what observes them pays.
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
        often: bool,
    ) -> None:
        super().__init__(model, chosen, thresholds, monitor, first_step, often=often)
        self.monitor = monitor
        self._optimizers = optimizers
        self._loop: LoopStep | None = None
        self._hooks: contextlib.ExitStack = contextlib.ExitStack()
        self._before_step: dict[str, list[Any]] | None = None
        self._parts: list[Any] = []
        self._eager: Part | None = None
        self._traced_seconds = 0.0
        self._suspended = self._said = False
        self._misses = 0
        self._began = perf_counter()
        strategy = model.distribute_strategy
        self._workers = Workers(strategy) if workers(strategy) > 1 else None
        self._agreed = first_step
        self._dead_fraction = math.nan
        self.observing = False
        """Whether the present step is observed."""

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
        at = self.step if step is None else int(step)
        self.step = at + 1
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
                self._survey = survey(self._model, self._chosen)
                for name, reason in self._survey.skipped.items():
                    self._monitor.skip(name, reason)
                self._outgoing = outgoing_weights(self._model, self._survey.watched)
                self._loop = LoopStep(
                    self._model, self._survey, self._outgoing, self._thresholds, self._optimizers, compiled=self._often
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
        self._before_step = self._loop.weights.before() if look else {}

    def _end_observed(self, step: int, loss: Any, seconds: float) -> None:
        self._hooks.close()
        loop = self._loop
        if loop is not None and self._eager is not None:
            self._parts.append(self.pack(self._eager))
        parts = [part for part in self._parts if part is not None]
        if self._workers is not None:
            self._with_workers(self._workers, step, parts, loss, seconds)
            return
        joined = self._joined_trace(loop) if loop is not None else None
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
        mine = [] if failed else [np.asarray(part) for part in parts]
        shapes = [float(size) for part in mine for size in part.shape]
        said = others.exchange([float(failed), float(len(mine)), float(sum(part.size for part in mine))])
        if said[:, 0].any() or (said != said[0]).any() or loop is None:
            self._agreed = _NEVER
            if loop is not None and loop.failure is not None:
                self._monitor.report("watch", loop.failure)
            self._monitor.report("watch", "a worker failed to look, or saw other calls: all step aside")
            return
        rows = others.exchange(np.concatenate([part.reshape(-1) for part in mine]))
        together, at = [], 0
        for height, width in zip(shapes[::2], shapes[1::2], strict=True):
            size = int(height * width)
            together.append(rows[:, at : at + size].reshape(-1, int(width)))
            at += size
        self._joined_trace(loop)
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

    def _joined_trace(self, loop: LoopStep) -> StepTrace | None:
        """Which layers a step calls is known from all of its functions together."""
        traces = list(loop.traces)
        loop.traces.clear()
        if not traces:
            return None
        joined = StepTrace(next((trace.graph for trace in traces if trace.graph is not None), None))
        for trace in traces:
            joined.trails += trace.trails
            joined.elsewhere |= trace.elsewhere
        loop.traces.append(joined)
        return joined

    def _missed(self) -> None:
        """Nothing was seen in a step that was to be observed."""
        if self._monitor.stopped:  # it has said why
            return
        self._misses += 1
        if self._misses == _MOST_MISSES:
            self._monitor.report("watch", f"no training call of the model was seen in {_MOST_MISSES} steps")
        else:
            self._say_once(_NOTHING_SEEN)

    def _say_once(self, message: str) -> None:
        if not self._said:
            self._said = True
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
            self._say_once(_NOT_WRAPPED)
            return False
        return True


def check_model(model: Any) -> None:
    """Find out whether a model can be watched.

    Raises:
        InvalidArgumentError: It cannot.
        MissingDependencyError: This version of Keras cannot be watched.
    """
    if not isinstance(model, keras.Model):
        raise InvalidArgumentError(
            f"model must be a Keras model, not {type(model).__name__}: from a tf.Module or functions of your own, "
            "write arrays with DeadUnitsWriter"
        )
    if keras.backend.backend() != "tensorflow":
        raise InvalidArgumentError(
            f"Keras runs on {keras.backend.backend()!r}, where no tf.GradientTape records: set the environment "
            "variable KERAS_BACKEND to tensorflow"
        )
    keras_private.check_version()
    check_strategy(model.distribute_strategy, several_workers=True)
    if model in _WATCHED:
        raise InvalidArgumentError(
            f"the model {model.name!r} is being watched already: close that monitor before you begin another"
        )


def checked_optimizers(model: keras.Model, given: Any) -> list[keras.optimizers.Optimizer]:
    """The optimizers that train a model.

    Args:
        model: The model.
        given: One, several, or None for that which the model was compiled with.

    Raises:
        InvalidArgumentError: It is something else, it trains another model, or it is needed and missing.
    """
    if given is None:
        given = getattr(model, "optimizer", None)
    optimizers = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    own = {id(variable) for variable in model.variables}
    for optimizer in optimizers:
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise InvalidArgumentError(
                f"optimizer must be an optimizer of Keras, or a list of them, not {type(optimizer).__name__}"
            )
        trained = keras_private.optimizer_variables(optimizer) if optimizer.built else []
        if trained and own and not any(id(variable) in own for variable in trained):
            raise InvalidArgumentError(
                f"the optimizer {optimizer.name!r} was built for other weights than those of {model.name!r}: "
                "give the one that trains this model"
            )
    if not optimizers and any(layer.compute_dtype == "float16" for layer in keras_private.sublayers(model)):
        raise InvalidArgumentError(
            "the model computes in float16, whose gradients are scaled: give the optimizer, which knows the scale"
        )
    return optimizers


def checked_layers(layers: Any) -> tuple[Any, ...] | None:
    """The layers to watch, None for all.

    Raises:
        InvalidArgumentError: They are no list of names and layers.
    """
    return arguments.checked_layers(layers, keras.Layer)


def watching(
    model: keras.Model,
    optimizers: Sequence[keras.optimizers.Optimizer],
    chosen: Sequence[str | keras.Layer] | None,
    thresholds: Thresholds,
    log_dir: str | os.PathLike[str],
    *,
    every: int | None,
    max_overhead: float,
    max_bytes: int,
    initial_step: int,
    on_alarm: Callable[[Alarm], object] | None,
) -> LoopTap:
    """Begin to watch; the arguments are those of :func:`deadunits_tb.tensorflow.watch`, checked."""
    if keras_private.is_built(model):
        survey(model, chosen)  # what is wrong there is said before there is a file
    run = RunInfo(
        framework=LoopStep.framework,
        versions={"keras": keras.__version__, **LoopStep.versions},
        optimizer=optimizer_facts(optimizers[0] if optimizers else None),
        thresholds=thresholds,
        every=every,
        model=model_parts(model),
    )
    monitor: Any = SilentMonitor()
    if worker(model.distribute_strategy) == 0:
        monitor = Monitor(
            log_dir,
            run,
            every=every,
            max_overhead=max_overhead,
            max_bytes=max_bytes,
            initial_step=initial_step,
            on_alarm=on_alarm,
        )
    often = every is not None and every < _SELDOM
    tap = LoopTap(model, optimizers, chosen, thresholds, monitor, initial_step, often=often)
    tap.begin()
    return tap


def _replica() -> int | None:
    """Number of this replica; None where code runs for all of them."""
    context = tf.distribute.get_replica_context()
    if context is None:
        return None
    number = context.replica_id_in_sync_group
    return number if isinstance(number, int) else int(tf.get_static_value(number))


def _scalar(loss: Any) -> float | None:
    if loss is None:
        return None
    value = np.asarray(loss)
    return float(value) if value.size == 1 and value.dtype.kind in "fiu" else None

"""One observed step of a loop of the user's own, which may be several functions on several replicas."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deadunits_tb.capture.packed import Layout
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.follow import Follower
from deadunits_tb.taps.keras.layers import Survey, Weights
from deadunits_tb.taps.keras.replacing import replaced
from deadunits_tb.taps.keras.tensorflow import TensorFlowStep
from deadunits_tb.taps.keras.tensorflow_optimizer import gradients_by_variable, optimizer_fields
from deadunits_tb.taps.keras.trails import StepTrace
from deadunits_tb.taps.merge import join, merge_vectors
from deadunits_tb.taps.tensorflow.apart import marked
from deadunits_tb.taps.tensorflow.distributed import summed_gradients
from deadunits_tb.taps.tensorflow.private import is_recording, sources_of_gradient
from deadunits_tb.taps.tensorflow.reductions import value_summary
from deadunits_tb.thresholds import Thresholds


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

    def join_traces(self) -> StepTrace | None:
        """Which layers a step calls is known from all of its functions together; None where there was none."""
        traces = list(self.traces)
        self.traces.clear()
        if not traces:
            return None
        joined = StepTrace(next((trace.graph for trace in traces if trace.graph is not None), None))
        for trace in traces:
            joined.trails += trace.trails
            joined.elsewhere |= trace.elsewhere
        self.traces.append(joined)
        return joined

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

    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """Those that the user has named."""
        return list(self._optimizers)

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
                gradients = gradients_by_variable(
                    optimizer, grads, trainable_variables, functools.partial(self.belongs, graph=step.graph)
                )
                gradients = gradients if self._replicas == 1 else summed_gradients(gradients)
                part.gradients.setdefault(replica, {}).update(gradients)
                fields = optimizer_fields(optimizer)
            result = original(grads, trainable_variables)
            with step.guard(), marked():
                if "skipped" in fields:  # a loss scaler that skips a step does not count it
                    fields["skipped"] = tf.identity(optimizer.iterations.value) == fields["skipped"]
                part.applied.setdefault(replica, {}).update(fields)
            return result

        return apply


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

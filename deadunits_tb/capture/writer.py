"""Records of arrays from any training loop, without a framework."""

from __future__ import annotations

import atexit
import os
import weakref
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType

import numpy as np

from deadunits_tb.capture.accumulators import merge
from deadunits_tb.capture.arguments import check_whole
from deadunits_tb.capture.arrays import as_numbers
from deadunits_tb.capture.layer_arrays import LayerArrays, ObservedLayer, check_range
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.observation import Observation, StepObservation
from deadunits_tb.capture.reductions import summarise_inputs
from deadunits_tb.capture.weight_history import WeightBudget
from deadunits_tb.certificate import PROVABLE, Certificates
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.record import NEVER
from deadunits_tb.run_record import RunInfo
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import Role


@dataclass(slots=True)
class _Step:
    """What is known so far of the step that is being observed."""

    number: int = NEVER
    layers: dict[str, Observation] = field(default_factory=dict)
    learning_rate: float | None = None
    loss: float | None = None
    inputs: tuple[int, float, float, float, float] | None = None
    seconds: float = 0.0
    proofs: dict[str, Certificates] = field(default_factory=dict)

    def deliver(self, monitor: Monitor) -> None:
        """Hand over what there is, and forget it."""
        if self.layers:
            proofs, self.proofs = self.proofs, {}
            if proofs:
                monitor.proofs.wait(lambda: proofs)
            seen = StepObservation(dict(self.layers), self.loss, self.inputs)
            monitor.observe(self.number, lambda: seen, learning_rate=self.learning_rate, seconds=self.seconds)
        self.layers, self.learning_rate, self.loss, self.inputs, self.seconds = {}, None, None, None, 0.0


class DeadUnitsWriter:
    """Writes records of arrays that any training loop can hand over; shown in the tab *Dead Units* of TensorBoard.

    ::

        with DeadUnitsWriter("runs/mlp") as writer:
            for step in range(steps):
                ...
                writer.observe(step, "hidden", activations, gradients=gradients, weights=weights)

    The layers observed at one step form one observation; it is complete when the step advances, and at :meth:`flush`
    and :meth:`close`. Of the observations about 1,000 records per run are made. Count the steps from 0, and observe the
    first one: only then is it known which units were born dead.

    NaN and Inf in arrays are recorded, never an error. Wrong arguments raise at once, before anything of that call is
    taken in. Whatever else fails is said once with a :class:`~deadunits_tb.capture.messages.MonitorWarning`.

    Args:
        log_dir: The run's log directory; records go into its sub-directory ``dead_units``.
        thresholds: For the verdicts; None for the defaults.
        max_bytes: Most bytes of the run's event files.
        dataset_examples: Examples in one pass over the data, where each pass shows the same ones, not augmented: then
            units are dead that were silent for two passes, however short. 0 if unknown.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value.
        LogDirectoryError: The log directory cannot be written.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        *,
        thresholds: Thresholds | None = None,
        max_bytes: int = 2**30,
        dataset_examples: int = 0,
    ) -> None:
        if thresholds is not None and not isinstance(thresholds, Thresholds):
            raise InvalidArgumentError(
                f"thresholds must be deadunits_tb.Thresholds, like Thresholds(dead_examples=5000), not {thresholds!r}"
            )
        self._thresholds = thresholds or Thresholds()
        run = RunInfo(framework="numpy", versions={"numpy": np.__version__}, thresholds=self._thresholds)
        self._monitor = Monitor(log_dir, run, every=1, max_bytes=max_bytes, dataset_examples=dataset_examples)
        self._layers: dict[str, ObservedLayer] = {}
        self._budget = WeightBudget()
        self._step = _Step()
        self._finish = weakref.finalize(self, _finish, self._monitor, self._step)  # also when nobody calls close(),
        atexit.register(self._finish)  # and at the end of the program before the monitor closes by itself

    def observe(
        self,
        step: int,
        layer: str,
        activations: object,
        *,
        activation_function: str | None = "relu",
        gradients: object = None,
        weights: object = None,
        weight_gradients: object = None,
        outgoing: object = None,
        inputs_low: object = None,
        inputs_high: object = None,
        biases: object = None,
        unit_axis: int = -1,
        weight_unit_axis: int = -1,
        mask: object = None,
        trainable: bool = True,
        role: Role = "hidden",
    ) -> None:
        """Observe one layer at one step. Arrays are only read, and not kept.

        Args:
            step: Optimizer steps since the start of training; never below that of the call before.
            layer: Name of the layer, unique in the run.
            activations: ``[examples, ..., units]`` outputs of the activation function. An empty batch is skipped.
            activation_function: Such as ``"relu"`` or ``"tanh"``; ``"linear"`` for none, ``"custom"`` for one of your
                own, None if unknown.
            gradients: Of the loss with respect to the *pre-activation*, shaped like ``activations``. Without them a
                verdict rests on silence alone.
            weights: Incoming weights ``[..., units]``. The change is that since the call before, so it is that of one
                optimizer step only if each step is observed.
            weight_gradients: Of the loss with respect to ``weights``, of the same shape.
            outgoing: Weights that the units feed, ``[units, ...]``; only if these are all of them.
            inputs_low: Smallest value of what the weights take in, of each feature in this batch: an array that fits
                ``weights`` without their axis of units, such as ``[fan_in]`` of a dense layer or ``[channels]`` of
                kernels ``[height, width, channels, units]``; zero is among the values where padding adds it. With it
                the record says of dead units whether they can fire at all, see docs/definitions.md. The pre-activation
                must be ``inputs @ weights + biases``.
            inputs_high: The largest, just so.
            biases: ``[units]``, added to the sums; only needed where ``inputs_low`` is given.
            unit_axis: Of ``activations`` and ``gradients``; not 0, which holds the examples.
            weight_unit_axis: Of ``weights`` and ``weight_gradients``.
            mask: ``[examples]`` or ``[examples, ...]``: true where examples or positions are real, not padding.
            trainable: Whether the weights are trained at present.
            role: ``"output"`` for the layer that the loss consumes: it may be silent.

        Raises:
            InvalidArgumentError: An argument has the wrong type, value or shape, contradicts what was said of the layer
                before, or the step runs backwards.
        """
        began = perf_counter()
        self._check_step(step)
        arrays = LayerArrays.of(
            layer,
            activations,
            activation_function=activation_function,
            gradients=gradients,
            weights=weights,
            weight_gradients=weight_gradients,
            outgoing=outgoing,
            inputs_low=inputs_low,
            inputs_high=inputs_high,
            biases=biases,
            unit_axis=unit_axis,
            weight_unit_axis=weight_unit_axis,
            mask=mask,
            trainable=trainable,
            role=role,
        )
        known = self._layers.get(layer)
        if known is not None:
            known.check(arrays)
        if self._monitor.stopped:
            return
        try:
            self._take(step, arrays, known)
        except InvalidArgumentError:
            raise
        except Exception as error:  # ours, not the caller's: training goes on
            self._monitor.report("observe", error)
        self._step.seconds += perf_counter() - began

    def context(
        self, step: int, *, learning_rate: float | None = None, loss: float | None = None, inputs: object = None
    ) -> None:
        """Say what else is known of a step, before or after its layers are observed.

        Args:
            step: As in :meth:`observe`.
            learning_rate: In force at this step.
            loss: Of this step's batch; may be NaN or Inf.
            inputs: The batch that was fed to the model, numbers of any shape.

        Raises:
            InvalidArgumentError: An argument has the wrong type or value, or the step runs backwards.
        """
        self._check_step(step)
        rate, now = _number("learning_rate", learning_rate), _number("loss", loss)
        fed = None if inputs is None else summarise_inputs(as_numbers("inputs", inputs))
        self._advance(step)
        current = self._step
        current.learning_rate = current.learning_rate if rate is None else rate
        current.loss = current.loss if now is None else now
        current.inputs = fed or current.inputs

    def flush(self) -> None:
        """Complete the observation of the present step, and wait until the records made so far are in the file."""
        self._check_step(self._step.number)
        self._step.deliver(self._monitor)
        self._monitor.flush()

    def close(self) -> None:
        """Make a record of what is left and finish the file. May be called again."""
        atexit.unregister(self._finish)
        self._finish()

    def __enter__(self) -> DeadUnitsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, step: int, arrays: LayerArrays, known: ObservedLayer | None) -> None:
        observed = known or ObservedLayer(arrays, len(self._layers), self._budget)
        before = observed.info if known else None
        seen = observed.observe(
            arrays,
            scale=self._monitor.scale(arrays.layer) if known else None,
            thresholds=self._thresholds,
        )
        if seen is None:
            return
        if known is None:
            check_range(arrays, seen)
            self._layers[arrays.layer] = observed
        if observed.info != before:
            self._monitor.add_layer(observed.info)
        self._advance(step)
        self._prove(step, arrays, observed)
        layers = self._step.layers
        layers[arrays.layer] = merge(layers[arrays.layer], seen) if arrays.layer in layers else seen

    def _prove(self, step: int, arrays: LayerArrays, observed: ObservedLayer) -> None:
        """Of silent units, where the caller tells the ranges of their inputs: whether they can fire at all."""
        if arrays.ranges is None or arrays.weights is None or arrays.activation_function not in PROVABLE:
            return
        silent, due = self._monitor.silent_units.get(arrays.layer), self._monitor.will_record(step)
        found = observed.ranges.look(step, arrays.ranges, arrays.weights, silent, due=due)
        if found is not None:
            self._step.proofs[arrays.layer] = found

    def _advance(self, step: int) -> None:
        """Begin a step, if it is not the present one."""
        if step == self._step.number:
            return
        if self._step.number == NEVER:
            self._monitor.start_at(int(step))
        self._step.deliver(self._monitor)
        self._step.number = int(step)

    def _check_step(self, step: object) -> None:
        if not self._finish.alive:
            raise InvalidArgumentError("the writer is closed: begin a new one to write more")
        check_whole("step", step, 0)
        if step < self._step.number:  # type: ignore[operator]  # checked to be a whole number
            raise InvalidArgumentError(
                f"step {step} comes after step {self._step.number}: steps never run backwards, begin a new writer"
            )


def _finish(monitor: Monitor, step: _Step) -> None:
    step.deliver(monitor)
    monitor.close()


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # a number of any library
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"{name} must be a number, not {value!r}") from error

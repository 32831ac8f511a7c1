"""What the rules look at: a run and its layers, with the numbers that several rules ask for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.phrases import measured
from deadunits_tb.record import Byte, Int, Statistics
from deadunits_tb.run_record import InputSummary
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import Level, UnitState

StatesOf = Callable[[str], tuple[Byte, Int]]
"""Layer name to its states ``uint8 [records, units]`` and since-steps ``int64 [records, units]``, as judged now."""
Mask = npt.NDArray[np.bool_]
Series = npt.NDArray[np.float64]

LOSS_JUMP = 1.5
"""A loss this many times its first value has jumped."""
LEARNED = 0.1
"""Share of its first value by which the loss has fallen in a run that learns."""
MOST_UNITS = 256
"""Units of a layer whose median stands for the layer's."""
FAR_FROM_USUAL = 3.0
"""Incoming weights this many times larger, or smaller, than He or Glorot initialization makes them are unusual."""
_FEW = 3
_RECURRENT = ("LSTM", "GRU", "RNN", "Embedding")


class RunCase:
    """A run, as the rules look at it.

    Args:
        run: The run.
        states_of: States of each layer.
        thresholds: In force.
    """

    def __init__(self, run: RunHistory, states_of: StatesOf, thresholds: Thresholds) -> None:
        self.run = run
        self.thresholds = thresholds
        self.layers: dict[str, LayerCase] = {}
        starved_by: str | None = None
        for name, layer in run.layers.items():
            if not len(layer):
                continue
            case = self.layers[name] = LayerCase(self, layer, *states_of(name), starved_by=starved_by)
            if layer.info.role == "hidden" and bool((case.last == UnitState.DEAD).all()):
                starved_by = starved_by or name

    @cached_property
    def losses(self) -> tuple[Int, Series]:
        """Steps and losses of the records that know one."""
        known = [(r.step, r.loss) for r in self.run.records if r.loss is not None]
        return np.array([step for step, _ in known], np.int64), np.array([loss for _, loss in known], np.float64)

    @cached_property
    def first_loss(self) -> float:
        """Of the first records that know it, NaN without any. In a run that diverges at once, of the very first."""
        losses = self.losses[1]
        return float(min(losses[0], np.median(losses[:_FEW]))) if len(losses) else math.nan

    @cached_property
    def last_loss(self) -> float:
        """Median of the last records that know it, a tenth of them or three; NaN without any."""
        losses = self.losses[1]
        return float(np.median(losses[-max(_FEW, len(losses) // 10) :])) if len(losses) else math.nan

    @cached_property
    def loss_fell(self) -> float:
        """Share of the first loss by which it has fallen at its best, over a few records; NaN where it is not known."""
        losses = self.losses[1]
        losses = losses[: int(np.argmin(np.isfinite(losses)))] if not np.isfinite(losses).all() else losses
        if len(losses) < 2 * _FEW or not self.first_loss > 0:
            return math.nan
        window = max(_FEW, len(losses) // 10)
        means = np.convolve(losses, np.ones(window) / window, "valid")
        return float(1 - means.min() / self.first_loss)

    @property
    def learned(self) -> bool:
        """Whether the loss is known to have fallen."""
        return self.loss_fell >= LEARNED

    def loss_jump(self, until: int | None = None) -> float:
        """Largest loss over the first one, up to a step; 0 where it is not known. NaN tells of no growth."""
        steps, losses = self.losses
        losses = losses if until is None else losses[steps <= until]
        if not len(losses) or not losses[0] > 0:
            return 0.0
        return float(np.nanmax(losses) / losses[0])

    def rate(self, at: int | None = None) -> float | None:
        """Learning rate in force at a step, by the records; the largest of the run if no step is given."""
        known = [(r.step, r.learning_rate) for r in self.run.records if r.learning_rate is not None]
        if not known:
            return None
        if at is None:
            return max(rate for _, rate in known)
        return min(known, key=lambda one: abs(one[0] - at))[1]

    @property
    def optimizer(self) -> str:
        """Class of the optimizer, empty if unknown."""
        return str(self.run.info.optimizer.get("class", ""))

    def inputs(self, until: int) -> tuple[int, InputSummary] | None:
        """The largest inputs of any record up to a step, at the first step from which they were half as large."""
        known = [(r.step, r.inputs) for r in self.run.records if r.inputs is not None and r.step <= until]
        finite = [(step, inputs) for step, inputs in known if math.isfinite(size_of(inputs))]
        if not finite:
            return None
        largest = max(size_of(inputs) for _, inputs in finite)
        return next((step, inputs) for step, inputs in finite if size_of(inputs) >= largest / 2)

    def bad_inputs(self, until: int) -> int | None:
        """Step of the first record, up to some step, whose inputs hold NaN or infinity; None without any."""
        found = (r.step for r in self.run.records if r.inputs and not math.isfinite(size_of(r.inputs)))
        first = next(found, None)
        return first if first is not None and first <= until else None

    @cached_property
    def unscaled(self) -> tuple[int, str] | None:
        """Since when the inputs are far from standard where the first layer sees them, and a sentence on them."""
        first = min(self.layers.values(), key=lambda layer: layer.layer.info.order, default=None)
        found = self.inputs(self.run.last_step)
        if first is None or found is None:
            return None
        step, inputs = found
        if size_of(inputs) <= self.thresholds.unscaled_inputs or not first.sees(step, inputs):
            return None
        since = f" from step {step:,} on" if step > self.run.first_step else ""
        return step, f"the inputs range from {inputs.min:g} to {inputs.max:g}{since}, {moments(inputs)}"

    @property
    def hidden(self) -> list[LayerCase]:
        """Hidden layers in the model's order."""
        return [layer for layer in self.layers.values() if layer.layer.info.role == "hidden"]


class LayerCase:
    """One layer, as the rules look at it.

    Args:
        run: The run.
        layer: What was recorded of it.
        states: ``uint8 [records, units]``.
        since: ``int64 [records, units]``.
        starved_by: A layer before it whose units are all dead.
    """

    def __init__(self, run: RunCase, layer: LayerHistory, states: Byte, since: Int, *, starved_by: str | None) -> None:
        self.run = run
        self.layer = layer
        self.states = states
        self.since = since
        self.starved_by = starved_by

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.layer.info.name

    @property
    def last(self) -> Byte:
        """``uint8 [units]`` states at the last record."""
        last: Byte = self.states[-1]
        return last

    @property
    def thresholds(self) -> Thresholds:
        """In force."""
        return self.run.thresholds

    def level(self, units: int) -> Level:
        """How much it matters that so many units of the layer are in trouble."""
        share = units / self.layer.units
        if share >= self.thresholds.alarm_share:
            return Level.ALARM
        return Level.WARNING if share >= self.thresholds.warning_share else Level.INFORMATION

    def onset(self, units: Mask) -> int:
        """Step at which half of these units had got where they are."""
        return int(np.median(self.since[-1][units]))

    @cached_property
    def sample(self) -> Int:
        """Units that stand for the layer where all of them would cost too much."""
        return np.unique(np.linspace(0, self.layer.units - 1, min(MOST_UNITS, self.layer.units)).astype(np.int64))

    def medians(self, name: str) -> tuple[Int, Series]:
        """Steps, and the median of a statistic over the units, at each record that holds finite values of it."""
        if name not in self.layer.statistics:
            return np.empty(0, np.int64), np.empty(0)
        values = self.layer.statistic(name, self.sample).astype(np.float64)
        values[~np.isfinite(values)] = np.nan
        held = np.isfinite(values).any(axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return self.layer.steps[held], np.nanmedian(values[held], axis=1)

    def at_start(self, name: str) -> npt.NDArray[np.float64] | None:
        """``[units]`` of a statistic at the layer's first record, None if it holds none."""
        statistics = self._first
        values = statistics.get(name) if statistics is not None else None
        return None if values is None else values.astype(np.float64)

    @cached_property
    def _first(self) -> Statistics | None:
        return self.layer.statistic_at(0)

    def at_end(self, name: str) -> npt.NDArray[np.float64] | None:
        """``[units]`` of a statistic at the last record that holds any, None without one."""
        held = np.flatnonzero(self.layer.recorded)
        statistics = self.layer.statistic_at(int(held[-1])) if len(held) else None
        values = statistics.get(name) if statistics is not None else None
        return None if values is None else values.astype(np.float64)

    def peak_update(self, until: int) -> tuple[int, float]:
        """Step and size of the largest update ratio of the layer's median unit up to a step; NaN if unknown."""
        steps, ratios = self.medians("update_ratio")
        ratios = ratios[steps <= until]
        if not len(ratios):
            return -1, math.nan
        at = int(np.argmax(ratios))
        return int(steps[at]), float(ratios[at])

    def examples_until(self, step: int) -> int:
        """Examples that were observed up to a step."""
        return self.layer.window(int(np.searchsorted(self.layer.steps, step, side="right")) - 1).examples_seen

    @property
    def bounded(self) -> bool:
        """Whether Glorot rather than He initialization suits its activation function."""
        return self.layer.info.activation_function in ("tanh", "sigmoid", "softsign", "hard_tanh", "hard_sigmoid")

    @cached_property
    def size_at_start(self) -> float:
        """Norm of the incoming weights at the first record, over that which He or Glorot makes; NaN if unknown."""
        info, norms = self.layer.info, self.at_start("norm_in")
        known = not any(word in info.kind for word in _RECURRENT)
        if norms is None or not info.fan_in or not known or not np.isfinite(norms).any():
            return math.nan
        return float(np.median(norms[np.isfinite(norms)]) / self.usual_norm)

    @property
    def usual_norm(self) -> float:
        """Norm of a unit's incoming weights as He initialization draws them (a variance of 2 / fan-in), or Glorot.

        Glorot's is 2 / (fan-in + fan-out), about 1 / fan-in.
        """
        return 1.0 if self.bounded else math.sqrt(2.0)

    def sees(self, step: int, inputs: InputSummary) -> bool:
        """Whether inputs reach the layer as large as they are at a step, and no layer before it scales them.

        Weights that are drawn about zero give pre-activations of the size of the inputs times the norm of the weights.
        """
        statistics = self.layer.statistic_at(min(int(np.searchsorted(self.layer.steps, step)), len(self.layer) - 1))
        norms, size = self.at_start("norm_in"), statistics.get("max") if statistics is not None else None
        if (
            norms is None
            or size is None
            or self.bounded
            or not self.layer.info.nonlinear
            or not np.isfinite(size).any()
        ):
            return True
        expected = size_of(inputs) * float(np.median(norms))
        return float(np.nanmax(np.where(np.isfinite(size), size, np.nan))) >= 0.1 * expected

    def step_in_words(self, step: int, update: float) -> str:
        """A sentence on an update ratio."""
        return (
            f"at step {step:,} one step changed the weights of {self.name} by {update * 100:.0f} % "
            "(0.1 % to 1 % trains well)"
        )

    def count(self, units: Mask) -> str:
        """Such as ``"3 of 64 units of dense_1"``."""
        return f"{int(units.sum()):,} of {len(units):,} units of {self.name}"


def size_of(inputs: InputSummary) -> float:
    """Root mean square of inputs."""
    return math.hypot(inputs.mean, inputs.std)


def moments(inputs: InputSummary) -> str:
    """Mean and standard deviation in words."""
    return f"mean {measured(inputs.mean)}, standard deviation {measured(inputs.std)}"

"""Merge the observations of one layer over a window, carry the evidence on, and make records of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.lately import Lately
from deadunits_tb.capture.observation import Array, LayerSteps, Observation, WeightObservation
from deadunits_tb.capture.reference_rate import ReferenceRate
from deadunits_tb.rates import REFERENCE_SHARE, rates_code
from deadunits_tb.record import NEVER, Evidence, Int, LayerRecord, Memory, Statistics, Window
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo
from deadunits_tb.verdicts import Mask, finite_units, judge, layer_scale, no_signal


def merge(one: Observation, other: Observation) -> Observation:
    """Merge two observations of one layer, exactly: as if one had seen the positions of both.

    Mean and squares by Chan, Golub and LeVeque (1979), so two equal constants keep a spread of zero. Gradients stay
    only if both have them; of the weights the later observation is kept.
    """
    n = one.positions + other.positions
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are data
        apart = np.subtract(other.mean, one.mean, dtype=np.float64)
        return Observation(
            examples=one.examples + other.examples,
            positions=n,
            fired_examples=np.add(one.fired_examples, other.fired_examples, dtype=np.float64),
            fired_positions=np.add(one.fired_positions, other.fired_positions, dtype=np.float64),
            mean=one.mean + apart * (other.positions / n),
            squares=one.squares + other.squares + apart * apart * (one.positions * other.positions / n),
            sum_abs=np.add(one.sum_abs, other.sum_abs, dtype=np.float64),
            min=np.minimum(one.min, other.min),
            max=np.maximum(one.max, other.max),
            saturated=_both(one.saturated, other.saturated),
            gradient_squares=_both(one.gradient_squares, other.gradient_squares),
            weights=other.weights or one.weights,
            trainable=other.trainable,
        )


def merge_steps(steps: LayerSteps) -> Observation:
    """Merge several steps of one layer into one observation, exactly, as :func:`merge` does; without gradients."""
    counts = steps.positions.astype(np.float64)
    n = counts.sum()
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are data
        apart = steps.mean - steps.mean[0]
        shifted = counts @ apart
        between = np.einsum("s,su,su->u", counts, apart, apart) - shifted * shifted / n
        return Observation(
            examples=int(steps.examples.sum()),
            positions=int(n),
            fired_examples=steps.fired_examples.sum(0),
            fired_positions=steps.fired_positions.sum(0),
            mean=steps.mean[0] + shifted / n,
            squares=steps.squares.sum(0) + np.maximum(between, 0),
            sum_abs=steps.sum_abs.sum(0),
            min=steps.min.min(0),
            max=steps.max.max(0),
            saturated=None if steps.saturated is None else steps.saturated.sum(0),
            trainable=steps.trainable,
        )


class LayerAccumulator:
    """One layer between two records, and what goes on across them.

    Observations go in with :meth:`add`; :meth:`statistics` sums up the window, :meth:`record` judges it and begins the
    next. The two are apart because a verdict needs to know how far the weights of *other* layers moved.

    Args:
        info: The layer.
        thresholds: In force while writing.
        dataset_examples: Examples in one pass over the data, 0 if unknown.
    """

    def __init__(self, info: LayerInfo, thresholds: Thresholds, *, dataset_examples: int = 0) -> None:
        self.info = info
        self._thresholds = thresholds
        self._dataset_examples = dataset_examples
        self._evidence = Evidence.none(info.units)
        self._reference = ReferenceRate(info.units, thresholds)
        self._lately = Lately(info.units, thresholds)
        self._memory: Memory | None = None
        self._scale: float | None = None
        self._first_step = self._last_step = NEVER
        self._examples_seen = self._contiguous = 0
        self._clear()

    def _clear(self) -> None:
        self._window: Observation | None = None
        self._observations = 0
        self._gradient_squares: Array | None = None
        self._gradient_positions = 0
        self._weights: dict[str, Array] = {}
        self._weight_gradients = 0

    @property
    def first_step(self) -> int:
        """First observed step, :data:`~deadunits_tb.record.NEVER` before it."""
        return self._first_step

    @property
    def examples(self) -> int:
        """Examples since the last record."""
        return self._window.examples if self._window else 0

    @property
    def scale(self) -> float | None:
        """Root mean square of the layer's activations at the last record, against which firing is told; None before."""
        return self._scale

    def add(self, step: int, observation: Observation) -> None:
        """Take in what one training step showed. Steps never run backwards.

        Raises:
            ValueError: The observation is of another number of units.
        """
        self._take((step,), LayerSteps.of(observation), replace(observation, gradient_squares=None))
        if observation.weights is not None:
            self._add_weights(observation.weights)

    def add_steps(self, steps: Sequence[int], observed: LayerSteps, weights: WeightObservation | None = None) -> None:
        """Take in what several training steps showed, as :meth:`add` does one by one.

        Args:
            steps: Their numbers, rising.
            observed: What they showed.
            weights: At the last of them, if known.

        Raises:
            ValueError: The observations are of another number of units.
        """
        self._take(steps, observed, merge_steps(observed))
        if weights is not None:
            self._add_weights(weights)

    def _take(self, steps: Sequence[int], observed: LayerSteps, together: Observation) -> None:
        """Take in steps, and what all of them show together but for their gradients, which are kept apart."""
        if observed.mean.shape[1] != self.info.units:
            raise ValueError(f"layer {self.info.name!r} has {self.info.units} units, not {observed.mean.shape[1]}")
        if self._first_step == NEVER:
            self._first_step = steps[0]
        for step, n in zip(steps, observed.examples.tolist(), strict=True):
            self._contiguous = n + (self._contiguous if step - self._last_step <= 1 else 0)
            self._last_step = step
        self._examples_seen += together.examples
        self._observations += len(steps)
        self._advance(steps, observed)
        if (squares := observed.gradient_squares) is not None:
            total = squares.sum(0, dtype=np.float64)
            self._gradient_squares = total if self._gradient_squares is None else self._gradient_squares + total
            self._gradient_positions += together.positions
        self._window = merge(self._window, together) if self._window else together

    def statistics(self) -> Statistics:
        """The window's statistics, rounded as they are stored. There must have been an observation."""
        window = self._window
        assert window is not None
        n, positions = window.examples, window.positions
        with np.errstate(invalid="ignore", over="ignore"):
            columns = {
                "active_fraction": window.fired_examples / n,
                "active_positions": window.fired_positions / positions,
                "mean": window.mean,
                "mean_abs": window.sum_abs / positions,
                "std": np.sqrt(window.squares / positions),
                "min": window.min,
                "max": window.max,
            }
            if window.saturated is not None:
                columns["saturated_fraction"] = window.saturated / positions
            if self._gradient_squares is not None:
                columns["gradient"] = np.sqrt(self._gradient_squares / self._gradient_positions)
            columns |= self._weights
            if self._weight_gradients:
                columns["weight_gradient"] = np.sqrt(self._weights["weight_gradient"] / self._weight_gradients)
        return Statistics.of(columns, self.info.units)

    def record(
        self, statistics: Statistics, *, step: int, wall_time: float, run_moves: float, from_start: bool
    ) -> LayerRecord:
        """Judge the window and begin the next.

        Args:
            statistics: What :meth:`statistics` gave.
            step: Of the record; the same for all layers of a run.
            wall_time: Seconds since the epoch.
            run_moves: Largest update ratio of any layer of the run in this record, NaN if unknown.
            from_start: Whether the first training step of the run's life was observed, and this layer in it.
        """
        observed = self._window
        assert observed is not None
        window = Window(
            step=step,
            first_step=self._first_step,
            wall_time=wall_time,
            examples=observed.examples,
            positions=observed.positions,
            observations=self._observations,
            examples_seen=self._examples_seen,
            contiguous_examples=self._contiguous,
            dataset_examples=self._dataset_examples,
            trainable=observed.trainable,
            run_moves=run_moves,
            from_start=from_start,
        )
        self._lately.add(observed.fired_examples, observed.sum_abs / observed.positions, observed.examples)
        reference = np.zeros(self.info.units, np.int64)
        rare = np.flatnonzero(
            (observed.fired_examples < REFERENCE_SHARE * observed.examples) | (self._reference.recent < REFERENCE_SHARE)
        )
        if len(rare):
            reference[rare] = rates_code(self._reference.rate[rare], self._reference.recent[rare])
            reference[rare] += self._lately.code(rare, observed.fired_examples[rare])
        evidence = replace(self._evidence, reference=reference)
        memory = self._memory or Memory.none(self.info.units, self._first_step)
        verdict = judge(self.info, window, statistics, evidence, memory, self._thresholds)
        self._memory = verdict.memory
        scale = layer_scale(statistics, finite_units(statistics, self.info.units))
        self._scale = scale if np.isfinite(scale) else self._scale
        self._clear()
        return LayerRecord(self.info.name, window, statistics, evidence, memory, verdict.states, verdict.since)

    def revived(self, units: Int, step: int) -> None:
        """Begin anew for units that were just given new weights: what they showed before says nothing of them.

        Their revival counts as their last firing, so units that stay silent are silent since then, and need all the
        evidence again. The open window is dropped: close it first if it is to count.

        Args:
            units: Their indices.
            step: The last training step before.
        """
        before = self._evidence
        counters = {spec.name: getattr(before, spec.name).copy() for spec in fields(Evidence)}
        for name, counter in counters.items():
            counter[units] = step if name == "last_active_step" else 0
        self._evidence = Evidence(**counters)
        self._reference.forget(units)
        self._lately.forget(units)
        if self._memory is not None:
            unknown = Memory.none(self.info.units, step)
            columns = {spec.name: getattr(self._memory, spec.name).copy() for spec in fields(Memory)}
            for name, column in columns.items():
                column[units] = getattr(unknown, name)[units]
            self._memory = Memory(**columns)
        self._clear()

    def _advance(self, steps: Sequence[int], observed: LayerSteps) -> None:
        before, n = self._evidence, observed.examples[:, None]
        fired = observed.fired_examples > 0
        finite = np.isfinite(observed.mean)
        # What gave NaN was not silent, nor did it fire: it neither adds nor resets. The same holds for error signals.
        silent = ~fired
        examples = _go_on(before.examples_since_active, silent, finite, n)
        # Where each example is one position, both counters have been the same array from the first observation on.
        same = before.tokens_since_active is before.examples_since_active
        if same and np.array_equal(observed.positions, observed.examples):
            tokens = examples
        else:
            tokens = _go_on(before.tokens_since_active, silent, finite, observed.positions[:, None])
        without = before.examples_without_signal
        squares = observed.gradient_squares
        if squares is not None:
            if self.info.relu_like:  # where only an exact zero is none, the squares are as good
                none = no_signal(self.info, squares, self._thresholds)
            else:
                with np.errstate(invalid="ignore", over="ignore"):
                    gradients = np.sqrt(squares / observed.positions[:, None])
                none = np.stack([no_signal(self.info, gradient, self._thresholds) for gradient in gradients])
            without = _go_on(without, none | ~np.isfinite(squares), none, n)
        last, quiet = np.full(len(before.last_active_step), steps[-1], np.int64), np.flatnonzero(silent[-1])
        if len(quiet):
            back = fired[::-1, quiet]
            at = np.asarray(steps)[len(steps) - 1 - back.argmax(0)]
            last[quiet] = np.where(back.any(0), at, before.last_active_step[quiet])
        self._evidence = Evidence(
            examples_since_active=examples,
            tokens_since_active=tokens,
            observations_since_active=_go_on(before.observations_since_active, silent, finite, np.ones_like(n)),
            examples_without_signal=without,
            last_active_step=last,
            reference=before.reference,
        )
        self._reference.add(observed.fired_examples, observed.examples, finite)

    def _add_weights(self, weights: WeightObservation) -> None:
        kept = self._weights
        with np.errstate(invalid="ignore", over="ignore"):
            if weights.gradient is not None:
                squares = np.square(weights.gradient, dtype=np.float64)
                kept["weight_gradient"] = kept["weight_gradient"] + squares if self._weight_gradients else squares
                self._weight_gradients += 1
            before = weights.norm_in if weights.norm_before is None else weights.norm_before
            if weights.change is not None and before is not None:
                ratio = _relative(weights.change, before)
                kept["update_ratio"] = np.maximum(kept["update_ratio"], ratio) if "update_ratio" in kept else ratio
            if weights.change_since_first is not None and weights.norm_first is not None:
                _keep_latest(kept, "drift", _drift(weights.change_since_first, weights.norm_first))
            if weights.norm_in is not None:
                _keep_latest(kept, "norm_in", weights.norm_in)
            if weights.norm_out is not None:
                _keep_latest(kept, "norm_out", weights.norm_out)


def largest_update(statistics: Statistics) -> float:
    """The largest finite update ratio of a layer's units, NaN if there is none."""
    ratio = statistics.get("update_ratio")
    finite = ratio[np.isfinite(ratio)] if ratio is not None else ()
    return float(np.max(finite)) if len(finite) else float("nan")


def _go_on(counter: Int, goes_on: Mask, counts: Mask, more: Int) -> Int:
    """Count over several steps; a counter begins again at zero where it does not go on.

    Args:
        counter: ``[units]`` before them.
        goes_on: ``[steps, units]``.
        counts: ``[steps, units]``: whether the step adds to it.
        more: ``[steps, 1]``: how much.
    """
    after = np.zeros(len(counter), np.int64)
    units = np.flatnonzero(goes_on[-1])  # few: most fire in every step
    if len(units):
        going = goes_on[:, units]
        since = np.logical_and.accumulate(going[::-1], axis=0)[::-1]  # the steps after the last break
        after[units] = np.where(since[0], counter[units], 0) + (more * (counts[:, units] & since)).sum(0)
    return after


def _both(one: Array | None, other: Array | None) -> Array | None:
    return None if one is None or other is None else np.add(one, other, dtype=np.float64)


def _relative(change: Array, before: Array) -> npt.NDArray[np.float64]:
    """Change over the norm before, or over the least that the norm after can be, ``change - before``, if larger.

    So weights that begin at zero move by a ratio of 1, not Inf, and those that stay zero by 0.
    """
    norm = np.maximum(before, np.subtract(change, before, dtype=np.float64))
    ratio = np.zeros(len(norm))
    np.divide(change, norm, out=ratio, where=norm != 0)
    return ratio


def _drift(change: Array, first: Array) -> npt.NDArray[np.float64]:
    """Change since the first record over the first norm; 1 for weights that began at zero and moved."""
    drift: npt.NDArray[np.float64] = (np.asarray(change) != 0).astype(np.float64)
    np.divide(change, first, out=drift, where=np.asarray(first) != 0)
    return drift


def _keep_latest(kept: dict[str, Array], name: str, values: Array) -> None:
    """The latest value of the window, except that NaN or Inf stays to be seen."""
    before = kept.get(name)
    kept[name] = values if before is None else np.where(np.isfinite(before), values, before)

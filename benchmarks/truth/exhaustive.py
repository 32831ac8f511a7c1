"""What is true of every unit at every step: from its weights, by a pass over the whole data set. Slow and obvious."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from benchmarks.truth.networks import Array, Parameters, activations
from benchmarks.truth.recipe import Recipe
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import BOUNDED, RELU_LIKE, UnitState

Table = npt.NDArray[np.float64]

_LARGEST_SLOPE = {"tanh": 1.0, "sigmoid": 0.25, "relu6": 1.0}


class Truth:
    """The truth about one run. Look before each step, then ask.

    Args:
        recipe: Of the run.
        rows: ``[steps, batch]`` the images of each step.
    """

    def __init__(self, recipe: Recipe, rows: npt.NDArray[np.int64]) -> None:
        self.recipe = recipe
        self._rows = rows
        self._looks: list[list[dict[str, Array]]] = []
        self._before: Parameters | None = None
        self._last: tuple[list[Array], list[Array]] = [], []

    def look(self, step: int, parameters: Parameters) -> None:
        """Pass over the whole data set with the weights that the step will use."""
        recipe, images = self.recipe, self.recipe.images(step)
        outputs, slopes = activations(recipe, parameters, images)
        in_batch = self._rows[step]
        seen, _ = activations(recipe, parameters, recipe.batch_at(step, in_batch)[0])
        earlier = self._before or parameters
        self._looks.append(
            [
                self._unit_facts(parameters, earlier, layer, outputs[layer], slopes[layer], seen[layer])
                for layer in range(recipe.hidden)
            ]
            + [{"moved": _moved(parameters[-2], earlier[-2])}]
        )
        self._before = [values.copy() for values in parameters]
        self._last = outputs, seen

    def _unit_facts(
        self, parameters: Parameters, earlier: Parameters, layer: int, out: Array, slope: Array, seen: Array
    ) -> dict[str, Array]:
        hidden = self.recipe.layers[layer]
        function, units = hidden.function, out.shape[-1]
        # [examples, positions, units]
        out, slope, seen = (values.reshape(len(values), -1, units) for values in (out, slope, seen))
        kernel, before = (np.concatenate(hidden.incoming(of)) for of in (parameters, earlier))
        with np.errstate(all="ignore"):
            slope = np.abs(slope)
            fires = out > 0 if function in RELU_LIKE else np.abs(out) > 1e-3 * np.sqrt(np.mean(out**2))
            fired = seen > 0 if function in RELU_LIKE else np.abs(seen) > 1e-3 * np.sqrt(np.mean(seen**2))
            at_bound = slope < 0.01 * _LARGEST_SLOPE.get(function, 1.0)
            if function in RELU_LIKE:
                at_bound &= out > 0  # the lower bound is silence
            read = [np.abs(reader).max(axis=(0, 2)) for reader in hidden.outgoing(parameters)]
            return {
                "rate": fires.any(axis=1).mean(axis=0),
                "deaf": (slope == 0).all(axis=(0, 1)) if hidden.gates == 1 else np.ones(units),  # gates: silence alone
                "fired": fired.any(axis=(0, 1)).astype(float),
                "bound": at_bound.mean(axis=(0, 1)),
                "range": out.max(axis=(0, 1)) - out.min(axis=(0, 1)),
                "scale": np.full(units, np.sqrt(np.mean(out**2))),
                "size": np.abs(out).mean(axis=(0, 1)),
                "outgoing": np.max(read, axis=0),
                "moved": _moved(kernel, before),
                "finite": (np.isfinite(out).all(axis=(0, 1)) & np.isfinite(kernel).all(axis=0)).astype(float),
            }

    def table(self, layer: int, name: str) -> Table:
        """``[steps, units]`` of a fact."""
        return np.array([look[layer][name] for look in self._looks])

    def last(self, layer: int) -> tuple[Array, Array]:
        """Outputs ``[examples, positions, units]`` at the last step, on the whole data set and on its batch."""
        everything, batch = (outputs[layer] for outputs in self._last)
        units = everything.shape[-1]
        return everything.reshape(len(everything), -1, units), batch.reshape(len(batch), -1, units)

    def last_fired(self, layer: int) -> npt.NDArray[np.int64]:
        """``[steps, units]`` last step, up to each, whose batch made the unit fire; -1 for none."""
        fired = self.table(layer, "fired") > 0
        steps = np.where(fired, np.arange(len(fired))[:, None], -1)
        return np.maximum.accumulate(steps, axis=0)

    def silent_examples(self, layer: int) -> npt.NDArray[np.int64]:
        """``[steps, units]`` examples trained on, up to each step, since the first of the silent passes."""
        silent = self.table(layer, "rate") == 0
        counts = np.zeros(silent.shape, np.int64)
        for step in range(len(silent)):
            before = counts[step - 1] if step else np.zeros(silent.shape[1], np.int64)
            counts[step] = np.where(silent[step], before + self.recipe.batch, 0)
        return counts

    def recent_rate(self, layer: int) -> Table:
        """``[steps, units]`` share of the data set that makes the unit fire, averaged as definitions.md says."""
        rate, batch, horizon = self.table(layer, "rate"), self.recipe.batch, Thresholds().reference_examples
        recent = rate.copy()
        for step in range(1, len(rate)):
            weight = max(1 / (step + 1), 1 - np.exp(-batch / horizon))
            recent[step] = recent[step - 1] + weight * (rate[step] - recent[step - 1])
        return recent

    def reference_rate(self, layer: int) -> Table:
        """``[steps, units]``: the recent rate while it is a plain mean, and then its peak."""
        reference, horizon = self.recent_rate(layer), Thresholds().reference_examples
        for step in range(1, len(reference)):
            if (step + 1) * self.recipe.batch > horizon:
                reference[step] = np.maximum(reference[step], reference[step - 1])
        return reference

    def moves(self) -> Table:
        """``[steps, 1]`` largest update ratio of any unit."""
        return np.array([[max(np.nanmax(facts["moved"], initial=0) for facts in look)] for look in self._looks])

    def states(self, layer: int, slack: float = 1.0) -> npt.NDArray[np.uint8]:
        """``[steps, units]``: the state of each unit by the rules of ``docs/definitions.md``, without confirmation.

        Args:
            layer: Of the hidden layers.
            slack: Every threshold on a measured size or share is this many times wider.
        """
        recipe, batch, function = self.recipe, self.recipe.batch, self.recipe.layers[layer].function
        rate, size = self.table(layer, "rate"), self.table(layer, "size")
        span, scale = self.table(layer, "range"), self.table(layer, "scale")
        quiet, moves = self.silent_examples(layer), self.moves()
        seen = np.arange(1, len(rate) + 1)[:, None] * batch
        recent = self.recent_rate(layer)
        lost = 0.1 * self.reference_rate(layer)  # of its own rate
        still = (self.table(layer, "moved") < 1e-8) & (self.table(layer, "fired") > 0)
        stuck = np.stack([np.roll(still, back, axis=0) for back in range(3)]).all(axis=0) & (seen > 3 * batch)
        with np.errstate(all="ignore"):
            mean_size = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else 0.0 for row in size])
            told = np.where(lost > 0, np.log(1e-4) / np.log1p(-np.minimum(lost, 0.99)), 0)  # examples that tell a loss
        found = np.full(rate.shape, UnitState.ACTIVE, np.uint8)
        behind = np.minimum(seen, 2 * Thresholds().reference_examples)
        by_chance = binom.cdf(np.rint(recent / slack * behind), behind, 0.01)
        found[(by_chance <= 0.05) & (rate < 0.1)] = UnitState.SPARSE
        small = size <= 0.025 * slack * mean_size[:, None]
        found[small & (recent * slack >= 0.01) if function in RELU_LIKE else small] = UnitState.DORMANT
        found[stuck & (moves > 1e-8)] = UnitState.STAGNANT
        found[(rate < 0.01 * slack) & (rate <= lost * slack) & (rate > 0)] = UnitState.DYING
        found[(quiet * slack >= 256) & (quiet * slack >= told)] = UnitState.DYING
        found[(span <= 1e-4 * slack * scale) & (rate >= 0.5)] = UnitState.CONSTANT
        if function in BOUNDED:
            found[self.table(layer, "bound") >= 1 - 0.05 * slack] = UnitState.SATURATED
        found[(self.table(layer, "outgoing") == 0) & (rate > 0) & (moves > 1e-8)] = UnitState.DISCONNECTED
        found[quiet * slack >= 3000] = UnitState.DEAD
        found[np.broadcast_to(seen < 256, rate.shape)] = UnitState.UNKNOWN
        if layer in recipe.frozen:
            found[:] = UnitState.FROZEN
        finite = self.table(layer, "finite") > 0
        finite[:-1] &= finite[1:]  # a gradient of NaN shows in the weights of the next step
        found[~finite] = UnitState.NON_FINITE
        return found


def _moved(kernel: Array, earlier: Array) -> Array:
    """Norm of the change of each unit's incoming weights, over their norm."""
    norm = np.linalg.norm(kernel, axis=0)
    return np.asarray(np.linalg.norm(kernel - earlier, axis=0) / np.where(norm > 0, norm, 1))

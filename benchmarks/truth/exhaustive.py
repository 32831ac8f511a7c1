"""What is true of every unit at every step: from its weights, by a pass over the whole data set. Slow and obvious."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.truth.recipe import Array, Parameters, Recipe, activations, apply
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

    def look(self, step: int, parameters: Parameters) -> None:
        """Pass over the whole data set with the weights that the step will use."""
        recipe, images = self.recipe, self.recipe.images(step)
        outputs, before = activations(recipe, parameters, images)
        in_batch = self._rows[step]
        seen, _ = activations(recipe, parameters, recipe.batch_at(step, in_batch)[0])
        earlier = self._before or parameters
        self._looks.append(
            [
                self._unit_facts(parameters, earlier, layer, outputs, before, seen[layer])
                for layer in range(recipe.hidden)
            ]
            + [{"moved": _moved(parameters[-2], earlier[-2])}]
        )
        self._before = [values.copy() for values in parameters]

    def _unit_facts(
        self,
        parameters: Parameters,
        earlier: Parameters,
        layer: int,
        outputs: list[Array],
        before: list[Array],
        seen: Array,
    ) -> dict[str, Array]:
        function, kernel = self.recipe.function, parameters[2 * layer]
        with np.errstate(all="ignore"):
            out, slope = outputs[layer], np.abs(apply(function, before[layer])[1])
            fires = out > 0 if function in RELU_LIKE else np.abs(out) > 1e-3 * np.sqrt(np.mean(out**2))
            fired = seen > 0 if function in RELU_LIKE else np.abs(seen) > 1e-3 * np.sqrt(np.mean(seen**2))
            at_bound = slope < 0.01 * _LARGEST_SLOPE.get(function, 1.0)
            if function in RELU_LIKE:
                at_bound &= out > 0  # the lower bound is silence
            return {
                "rate": fires.mean(axis=0),
                "fired": fired.any(axis=0).astype(float),
                "bound": at_bound.mean(axis=0),
                "range": out.max(axis=0) - out.min(axis=0),
                "scale": np.full(kernel.shape[1], np.sqrt(np.mean(out**2))),
                "size": np.abs(out).mean(axis=0),
                "outgoing": np.abs(parameters[2 * layer + 2]).max(axis=1),
                "moved": _moved(kernel, earlier[2 * layer]),
                "finite": (np.isfinite(out).all(axis=0) & np.isfinite(kernel).all(axis=0)).astype(float),
            }

    def table(self, layer: int, name: str) -> Table:
        """``[steps, units]`` of a fact."""
        return np.array([look[layer][name] for look in self._looks])

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

    def moves(self) -> Table:
        """``[steps, 1]`` largest update ratio of any unit."""
        return np.array([[max(np.nanmax(facts["moved"], initial=0) for facts in look)] for look in self._looks])

    def states(self, layer: int, slack: float = 1.0) -> npt.NDArray[np.uint8]:
        """``[steps, units]``: the state of each unit by the rules of ``docs/definitions.md``, without confirmation.

        Args:
            layer: Of the hidden layers.
            slack: Every threshold on a measured size or share is this many times wider.
        """
        recipe, batch = self.recipe, self.recipe.batch
        rate, size = self.table(layer, "rate"), self.table(layer, "size")
        span, scale = self.table(layer, "range"), self.table(layer, "scale")
        quiet, moves = self.silent_examples(layer), self.moves()
        seen = np.arange(1, len(rate) + 1)[:, None] * batch
        lost = 0.1 * np.maximum.accumulate(rate, axis=0)  # of its own rate
        still = self.table(layer, "moved") < 1e-8
        stuck = np.stack([np.roll(still, back, axis=0) for back in range(3)]).all(axis=0) & (seen > 3 * batch)
        with np.errstate(all="ignore"):
            mean_size = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else 0.0 for row in size])
            told = np.where(lost > 0, np.log(1e-4) / np.log1p(-np.minimum(lost, 0.99)), 0)  # examples that tell a loss
        found = np.full(rate.shape, UnitState.ACTIVE, np.uint8)
        found[rate < 0.01 * slack] = UnitState.SPARSE
        small = size <= 0.025 * slack * mean_size[:, None]
        found[small & (rate > 0) if recipe.function in RELU_LIKE else small] = UnitState.DORMANT
        found[stuck & (rate > 0) & (moves > 1e-8)] = UnitState.STAGNANT
        found[(rate < 0.01 * slack) & (rate <= lost * slack) & (rate > 0)] = UnitState.DYING
        found[(quiet * slack >= 256) & (quiet * slack >= told)] = UnitState.DYING
        found[(span <= 1e-4 * slack * scale) & (rate > 0)] = UnitState.CONSTANT
        if recipe.function in BOUNDED:
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

"""What other tools call dead, in the same runs: their published rules, and one of them itself.

- keras-contrib, ``DeadReluDetector``: a unit of a ReLU whose outputs over the whole training set sum up to zero.
- ReDo (Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning"; google/dopamine): a unit
  whose mean absolute output on a batch is at most tau = 0.025 of its layer's mean.
- SageMaker Debugger, rule DeadRelu: a unit of a ReLU that is active on less than 1 % of a step's examples. (The rule
  speaks only once more than half of a layer's units are; here each unit counts.)
- ormas-monitor (PyPI): runs along in PyTorch, checking every tenth step; channels that it calls certified dead,
  constant, decayed, or silent.

The rules are written here from their descriptions. Those that look at data are given what this package's monitor sees:
the last batch, or for keras-contrib the whole data set, with the weights of the last step.
"""

from __future__ import annotations

import importlib
import pathlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from benchmarks.truth import catalogue
from benchmarks.truth.exhaustive import Truth
from benchmarks.truth.networks import Array
from benchmarks.truth.recipe import Recipe
from benchmarks.truth.scoring import read
from deadunits_tb.units import RELU_LIKE, UnitState

Mask = npt.NDArray[np.bool_]
OURS = "deadunits_tb: dead"
ORMAS = "ormas-monitor"


@dataclass
class Peers:
    """What each tool flagged, added up over runs.

    Attributes:
        planted: Units made dead for good, silent on the whole data set for 3,000 examples and more.
        missed: Tool to how many of these it did not flag.
        firing: Tool to units that it flagged though they fire on more than 1 % of the data set.
        seldom: Tool to units that it flagged though they fire, on at most 1 %.
        twins: Healthy runs.
        flagged: Tool to units of healthy runs that it flagged though they fire.
        alarmed: Tool to healthy runs with such a unit.
        units: Of the healthy runs.
    """

    planted: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    firing: Counter[str] = field(default_factory=Counter)
    seldom: Counter[str] = field(default_factory=Counter)
    twins: int = 0
    flagged: Counter[str] = field(default_factory=Counter)
    alarmed: Counter[str] = field(default_factory=Counter)
    units: int = 0


def runs(seeds: int, first_seed: int) -> Iterator[Recipe]:
    """Runs with dead units at known places, rare ones, and healthy twins; all in PyTorch."""
    found = [*catalogue.states(seeds), *catalogue.architectures(seeds), *catalogue.healthy(seeds)]
    for recipe in found:
        if any(word in recipe.name for word in ("short", "frozen", "nan", "unit")):
            continue
        plants = tuple(one for one in recipe.plants if one.kind in ("kill", "rate", "shrink"))
        yield replace(recipe, seed=recipe.seed + first_seed, plants=plants)


def compare(seeds: int, first_seed: int = 0) -> Peers:
    """Train, and ask everybody."""
    total = Peers()
    train = importlib.import_module("benchmarks.truth.torch_training").train
    for recipe in runs(seeds, first_seed):
        with tempfile.TemporaryDirectory() as directory:
            at = pathlib.Path(directory)
            ormas = _Ormas(at / "ormas")
            truth = train(recipe, at / "run", beside=ormas.attach)
            run, _ = read(at / "run")
            said = {OURS: [run.layers[name].states()[-1] == UnitState.DEAD for name in recipe.names[:-1]]}
            if ormas.installed:
                sizes = [truth.table(layer, "rate").shape[1] for layer in range(recipe.hidden)]
                said[ORMAS] = [ormas.flagged(*one) for one in zip(recipe.names[:-1], sizes, strict=True)]
        for tool, rule in RULES.items():
            said[tool] = [rule(recipe.layers[layer].function, *truth.last(layer)) for layer in range(recipe.hidden)]
        _add(total, recipe, truth, said)
    return total


def show(total: Peers) -> Table:
    """A table of who flags what."""
    table = Table(
        "tool", f"missed of {total.planted} dead units", "flagged, though it fires on more than 1 %",
        "flagged, though it fires, on less", f"of {total.units:,} in {total.twins} healthy runs, though it fires",
        "healthy runs with such a flag", title="Peers on the same runs",
    )  # fmt: skip
    for tool in (OURS, *RULES, ORMAS):
        if tool in total.missed:
            counts = (total.missed, total.firing, total.seldom, total.flagged, total.alarmed)
            table.add_row(tool, *(f"{count[tool]:,}" for count in counts))
        else:
            table.add_row(tool, *("not installed",) * 5)
    return table


def _add(total: Peers, recipe: Recipe, truth: Truth, said: dict[str, list[Mask]]) -> None:
    healthy = recipe.name.startswith("healthy/")
    total.twins += healthy
    for tool in said:
        total.missed[tool] += 0
    alarmed = set()
    for layer in range(recipe.hidden):
        rate = truth.table(layer, "rate")[-1]
        dead = (truth.silent_examples(layer)[-1] >= 3300) & (truth.table(layer, "deaf")[-1] > 0)
        total.planted += int(dead.sum())
        total.units += healthy * len(rate)
        for tool, flags in said.items():
            flagged = flags[layer]
            total.missed[tool] += int((dead & ~flagged).sum())
            wrong = flagged & (rate > 0)
            if healthy:
                total.flagged[tool] += int(wrong.sum())
                alarmed |= {tool} if wrong.any() else set()
            else:
                total.firing[tool] += int((wrong & (rate > 0.01)).sum())
                total.seldom[tool] += int((wrong & (rate <= 0.01)).sum())
    total.alarmed.update(alarmed)


def _keras_contrib(function: str, everything: Array, _: Array) -> Mask:
    return np.asarray((everything.sum(axis=(0, 1)) == 0) & (function in RELU_LIKE))


def _redo(_: str, __: Array, batch: Array) -> Mask:
    size = np.abs(batch).mean(axis=(0, 1))
    return np.asarray(size <= 0.025 * size.mean())


def _sagemaker(function: str, _: Array, batch: Array) -> Mask:
    return np.asarray(((batch > 0).mean(axis=(0, 1)) < 0.01) & (function in RELU_LIKE))


RULES: dict[str, Callable[[str, Array, Array], Mask]] = {
    "keras-contrib: DeadReluDetector": _keras_contrib,
    "ReDo: dormant, tau 0.025": _redo,
    "SageMaker Debugger: DeadRelu": _sagemaker,
}
"""From function, and outputs ``[examples, positions, units]`` on the data set and the last batch, to flags."""


class _Ormas:
    """The tool itself, beside the training."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._monitor: Any = None
        try:
            self._module: Any = importlib.import_module("ormas_monitor")
        except ImportError:
            self._module = None

    @property
    def installed(self) -> bool:
        """Whether it is there."""
        return self._module is not None

    def attach(self, model: Any, optimizer: Any) -> Callable[[Any], None]:
        """Let it watch; returns what is to be called between backward and the optimizer's step."""
        if self._module is None:
            return lambda loss: None
        self._monitor = self._module.Monitor(
            model, optimizer, out=self._directory, check_every=10, repair=False, verbose=False
        )
        step: Callable[[Any], None] = self._monitor.step
        return step

    def flagged(self, layer: str, units: int) -> Mask:
        """``[units]`` at its last check: stuck or silent as its report has it; none of a layer unknown to it."""
        monitor = self._monitor
        for chain in monitor._chains:  # its events hold lists only where a layer's level changes
            if chain.name == layer:
                quiet = monitor._silent_all[chain.offset : chain.offset + chain.n].numpy() >= monitor.config.patience
                masks = self._masks(chain)
                return np.asarray(quiet | masks)
        return np.zeros(units, bool)

    def _masks(self, chain: Any) -> Mask:
        structure = importlib.import_module("ormas_monitor.structure")
        found = structure.channel_masks(chain.prod.weight, getattr(chain.prod, "bias", None), None, None)
        decayed = found.decayed if chain.relu else found.decayed & False
        return np.asarray((found.certified | found.flat | decayed).numpy())

"""Compares what the package says of a run with what is true of it."""

from __future__ import annotations

import pathlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from benchmarks.truth.exhaustive import Truth
from benchmarks.truth.recipe import Recipe
from deadunits_tb.reading.findings import Finding
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.report import written_findings
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import UnitState

_SILENCE = (UnitState.DEAD,)
"""Judged by the bound that is stated with the verdict, not by agreement with a rule."""


@dataclass
class Tally:
    """What many runs add up to.

    Attributes:
        agreed: State to unit-records where verdict and truth agree.
        said: State to unit-records with that verdict.
        held: State to unit-records where it is true, for longer than confirmation takes.
        found: Of these, those with that verdict.
        confused: ``(truth, verdict)`` to unit-records that disagree.
        dead: Verdicts of death, one for each unit and run.
        wrong: Of these, units that fire more often than the stated bound.
        fires: Of these, units that fire on more than 1 % of examples.
        missed: Units that are silent, with the evidence that the rule asks for, and not called dead.
        onset_errors: Steps between ``since_step`` and the step after the last firing, for each verdict of death.
        causes: ``(planted, found)`` to runs; found is None where no finding is above information.
        healthy: Healthy runs.
        frameworks: To how many runs.
        alarms: Healthy runs with an alarm, and its cause.
    """

    agreed: Counter[UnitState] = field(default_factory=Counter)
    said: Counter[UnitState] = field(default_factory=Counter)
    held: Counter[UnitState] = field(default_factory=Counter)
    found: Counter[UnitState] = field(default_factory=Counter)
    confused: Counter[tuple[UnitState, UnitState]] = field(default_factory=Counter)
    dead: int = 0
    wrong: int = 0
    fires: int = 0
    missed: list[str] = field(default_factory=list)
    onset_errors: list[int] = field(default_factory=list)
    causes: Counter[tuple[str, str]] = field(default_factory=Counter)
    healthy: int = 0
    frameworks: Counter[str] = field(default_factory=Counter)
    alarms: list[tuple[str, str]] = field(default_factory=list)

    def count(self, framework: str, recipe: Recipe) -> None:
        """Note a run."""
        self.frameworks[framework] += 1
        self.healthy += recipe.name.startswith("healthy/")

    def precision(self, state: UnitState) -> float:
        """Share of its verdicts that are true."""
        return self.agreed[state] / self.said[state] if self.said[state] else float("nan")

    def recall(self, state: UnitState) -> float:
        """Share of the units in the state that are found."""
        return self.found[state] / self.held[state] if self.held[state] else float("nan")

    @property
    def cause_score(self) -> float:
        """Share of planted runs whose cause is found; ``unclear`` counts as half a miss."""
        planted = sum(self.causes.values())
        right = sum(n for (cause, found), n in self.causes.items() if cause == found)
        half = sum(n for (cause, found), n in self.causes.items() if cause != found == "unclear")
        return (right + half / 2) / planted if planted else float("nan")


def read(log_dir: pathlib.Path) -> tuple[RunHistory, list[Finding]]:
    """The run in a log directory, and its findings."""
    run = RunReader(LocalDataProvider(str(log_dir))).history(".")
    return run, written_findings(run)


def score_causes(tally: Tally, recipe: Recipe, findings: list[Finding]) -> None:
    """Add the cause of a run."""
    if recipe.cause is None:
        tally.alarms += [(recipe.name, f.cause) for f in findings if f.level.label == "alarm"]
        return
    found = findings[0].cause if findings else "nothing"
    tally.causes[recipe.cause, found] += 1


def score_states(tally: Tally, truth: Truth, run: RunHistory) -> None:
    """Add the states of a run's hidden layers, at every record."""
    for layer in range(truth.recipe.hidden):
        history = run.layers[truth.recipe.names[layer]]
        _score_dead(tally, truth, layer, history.states(), history.since(), history.steps)
        _score_others(tally, truth, layer, history.states(), history.steps)


def _score_dead(
    tally: Tally, truth: Truth, layer: int, states: np.ndarray, since: np.ndarray, steps: np.ndarray
) -> None:
    rate, quiet = truth.table(layer, "rate"), truth.silent_examples(layer)
    fired, batch = truth.last_fired(layer), truth.recipe.batch
    gap = int(np.diff(steps).max(initial=1))
    dead = states == UnitState.DEAD
    for unit in np.flatnonzero(dead.any(axis=0)).tolist():
        record = int(np.argmax(dead[:, unit]))
        step = int(steps[record])
        bound = 3 / ((step - fired[step, unit]) * batch)
        tally.dead += 1
        tally.wrong += bool(rate[step, unit] > bound)
        tally.fires += bool(rate[step, unit] > 0.01)
        tally.onset_errors.append(int(since[record, unit]) - int(fired[step, unit]) - 1)
    if layer in truth.recipe.frozen:
        return
    # Confirmation is part of the rule: two records of 256 examples in all.
    delay = max(2 * gap * batch, 256 + gap * batch)
    ripe = (quiet[steps] >= Thresholds().dead_examples + delay) & (truth.table(layer, "finite")[steps] > 0)
    ripe &= truth.table(layer, "deaf")[steps] > 0  # else an error signal may reach it
    pending = ripe & ~dead & (states != UnitState.NON_FINITE)
    tally.missed += [
        f"{truth.recipe.name} {truth.recipe.names[layer]} unit {unit}"
        for unit in np.flatnonzero(pending.any(axis=0)).tolist()
    ]


def _score_others(tally: Tally, truth: Truth, layer: int, states: np.ndarray, steps: np.ndarray) -> None:
    """A verdict is right if it was true at any record that confirmation looks back on.

    Within a third of a threshold both verdicts are: the few examples of a record cannot tell. Nor do records of fewer
    than 256 examples tell at once that a unit which still fires at times has lost its rate: there it is not counted.
    """
    true = truth.states(layer)[steps]
    batch = truth.recipe.batch
    look_back = 2 * -(-256 // batch) + 3  # what is confirmed step by step takes twice as long
    back = np.maximum(np.arange(len(true)) - np.arange(look_back)[:, None], 0)
    near = np.concatenate([truth.states(layer, slack)[steps][back] for slack in (0.67, 1.0, 1.5)])
    steady = (near == true).all(axis=0) & (np.arange(len(true)) >= look_back)[:, None]
    rate = truth.table(layer, "rate")[steps]
    losing = (near == UnitState.DYING).any(axis=0) & (rate > 0)[back].any(axis=0)
    told = ~losing | (batch >= 256)
    for state in UnitState:
        if state in _SILENCE:
            continue
        said, here = (states == state) & told, (true == state) & told
        right = said & (near == state).any(axis=0)
        tally.said[state] += int(said.sum())
        tally.agreed[state] += int(right.sum())
        tally.held[state] += int((here & steady).sum())
        tally.found[state] += int((here & steady & said).sum())
        off = (said & ~right) | (here & steady & ~said)
        for pair, count in Counter(zip(true[off].tolist(), states[off].tolist(), strict=True)).items():
            tally.confused[UnitState(pair[0]), UnitState(pair[1])] += count

"""Findings on networks that were really trained: each ends as its recipe promises, and the cause is named."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from deadunits_tb.reading.findings import Finding, find
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.units import Level, UnitState
from numpy_network import Recipe, train


def observe(recipe: Recipe, log_dir: pathlib.Path) -> tuple[RunHistory, list[Finding], list[int]]:
    """The run, its findings, and how many units of each layer are silent on every image: the truth."""
    activations = train(recipe, log_dir)
    run = RunReader(LocalDataProvider(str(log_dir))).history(".")
    findings = find(run, lambda name: (run.layers[name].states(), run.layers[name].since()))
    return run, findings, [int((a <= 0).all(axis=0).sum()) for a in activations]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(seed=1),
        Recipe(learning_rate=0.2),
        Recipe(learning_rate=1e-4),
        Recipe(function="tanh", gain=1.0),
        Recipe(steps=30),
    ],
    ids=["plain", "another seed", "fast", "slow", "tanh", "short"],
)
def test_a_healthy_run_has_no_alarm(recipe: Recipe, tmp_path: pathlib.Path) -> None:
    run, findings, silent = observe(recipe, tmp_path)
    assert [f for f in findings if f.level == Level.ALARM] == []
    dead = [int((layer.states()[-1] == UnitState.DEAD).sum()) for layer in run.layers.values()]
    if recipe.function == "relu":
        assert all(d <= s for d, s in zip(dead, silent, strict=True))


def test_deaths_by_learning_rate(tmp_path: pathlib.Path) -> None:
    run, findings, silent = observe(Recipe(learning_rate=3.0), tmp_path)
    assert silent[1] == 32
    assert np.all(run.layers["second"].states()[-1] == UnitState.DEAD)
    [finding] = [f for f in findings if f.level == Level.ALARM]
    assert finding.cause == "learning_rate_too_high"
    assert finding.layers == ("second",)
    assert finding.step is not None
    assert finding.step < 20
    assert any("from 3 to about 0.0" in remedy for remedy in finding.remedies)


def test_units_born_dead(tmp_path: pathlib.Path) -> None:
    run, findings, silent = observe(Recipe(weight_mean=-0.5, learning_rate=0.01), tmp_path)
    assert silent[1] >= 16
    assert int((run.layers["second"].states()[-1] == UnitState.DEAD).sum()) == silent[1]
    assert findings[0].cause == "poor_initialization"
    assert findings[0].step == 0
    assert any(sentence.startswith("learning rate:") for sentence in findings[0].ruled_out)


def test_tanh_saturated_by_unscaled_inputs(tmp_path: pathlib.Path) -> None:
    _, findings, _ = observe(Recipe(function="tanh", gain=1.0, scaling="bytes"), tmp_path)
    assert findings[0].cause == "unscaled_data"
    assert findings[0].level == Level.ALARM
    assert any("from 0 to 255" in sentence for sentence in findings[0].evidence)


def test_a_loss_of_nan_is_an_explosion(tmp_path: pathlib.Path) -> None:
    with np.errstate(all="ignore"):
        _, findings, _ = observe(Recipe(learning_rate=1e4, function="relu", steps=60), tmp_path)
    assert findings
    assert findings[0].level == Level.ALARM
    assert findings[0].cause in ("exploding_gradient", "learning_rate_too_high")


@pytest.mark.parametrize("step", [0, 40])
def test_nan_in_the_data_is_named(step: int, tmp_path: pathlib.Path) -> None:
    with np.errstate(all="ignore"):
        _, findings, _ = observe(Recipe(steps=60, nan_at=step), tmp_path)
    assert findings[0].cause == "non_finite_data"
    assert findings[0].level == Level.ALARM
    assert findings[0].step == step
    assert findings[0].layers == ("first", "second")
    assert [f for f in findings[1:] if f.level == Level.ALARM] == []

"""Real runs at the edges: very short and very long ones, layers that die at once, units that hardly ever fire."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

import deadunits_tb
from benchmarks.truth.numpy_training import train
from benchmarks.truth.recipe import Plant, Recipe
from benchmarks.truth.scoring import read
from deadunits_tb.units import ALARM, FLAGGED, Level, UnitState

EVERYONE = tuple(range(32))


def states_of(recipe: Recipe, tmp_path: pathlib.Path, layer: str) -> np.ndarray:
    train(recipe, tmp_path, exhaustive=False)
    return read(tmp_path)[0].layers[layer].states()


def test_in_thirty_steps_nothing_is_dead_yet(tmp_path: pathlib.Path) -> None:
    """1,920 examples say that a unit is on its way out, and no more."""
    recipe = Recipe("short", steps=30, plants=(Plant("kill", 0, (0, 1), step=5),))
    train(recipe, tmp_path, exhaustive=False)
    run, findings = read(tmp_path)
    states = run.layers["hidden_1"].states()
    assert not (states == UnitState.DEAD).any()
    assert (states[-1, :2] == UnitState.DYING).all()
    assert not FLAGGED[states[:, 2:]].any()
    assert [finding for finding in findings if finding.level >= Level.WARNING] == []
    assert run.layers["hidden_1"].evidence(-1).examples_since_active[:2].tolist() == [25 * 64] * 2


def test_a_whole_layer_that_dies_at_once(tmp_path: pathlib.Path) -> None:
    recipe = Recipe("layer", steps=140, plants=(Plant("kill", 1, EVERYONE, step=60),))
    train(recipe, tmp_path, exhaustive=False)
    run, findings = read(tmp_path)
    layer = run.layers["hidden_2"]
    assert (layer.states()[-1] == UnitState.DEAD).all()
    assert (layer.since()[-1] == 60).all()
    of_layer = next(finding for finding in findings if "hidden_2" in finding.layers)
    assert (of_layer.level, of_layer.cause) == (Level.ALARM, "unclear")  # the cause does not show, the death does
    assert not ALARM[run.layers["hidden_1"].states()].any()  # nothing is wrong before it


@pytest.mark.parametrize("value", [0.01, 0.012])
def test_a_unit_at_the_threshold_is_not_flagged_back_and_forth(value: float, tmp_path: pathlib.Path) -> None:
    """It fires on 6 or 7 of 600 images: whether that is seldom, records of 64 cannot tell, and none claims it."""
    plants = (Plant("rate", 1, (4, 5), value=value),)
    states = states_of(Recipe("threshold", steps=200, plants=plants), tmp_path, "hidden_2")[:, [4, 5]]
    assert not FLAGGED[states[8:]].any()
    assert (np.count_nonzero(np.diff(states[8:].astype(int), axis=0), axis=0) <= 2).all()


def test_a_unit_that_fires_on_one_of_ten_thousand_examples(tmp_path: pathlib.Path) -> None:
    """Called dead, as it fires on fewer than 0.1 %, by a bound that is too low in one of twenty cases at most."""
    torch = pytest.importorskip("torch")
    from deadunits_tb.torch import watch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    units, rate, batch = 200, 1e-4, 1000
    model = torch.nn.Sequential(torch.nn.Linear(units, units), torch.nn.ReLU(), torch.nn.Linear(units, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(units))
        model[0].bias.fill_(
            -float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - rate, dtype=torch.double)))
        )
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    fired = []
    with watch(model, tmp_path, optimizer, every=1, thresholds={"stagnant_ratio": 0.0}) as monitor:
        for _ in range(60):
            x = torch.randn(batch, units)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), torch.zeros(batch, dtype=torch.long)).backward()
            optimizer.step()
            fired.append((model[0](x) > 0).any(0).numpy())
        assert monitor.errors == ()
    run, _ = read(tmp_path)
    layer = run.layers["0"]
    dead = layer.states() == UnitState.DEAD
    assert dead[3:].mean() > 0.5  # three silent batches, and two records that agree
    assert not (dead & np.array(fired)).any()  # a death ends with the next firing
    silent = np.array([layer.evidence(record).examples_since_active for record in range(len(dead))])
    assert (silent[dead] >= 3000).all()
    # A death that is stated at 3,000 examples bounds the rate by 0.1 %: right. Only long silence can mislead.
    first = dead & ~np.vstack([np.zeros(units, bool), dead[:-1]])
    assert (3 / silent[first] < rate).mean() <= 0.05


@pytest.mark.slow
def test_thirty_thousand_steps(tmp_path: pathlib.Path) -> None:
    """Few records, all of them sound: the dead are dead since their step, and nobody else was ever flagged for long."""
    recipe = Recipe("long", sizes=(64, 8, 10), steps=30_000, batch=8, rate=3e-4)
    recipe = dataclasses.replace(recipe, plants=(Plant("kill", 0, (0,), step=0), Plant("kill", 0, (1,), step=20_000)))
    train(recipe, tmp_path, exhaustive=False)
    run = deadunits_tb.load(tmp_path)["."]
    layer = run.layers["hidden_1"]
    assert len(layer.steps) <= 2000
    assert (layer.states[-1, :2] == UnitState.DEAD).all()
    assert layer.since[-1, 0] == 0
    assert 19_900 <= layer.since[-1, 1] <= 20_000
    assert FLAGGED[layer.states[:, 2:]].mean() < 0.01
    assert not (layer.states[:, 2:] == UnitState.DEAD).any()

"""Findings on networks that were really trained: each ends as its recipe promises, and the cause is named."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from benchmarks.truth.numpy_training import train as train_recipe
from benchmarks.truth.recipe import Plant
from benchmarks.truth.recipe import Recipe as TruthRecipe
from benchmarks.truth.scoring import read
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.observation import StepObservation
from deadunits_tb.capture.reductions import observe_arrays
from deadunits_tb.reading.findings import Finding, find
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.run_record import RunInfo
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, Level, UnitState
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


class Told:
    """What a healthy layer tells a monitor at each step."""

    def __init__(self, units: int) -> None:
        self._random = np.random.default_rng(0)
        self._units = units

    def step(self, loss: float) -> StepObservation:
        outputs = np.maximum(self._random.normal(size=(64, self._units)), 0)
        seen = observe_arrays(
            outputs,
            activation_function="relu",
            unit_axis=-1,
            gradients=None,
            mask=None,
            scale=None,
            thresholds=Thresholds(),
        )
        assert seen is not None
        return StepObservation({"hidden": seen}, loss)


@pytest.mark.parametrize(("dataset", "told"), [(200, True), (100_000, False), (0, False)])
def test_examples_known_by_heart_are_said_to_be_possible_where_the_data_set_is_small(
    dataset: int, told: bool, tmp_path: pathlib.Path
) -> None:
    """Training loss alone cannot tell, so this is information; without the length of the data set it is not said."""
    info = LayerInfo("hidden", "Dense", 0, 32, "relu", fan_in=64)
    monitor = Monitor(tmp_path, RunInfo(layers=(info,)), every=1, dataset_examples=dataset)
    healthy = Told(32)
    for step in range(40):
        monitor.observe(step, lambda step=step: healthy.step(2.3 * 0.8**step))  # type: ignore[misc]
    monitor.close()
    _, findings = read(tmp_path)
    assert [f.cause for f in findings] == ["insufficient_data"] * told
    if told:
        assert findings[0].level == Level.INFORMATION
        assert "2,048 weights for 200 examples" in findings[0].evidence[0]
        assert "training loss alone cannot tell" in findings[0].remedies[0]


def test_remedies_name_the_layer_the_rate_and_the_initializer(tmp_path: pathlib.Path) -> None:
    _, [finding, *_], _ = observe(Recipe(weight_mean=-0.5, learning_rate=0.01), tmp_path)
    assert any(remedy.startswith("initialize second with He initialization for relu") for remedy in finding.remedies)
    assert any("chance explains 0 silent ones" in sentence for sentence in finding.evidence)
    assert any("began with a norm of" in sentence for sentence in finding.evidence)


def test_a_norm_that_decays_after_a_death_is_no_cause(tmp_path: pathlib.Path) -> None:
    """Units killed by hand, whose weights then decay: nothing speaks for weight decay as their killer."""
    recipe = TruthRecipe(
        "after", optimizer="sgd", rate=0.05, decay=0.5, plants=(Plant("kill", 1, tuple(range(20)), 20),)
    )
    train_recipe(recipe, tmp_path, exhaustive=False)
    run, findings = read(tmp_path)
    norms = run.layers["hidden_2"].statistic("norm_in")[:, 0]
    assert norms[-1] < 0.1 * norms[0]
    assert (run.layers["hidden_2"].states()[-1, :20] == UnitState.DEAD).all()
    assert "weight_decay" not in [finding.cause for finding in findings if "hidden_2" in finding.layers]

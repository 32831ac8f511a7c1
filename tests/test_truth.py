"""A small part of ``benchmarks/truth``: states, deaths and causes of real training runs beside the truth about them."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from benchmarks.truth import catalogue, networks
from benchmarks.truth.networks import Architecture
from benchmarks.truth.numpy_training import train
from benchmarks.truth.recipe import Recipe
from benchmarks.truth.scoring import Tally, read, score_causes, score_states
from deadunits_tb.units import Level, UnitState

EVERY = {recipe.name: recipe for recipe in (*catalogue.states(1), *catalogue.causes(1), *catalogue.healthy(1))}


def scored(name: str, tmp_path: pathlib.Path) -> Tally:
    tally = Tally()
    truth = train(EVERY[name], tmp_path)
    run, findings = read(tmp_path)
    score_states(tally, truth, run)
    score_causes(tally, EVERY[name], findings)
    return tally


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("states/relu-0", {UnitState.DEAD, UnitState.DISCONNECTED, UnitState.CONSTANT, UnitState.STAGNANT}),
        ("states/tanh-0", {UnitState.SATURATED, UnitState.DISCONNECTED, UnitState.DORMANT}),
        ("states/relu-rare-0", {UnitState.SPARSE, UnitState.DYING}),
        ("states/nan-0", {UnitState.NON_FINITE}),
        ("states/frozen-0", {UnitState.FROZEN}),
    ],
)
def test_states_agree_with_exhaustive_passes(name: str, states: set[UnitState], tmp_path: pathlib.Path) -> None:
    tally = scored(name, tmp_path)
    assert tally.missed == []
    assert tally.wrong == tally.fires == 0
    assert set(tally.onset_errors) <= {0}
    for state in states - {UnitState.DEAD}:
        assert tally.held[state] > 0, state
        assert tally.recall(state) >= 0.98, state
        assert tally.precision(state) >= 0.98, state
    assert (tally.dead > 0) == (UnitState.DEAD in states)


@pytest.mark.parametrize(
    "name",
    ["sgd-3-0", "adam-1e-7-0", "mean--0.5-0", "spike-0", "tanh-bytes-0", "tanh-large-0", "first-killed-0",
     "decay-sgd-0", "one-class-0", "pruned-0", "nan-0", "killed-0", "known-by-heart-0"],
)  # fmt: skip
def test_the_planted_cause_is_found(name: str, tmp_path: pathlib.Path) -> None:
    train(EVERY[name], tmp_path, exhaustive=False)
    _, findings = read(tmp_path)
    assert findings[0].cause == EVERY[name].cause
    assert findings[0].evidence
    assert findings[0].remedies


@pytest.mark.parametrize("name", ["adam", "warm-up", "slow-warm-up", "cosine-tail", "converged", "fine-tuning"])
def test_a_healthy_run_has_no_finding_that_accuses(name: str, tmp_path: pathlib.Path) -> None:
    """Least of all a learning rate too low, in warm-up, in the tail of a schedule, converged or in fine-tuning."""
    train(EVERY[f"healthy/{name}-0"], tmp_path, exhaustive=False)
    _, findings = read(tmp_path)
    assert [f for f in findings if f.level >= Level.WARNING] == []


def test_the_catalogue_plants_every_cause_and_every_kind_of_health() -> None:
    planted = {recipe.cause for recipe in EVERY.values()} - {None}
    assert planted >= {"poor_initialization", "learning_rate_too_high", "learning_rate_too_low", "vanishing_gradient",
                       "exploding_gradient", "saturating_activation", "unscaled_data", "upstream_dead", "weight_decay",
                       "constant_output_head", "frozen_by_user", "pruned", "non_finite_data", "unclear"}  # fmt: skip
    assert sum(recipe.cause is not None for recipe in catalogue.causes(3)) >= 100
    assert sum(1 for _ in catalogue.healthy(2)) >= 30


@pytest.mark.parametrize(
    ("framework", "architecture"),
    [
        *(("torch", kind) for kind in ("dense", "cnn", "lstm", "transformer")),
        *(pytest.param("keras", kind, marks=pytest.mark.slow) for kind in ("dense", "cnn", "lstm", "transformer")),
    ],
)
def test_the_truth_computes_what_the_network_does(framework: str, architecture: Architecture) -> None:
    pytest.importorskip(framework)
    recipe = Recipe("network", architecture=architecture, function="gelu", gain=2.0)
    random = np.random.default_rng(0)
    parameters = [values + random.normal(0, 0.05, values.shape) for values in networks.first_parameters(recipe)]
    images = recipe.images()[:5]
    logits = networks.activations(recipe, parameters, images)[0][-1]
    if framework == "torch":
        import torch

        from benchmarks.truth import torch_networks

        model = torch_networks.network(recipe)
        torch_networks.put(recipe, model, parameters)
        for there, back in zip(parameters, torch_networks.get(recipe, model), strict=True):
            np.testing.assert_allclose(back, there, rtol=0, atol=1e-6)
        found = model(torch.from_numpy(images.astype(np.float32))).detach().numpy()
    else:
        from benchmarks.truth import keras_training

        model = keras_training.network(recipe)
        for variable, values in zip(model.weights, parameters, strict=True):
            variable.assign(values.reshape(variable.shape))
        found = np.log(np.asarray(model(images.astype(np.float32))))
        logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)


def test_the_same_recipe_gives_the_same_run(tmp_path: pathlib.Path) -> None:
    recipe = Recipe("twice", steps=20)
    first, second = (train(recipe, tmp_path / name) for name in ("a", "b"))
    assert (first.table(1, "size") == second.table(1, "size")).all()

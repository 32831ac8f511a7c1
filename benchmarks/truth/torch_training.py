"""Trains a recipe with PyTorch, in a loop that is watched."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.truth.exhaustive import Truth
from benchmarks.truth.networks import first_parameters
from benchmarks.truth.recipe import Recipe
from benchmarks.truth.torch_networks import get, network, put
from deadunits_tb.torch import watch

Beside = Callable[[nn.Module, torch.optim.Optimizer], Callable[[torch.Tensor], None]]


def train(recipe: Recipe, log_dir: pathlib.Path, *, exhaustive: bool = True, beside: Beside | None = None) -> Truth:
    """Train and observe every step; returns the truth about it, empty unless exhaustive passes are made.

    Args:
        recipe: What to train.
        log_dir: Of the records.
        exhaustive: Whether to look at the whole data set before each step.
        beside: Is given the model and the optimizer; what it returns is called before each step of the optimizer.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)
    model, rows = network(recipe), recipe.batches()
    put(recipe, model, first_parameters(recipe))
    random = np.random.default_rng([recipe.seed, 3])
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(recipe.pretrained):
        _step(recipe, model, optimizer, *recipe.batch_at(0, random.integers(0, len(recipe.images()), recipe.batch)))
    for number in recipe.frozen:
        model.get_submodule(f"hidden_{number + 1}").requires_grad_(False)
    optimizer, truth = _optimizer(recipe, model), Truth(recipe, rows)
    before = get(recipe, model)
    look = beside(model, optimizer) if beside is not None else None
    with watch(model, log_dir, optimizer, every=1, output_layers=["output"], dataset_examples=recipe.few) as monitor:
        for step in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_at(step)
            if recipe.plants or exhaustive:
                planted = get(recipe, model)
                recipe.plant(step, planted, before)
                put(recipe, model, planted)
                before = get(recipe, model)
            if exhaustive:
                truth.look(step, before)
            loss = _step(recipe, model, optimizer, *recipe.batch_at(step, rows[step]), look=look)
            monitor.step(loss=loss)
    return truth


def _step(
    recipe: Recipe,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: np.ndarray,
    labels: np.ndarray,
    weight: float,
    look: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    optimizer.zero_grad()
    logits = model(torch.from_numpy(images.astype(np.float32)))
    loss = weight * nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    loss.backward()
    if look is not None:
        look(loss)
    optimizer.step()
    return loss.detach()


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    trained = [values for values in model.parameters() if values.requires_grad]
    kernels = [values for values in trained if values.ndim > 1]
    groups = [
        {"params": kernels, "weight_decay": recipe.decay},
        {"params": [values for values in trained if values.ndim == 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(groups, recipe.rate) if recipe.decay else torch.optim.Adam(groups, recipe.rate)
    return torch.optim.SGD(groups, recipe.rate, momentum=0.9 * (recipe.optimizer == "momentum"))

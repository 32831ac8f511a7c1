"""Trains a recipe with PyTorch, in a loop that is watched."""

from __future__ import annotations

import pathlib

import numpy as np
import torch
from torch import nn

from benchmarks.truth.exhaustive import Truth
from benchmarks.truth.recipe import Parameters, Recipe
from deadunits_tb.torch import watch

_FUNCTIONS = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": lambda: nn.GELU(approximate="tanh"),
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
}


def train(recipe: Recipe, log_dir: pathlib.Path, *, exhaustive: bool = True) -> Truth:
    """Train and observe every step; returns the truth about it, empty unless exhaustive passes are made."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)
    model, rows = _model(recipe), recipe.batches()
    _set(model, recipe.first_parameters())
    random = np.random.default_rng([recipe.seed, 3])
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(recipe.pretrained):
        _step(recipe, model, optimizer, *recipe.batch_at(0, random.integers(0, len(recipe.images()), recipe.batch)))
    for number in recipe.frozen:
        model.get_submodule(f"hidden_{number + 1}").requires_grad_(False)
    optimizer, truth = _optimizer(recipe, model), Truth(recipe, rows)
    before = _get(model)
    with watch(model, log_dir, optimizer, every=1, output_layers=["output"]) as monitor:
        for step in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_at(step)
            if recipe.plants or exhaustive:
                planted = _get(model)
                recipe.plant(step, planted, before)
                _set(model, planted)
                before = _get(model)
            if exhaustive:
                truth.look(step, before)
            loss = _step(recipe, model, optimizer, *recipe.batch_at(step, rows[step]))
            monitor.step(loss=loss)
    return truth


def _step(
    recipe: Recipe,
    model: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    images: np.ndarray,
    labels: np.ndarray,
    weight: float,
) -> torch.Tensor:
    optimizer.zero_grad()
    logits = model(torch.from_numpy(images.astype(np.float32)))
    loss = weight * nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    loss.backward()
    optimizer.step()
    return loss.detach()


def _model(recipe: Recipe) -> nn.Sequential:
    model = nn.Sequential()
    for number, (inputs, units) in enumerate(zip(recipe.sizes, recipe.sizes[1:], strict=False)):
        name = recipe.names[number]
        model.add_module(name, nn.Linear(inputs, units))
        if number < recipe.hidden:
            model.add_module(f"function_{number + 1}", _FUNCTIONS[recipe.function]())
    return model


def _get(model: nn.Module) -> Parameters:
    return [np.ascontiguousarray(values.detach().numpy().T).astype(np.float64) for values in model.parameters()]


def _set(model: nn.Module, parameters: Parameters) -> None:
    with torch.no_grad():
        for values, new in zip(model.parameters(), parameters, strict=True):
            values.copy_(torch.from_numpy(np.ascontiguousarray(new.T).astype(np.float32)))


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

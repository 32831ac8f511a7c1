"""Trains a recipe in plain NumPy, with a DeadUnitsWriter: what a loop without any framework looks like."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import numpy as np

from benchmarks.truth.exhaustive import Truth
from benchmarks.truth.networks import Array, Parameters, activations, first_parameters
from benchmarks.truth.recipe import Recipe
from deadunits_tb import DeadUnitsWriter


def train(recipe: Recipe, log_dir: pathlib.Path, *, exhaustive: bool = True) -> Truth:
    """Train and observe every step; returns the truth about it, empty unless exhaustive passes are made."""
    rows = recipe.batches()
    parameters, optimizer = first_parameters(recipe), Optimizer(replace(recipe, optimizer="adam", decay=0.0))
    random = np.random.default_rng([recipe.seed, 3])
    for _ in range(recipe.pretrained):
        images, labels, weight = recipe.batch_at(0, random.integers(0, len(recipe.images()), recipe.batch))
        optimizer.step(parameters, _gradients(recipe, parameters, images, labels, weight)[0], 1e-3)
    optimizer, truth = Optimizer(recipe), Truth(recipe, rows)
    before = [values.copy() for values in parameters]
    with DeadUnitsWriter(log_dir, dataset_examples=recipe.few) as writer, np.errstate(all="ignore"):
        for step in range(recipe.steps):
            recipe.plant(step, parameters, before)
            before = [values.copy() for values in parameters]
            if exhaustive:
                truth.look(step, parameters)
            images, labels, weight = recipe.batch_at(step, rows[step])
            gradients, errors, outputs, loss = _gradients(recipe, parameters, images, labels, weight)
            rate = recipe.rate_at(step)
            writer.context(step, learning_rate=rate, loss=loss, inputs=images)
            for layer, name in enumerate(recipe.names):
                inside = layer < recipe.hidden
                writer.observe(
                    step,
                    name,
                    outputs[layer],
                    activation_function=recipe.function if inside else "softmax",
                    gradients=errors[layer],
                    weights=parameters[2 * layer],
                    outgoing=parameters[2 * layer + 2] if inside else None,
                    trainable=layer not in recipe.frozen,
                    role="hidden" if inside else "output",
                )
            optimizer.step(parameters, gradients, rate)
    return truth


def _gradients(
    recipe: Recipe, parameters: Parameters, images: Array, labels: Array, weight: float
) -> tuple[Parameters, list[Array], list[Array], float]:
    """Gradients of the parameters, of the pre-activations, the outputs of all layers, and the loss."""
    outputs, slopes = activations(recipe, parameters, images)
    n, logits = len(images), outputs[-1]
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    loss = weight * float(-np.log(share[np.arange(n), labels] + 1e-30).mean())
    error = share.copy()
    error[np.arange(n), labels] -= 1
    errors = [error * (weight / n)]
    for layer in reversed(range(recipe.hidden)):
        errors.insert(0, (errors[0] @ parameters[2 * layer + 2].T) * slopes[layer])
    gradients: Parameters = []
    for values, error in zip([images, *outputs[:-1]], errors, strict=True):
        gradients += [values.T @ error, error.sum(axis=0)]
    return gradients, errors, [*outputs[:-1], share], loss


class Optimizer:
    """Gradient descent, with momentum, or Adam; decoupled weight decay of the kernels."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._steps = 0
        self._first: Parameters | None = None
        self._second: Parameters | None = None

    def step(self, parameters: Parameters, gradients: Parameters, rate: float) -> None:
        """Change the parameters in place."""
        recipe = self._recipe
        self._steps += 1
        if self._first is None or self._second is None:
            self._first = [np.zeros_like(values) for values in parameters]
            self._second = [np.zeros_like(values) for values in parameters]
        for index, (values, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if index // 2 in recipe.frozen:
                continue
            if recipe.decay and index % 2 == 0:
                values *= 1 - rate * recipe.decay
            if recipe.optimizer == "sgd":
                values -= rate * gradient
                continue
            first, second = self._first[index], self._second[index]
            if recipe.optimizer == "momentum":
                first *= 0.9
                first += gradient
                values -= rate * first
                continue
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient**2 - second)
            scale = np.sqrt(second / (1 - 0.999**self._steps)) + 1e-7
            values -= rate * first / (1 - 0.9**self._steps) / scale

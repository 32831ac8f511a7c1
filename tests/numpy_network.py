"""A small network in plain NumPy, trained for real on digits: what a loop without any framework looks like."""

from __future__ import annotations

import itertools
import pathlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from deadunits_tb import DeadUnitsWriter, Thresholds

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """How to train: two hidden layers of 32 units, softmax, plain gradient descent."""

    learning_rate: float = 0.05
    function: str = "relu"
    weight_mean: float = 0.0
    gain: float = 2.0
    scaling: str = "standardized"
    steps: int = 400
    seed: int = 0
    nan_at: int | None = None
    """Step whose batch holds a NaN."""


def pixels(scaling: str) -> Array:
    """``[1797, 64]`` images, standardised per feature or raw in 0 to 255."""
    images = load_digits().data.astype(np.float64)
    if scaling == "bytes":
        return images * (255 / 16)
    return (images - images.mean(axis=0)) / np.maximum(images.std(axis=0), 1e-6)


def train(recipe: Recipe, log_dir: pathlib.Path, thresholds: Thresholds | None = None) -> list[Array]:
    """Train, observe every step, and return the activations of both hidden layers over all images."""
    rng = np.random.default_rng(recipe.seed)
    images, labels = pixels(recipe.scaling), load_digits().target
    sizes = [64, 32, 32, 10]
    weights = [
        rng.normal(recipe.weight_mean if i < 2 else 0.0, np.sqrt(recipe.gain / n), (n, m))
        for i, (n, m) in enumerate(itertools.pairwise(sizes))
    ]
    biases = [np.zeros(m) for m in sizes[1:]]
    activate = np.tanh if recipe.function == "tanh" else lambda x: np.maximum(x, 0)
    slope = (lambda a: 1 - a * a) if recipe.function == "tanh" else lambda a: (a > 0).astype(float)

    def forward(x: Array) -> list[Array]:
        values = [x]
        for w, b in zip(weights[:2], biases[:2], strict=True):
            values.append(activate(values[-1] @ w + b))
        return values

    with DeadUnitsWriter(log_dir, thresholds=thresholds) as writer:
        for step in range(recipe.steps):
            batch = rng.integers(0, len(images), 64)
            given = images[batch].copy()
            if step == recipe.nan_at:
                given[3, 5] = np.nan
            x, first, second = forward(given)
            logits = second @ weights[2] + biases[2]
            logits -= logits.max(axis=1, keepdims=True)
            share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            loss = float(-np.log(share[np.arange(64), labels[batch]] + 1e-300).mean())
            share[np.arange(64), labels[batch]] -= 1
            errors = [share / 64]
            for w, a in ((weights[2], second), (weights[1], first)):
                errors.insert(0, (errors[0] @ w.T) * slope(a))
            writer.context(step, learning_rate=recipe.learning_rate, loss=loss, inputs=x)
            for i, (name, a) in enumerate((("first", first), ("second", second))):
                writer.observe(
                    step, name, a, activation_function=recipe.function, gradients=errors[i], weights=weights[i]
                )
            for i, a in enumerate((x, first, second)):
                weights[i] -= recipe.learning_rate * (a.T @ errors[i])
                biases[i] -= recipe.learning_rate * errors[i].sum(axis=0)
    return forward(images)[1:]

"""Trains a recipe with Keras, watched by the DeadUnitsCallback."""

from __future__ import annotations

import os
import pathlib
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np

from benchmarks.truth.exhaustive import Truth
from benchmarks.truth.recipe import Parameters, Recipe
from deadunits_tb.keras import DeadUnitsCallback

_FUNCTIONS = {"leaky_relu": lambda: keras.layers.LeakyReLU(negative_slope=0.2)}


def train(recipe: Recipe, log_dir: pathlib.Path, *, exhaustive: bool = True) -> Truth:
    """Train and observe every step; returns the truth about it, empty unless exhaustive passes are made."""
    keras.utils.set_random_seed(recipe.seed)
    model, rows = _model(recipe), recipe.batches()
    model.set_weights([values.astype(np.float32) for values in recipe.first_parameters()])
    if recipe.pretrained:
        random = np.random.default_rng([recipe.seed, 3])
        images, labels, _ = recipe.batch_at(
            0, random.integers(0, len(recipe.images()), recipe.pretrained * recipe.batch)
        )
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        model.fit(images.astype(np.float32), labels, batch_size=recipe.batch, shuffle=False, verbose=0)
    loss = "categorical_crossentropy" if recipe.one_class else "sparse_categorical_crossentropy"
    model.compile(_optimizer(recipe), loss)
    truth = Truth(recipe, rows)
    batches = [recipe.batch_at(step, rows[step]) for step in range(recipe.steps)]
    images = np.concatenate([one for one, _, _ in batches]).astype(np.float32)
    labels = np.concatenate([two for _, two, _ in batches])
    weights = np.repeat([three for _, _, three in batches], recipe.batch).astype(np.float32)
    model.fit(
        images,
        np.ones((len(labels), 1), np.float32) if recipe.one_class else labels,
        sample_weight=weights,
        batch_size=recipe.batch,
        shuffle=False,
        verbose=0,
        callbacks=[_Planter(recipe, truth if exhaustive else None), DeadUnitsCallback(log_dir, every=1)],
    )
    return truth


class _Planter(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is published without types
    """Sets the learning rate, plants, and looks, before each step."""

    def __init__(self, recipe: Recipe, truth: Truth | None) -> None:
        super().__init__()
        self._recipe, self._truth = recipe, truth
        self._before: Parameters | None = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """The epoch is the run, so the batch is the step."""
        if self._recipe.schedule != "constant":
            self.model.optimizer.learning_rate = self._recipe.rate_at(batch)
        if self._truth is None and not self._recipe.plants:
            return
        given = [values.numpy() for values in self.model.variables if "seed" not in values.path]
        now = [values.astype(np.float64) for values in given[: 2 * self._recipe.hidden + 2]]
        planted = [values.copy() for values in now]
        self._recipe.plant(batch, planted, self._before or now)
        for variable, was, value in zip(self.model.weights, now, planted, strict=True):
            if not np.array_equal(was, value, equal_nan=True):
                variable.assign(value.astype(np.float32))
        self._before = [values.astype(np.float32).astype(np.float64) for values in planted]
        if self._truth is not None:
            self._truth.look(batch, self._before)


def _model(recipe: Recipe) -> keras.Sequential:
    layers: list[Any] = [keras.Input((recipe.sizes[0],))]
    for number, units in enumerate(recipe.sizes[1:-1]):
        function = _FUNCTIONS.get(recipe.function, lambda: recipe.function)()
        trainable = number not in recipe.frozen
        layers.append(keras.layers.Dense(units, function, name=f"hidden_{number + 1}", trainable=trainable))
    layers.append(keras.layers.Dense(recipe.sizes[-1], "softmax", name="output"))
    return keras.Sequential(layers)


def _optimizer(recipe: Recipe) -> Any:
    decay = {"weight_decay": recipe.decay} if recipe.decay else {}
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(recipe.rate, **decay)
    return keras.optimizers.SGD(recipe.rate, momentum=0.9 * (recipe.optimizer == "momentum"), **decay)

"""Trains a recipe with Keras, watched by the DeadUnitsCallback."""

from __future__ import annotations

import os
import pathlib
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
from keras import layers as L

from benchmarks.truth.exhaustive import Truth
from benchmarks.truth.networks import (
    CELLS,
    EPSILON,
    FEATURES,
    FILTERS,
    HEADS,
    WIDTH,
    Parameters,
    first_parameters,
    shapes,
)
from benchmarks.truth.recipe import Recipe
from deadunits_tb.keras import DeadUnitsCallback


def train(recipe: Recipe, log_dir: pathlib.Path, *, exhaustive: bool = True) -> Truth:
    """Train and observe every step; returns the truth about it, empty unless exhaustive passes are made."""
    keras.utils.set_random_seed(recipe.seed)
    model, rows = network(recipe), recipe.batches()
    for variable, values in zip(model.weights, first_parameters(recipe), strict=True):
        variable.assign(values.reshape(variable.shape))
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
        callbacks=[
            _Planter(recipe, truth if exhaustive else None),
            DeadUnitsCallback(log_dir, every=1, dataset_examples=recipe.few),
        ],
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
        mine = zip(self.model.weights, shapes(self._recipe), strict=True)
        now = [values.numpy().astype(np.float64).reshape(shape) for values, shape in mine]
        planted = [values.copy() for values in now]
        self._recipe.plant(batch, planted, self._before or now)
        for variable, was, value in zip(self.model.weights, now, planted, strict=True):
            if not np.array_equal(was, value, equal_nan=True):
                variable.assign(value.astype(np.float32).reshape(variable.shape))
        self._before = [values.astype(np.float32).astype(np.float64) for values in planted]
        if self._truth is not None:
            self._truth.look(batch, self._before)


def network(recipe: Recipe) -> keras.Model:
    """Build the network of a recipe; its hidden layers have the names that the recipe gives them."""
    inputs = keras.Input((64,))
    return keras.Model(inputs, _NETWORKS[recipe.architecture](recipe, inputs))


def _dense(recipe: Recipe, x: Any) -> Any:
    for number, units in enumerate(recipe.sizes[1:-1]):
        x = _judged(recipe, number, L.Dense, units)(x)
    return L.Dense(recipe.sizes[-1], "softmax", name="output")(x)


def _cnn(recipe: Recipe, x: Any) -> Any:
    x = L.Reshape((8, 8, 1))(x)
    for number, filters in enumerate(FILTERS):
        x = _judged(recipe, number, L.Conv2D, filters, 3)(x)
    x = _judged(recipe, 2, L.Dense, FEATURES)(L.Flatten()(x))
    return L.Dense(10, "softmax", name="output")(x)


def _lstm(recipe: Recipe, x: Any) -> Any:
    x = L.LSTM(CELLS, return_sequences=True, name="hidden_1")(L.Reshape((8, 8))(x))
    x = _judged(recipe, 1, L.Dense, FEATURES)(L.GlobalAveragePooling1D()(x))
    return L.Dense(10, "softmax", name="output")(x)


def _transformer(recipe: Recipe, x: Any) -> Any:
    x = L.Dense(WIDTH, name="embed")(L.Reshape((8, 8))(x))
    y = L.LayerNormalization(epsilon=EPSILON)(x)
    x = L.add([x, L.MultiHeadAttention(HEADS, WIDTH // HEADS)(y, y)])
    y = _judged(recipe, 0, L.Dense, FEATURES)(L.LayerNormalization(epsilon=EPSILON)(x))
    x = L.add([x, L.Dense(WIDTH, name="down")(y)])
    return L.Dense(10, "softmax", name="output")(L.GlobalAveragePooling1D()(x))


_NETWORKS = {"dense": _dense, "cnn": _cnn, "lstm": _lstm, "transformer": _transformer}


def _judged(recipe: Recipe, number: int, kind: Any, *sizes: int) -> Any:
    function = L.LeakyReLU(negative_slope=0.2) if recipe.function == "leaky_relu" else recipe.function
    return kind(*sizes, activation=function, name=recipe.names[number], trainable=number not in recipe.frozen)


def _optimizer(recipe: Recipe) -> Any:
    decay = {"weight_decay": recipe.decay} if recipe.decay else {}
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(recipe.rate, **decay)
    return keras.optimizers.SGD(recipe.rate, momentum=0.9 * (recipe.optimizer == "momentum"), **decay)

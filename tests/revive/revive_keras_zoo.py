"""Keras models with units that never fire, and what they are looked at with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as L

DEAD = [1, 4]
WORK = [0, 2, 3, 5, 6, 7]
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True),
    "adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


def vectors() -> Any:
    return keras.Input((6,))


def mlp(function: str = "relu") -> keras.Model:
    return keras.Sequential([vectors(), L.Dense(8, function, name="hidden"), L.Dense(8, "relu"), L.Dense(3)])


def cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            *(L.Conv2D(8, 3, padding="same", name="hidden"), L.BatchNormalization(name="bn"), L.ReLU()),
            *(L.Dropout(0.3), L.MaxPooling2D(), L.Conv2D(8, 3, activation="relu"), L.Flatten(), L.Dense(3)),
        ]
    )


def flat() -> keras.Model:
    conv = L.Conv2D(8, 3, activation="relu", name="hidden")
    return keras.Sequential([keras.Input((4, 4, 2)), conv, L.Flatten(), L.Dense(3)])


def depthwise() -> keras.Model:
    conv = L.Conv2D(8, 3, activation="relu", name="hidden")
    return keras.Sequential(
        [keras.Input((6, 6, 2)), conv, L.DepthwiseConv2D(2, depth_multiplier=2), L.GlobalAveragePooling2D(), L.Dense(3)]
    )


def recurrent() -> keras.Model:
    return keras.Sequential([keras.Input((5, 6)), L.Dense(8, "relu", name="hidden"), L.GRU(4), L.Dense(3)])


def residual() -> keras.Model:
    """A block whose inner units are its own, shared by two calls; those of the stream are not."""
    x = inputs = vectors()
    stem, hidden, outer = L.Dense(8, name="stem"), L.Dense(8, "relu", name="hidden"), L.Dense(8, name="outer")
    x = stem(x)
    for _ in range(2):
        x = L.Add()([x, outer(hidden(x))])
    return keras.Model(inputs, L.Dense(3)(x))


def nested() -> keras.Model:
    x = vectors()
    inner = keras.Sequential([keras.Input((6,)), L.Dense(8, name="hidden"), L.ReLU(), L.Dense(5)])
    return keras.Model(x, L.Dense(3)(inner(x)))


MODELS = {"mlp": mlp, "cnn": cnn, "flat": flat, "depthwise": depthwise, "recurrent": recurrent, "residual": residual,
          "nested": nested}  # fmt: skip


def named(model: keras.Model, name: str) -> Any:
    return next(layer for layer in model._flatten_layers() if layer.name == name)


def batch(model: keras.Model, seed: int = 0, examples: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(examples, *model.input_shape[1:])).astype("float32")


def set_part(variable: keras.Variable, units: list[int], value: float) -> None:
    values = keras.ops.convert_to_numpy(variable).copy()
    values[..., units] = value
    variable.assign(values)


def kill(model: keras.Model, units: list[int] = DEAD) -> None:
    """Units that no input can wake: their normalisation or bias holds them down."""
    held = [layer for layer in model.layers if layer.name == "bn"]
    set_part(held[0].beta if held else named(model, "hidden").bias, units, -100.0)


def trained(make: Callable[[], keras.Model], optimizer: str = "adam") -> keras.Model:
    keras.utils.set_random_seed(0)
    model = make()
    kill(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](), loss, run_eagerly=True)  # tracing takes longer than so few steps
    x = batch(model)
    model.fit(x, np.arange(len(x)) % 3, batch_size=16, verbose=0)
    return model


def value(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))

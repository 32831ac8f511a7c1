"""One real training step on whichever backend Keras runs, with weights and data that NumPy made.

KERAS_BACKEND=jax python tests/taps/keras_one_step.py FILE.npz    what was seen of it, by name
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from unittest import mock

import keras
import numpy as np
from keras import layers as L

from deadunits_tb.capture import packed
from deadunits_tb.keras import DeadUnitsCallback

RATE = 0.5


def dense():
    return keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(8, "relu", name="relu"),
            L.Dense(5, "tanh", name="tanh"),
            L.Dense(3, "softmax", name="head"),
        ]
    )


def images():
    inputs = keras.Input((5, 5, 2))
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="fused")(inputs)
    x = L.Activation("silu")(L.LayerNormalization()(L.Conv2D(4, 3, name="apart")(x)))
    return keras.Model(inputs, L.Dense(3, "softmax", name="head")(L.Flatten()(x)))


def padded():
    inputs = keras.Input((5,), dtype="int32")
    x = L.Dense(6, "relu", name="tokens")(L.Embedding(9, 4, mask_zero=True)(inputs))
    return keras.Model(inputs, L.Dense(3, "softmax", name="head")(L.GlobalAveragePooling1D()(x)))


def several_axes():
    inputs = keras.Input((5, 4))
    x = L.EinsumDense("abc,cde->abde", (5, 2, 3), activation="gelu", name="two_axes")(inputs)
    return keras.Model(inputs, L.Dense(3, "softmax", name="head")(L.Flatten()(x)))


NETWORKS = {
    "dense": (dense, (6,)),
    "images": (images, (5, 5, 2)),
    "padded": (padded, (5,)),
    "several_axes": (several_axes, (5, 4)),
}
"""Name to what builds it, and the shape of an example."""


def data(name):
    random = np.random.default_rng(5)
    if name == "padded":
        x = random.integers(1, 9, (12, 5))
        x[np.arange(5) >= random.integers(2, 6, (12, 1))] = 0
    else:
        x = random.normal(size=(12, *NETWORKS[name][1])).astype("float32")
    return x, random.integers(0, 3, 12)


def made(name):
    """Compiled, with weights from NumPy."""
    keras.utils.clear_session()
    model = NETWORKS[name][0]()
    random = np.random.default_rng(3)
    model.set_weights([random.normal(0, 0.5, weight.shape).astype("float32") for weight in model.weights])
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy")
    return model


def observed(model, x, y, *, epochs=1):
    """What was seen of each step of ``fit``, all examples in one batch, before it becomes a record."""
    seen, unpack = [], packed.unpack

    def spy(layout, vector):
        seen.append(unpack(layout, vector))
        return seen[-1]

    with mock.patch.object(packed, "unpack", spy), tempfile.TemporaryDirectory() as directory:
        watch = DeadUnitsCallback(directory, every=1)
        model.fit(x, y, batch_size=len(x), epochs=epochs, shuffle=False, verbose=0, callbacks=[watch])
        watch._monitor.close()
    return seen


def numbers(name):
    """Field to array of the first step of a network."""
    (step,) = observed(made(name), *data(name))
    found = {f"{name}/loss": step.loss, f"{name}/inputs": () if step.inputs is None else step.inputs}
    for layer, seen in step.layers.items():
        parts = {**dataclasses.asdict(seen), **dataclasses.asdict(seen.weights)}
        found |= {f"{name}/{layer}/{field}": values for field, values in parts.items() if field != "weights"}
    return {field: np.asarray(values, "float64") for field, values in found.items() if values is not None}


if __name__ == "__main__":
    np.savez(sys.argv[1], **{field: values for name in NETWORKS for field, values in numbers(name).items()})

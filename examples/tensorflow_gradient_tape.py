"""A loop with ``tf.GradientTape`` in a ``tf.function`` of one's own, on 8 x 8 digits.

Then: tensorboard --logdir runs
"""

from __future__ import annotations

import sys

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

from deadunits_tb.tensorflow import watch


def main(log_dir: str = "runs/tensorflow_gradient_tape", epochs: int = 10) -> keras.Model:
    """Train, and return the trained network."""
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)  # [1797, 64] pixels of 0 to 16, and [1797] digits
    data = tf.data.Dataset.from_tensor_slices(((images / 16).astype("float32"), labels)).shuffle(1797, seed=0).batch(64)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(48, activation="relu", name="first"),
            keras.layers.Dense(48, activation="relu", name="second"),
            keras.layers.Dense(10, name="digit"),
        ]
    )
    optimizer = keras.optimizers.Adam(0.003)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    monitor = watch(model, log_dir, optimizer)

    @monitor.wrap
    @tf.function(reduce_retracing=True)
    def train_step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    with monitor:
        for epoch in range(epochs):
            for x, y in data:
                loss = train_step(x, y)
                monitor.step(loss)
            sys.stdout.write(f"epoch {epoch + 1}: loss {float(loss):.3f}, dead units {monitor.dead_fraction:.1%}\n")
    return model


if __name__ == "__main__":
    main(*sys.argv[1:2])

"""Trains on two logical devices, watched and not, and as one process: run by test_tensorflow_distributed.py.

One strategy a process, so each of these runs in a process of its own: ``python tensorflow_replicas.py fit DIRECTORY``.
"""

from __future__ import annotations

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.tensorflow import watch

BATCH, STEPS = 8, 4


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH * STEPS, 6, 6, 2)).astype("float32")
    return x, random.integers(0, 3, len(x))


def model():
    keras.utils.set_random_seed(7)
    x = inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = L.Flatten()(x)
    x = L.Dense(5, name="apart")(x)
    x = L.ReLU()(x)
    x = L.Dense(6, activation="tanh", name="tanh")(x)
    return keras.Model(inputs, L.Dense(3, name="head")(x))


def dataset():
    return tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)


def fit(directory):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    default = tf.distribute.get_strategy()
    for name, where in (("plain", strategy), ("watched", strategy), ("alone", default)):
        with where.scope():
            trained = model()
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            trained.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
        callbacks = [] if name == "plain" else [DeadUnitsCallback(f"{directory}/{name}", every=1)]
        history = trained.fit(dataset(), epochs=1, verbose=0, callbacks=callbacks)
        values = [np.asarray(v) for v in (*trained.variables, *trained.optimizer.variables)]
        np.savez(f"{directory}/{name}.npz", *values, np.array(history.history["loss"]))


def log_dir(directory, name):
    """Workers are given directories of their own, to see who writes."""
    task = json.loads(os.environ["TF_CONFIG"])["task"]["index"] if "TF_CONFIG" in os.environ else ""
    return f"{directory}/{name}{task}"


def train(strategy, directory, name, *, breaks=False):
    """A loop of one's own: the same on one device, on two, and on two workers."""
    with strategy.scope():
        trained = model()
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(trained.trainable_variables)  # on two devices TensorFlow cannot make variables in a step
        loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.nn.compute_average_loss(loss_of(y, trained(x, training=True)), global_batch_size=BATCH)
        gradients = tape.gradient(loss, trained.trainable_variables)
        optimizer.apply_gradients(zip(gradients, trained.trainable_variables, strict=True))
        return loss

    @tf.function
    def train_step(x, y):
        return strategy.reduce("SUM", strategy.run(step, args=(x, y)), axis=None)

    monitor = None
    if name != "plain":
        monitor = watch(trained, log_dir(directory, name), optimizer, every=1)
        train_step = monitor.wrap(train_step)
    losses = []
    for at, (x, y) in enumerate(strategy.experimental_distribute_dataset(dataset())):
        if breaks and at == 2:
            monitor._tap._loop.failure = ZeroDivisionError("injected")
        losses.append(float(train_step(x, y)))
        if monitor is not None:
            monitor.step(losses[-1])
    fraction = 0.0
    if monitor is not None:
        fraction = monitor.dead_fraction
        monitor.close()
    values = [np.asarray(v) for v in (*trained.variables, *optimizer.variables)]
    return [*values, np.array(losses)], fraction


def loop(directory):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    default = tf.distribute.get_strategy()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for name, where in (("plain", strategy), ("watched", strategy), ("alone", default)):
        np.savez(f"{directory}/{name}.npz", *train(where, directory, name)[0])


def worker(directory):
    """One of two; TF_CONFIG says which. The second one's monitor fails in the last run."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    for name in ("plain", "watched", "broken"):
        values, fraction = train(strategy, directory, name, breaks=name == "broken" and number == 1)
        np.savez(f"{directory}/{name}{number}.npz", *values, fraction)


if __name__ == "__main__":
    {"fit": fit, "loop": loop, "worker": worker}[sys.argv[1]](sys.argv[2])

"""Loops with ``tf.GradientTape`` as users write them, and what they leave behind."""

from __future__ import annotations

import contextlib
import warnings

import keras
import numpy as np
import tensorflow as tf

import deadunits_tb
from deadunits_tb import MonitorWarning
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.tensorflow import watch
from keras_zoo import ZOO

MODES = {"eager": None, "graph": {}, "jit": {"jit_compile": True}}


def made(name="dense", *, policy="float32", optimizer=lambda: keras.optimizers.Adam(0.01)):
    """A model of the zoo, its data and an optimizer, the same each time."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(7)
    keras.mixed_precision.set_global_policy(policy)
    try:
        build, data = ZOO[name]
        return build(), data(), optimizer()
    finally:
        keras.mixed_precision.set_global_policy("float32")


def step_of(model, optimizer, mode="graph"):
    """A training step as users write it."""
    loss_of = keras.losses.SparseCategoricalCrossentropy()

    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return train_step if MODES[mode] is None else tf.function(train_step, **MODES[mode])


def batches(data, size=8):
    """22 examples: two batches of 8 and a smaller one."""
    x, y = data
    return [(tf.constant(x[at : at + size]), tf.constant(y[at : at + size])) for at in range(0, len(x), size)]


def trained(log_dir=None, *, name="dense", mode="graph", every=1, epochs=2, wrap=True, **arguments):
    """Train; give everything that training changes, and the monitor."""
    model, data, optimizer = made(name, **arguments)
    train_step = step_of(model, optimizer, mode)
    monitor = None if log_dir is None else watch(model, log_dir, optimizer, every=every)
    if monitor is not None and wrap:
        train_step = monitor.wrap(train_step)
    losses = []
    for _ in range(epochs):
        for x, y in batches(data):
            losses.append(train_step(x, y))
            if monitor is not None:
                monitor.step(losses[-1])
        model(x, training=False)  # evaluation in between, which is not counted
    if monitor is not None:
        monitor.close()
    return everything(model, optimizer) | {"losses": np.array([float(loss) for loss in losses])}, monitor


def everything(model, *optimizers):
    variables = [*model.variables, *(variable for one in optimizers for variable in one.variables)]
    return {f"{at} {variable.path}": np.asarray(variable) for at, variable in enumerate(variables)}


def run_in(log_dir):
    run = deadunits_tb.load(log_dir)["."]
    assert run.records[-1].errors == ()
    return run


@contextlib.contextmanager
def listening():
    """What the monitor says in the body."""
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(warning.message) for warning in caught if issubclass(warning.category, MonitorWarning)]


def ours(value):
    owner = getattr(value, "__self__", value)
    return "deadunits_tb" in f"{getattr(value, '__module__', '')} {type(owner).__module__}" or hasattr(
        value, "__wrapped__"
    )


def assert_nothing_left(model, *optimizers):
    for owner in (model, *keras_private.sublayers(model), *optimizers):
        assert not {"call", "activation", "apply", "compute_loss"} & {
            name for name, value in vars(owner).items() if ours(value)
        }, owner

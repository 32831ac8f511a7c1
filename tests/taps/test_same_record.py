"""The same weights and batches give the same records in TensorFlow, PyTorch and JAX as in NumPy, written out by hand.

Two training steps, so that the second record holds what the first update has done. What is recorded is compared before
it is rounded for the file. How far weights have moved, and those that a unit feeds, the frameworks tell of right
after a step; arrays that are handed over tell of it at the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from typing import NamedTuple

import keras
import numpy as np
import optax
import pytest
import tensorflow as tf
import torch
import torch.nn.functional as F
from jax import jit, lax, nn
from jax import numpy as jnp
from keras import layers as L

import deadunits_tb.jax
import deadunits_tb.keras
import deadunits_tb.tensorflow
import deadunits_tb.torch
from deadunits_tb import DeadUnitsWriter, Thresholds, record
from deadunits_tb.capture.recorder import Recorder
from deadunits_tb.units import UnitState

RATE, EXAMPLES, STEPS = 0.5, 32, 2
THRESHOLDS = {
    **{"dead_examples": 32, "unknown_examples": 16, "confirm_examples": 16},
    **{"confirm_records": 1, "dead_observations": 1},
}
LATER = ("update_ratio", "drift", "norm_out")
ROLES = ["hidden", "hidden", "output"]
FUNCTIONS = ["relu", "tanh", "linear"]


class Network(NamedTuple):
    """Layers ``first`` (ReLU), ``second`` (tanh) and ``head``; kernels as Keras has them, ``[..., inputs, units]``."""

    kernels: tuple
    biases: tuple
    example: tuple

    @property
    def convolutional(self):
        return len(self.example) > 1


def network(name):
    """Unit 1 of ``first`` never fires; of ``second`` unit 0 is saturated, and 2 does not depend on its inputs."""
    random = np.random.default_rng(4)
    shapes, example = {
        "mlp": (((6, 8), (8, 5), (5, 3)), (6,)),
        "cnn": (((3, 3, 2, 4), (2, 2, 4, 3), (18, 3)), (6, 5, 2)),
    }[name]
    kernels = [random.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape).astype("f4") for shape in shapes]
    biases = [random.normal(0, 0.1, shape[-1]).astype("f4") for shape in shapes]
    biases[0][1], biases[1][0] = -50, 5
    kernels[1][..., 2] = 0
    return Network(tuple(kernels), tuple(biases), example)


def batches(net):
    random = np.random.default_rng(5)
    for _ in range(STEPS):
        yield random.normal(1, 1, (EXAMPLES, *net.example)).astype("f4"), random.integers(0, 3, EXAMPLES)


# NumPy, in float64


def linear(x, kernel):
    """Dense, or a convolution without padding of ``[examples, height, width, channels]``."""
    if kernel.ndim == 2:
        return x @ kernel
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum("nhwckl,klco->nhwo", windows, kernel)


def backwards(x, kernel, gradient):
    """Gradients with respect to ``x`` and ``kernel``."""
    if kernel.ndim == 2:
        return gradient @ kernel.T, x.T @ gradient
    at_x, at_kernel = np.zeros_like(x), np.zeros_like(kernel)
    _, high, wide, _ = gradient.shape
    for k, l in itertools.product(*map(range, kernel.shape[:2])):  # noqa: E741
        at_x[:, k : k + high, l : l + wide] += gradient @ kernel[k, l].T
        at_kernel[k, l] = np.einsum("nhwc,nhwo->co", x[:, k : k + high, l : l + wide], gradient)
    return at_x, at_kernel


def in_numpy(net, log_dir):
    kernels, biases = ([array.astype("f8") for array in arrays] for arrays in (net.kernels, net.biases))
    with DeadUnitsWriter(log_dir, thresholds=Thresholds(**THRESHOLDS)) as writer:
        for step, (x, y) in enumerate([*batches(net), *batches(net)][: STEPS + 1]):  # one more, for what moved
            given = [x.astype("f8")]
            outputs = [np.maximum(linear(given[0], kernels[0]) + biases[0], 0)]
            outputs.append(np.tanh(linear(outputs[0], kernels[1]) + biases[1]))
            given += [outputs[0], outputs[1].reshape(EXAMPLES, -1)]
            outputs.append(given[2] @ kernels[2] + biases[2])
            share = np.exp(outputs[2]) / np.exp(outputs[2]).sum(1, keepdims=True)
            loss = -np.log(share[np.arange(EXAMPLES), y]).mean()
            signals, steepness = [(share - np.eye(3)[y]) / EXAMPLES], []
            for at in (2, 1, 0):
                at_input, at_kernel = backwards(given[at], kernels[at], signals[0])
                steepness.insert(0, at_kernel)
                if at:
                    out = outputs[at - 1]
                    slope = 1 - out**2 if at == 2 else out > 0
                    signals.insert(0, at_input.reshape(out.shape) * slope)
            writer.context(step, learning_rate=RATE, loss=loss, inputs=x)
            for at, name in enumerate(("first", "second", "head")):
                writer.observe(
                    step,
                    name,
                    outputs[at],
                    activation_function=FUNCTIONS[at],
                    role=ROLES[at],
                    gradients=signals[at],
                    weights=kernels[at],
                    weight_gradients=steepness[at],
                    outgoing=None if at == 2 else fed(kernels[at + 1], outputs[at].shape[-1]),
                )
            for at in range(3):
                kernels[at] = kernels[at] - RATE * steepness[at]
                biases[at] = biases[at] - RATE * signals[at].reshape(-1, len(biases[at])).sum(0)


def fed(kernel, units):
    """Weights by the unit that they take in, ``[units, ...]``: the channels of an image are its last axis."""
    if kernel.ndim == 2:
        return kernel.reshape(-1, units, kernel.shape[-1]).swapaxes(0, 1)
    return kernel.transpose(2, 0, 1, 3)


# The frameworks


def keras_model(net):
    keras.utils.clear_session()

    def layer(at, **named):
        units, size = len(net.biases[at]), net.kernels[at].shape[:2]
        return L.Conv2D(units, size, **named) if net.convolutional else L.Dense(units, **named)

    model = keras.Sequential(
        [
            keras.Input(net.example),
            layer(0, activation="relu", name="first"),
            layer(1, activation="tanh", name="second"),
            L.Flatten(),
            L.Dense(3, name="head"),
        ]
    )
    model.set_weights(list(itertools.chain(*zip(net.kernels, net.biases, strict=True))))
    return model


def in_keras(net, log_dir):
    model = keras_model(net)
    model.compile(keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = (np.concatenate(arrays) for arrays in zip(*batches(net), strict=True))
    watch = deadunits_tb.keras.DeadUnitsCallback(log_dir, every=1, thresholds=THRESHOLDS)
    model.fit(x, y, batch_size=EXAMPLES, shuffle=False, verbose=0, callbacks=[watch])


def in_gradient_tape(net, log_dir):
    model, optimizer = keras_model(net), keras.optimizers.SGD(RATE)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    with deadunits_tb.tensorflow.watch(model, log_dir, optimizer, every=1, thresholds=THRESHOLDS) as monitor:
        step = monitor.wrap(train_step)
        for x, y in batches(net):
            monitor.step(step(tf.constant(x), tf.constant(y)))


class Torch(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        kernels = list(net.kernels)
        if net.convolutional:
            units, high, wide = 3, 3, 2  # of the second layer's images, which torch flattens channels first
            kernels[2] = kernels[2].reshape(high, wide, units, -1).transpose(2, 0, 1, 3).reshape(kernels[2].shape)
        for name, kernel, bias in zip(("first", "second", "head"), kernels, net.biases, strict=True):
            kernel = np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1)))
            conv = kernel.ndim == 4
            size = kernel.shape[1::-1]
            layer = torch.nn.Conv2d(*size, kernel.shape[2:]) if conv else torch.nn.Linear(*size)
            layer.weight.data, layer.bias.data = torch.from_numpy(kernel), torch.from_numpy(bias.copy())
            setattr(self, name, layer)

    def forward(self, x):
        return self.head(torch.tanh(self.second(F.relu(self.first(x)))).flatten(1))


def in_torch(net, log_dir):
    model = Torch(net)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    with deadunits_tb.torch.watch(model, log_dir, optimizer, every=1, thresholds=THRESHOLDS) as monitor:
        for x, y in batches(net):
            x = np.moveaxis(x, -1, 1) if net.convolutional else x
            optimizer.zero_grad()
            loss = F.cross_entropy(model(torch.from_numpy(np.ascontiguousarray(x))), torch.from_numpy(y))
            loss.backward()
            optimizer.step()
            monitor.step(loss=loss)


def in_jax(net, log_dir):
    names = ("first", "second", "head")

    def loss(params, x, y):
        for name, function in zip(names, (nn.relu, jnp.tanh, lambda z: z), strict=True):
            kernel, bias = params[name]["kernel"], params[name]["bias"]
            if kernel.ndim == 4:
                z = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            else:
                z = x.reshape(len(x), -1) @ kernel
            x = function(z + bias)
        return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

    params = {
        name: {"kernel": kernel, "bias": bias}
        for name, kernel, bias in zip(names, net.kernels, net.biases, strict=True)
    }
    watched, optimizer = deadunits_tb.jax.watch(loss), optax.sgd(RATE)
    layers = watched.layers(params, *next(batches(net)))
    for at, name in enumerate(names[:2]):  # what takes units in is not looked for
        follower, units = names[at + 1], layers[name].units
        feeds = functools.partial(lambda key, units, params: fed(params[key]["kernel"], units), follower, units)
        layers[name] = dataclasses.replace(layers[name], outgoing=feeds)

    @jit
    def step(params, state, statistics, x, y):
        (_, statistics), gradients = deadunits_tb.jax.value_and_grad(watched)(params, statistics, x, y)
        updates, state = optimizer.update(gradients, state, params)
        new = optax.apply_updates(params, updates)
        statistics = deadunits_tb.jax.observe_inputs(statistics, x)
        return new, state, deadunits_tb.jax.observe_weights(statistics, params, gradients, new)

    state = optimizer.init(params)
    with deadunits_tb.jax.DeadUnitsWriter(log_dir, layers, params=params, every=1, thresholds=THRESHOLDS) as writer:
        for i, (x, y) in enumerate(batches(net)):
            params, state, statistics = step(params, state, writer.begin(i), x, y)
            writer.write(i, statistics, params=params, learning_rate=RATE)


FRAMEWORKS = {"keras": in_keras, "gradient_tape": in_gradient_tape, "torch": in_torch, "jax": in_jax}


@contextlib.contextmanager
def recording():
    """What is recorded in the body: the run's and the layers' records, and what is known of the layers."""
    kept, write = [], Recorder.write

    def spy(recorder, run, records, infos):
        if records:
            kept.append((run, {each.layer: each for each in records}, dict(infos)))
        write(recorder, run, records, infos)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Recorder, "write", spy)
        patched.setattr(record, "round_bfloat16", lambda values: np.asarray(values, np.float32))
        yield kept


@pytest.fixture(scope="module", params=["mlp", "cnn"])
def by_hand(request, tmp_path_factory):
    """A network, and its records in NumPy."""
    net = network(request.param)
    with recording() as kept:
        in_numpy(net, tmp_path_factory.mktemp("numpy"))
    assert len(kept) == STEPS + 1
    return net, kept


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_record_of_a_step_is_that_of_numpy(framework, by_hand, tmp_path):
    net, wanted = by_hand
    with recording() as found:
        FRAMEWORKS[framework](net, tmp_path)
    assert len(found) == STEPS
    for step, (run, layers, infos) in enumerate(found):
        truth, _, facts = wanted[step]
        assert (run.step, run.examples, run.errors, run.skipped) == (step, EXAMPLES, (), ())
        np.testing.assert_allclose(run.learning_rate, truth.learning_rate, rtol=1e-6)
        np.testing.assert_allclose(run.loss, truth.loss, rtol=1e-5)
        np.testing.assert_allclose(
            [run.inputs.mean, run.inputs.std, run.inputs.min, run.inputs.max],
            [truth.inputs.mean, truth.inputs.std, truth.inputs.min, truth.inputs.max],
            rtol=1e-5,
        )
        assert list(layers) == list(facts) == ["first", "second", "head"]
        for name, mine in layers.items():
            known = ("units", "activation_function", "role", "witness", "fan_in", "fan_out", "weight_delta")
            for fact in known:
                assert getattr(infos[name], fact) == getattr(facts[name], fact), f"{name} {fact}"
            compare(mine, wanted[step][1][name], wanted[step + 1][1][name], f"{name} at step {step}")


def compare(mine, now, next_time, where):
    for scalar in ("examples", "positions", "observations", "examples_seen", "contiguous_examples", "trainable"):
        assert getattr(mine.window, scalar) == getattr(now.window, scalar), f"{scalar} of {where}"
    assert set(mine.statistics.names) == set(next_time.statistics.names), where
    for statistic in mine.statistics.names:
        truth = (next_time if statistic in LATER else now).statistics.get(statistic)
        np.testing.assert_allclose(
            mine.statistics.get(statistic),
            truth,
            rtol=1e-4,
            atol=1e-5 * np.max(np.abs(truth)),
            err_msg=f"{statistic} of {where}",
        )
    for counter in ("examples_since_active", "examples_without_signal", "last_active_step"):
        np.testing.assert_array_equal(
            getattr(mine.evidence, counter), getattr(now.evidence, counter), err_msg=f"{counter} of {where}"
        )
    np.testing.assert_array_equal(mine.states, now.states, err_msg=f"states of {where}")
    np.testing.assert_array_equal(mine.since, now.since, err_msg=f"since of {where}")


def test_the_networks_hold_what_is_to_be_told_apart(by_hand):
    _, kept = by_hand
    states = {name: each.states for name, each in kept[1][1].items()}
    assert states["first"][1] == UnitState.DEAD
    assert states["second"][0] == UnitState.SATURATED
    assert len(set(states["second"].tolist())) >= 2

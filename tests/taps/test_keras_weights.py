"""How far the weights of Keras models move in a step on TensorFlow."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.tensorflow.weights import WeightWatch
from keras_observer import Observer, close
from keras_zoo import built, images


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_weights_around_the_optimizer_step(compiled):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(4, 3, activation="relu", name="conv"),
            L.Flatten(),
            L.Dense(256, "relu", name="wide"),  # enough weights for XLA to be asked
            L.Dense(256, "relu", name="wider"),
            L.Dense(3, "softmax", name="head"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    observe = Observer(model, compiled=compiled)
    x, y = images()
    first = model.get_weights()[::2]
    observe(x, y)
    before = model.get_weights()[::2]
    seen = observe(x, y).layers
    after = model.get_weights()[::2]
    history = observe.step.since_first()

    def columns(kernel):
        return np.asarray(kernel, "f8").reshape(-1, kernel.shape[-1])

    def norm(values):
        return np.sqrt((values**2).sum(0))

    for name, start, old, new in zip(seen, first, before, after, strict=True):
        weights = seen[name].weights
        close(weights.norm_in, norm(columns(old)))
        close(weights.change, norm(columns(new) - columns(old)), 1e-5)
        close(weights.gradient, norm(columns(new) - columns(old)) / 0.5, 1e-4)
        close(history[name].norm_first, norm(columns(start)))
        close(history[name].change_since_first, norm(columns(new) - columns(start)), 1e-5)
    close(history["conv"].norm_out, np.sqrt((after[1].astype("f8").reshape(16, 4, 256) ** 2).sum((0, 2))))
    close(history["wide"].norm_out, np.sqrt((after[2].astype("f8") ** 2).sum(1)))
    assert history["head"].norm_out is None


@pytest.mark.slow
def test_gates_of_a_recurrent_layer_belong_to_its_units():
    model, (x, y) = built("recurrent")
    kernel, recurrent = (np.asarray(w, "f8") for w in model.get_layer("lstm").get_weights()[:2])
    seen = Observer(model)(x, y).layers["lstm"].weights
    squares = (kernel.reshape(4, 4, 4) ** 2).sum((0, 1)) + (recurrent.reshape(4, 4, 4) ** 2).sum((0, 1))
    close(seen.norm_in, np.sqrt(squares))


def test_changes_of_many_weights_are_estimated_and_unchanged_ones_are_exactly_zero():
    random = np.random.default_rng(0)
    kernel = tf.Variable(random.normal(size=(300, 40)).astype("f4"))
    watch = WeightWatch({"layer": [(kernel, Columns((300, 40), (-1,)))]}, {}, exact_bytes=0)
    assert watch.methods == {"layer": "projection"}
    watch.begin()
    before = watch.before()
    change = random.normal(size=(300, 40)).astype("f4") * 0.01
    change[:, :5] = 0
    old = kernel.numpy()
    kernel.assign_add(change)
    seen = {name: values.numpy() for name, values in watch.around(before).items()}
    moved, truth = seen["layer:change"], np.sqrt((change**2).sum(0))
    assert (moved[:5] == 0).all()
    assert (np.abs(moved[5:] / truth[5:] - 1) < 0.5).all()
    assert abs(np.mean(moved[5:] / truth[5:]) - 1) < 0.1
    close(seen["layer:norm_in"], np.sqrt((old**2).sum(0)))
    since = watch.since_first()["layer"].change_since_first
    np.testing.assert_allclose(since, moved, rtol=1e-6)


def test_a_frozen_layer_says_so_and_does_not_move():
    model, (x, y) = built("dense")
    model.layers[0].trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    observe = Observer(model)
    seen = observe(x, y).layers
    assert not seen["dense"].trainable
    assert seen["dense_1"].trainable
    assert (seen["dense"].weights.change == 0).all()
    assert seen["dense"].weights.gradient is None

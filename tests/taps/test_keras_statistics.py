"""What the taps of Keras on TensorFlow measure, against the same network written out in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from deadunits_tb.capture.accumulators import merge
from deadunits_tb.capture.packed import learning_rate
from deadunits_tb.taps.tensorflow.reductions import Reductions, rows_of_units
from keras_observer import Observer, beyond, check_activations, close, in_float64, of_layer, positive
from keras_zoo import built, vectors

MODES = {"graph": {}, "jit": {"jit_compile": True}, "eager": {"run_eagerly": True}}


@pytest.mark.parametrize("mode", ["graph", pytest.param("jit", marks=pytest.mark.slow), "eager"])
def test_dense_layers(mode):
    model, (x, y) = built("dense", **MODES[mode])

    def forward(tap, x, w1, b1, w2, b2, w3, b3):
        a = tf.nn.relu(tap(x @ w1 + b1))
        b = tf.tanh(tap(a @ w2 + b2))
        return a, b, tf.nn.softmax(tap(b @ w3 + b3))

    outputs, gradients, loss = in_float64(model, x, y, forward)
    observe = Observer(model)
    seen = observe(x, y)
    assert list(seen.layers) == ["dense", "dense_1", "dense_2"]
    for layer, output, gradient in zip(seen.layers.values(), outputs, gradients, strict=True):
        relu = layer is seen.layers["dense"]
        check_activations(layer, output, positive if relu else beyond(1e-3, of_layer(output)))
        close(layer.gradient_squares, np.square(gradient).sum(0), 1e-5)
    assert seen.layers["dense"].saturated is seen.layers["dense_2"].saturated is None
    np.testing.assert_array_equal(seen.layers["dense_1"].saturated, (1 - outputs[1] ** 2 < 0.01).sum(0))
    close(seen.loss, loss)
    count, mean, squares, low, high = seen.inputs
    assert count == x.size
    close([mean, squares, low, high], [x.mean(), ((x - x.mean(dtype="f8")) ** 2).sum(dtype="f8"), x.min(), x.max()])
    close(learning_rate(*observe.packed), 0.01)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_convolutions(compiled):
    """Large enough for XLA to be asked; and normalisation between a convolution and its activation function."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="fused")(inputs)
    x = L.BatchNormalization()(L.Conv2D(16, 3, padding="same", use_bias=False, name="apart")(x))
    x = L.GlobalAveragePooling2D()(L.Activation("silu")(x))
    model = keras.Model(inputs, L.Dense(4, "softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(6, 16, 16, 3)).astype("float32"), random.integers(0, 4, 6)

    def forward(tap, x, k1, b1, k2, gamma, beta, _mean, _variance, w, b):
        a = tf.nn.relu(tap(tf.nn.conv2d(x, k1, 1, "SAME") + b1))
        z = tf.nn.conv2d(a, k2, 1, "SAME")
        mean, variance = tf.nn.moments(z, (0, 1, 2))
        c = tf.nn.silu(tap((z - mean) / tf.sqrt(variance + 1e-3) * gamma + beta))
        return a, c, tf.nn.softmax(tap(tf.reduce_mean(c, (1, 2)) @ w + b))

    outputs, gradients, _ = in_float64(model, x, y, forward)
    seen = Observer(model, compiled=compiled)(x, y).layers
    check_activations(seen["fused"], outputs[0], positive)
    check_activations(seen["apart"], outputs[1], beyond(1e-3, of_layer(outputs[1])))
    for name, gradient in zip(("fused", "apart"), gradients, strict=False):
        close(seen[name].gradient_squares, np.square(gradient).sum((0, 1, 2)), 2e-5)


@pytest.mark.parametrize("norm", [None, L.BatchNormalization, L.LayerNormalization])
def test_dead_units_have_no_gradient_at_all(norm):
    """Behind LayerNormalization the gradient at a dead unit's own layer is not zero: the trail must be followed."""
    keras.utils.set_random_seed(2)
    dead = [1, 4]
    layers = [
        keras.Input((6,)),
        L.Dense(6, name="hidden"),
        *([norm()] if norm else []),
        L.ReLU(),
        L.Dense(3, "softmax"),
    ]
    model = keras.Sequential(layers)
    where = model.layers[1 if norm else 0]
    bias = where.beta if norm else where.bias
    bias.assign(np.where(np.isin(np.arange(6), dead), -1e3, 0.1))
    model.compile("sgd", "sparse_categorical_crossentropy")
    layer = Observer(model)(*vectors()).layers["hidden"]
    alive = ~np.isin(np.arange(6), dead)
    assert (layer.gradient_squares[dead] == 0).all()
    assert (layer.gradient_squares[alive] > 0).all()
    assert (layer.fired_examples[dead] == 0).all()
    assert (layer.fired_examples[alive] > 0).any()


def test_tiny_gradients_are_not_taken_for_none():
    """Squared in float32 they would vanish, and a unit with an error signal would look dead."""
    small = np.full((4, 3), 1e-25, "float32")
    sums = Reductions(compiled=False).square_sums(tf.constant(small)).numpy().astype("float64")
    close(sums / 2.0**48, np.full(3, 4e-50))


@pytest.mark.parametrize("positions", [1, 256])
@pytest.mark.parametrize("function", ["relu", "tanh"])
def test_a_constant_output_has_no_spread_at_all(positions, function):
    constant = np.float32(0.3)
    values = tf.fill([3, positions, 16], constant) if positions > 1 else tf.fill([3, 16], constant)
    sums = Reductions(compiled=True).activation_sums(
        values, None, relu_like=function == "relu", limits=(-np.inf, np.inf), scale=tf.constant(-1.0), fired_scale=1e-3
    )
    assert (sums["squares"].numpy() == 0).all()
    assert (sums["shift"].numpy() == constant).all()

    model = keras.Sequential([keras.Input((6,)), L.Dense(3, function, kernel_initializer="zeros", name="flat")])
    model.layers[0].bias.assign([0.3, 3.3, 0.7])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    observe = Observer(model)
    x, _ = vectors()
    one, other = (observe(x[:n], np.ones((n, 3), "f4")).layers["flat"] for n in (16, 5))
    assert (one.squares == 0).all()
    np.testing.assert_array_equal(one.mean, one.max)
    np.testing.assert_array_equal(one.mean, one.min)
    if function == "relu":
        assert (merge(one, other).squares == 0).all()


def test_a_shared_layer_is_one_layer_with_twice_the_examples():
    model, (x, y) = built("shared")
    kernel, bias = (np.asarray(w, "f8") for w in model.get_weights()[:2])
    once = np.maximum(x.astype("f8") @ kernel + bias, 0)
    twice = np.maximum(once @ kernel + bias, 0)
    seen = Observer(model)(x, y).layers
    assert list(seen) == ["dense", "dense_1"]
    check_activations(seen["dense"], np.concatenate([once, twice]), positive)


@pytest.mark.slow
def test_recurrent_layers_are_seen_at_their_output_and_padding_is_not():
    model, (x, y) = built("recurrent")
    parts = {layer.name: layer for layer in model.layers}
    embedded = parts["embedding"](x)
    lstm = parts["lstm"](embedded, mask=x != 0).numpy()
    both = parts["bidirectional"](lstm, mask=x != 0).numpy()
    dense = np.maximum(both @ parts["dense"].get_weights()[0] + parts["dense"].get_weights()[1], 0)
    seen = Observer(model)(x, y).layers
    scale = np.sqrt(np.mean(np.square(lstm[x != 0], dtype="f8")))
    check_activations(seen["lstm"], lstm.astype("f8"), beyond(1e-3, scale), mask=x != 0)
    assert (seen["dense"].examples, seen["dense"].positions) == (len(x), np.count_nonzero(x))
    np.testing.assert_array_equal(seen["dense"].fired_positions, ((dense > 0) & (x != 0)[..., None]).sum((0, 1)))
    assert all(seen[name].gradient_squares is not None for name in ("lstm", "forward_gru", "simple_rnn"))


@pytest.mark.slow
def test_units_of_an_einsum_are_all_axes_that_come_from_its_weights():
    model, (x, y) = built("attention")
    attention = model.get_layer("multi_head_attention")
    kernel, bias = (np.asarray(w, "f8") for w in attention.query_dense.get_weights())
    embedded = np.asarray(model.get_layer("embedding")(x), "f8")
    query = (np.einsum("abc,cde->abde", embedded, kernel) + bias).reshape(len(x), 5, 6)
    seen = Observer(model)(x, y).layers
    check_activations(seen["query"], query, beyond(1e-3, of_layer(query)))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_both_data_formats(data_format):
    """On a CPU TensorFlow cannot train channels_first, so the layout alone is tested here."""
    values = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype("f4")
    first = data_format == "channels_first"
    rows, _ = rows_of_units(tf.constant(np.moveaxis(values, -1, 1) if first else values), (1,) if first else (3,))
    np.testing.assert_array_equal(rows, values.reshape(3, 20, 2))


def test_firing_goes_by_the_scale_of_the_record_before():
    model, (x, y) = built("dense")
    observe = Observer(model)
    observe.step.set_scales({"dense_1": 500.0})
    outputs = model.layers[1](model.layers[0](x)).numpy()
    seen = observe(x, y).layers["dense_1"]
    np.testing.assert_array_equal(seen.fired_positions, (np.abs(outputs) > 0.5).sum(0))

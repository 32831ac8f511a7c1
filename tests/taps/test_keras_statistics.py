"""What the taps of Keras on TensorFlow measure, against the same network written out in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from deadunits_tb.capture.accumulators import merge
from deadunits_tb.capture.packed import learning_rate, unpack
from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.keras.consumers import outgoing_weights
from deadunits_tb.taps.keras.layers import survey
from deadunits_tb.taps.keras.tensorflow import TensorFlowStep
from deadunits_tb.taps.tensorflow.reductions import Reductions, rows_of_units
from deadunits_tb.taps.tensorflow.weights import WeightWatch
from deadunits_tb.thresholds import Thresholds
from keras_zoo import built, images, vectors

MODES = {"graph": {}, "jit": {"jit_compile": True}, "eager": {"run_eagerly": True}}


class Observer:
    """Runs observed steps of a compiled model, one batch at a time."""

    def __init__(self, model, *, compiled=False):
        model.make_train_function()
        found = survey(model)
        self.step = TensorFlowStep(
            model, found, outgoing_weights(model, found.watched), Thresholds(), compiled=compiled
        )
        self.step.make()
        self.step.begin()

    def __call__(self, *batch):
        self.logs, numbers = self.step(iter(tf.data.Dataset.from_tensors(batch)))
        assert self.step.failure is None, self.step.failure
        self.packed = self.step.fetch(numbers)
        return unpack(*self.packed)


def close(actual, wanted, tolerance=2e-6):
    np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance * np.max(np.abs(wanted), initial=0))


def check_activations(seen, outputs, fires, mask=None):
    """``outputs``: ``[examples, positions, units]`` in float64."""
    outputs = outputs[:, None] if outputs.ndim == 2 else outputs.reshape(len(outputs), -1, outputs.shape[-1])
    if mask is None:
        mask = np.ones(outputs.shape[:2], bool)
    flat, fired = outputs[mask], fires(outputs) & mask[..., None]
    assert (seen.examples, seen.positions) == (mask.any(1).sum(), mask.sum())
    np.testing.assert_array_equal(seen.fired_positions, fired.sum((0, 1)))
    np.testing.assert_array_equal(seen.fired_examples, fired.any(1).sum(0))
    close(seen.mean, flat.mean(0))
    close(seen.squares, ((flat - flat.mean(0)) ** 2).sum(0), 1e-5)
    close(seen.sum_abs, np.abs(flat).sum(0))
    close(seen.min, flat.min(0))
    close(seen.max, flat.max(0))


def in_float64(model, x, y, forward):
    """Outputs, and gradients at the pre-activations, of the network that ``forward(taps, x, *weights)`` computes."""
    weights = [tf.constant(weight.astype("float64")) for weight in model.get_weights()]
    taps = []

    def tap(z):
        probe = tf.zeros_like(z)
        tape.watch(probe)
        taps.append(probe)
        return z + probe

    with tf.GradientTape() as tape:
        outputs = forward(tap, tf.constant(np.asarray(x, "float64")), *weights)
        loss = tf.reduce_mean(keras.ops.sparse_categorical_crossentropy(y, outputs[-1]))
    return [output.numpy() for output in outputs], [g.numpy() for g in tape.gradient(loss, taps)], float(loss)


def positive(outputs):
    return outputs > 0


def beyond(share, scale):
    return lambda outputs: np.abs(outputs) > share * scale


def of_layer(outputs):
    return np.sqrt(np.mean(np.square(outputs)))


@pytest.mark.parametrize("mode", MODES)
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


# Weights


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


# Mixed precision, several steps, odd data


@pytest.mark.parametrize("policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
def test_mixed_precision_gradients_are_unscaled(policy):
    model, (x, y) = built("dense", policy=policy)
    plain, _ = built("dense")
    plain.set_weights(model.get_weights())
    seen, wanted = Observer(model)(x, y).layers, Observer(plain)(x, y).layers
    for name in wanted:
        norms = [np.sqrt(np.sum(layer.gradient_squares)) for layer in (seen[name], wanted[name])]
        np.testing.assert_allclose(*norms, rtol=0.05)
        close(np.linalg.norm(seen[name].weights.gradient), np.linalg.norm(wanted[name].weights.gradient), 0.05)


def test_a_step_that_the_loss_scaler_skips_keeps_its_activations_only():
    model, (x, y) = built("dense", policy="mixed_float16")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**60)
    observe = Observer(model)
    skipped = observe(x, y).layers["dense"]
    assert skipped.gradient_squares is skipped.weights.gradient is skipped.weights.change is None
    assert np.isfinite(skipped.mean).all()
    model.optimizer.dynamic_scale.assign(2.0**10)
    assert np.isfinite(observe(x, y).layers["dense"].gradient_squares).all()


@pytest.mark.slow
def test_of_several_steps_in_one_call_the_last_is_observed():
    model, (x, y) = built("dense", steps_per_execution=2)
    single, _ = built("dense")
    single.fit(x[:8], y[:8], batch_size=8, verbose=0)
    wanted = Observer(single)(x[8:16], y[8:16])
    observe = Observer(model)
    _, numbers = observe.step(iter(tf.data.Dataset.from_tensor_slices((x[:16], y[:16])).batch(8)))
    seen = unpack(*observe.step.fetch(numbers))
    np.testing.assert_array_equal(seen.layers["dense"].mean, wanted.layers["dense"].mean)
    assert seen.loss == wanted.loss


def test_the_learning_rate_is_that_of_the_step():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.3, 0.2, 0.1])
    model, (x, y) = built("dense", optimizer=lambda: keras.optimizers.SGD(schedule))
    observe = Observer(model)
    rates = []
    for _ in range(4):
        observe(x, y)
        rates.append(learning_rate(*observe.packed))
    close(rates, [0.3, 0.3, 0.2, 0.1])


def test_nan_and_inf_are_seen_as_they_are():
    model, (x, y) = built("dense")
    x[3, 2], x[5, 1] = np.nan, np.inf
    seen = Observer(model)(x, y)
    for layer in seen.layers.values():  # TensorFlow's ReLU hides some NaN, but no gradient does
        assert not np.isfinite(layer.gradient_squares).all()
        assert not np.isfinite(layer.weights.change).any()
    assert np.isnan(seen.loss)
    assert np.isnan(seen.inputs[1])


def test_an_empty_batch_shows_nothing():
    model, (x, y) = built("dense")
    observe = Observer(model)
    observe(x, y)
    assert observe(x[:0], y[:0]).layers == {}


@pytest.mark.slow
def test_whole_numbers_are_inputs_unless_they_name_tokens():
    pixels = np.arange(12, dtype="uint8").reshape(2, 6)
    model, _ = built("dense")
    assert Observer(model)(pixels, np.zeros(2, int)).inputs[:2] == (12, 5.5)
    model, (x, y) = built("recurrent")
    assert Observer(model)(x, y).inputs is None


def test_sample_weights_reach_the_gradient():
    model, (x, y) = built("dense")
    observe = Observer(model)
    assert (observe(x, y, np.zeros(len(x), "f4")).layers["dense"].gradient_squares == 0).all()

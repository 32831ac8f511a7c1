"""What is seen of a step in Keras on TensorFlow beside its units, and of steps that are not as usual."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deadunits_tb.capture.packed import learning_rate, unpack
from keras_observer import Observer, close
from keras_zoo import built


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

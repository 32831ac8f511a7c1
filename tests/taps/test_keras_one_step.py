"""What one step is seen to be, on any backend of Keras, against the network written out in NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keras_one_step import RATE, data, made, observed
from keras_zoo import BACKEND, array


def close(actual, wanted, tolerance=5e-6):
    np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance * np.max(np.abs(wanted), initial=0))


def check(seen, outputs, fires, mask=None):
    """``outputs``: ``[examples, positions, units]``."""
    mask = np.ones(outputs.shape[:2], bool) if mask is None else mask
    flat, fired = outputs[mask], fires(outputs) & mask[..., None]
    assert (seen.examples, seen.positions) == (mask.any(1).sum(), mask.sum())
    np.testing.assert_array_equal(seen.fired_positions, fired.sum((0, 1)))
    np.testing.assert_array_equal(seen.fired_examples, fired.any(1).sum(0))
    close(seen.mean, flat.mean(0))
    close(seen.squares, ((flat - flat.mean(0)) ** 2).sum(0), 2e-5)
    close(seen.sum_abs, np.abs(flat).sum(0))
    close(seen.min, flat.min(0))
    close(seen.max, flat.max(0))


def positive(outputs):
    return outputs > 0


def of_its_scale(outputs):
    return np.abs(outputs) > 1e-3 * np.sqrt(np.mean(outputs**2))


def norms(matrix):
    return np.sqrt((matrix**2).sum(0))


def test_a_step_of_a_dense_network():
    model, (x, y) = made("dense"), data("dense")
    weights = [np.asarray(weight, "f8") for weight in model.get_weights()]
    w1, b1, w2, b2, w3, b3 = weights
    a = np.maximum(x @ w1 + b1, 0)
    b = np.tanh(a @ w2 + b2)
    scores = b @ w3 + b3
    c = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    at_c = (c - np.eye(3)[y]) / len(x)
    at_b = at_c @ w3.T * (1 - b * b)
    at_a = at_b @ w2.T * (a > 0)
    step, later = observed(model, x, y, epochs=2)
    close(step.loss, -np.log(c[np.arange(len(x)), y]).mean())
    close(step.inputs[1:3], [x.mean(dtype="f8"), ((x - x.mean(dtype="f8")) ** 2).sum(dtype="f8")])
    for name, out, gradient, kernel, source in (
        ("relu", a, at_a, w1, x),
        ("tanh", b, at_b, w2, a),
        ("head", c, at_c, w3, b),
    ):
        seen = step.layers[name]
        check(seen, out[:, None], positive if name == "relu" else of_its_scale)
        close(seen.gradient_squares, (gradient**2).sum(0), 2e-5)
        kernel_gradient = source.T @ gradient
        close(seen.weights.norm_in, norms(kernel))
        close(seen.weights.gradient, norms(kernel_gradient), 2e-5)
        close(seen.weights.change, RATE * norms(kernel_gradient), 1e-4)
        close(later.layers[name].weights.norm_in, norms(kernel - RATE * kernel_gradient), 2e-5)
    np.testing.assert_array_equal(step.layers["tanh"].saturated, (1 - b * b < 0.01).sum(0))


def test_padding_is_no_example():
    model, (x, y) = made("padded"), data("padded")
    table, kernel, bias = (np.asarray(weight, "f8") for weight in model.get_weights()[:3])
    seen = observed(model, x, y)[0].layers
    check(seen["tokens"], np.maximum(table[x] @ kernel + bias, 0), positive, x != 0)


def test_units_may_lie_along_two_axes():
    model, (x, y) = made("several_axes"), data("several_axes")
    kernel = np.asarray(model.get_weights()[0], "f8")
    seen = observed(model, x, y)[0].layers["two_axes"]
    before = np.einsum("abc,cde->abde", x, kernel).reshape(12, 5, 6)
    erf = np.vectorize(math.erf)
    check(seen, before * (1 + erf(before / np.sqrt(2))) / 2, of_its_scale)
    close(seen.weights.norm_in, norms(kernel.reshape(4, 6)))


def test_behind_layer_normalization_dead_units_have_no_gradient_at_all():
    model, (x, y) = made("images"), data("images")
    seen = observed(model, x, y)[0].layers
    assert (seen["apart"].examples, seen["apart"].positions) == (12, 12 * 9)
    kernel, bias = model.get_layer("fused").get_weights()
    model.get_layer("fused").set_weights([kernel, np.where(np.arange(4) == 2, -1e3, bias)])
    dead = observed(model, x, y)[0].layers["fused"]
    assert dead.gradient_squares[2] == dead.fired_positions[2] == dead.max[2] == 0
    assert (np.delete(dead.gradient_squares, 2) > 0).all()


def test_nan_is_seen_as_it_is():
    model, (x, y) = made("dense"), data("dense")
    x[3, 2], x[5, 1] = np.nan, np.inf
    (step,) = observed(model, x, y)
    assert np.isnan(step.loss)
    assert np.isnan(step.inputs[1])
    for layer in step.layers.values():  # the ReLU of some backends hides some NaN, but no weight escapes
        assert not np.isfinite(layer.weights.change).any()


@pytest.mark.parametrize(
    "scale", [2.0**60, pytest.param(2.0**10, marks=[pytest.mark.slow] * (BACKEND == "tensorflow"))]
)
def test_a_step_that_the_loss_scaler_skips_keeps_its_activations_only(scale):
    from keras_zoo import built

    model, (x, y) = built("dense", policy="mixed_float16")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(scale)
    before = [array(weight) for weight in model.weights]
    seen = observed(model, x, y)[0].layers["dense"]
    skipped = all((array(one) == other).all() for one, other in zip(model.weights, before, strict=True))
    assert skipped == (scale == 2.0**60)
    assert np.isfinite(seen.mean).all()
    assert (seen.gradient_squares is None) == (seen.weights.gradient is None) == skipped
    assert skipped or np.isfinite(seen.gradient_squares).all()

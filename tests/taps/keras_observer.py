"""What each step of a watched Keras model on TensorFlow has shown, and the same in float64 to compare it with."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from deadunits_tb.capture.packed import unpack
from deadunits_tb.taps.keras.consumers import outgoing_weights
from deadunits_tb.taps.keras.layers import survey
from deadunits_tb.taps.keras.tensorflow import TensorFlowStep
from deadunits_tb.thresholds import Thresholds


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

"""Certificates in loops with a gradient tape: what is certified cannot fire, and what could recover does."""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deadunits_tb.certificate import Certainty
from deadunits_tb.reading.certainty import Prover
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.tensorflow import watch

BATCH, STEPS, FEATURES, CLASSES = 64, 20, 6, 3


def network() -> keras.Model:
    """Units 1 to 8 are held down by their bias, more and more; the weights of unit 0 would let it fire."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(12, "relu", name="first"),
            keras.layers.Dense(CLASSES, name="head"),
        ]
    )
    kernel, bias = model.get_layer("first").get_weights()
    kernel[:, 0], bias[0], bias[1:9] = 0.5, -6, -np.linspace(0.6, 6, 8)
    model.get_layer("first").set_weights([kernel, bias])
    return model


def train(log_dir: pathlib.Path | None, optimizer: Any, *, graph: bool, named: bool = True) -> tuple[Any, Any]:
    """Returns the model and what it was fed."""
    model, random = network(), np.random.default_rng(0)
    batches = random.random((STEPS, BATCH, FEATURES)).astype("float32")
    labels = random.integers(0, CLASSES, (STEPS, BATCH))
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    function = tf.function(step) if graph else step
    monitor = None
    if log_dir is not None:
        given = optimizer if named else None
        monitor = watch(model, log_dir, given, every=1, thresholds={"dead_examples": 600})
        function = monitor.wrap(function) if graph else function
    for x, y in zip(batches, labels, strict=True):
        loss = function(tf.constant(x), tf.constant(y))
        if monitor is not None:
            monitor.step(loss)
    if monitor is not None:
        monitor.close()
    return model, batches


def read(log_dir: pathlib.Path) -> RunHistory:
    directory = LogDirectory(log_dir)
    run = directory.history(directory.matching(None)[0])
    assert not run.records[-1].errors
    return run


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "eager"])
def test_what_is_certified_fires_on_no_input_within_the_ranges(graph: bool, tmp_path: pathlib.Path) -> None:
    model, batches = train(tmp_path, keras.optimizers.SGD(1e-6), graph=graph)
    layer = read(tmp_path).layers["first"]
    held = layer.certificates(-1)
    assert held is not None
    used = batches[held.since :].reshape(-1, FEATURES)
    assert held.observations == STEPS - held.since
    low, high = used.min(axis=0), used.max(axis=0)
    kernel, bias = (np.array(weight) for weight in model.get_layer("first").weights)
    highest = np.maximum(kernel * low[:, None], kernel * high[:, None]).sum(axis=0) + bias
    assert (highest[held.units] <= held.bound).all()
    np.testing.assert_allclose(highest[held.units], held.bound, rtol=0.01, atol=1e-3)
    certain = held.units[held.bound < 0]
    assert 0 < len(certain) < len(held.units)
    inputs = low + np.random.default_rng(1).random((20_000, FEATURES)).astype("float32") * (high - low)
    assert not np.array(model.get_layer("first")(inputs))[:, certain].any()
    assert {Prover(layer).prove(int(unit), 0).could_move for unit in held.units} == {()}


def test_what_could_recover_is_told_and_the_weights_stay_the_same(tmp_path: pathlib.Path) -> None:
    def decaying() -> keras.optimizers.Optimizer:
        optimizer = keras.optimizers.SGD(0.01, weight_decay=2.0)
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
        return optimizer

    watched, _ = train(tmp_path, decaying(), graph=True)
    layer = read(tmp_path).layers["first"]
    found = Prover(layer).prove(0, int(layer.since()[-1][0]))
    assert (found.certainty, found.could_move) == (Certainty.RECOVERABLE, ("weight decay",))
    bare, _ = train(None, decaying(), graph=True)
    for one, other in zip(watched.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_the_optimizer_it_is_not_known_what_still_moves_a_unit(tmp_path: pathlib.Path) -> None:
    train(tmp_path, keras.optimizers.SGD(1e-6), graph=False, named=False)
    found = Prover(read(tmp_path).layers["first"]).prove(0, 0)
    assert found.certainty == Certainty.SILENT
    assert "no optimizer is known" in found.why

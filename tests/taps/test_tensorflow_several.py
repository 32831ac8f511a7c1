"""Loops whose step is several functions, models, optimizers or tapes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from deadunits_tb.tensorflow import watch
from keras_zoo import assert_same_state, vectors
from tensorflow_zoo import assert_nothing_left, batches, everything, made, run_in, step_of


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_accumulated_gradients_are_one_step(mode, tmp_path):
    """Two functions of one step, one called twice: the record holds both halves of the batch."""

    def run(log_dir):
        model, data, optimizer = made(optimizer=lambda: keras.optimizers.SGD(0.1))
        loss_of = keras.losses.SparseCategoricalCrossentropy(reduction="sum")
        sums = [tf.Variable(tf.zeros_like(variable.value)) for variable in model.trainable_variables]

        def accumulate(x, y):
            with tf.GradientTape() as tape:
                loss = loss_of(y, model(x, training=True)) / 22.0
            for total, gradient in zip(sums, tape.gradient(loss, model.trainable_variables), strict=True):
                total.assign_add(gradient)

        def apply():
            optimizer.apply([total + 0.0 for total in sums], model.trainable_variables)
            for total in sums:
                total.assign(tf.zeros_like(total))

        functions = [accumulate, apply] if mode == "eager" else [tf.function(accumulate), tf.function(apply)]
        monitor = None if log_dir is None else watch(model, log_dir, optimizer, every=1)
        if monitor is not None and mode == "graph":
            functions = [monitor.wrap(function) for function in functions]
        for _ in range(2):
            for x, y in batches(data):
                functions[0](x, y)
            functions[1]()
            if monitor is not None:
                monitor.step()
        if monitor is not None:
            monitor.close()
        return everything(model, optimizer)

    assert_same_state(run(None), run(tmp_path / "parts"))
    model, (x, y), optimizer = made(optimizer=lambda: keras.optimizers.SGD(0.1))
    with watch(model, tmp_path / "whole", optimizer, every=1) as monitor:
        monitor.step(step_of(model, optimizer, "eager")(tf.constant(x), tf.constant(y)))
    parts, whole = (run_in(tmp_path / name) for name in ("parts", "whole"))
    assert parts.records[0].examples == 22
    for name, layer in whole.layers.items():
        for statistic in ("active_fraction", "mean", "std", "gradient", "weight_gradient", "update_ratio"):
            np.testing.assert_allclose(
                parts.layers[name].statistic(statistic)[0], layer.statistic(statistic)[0], rtol=0.01, atol=1e-6
            )


def adversaries():
    keras.utils.clear_session()
    keras.utils.set_random_seed(7)
    generator = keras.Sequential([keras.Input((4,)), L.Dense(6, "relu", name="g"), L.Dense(3, name="fake")])
    critic = keras.Sequential([keras.Input((3,)), L.Dense(5, "relu", name="c"), L.Dense(1, name="verdict")])
    return generator, critic, keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_two_models_that_train_against_each_other(mode, tmp_path):
    """With two monitors; the critic's gradients are those of its own loss, not of the generator's."""
    noise, real = (tf.constant(vectors(seed)[0][:8, :n]) for seed, n in ((0, 4), (1, 3)))

    def run(log_dir):
        generator, critic, for_generator, for_critic = adversaries()

        def train_step(noise, real):
            with tf.GradientTape() as one, tf.GradientTape() as other:
                fake = generator(noise, training=True)
                of_fake, of_real = critic(fake, training=True), critic(real, training=True)
                loss_g, loss_c = -1000 * tf.reduce_mean(of_fake), tf.reduce_mean(of_fake) - tf.reduce_mean(of_real)
            for model, optimizer, tape, loss in (
                (generator, for_generator, one, loss_g),
                (critic, for_critic, other, loss_c),
            ):
                gradients = tape.gradient(loss, model.trainable_variables)
                optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss_c

        step = train_step if mode == "eager" else tf.function(train_step)
        monitors = []
        if log_dir is not None:
            monitors = [
                watch(generator, log_dir / "g", for_generator, every=2),
                watch(critic, log_dir / "c", for_critic, every=1),
            ]
            for monitor in monitors:
                step = monitor.wrap(step) if mode == "graph" else step
        for _ in range(4):
            loss = step(noise, real)
            for monitor in monitors:
                monitor.step(loss)
        for monitor in monitors:
            monitor.close()
        assert_nothing_left(generator, for_generator)
        assert_nothing_left(critic, for_critic)
        return everything(generator, for_generator) | {
            f"critic {key}": value for key, value in everything(critic, for_critic).items()
        }

    assert_same_state(run(None), run(tmp_path))
    g, c = run_in(tmp_path / "g"), run_in(tmp_path / "c")
    assert list(g.layers) == ["g", "fake"]
    assert list(c.layers) == ["c", "verdict"]
    assert g.layers["g"].steps.tolist() == [0, 2]
    assert c.layers["c"].steps.tolist() == [0, 1, 2, 3]
    assert c.records[0].examples == 16
    # d loss_c / d verdict = +-1/8 at each of 16 positions, whatever the generator's loss
    np.testing.assert_allclose(c.layers["verdict"].statistic("gradient")[0], 1 / 8, rtol=0.01)
    assert (g.layers["fake"].statistic("gradient")[0] > 1).any()


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_gradient_penalty_is_not_taken_for_a_gradient_of_the_loss(mode, tmp_path):
    x = tf.constant(vectors()[0][:8, :3])

    def run(log_dir):
        _, critic, _, optimizer = adversaries()

        def train_step(x):
            with tf.GradientTape() as tape:
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    scores = critic(x, training=True)
                slope = inner.gradient(scores, x)
                loss = tf.reduce_mean(scores) + tf.reduce_mean((tf.norm(slope, axis=1) - 1) ** 2)
            gradients = tape.gradient(loss, critic.trainable_variables)
            optimizer.apply_gradients(zip(gradients, critic.trainable_variables, strict=True))
            return loss

        step = train_step if mode == "eager" else tf.function(train_step)
        monitor = None if log_dir is None else watch(critic, log_dir, optimizer, every=1)
        step = step if monitor is None else monitor.wrap(step)
        for _ in range(3):
            loss = step(x)
            if monitor is not None:
                monitor.step(loss)
        if monitor is not None:
            monitor.close()
        return everything(critic, optimizer)

    assert_same_state(run(None), run(tmp_path))
    # d loss / d verdict is 1/8 at each position: the penalty does not depend on the scores themselves
    np.testing.assert_allclose(run_in(tmp_path).layers["verdict"].statistic("gradient")[0], 1 / 8, rtol=0.01)


def test_parts_of_a_model_called_one_by_one(tmp_path):
    """As an autoencoder does it: the model itself is never called."""
    keras.utils.set_random_seed(7)
    parts = [
        keras.Sequential([keras.Input((6,)), L.Dense(5, "relu", name="encode"), L.Dense(2, name="code")]),
        keras.Sequential([keras.Input((2,)), L.Dense(5, "relu", name="decode"), L.Dense(6, name="image")]),
    ]

    class Autoencoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = parts
            self.built = True

    model, optimizer = Autoencoder(), keras.optimizers.SGD(0.1)
    x = tf.constant(vectors()[0])
    with watch(model, tmp_path, optimizer, every=1) as monitor:
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model.decoder(model.encoder(x, training=True), training=True) - x) ** 2)
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            monitor.step(loss)
    run = run_in(tmp_path)
    assert list(run.layers) == ["encode", "code", "decode", "image"]
    assert [layer.info.activation_function for layer in run.layers.values()] == ["relu", "linear", "relu", "linear"]

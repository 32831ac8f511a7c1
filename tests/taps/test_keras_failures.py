"""Whatever fails in our own work, training goes on as if we were not there, and the reason is said once."""

from __future__ import annotations

import contextlib
import warnings

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import deadunits_tb
from deadunits_tb import MonitorWarning
from deadunits_tb.capture import packed
from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.taps.keras import consumers as keras_consumers
from deadunits_tb.taps.keras import follow as keras_follow
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras import tap as keras_tap
from deadunits_tb.taps.keras.backends import step_class
from keras_zoo import BACKEND, array, assert_same_state, built, state, vectors

if BACKEND == "tensorflow":
    import tensorflow as tf

    from deadunits_tb.taps.tensorflow.weights import WeightWatch
else:
    from deadunits_tb.taps.keras.weights import WeightWatch

    if BACKEND == "jax":
        import jax
    else:
        import torch
STEP = step_class()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="no other backend has this")
PLACES = {
    "survey": (keras_tap, "survey"),
    "consumers": (keras_tap, "outgoing_weights"),
    "second function": (STEP, "make"),
    "first weights": (WeightWatch, {"tensorflow": "begin"}.get(BACKEND, "keep")),
    "before the step": (STEP, "_before"),
    "weights before": (WeightWatch, {"tensorflow": "before"}.get(BACKEND, "keep")),
    "what is wrapped": (keras_private, "activation_functions"),
    "a layer's output": (keras_follow.Follower, "_given_out"),
    "activations": (STEP, "reduce_activation"),
    "gradients": (STEP, "reduce_gradient"),
    "weight gradients": (WeightWatch, "gradients"),
    "weights after": (WeightWatch, {"tensorflow": "around"}.get(BACKEND, "compare")),
    "packing": (STEP, "_pack"),
    "what is known of layers": (keras_tap.UnitTap, "_info"),
    "unpacking": (packed, "unpack"),
    "drift": (WeightWatch, "since_first"),
    "scales": (STEP, "set_scales"),
}


def broken(*arguments, **named):
    raise ZeroDivisionError("injected")


def train(callbacks, *, eager=True, name="dense", **fit):
    model, (x, y) = built(name, run_eagerly=eager)
    history = model.fit(x, y, batch_size=8, verbose=0, callbacks=callbacks, **fit)
    logs = {key: values for key, values in history.history.items() if key != "dead_fraction"}
    return model, logs


EAGER = {"tensorflow": (True, False), "jax": (False,), "torch": (True,)}[BACKEND]
CASES = [
    *((place, EAGER[0]) for place in PLACES),
    *(((place, False) for place in ("activations", "packing")) if BACKEND == "tensorflow" else ()),
]


@pytest.fixture(scope="module")
def plain():
    """State and logs of training without us, eagerly and not."""
    results = {}
    for eager in EAGER:
        model, logs = train([], eager=eager)
        results[eager] = state(model), logs
    return results


@pytest.mark.parametrize(
    ("place", "eager"),
    [case if at % 3 == 0 else pytest.param(*case, marks=pytest.mark.slow) for at, case in enumerate(CASES)],
)
def test_a_tap_that_fails(place, eager, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(*PLACES[place], broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, logs = train([DeadUnitsCallback(tmp_path, every=1)], eager=eager)
    said = [str(warning.message) for warning in caught if issubclass(warning.category, MonitorWarning)]
    assert len(said) == 1
    assert "training goes on" in said[0]
    assert "ZeroDivisionError: injected" in said[0]
    assert_same_state(state(model), plain[eager][0])
    assert logs == plain[eager][1]
    assert not {"call", "activation", "train_function"} & {
        name for layer in model._flatten_layers() for name, value in vars(layer).items() if is_ours(value)
    }
    assert any("injected" in error for error in deadunits_tb.load(tmp_path)["."].records[-1].errors)


def loss_and_gradients(loss_of, weights):
    if BACKEND == "tensorflow":
        with tf.GradientTape() as tape:
            loss = loss_of()
        return loss, tape.gradient(loss, weights)
    loss = loss_of()
    return loss.detach(), list(torch.autograd.grad(loss, [weight.value for weight in weights]))


def is_ours(value):
    owner = getattr(value, "__self__", value)
    return "deadunits_tb" in f"{getattr(value, '__module__', '')} {type(owner).__module__}"


def test_wrappers_are_gone_when_a_step_raises(tmp_path):
    """The user's own layer fails, in the first step and while everything is wrapped."""
    armed = []

    class Fails(L.Layer):
        def call(self, x):
            if armed:
                raise RuntimeError("the user's own")
            return x

    class Arms(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            armed.append(batch)

    model = keras.Sequential([keras.Input((6,)), L.Dense(4, "relu"), Fails(), L.Dense(3)])
    model.compile("sgd", "mse", run_eagerly=True)
    before = {id(layer): dict(vars(layer)) for layer in model._flatten_layers()}
    functions = [getattr(module, name) for module, name in (*keras_private.activation_functions(), *STEP.functions)]
    x, _ = vectors()
    with pytest.raises(RuntimeError, match="the user's own"):
        model.fit(x, x[:, :3], verbose=0, callbacks=[DeadUnitsCallback(tmp_path), Arms()])
    for layer in model._flatten_layers():
        left = {name for name, value in vars(layer).items() if before[id(layer)].get(name) is not value}
        assert not any(is_ours(vars(layer)[name]) for name in left)
    after = [getattr(module, name) for module, name in (*keras_private.activation_functions(), *STEP.functions)]
    assert all(one is other for one, other in zip(functions, after, strict=True))


@on_tensorflow
@pytest.mark.parametrize("draw", ["normal", "truncated_normal"])
def test_random_numbers_hidden_in_operations_stay_the_same(draw, tmp_path):
    """A step observed in a graph of its own would draw others than the model's own step: then all steps run there."""

    class Noise(L.Layer):
        def call(self, x, training=False):
            return x + getattr(tf.random, draw)(tf.shape(x)) if training else x

    def trained(callbacks):
        keras.utils.clear_session()
        keras.utils.set_random_seed(7)
        model = keras.Sequential([keras.Input((6,)), L.Dense(8, "relu"), Noise(), L.Dense(3, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(*vectors(), batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
        return state(model)

    assert_same_state(trained([]), trained([DeadUnitsCallback(tmp_path, every=3)]))
    assert deadunits_tb.load(tmp_path)["."].layers["dense"].steps.tolist() == [0, 3]


@pytest.mark.skipif(BACKEND == "torch", reason="all runs eagerly there")
def test_a_layer_in_a_function_of_its_own_is_left_alone(tmp_path):
    class Inner(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = L.Dense(4, "relu", name="hidden"), L.Dense(3, "softmax", name="head")
            compiled = tf.function if BACKEND == "tensorflow" else jax.checkpoint
            self.function = compiled(lambda x: self.hidden(x))

        def build(self, shape):
            self.hidden.build(shape)
            self.head.build((None, 4))

        def call(self, x):
            return self.head(self.function(x))

    def trained(callbacks):
        keras.utils.clear_session()
        keras.utils.set_random_seed(7)
        model = Inner()
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(*vectors(), batch_size=8, verbose=0, callbacks=callbacks)
        return state(model)

    assert_same_state(trained([]), trained([DeadUnitsCallback(tmp_path, every=1)]))
    run = deadunits_tb.load(tmp_path)["."]
    assert list(run.layers) == ["head"]
    assert [(skipped.layer, "cannot be carried" in skipped.reason) for skipped in run.records[-1].skipped] == [
        ("hidden", True)
    ]


@pytest.mark.skipif(BACKEND == "jax", reason="Keras carries the state of one optimizer there")
def test_two_optimizers_in_one_step(tmp_path):
    """As in a generative adversarial network: no optimizer is the model's own."""

    class Adversaries(keras.Model):
        def __init__(self):
            super().__init__()
            self.generator = keras.Sequential(
                [keras.Input((6,)), L.Dense(6, "relu", name="g"), L.Dense(2, name="fake")]
            )
            self.critic = keras.Sequential(
                [keras.Input((2,)), L.Dense(5, "relu", name="c"), L.Dense(1, name="verdict")]
            )
            self.built = True  # there is no call by which it could be built

        def compile(self, **arguments):
            super().compile(**arguments)
            self.for_generator, self.for_critic = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1)

        def judged(self, data):
            return ops.mean(self.critic(self.generator(data, training=True), training=True))

        def train_step(self, data):
            data = keras.utils.unpack_x_y_sample_weight(data)[0]
            for part, optimizer, sign in (
                (self.critic, self.for_critic, -1),
                (self.generator, self.for_generator, 1),
            ):
                weights = part.trainable_weights
                loss, gradients = loss_and_gradients(lambda sign=sign: sign * self.judged(data), weights)
                with contextlib.nullcontext() if BACKEND == "tensorflow" else torch.no_grad():
                    optimizer.apply(gradients, weights)
            return {"loss": loss}

    def trained(callbacks):
        keras.utils.clear_session()
        keras.utils.set_random_seed(7)
        model = Adversaries()
        model.compile()
        model.fit(vectors()[0], batch_size=8, verbose=0, callbacks=callbacks)
        return state(model) | {v.path: array(v) for v in model.for_critic.variables}

    assert_same_state(trained([]), trained([DeadUnitsCallback(tmp_path, every=1)]))
    run = deadunits_tb.load(tmp_path)["."]
    assert list(run.layers) == ["g", "fake", "c", "verdict"]
    assert {name for name, layer in run.layers.items() if layer.info.role == "output"} == {"verdict"}
    assert all(np.isfinite(layer.statistic("weight_gradient")).all() for layer in run.layers.values())
    assert (run.layers["g"].statistic("update_ratio") > 0).any()


def test_consumers_outside_of_the_graph_are_unknown():
    model, _ = built("nested")
    assert set(keras_consumers.outgoing_weights(model, keras_tap.survey(model).watched)) == {"dense"}


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX knows forward derivatives of a step")
def test_a_step_that_cannot_be_traced_with_taps_runs_without_them(tmp_path):
    """An identity with a rule of its own for gradients has none for forward derivatives."""

    class Curvature(keras.Model):
        def train_step(self, state, data):
            logs, after = super().train_step(state, data)
            sample = data[0]

            def output(x):
                return self.stateless_call(state[0], state[1], x)[0]

            slope = jax.jvp(output, (sample,), (jax.numpy.ones_like(sample),))[1]
            return logs | {"slope": jax.numpy.mean(slope)}, after

    def trained(callbacks):
        keras.utils.clear_session()
        keras.utils.set_random_seed(7)
        inputs = keras.Input((6,))
        model = Curvature(inputs, L.Dense(3, "softmax")(L.Dense(4, "relu")(inputs)))
        model.compile("adam", "sparse_categorical_crossentropy")
        x, y = vectors()
        model.fit(x[:16], y[:16], batch_size=8, verbose=0, shuffle=False, callbacks=callbacks)
        return state(model)

    plain = trained([])
    with pytest.warns(MonitorWarning, match="forward-mode"):
        watched = trained([DeadUnitsCallback(tmp_path, every=1)])
    assert_same_state(plain, watched)

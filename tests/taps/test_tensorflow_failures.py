"""Loops that cannot be watched, or whose taps fail: it is said once, and training goes on as if nobody looked."""

from __future__ import annotations

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import deadunits_tb
from deadunits_tb.capture.accumulators import LayerAccumulator
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.taps.keras import follow as keras_follow
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras import tap as keras_tap
from deadunits_tb.taps.keras.tensorflow import TensorFlowStep
from deadunits_tb.taps.tensorflow.keras_loop_step import LoopStep
from deadunits_tb.taps.tensorflow.keras_loop_tap import LoopTap
from deadunits_tb.taps.tensorflow.weights import WeightWatch
from deadunits_tb.tensorflow import watch
from keras_zoo import assert_same_state, vectors
from tensorflow_zoo import assert_nothing_left, batches, everything, listening, made, run_in, step_of, trained


def test_random_numbers_hidden_in_operations_stay_the_same(tmp_path):
    """All steps run in the observed graph; and where the user's own has run before, none is observed."""

    class Noise(L.Layer):
        def call(self, x, training=False):
            return x + tf.random.normal(tf.shape(x)) if training else x

    def run(log_dir, *, late=False):
        keras.utils.clear_session()
        keras.utils.set_random_seed(7)
        model = keras.Sequential([keras.Input((6,)), L.Dense(8, "relu"), Noise(), L.Dense(3, "softmax")])
        optimizer = keras.optimizers.Adam(0.01)
        step = step_of(model, optimizer)
        monitor = None if log_dir is None else watch(model, log_dir, optimizer, every=3)
        if monitor is not None and not late:
            step = monitor.wrap(step)
        for at in range(5):
            if at == 2 and monitor is not None and late:
                step = monitor.wrap(step)
            loss = step(*batches(vectors())[0])
            if monitor is not None:
                monitor.step(loss, step=at)
        if monitor is not None:
            monitor.close()
        return everything(model, optimizer), monitor

    plain, _ = run(None)
    assert_same_state(plain, run(tmp_path / "one")[0])
    assert run_in(tmp_path / "one").layers["dense"].steps.tolist() == [0, 3]
    with listening() as said:
        late, monitor = run(tmp_path / "late", late=True)
    assert len(said) == 2
    assert "monitor.wrap(train_step)" in said[0]
    assert "before its first call" in said[1]
    assert_same_state(plain, late)
    assert "before its first call" in monitor.errors[0]


def test_a_function_that_was_not_wrapped_is_said_once(tmp_path):
    plain, _ = trained()
    with listening() as said:
        watched, monitor = trained(tmp_path, wrap=False)
    assert_same_state(plain, watched)
    assert len(said) == 1
    assert "monitor.wrap(train_step)" in said[0]
    assert np.isnan(monitor.dead_fraction)


def test_a_loop_inside_of_the_function_is_refused_with_what_to_do(tmp_path):
    def run(log_dir):
        model, data, optimizer = made()
        one = step_of(model, optimizer, "eager")
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(8, drop_remainder=True)

        @tf.function
        def epoch(dataset):
            loss = 0.0
            for x, y in dataset:
                loss = one(x, y)
            return loss

        monitor = None if log_dir is None else watch(model, log_dir, optimizer, every=1)
        function = epoch if monitor is None else monitor.wrap(epoch)
        for _ in range(2):
            loss = function(dataset)
            if monitor is not None:
                monitor.step(loss)
        if monitor is not None:
            monitor.close()
        return everything(model, optimizer)

    plain = run(None)
    with listening() as said:
        watched = run(tmp_path)
    assert len(said) == 1
    assert "have the function do one step" in said[0]
    assert_same_state(plain, watched)
    assert deadunits_tb.load(tmp_path)["."].layers == {}


def test_a_layer_in_a_loop_of_the_model_is_left_alone(tmp_path):
    class Inner(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = L.Dense(4, "relu", name="hidden"), L.Dense(3, "softmax", name="head")

        def call(self, x):
            return self.head(tf.map_fn(lambda one: self.hidden(one[None])[0], x, fn_output_signature=tf.float32))

    def run(log_dir):
        keras.utils.clear_session()
        keras.utils.set_random_seed(7)
        model, optimizer = Inner(), keras.optimizers.SGD(0.1)
        x, y = batches(vectors())[0]
        model(x)
        step = step_of(model, optimizer)
        monitor = None if log_dir is None else watch(model, log_dir, optimizer, every=1)
        step = step if monitor is None else monitor.wrap(step)
        for _ in range(2):
            loss = step(x, y)
            if monitor is not None:
                monitor.step(loss)
        if monitor is not None:
            monitor.close()
        return everything(model, optimizer)

    assert_same_state(run(None), run(tmp_path))
    found = run_in(tmp_path)
    assert list(found.layers) == ["head"]
    assert [(one.layer, "cannot be carried" in one.reason) for one in found.records[-1].skipped] == [("hidden", True)]


PLACES = {
    "survey": (keras_tap, "outgoing_weights"),
    "first weights": (WeightWatch, "begin"),
    "weights before": (WeightWatch, "before"),
    "what is wrapped": (keras_private, "activation_functions"),
    "a layer's output": (keras_follow.Follower, "_given_out"),
    "activations": (TensorFlowStep, "reduce_activation"),
    "gradients": (TensorFlowStep, "reduce_gradient"),
    "weight gradients": (WeightWatch, "gradients"),
    "weights after": (WeightWatch, "around"),
    "packing": (TensorFlowStep, "_pack"),
    "fetching": (LoopStep, "fetch"),
    "what is known of layers": (LoopTap, "_info"),
    "accumulating": (LayerAccumulator, "add"),
    "drift": (WeightWatch, "since_first"),
}


@pytest.fixture(scope="module")
def plain():
    return {mode: trained(mode=mode, epochs=1)[0] for mode in ("eager", "graph")}


@pytest.mark.parametrize(
    ("place", "mode"),
    [
        *(pytest.param(place, "eager", marks=[pytest.mark.slow] * (at % 3 > 0)) for at, place in enumerate(PLACES)),
        ("activations", "graph"),
        pytest.param("packing", "graph", marks=pytest.mark.slow),
    ],
)
def test_a_tap_that_fails_changes_nothing(place, mode, plain, tmp_path, monkeypatch):
    def broken(*arguments, **named):
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(*PLACES[place], broken)
    with listening() as said:
        watched, monitor = trained(tmp_path, mode=mode, wrap=mode == "graph", epochs=1)
    assert len(said) == 1
    assert "training goes on" in said[0]
    assert "ZeroDivisionError: injected" in said[0]
    assert_same_state(plain[mode], watched)
    assert "injected" in monitor.errors[0]


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_nothing_is_left_behind_when_a_step_raises(mode, tmp_path):
    class Fails(L.Layer):
        def call(self, x, training=False):
            if training:
                raise RuntimeError("the user's own")
            return x

    model = keras.Sequential([keras.Input((6,)), L.Dense(4, "relu"), Fails(), L.Dense(3, "softmax")])
    optimizer = keras.optimizers.SGD()
    functions = [getattr(module, name) for module, name in keras_private.activation_functions()]
    monitor = watch(model, tmp_path, optimizer)
    step = monitor.wrap(step_of(model, optimizer, mode)) if mode == "graph" else step_of(model, optimizer, mode)
    with pytest.raises(RuntimeError, match="the user's own"), monitor:
        step(*batches(vectors())[0])
    assert_nothing_left(model, optimizer)
    after = [getattr(module, name) for module, name in keras_private.activation_functions()]
    assert all(one is other for one, other in zip(functions, after, strict=True))


def test_a_monitor_that_nobody_holds_closes_itself(tmp_path):
    model, data, optimizer = made()
    monitor = watch(model, tmp_path, optimizer)
    monitor.step(step_of(model, optimizer, "eager")(*batches(data)[0]))
    del monitor
    gc.collect()
    assert_nothing_left(model, optimizer)
    assert run_in(tmp_path).layers
    watch(model, tmp_path / "again", optimizer).close()


def test_what_is_given_wrongly_is_said_before_training(tmp_path):
    model, _, optimizer = made()
    other, _, _ = made()
    built_for_other = keras.optimizers.SGD()
    built_for_other.build(other.trainable_variables)
    for arguments, message in (
        ({"optimizer": 3}, "optimizer must be an optimizer of Keras"),
        ({"optimizer": built_for_other}, "was built for other weights"),
        ({"every": 0}, "every must be"),
        ({"layers": "dense"}, "layers must be a list"),
        ({"layers": []}, "layers is empty"),
        ({"thresholds": 3}, "thresholds must be"),
        ({"initial_step": -1}, "initial_step must be"),
        ({"on_alarm": 3}, "on_alarm must be"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            watch(model, tmp_path, **arguments)
    with pytest.raises(UnknownNameError, match="no layer 'dens'"):
        watch(model, tmp_path, layers=["dens"])
    with pytest.raises(InvalidArgumentError, match="DeadUnitsWriter"):
        watch(tf.Module(), tmp_path)
    half_model, _, _ = made(policy="mixed_float16")
    with pytest.raises(InvalidArgumentError, match="give the optimizer"):
        watch(half_model, tmp_path)
    assert not list(tmp_path.iterdir())
    with watch(model, tmp_path, optimizer) as monitor:
        with pytest.raises(InvalidArgumentError, match="being watched already"):
            watch(model, tmp_path / "second", optimizer)
        with pytest.raises(InvalidArgumentError, match="wrap takes a function"):
            monitor.wrap(3)
    assert_nothing_left(model, optimizer)

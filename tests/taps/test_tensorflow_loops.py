"""Loops with ``tf.GradientTape``: training is the same to the last bit, and nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import deadunits_tb
from deadunits_tb import MonitorWarning
from deadunits_tb.capture.accumulators import LayerAccumulator
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.taps.keras import follow as keras_follow
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras import tap as keras_tap
from deadunits_tb.taps.keras.tensorflow import TensorFlowStep
from deadunits_tb.taps.tensorflow.keras_loop_step import LoopStep
from deadunits_tb.taps.tensorflow.keras_loop_tap import LoopTap
from deadunits_tb.taps.tensorflow.weights import WeightWatch
from deadunits_tb.tensorflow import watch
from keras_zoo import ZOO, assert_same_state, built, vectors

MODES = {"eager": None, "graph": {}, "jit": {"jit_compile": True}}


def made(name="dense", *, policy="float32", optimizer=lambda: keras.optimizers.Adam(0.01)):
    """A model of the zoo, its data and an optimizer, the same each time."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(7)
    keras.mixed_precision.set_global_policy(policy)
    try:
        build, data = ZOO[name]
        return build(), data(), optimizer()
    finally:
        keras.mixed_precision.set_global_policy("float32")


def step_of(model, optimizer, mode="graph"):
    """A training step as users write it."""
    loss_of = keras.losses.SparseCategoricalCrossentropy()

    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return train_step if MODES[mode] is None else tf.function(train_step, **MODES[mode])


def batches(data, size=8):
    """22 examples: two batches of 8 and a smaller one."""
    x, y = data
    return [(tf.constant(x[at : at + size]), tf.constant(y[at : at + size])) for at in range(0, len(x), size)]


def trained(log_dir=None, *, name="dense", mode="graph", every=1, epochs=2, wrap=True, **arguments):
    """Train; give everything that training changes, and the monitor."""
    model, data, optimizer = made(name, **arguments)
    train_step = step_of(model, optimizer, mode)
    monitor = None if log_dir is None else watch(model, log_dir, optimizer, every=every)
    if monitor is not None and wrap:
        train_step = monitor.wrap(train_step)
    losses = []
    for _ in range(epochs):
        for x, y in batches(data):
            losses.append(train_step(x, y))
            if monitor is not None:
                monitor.step(losses[-1])
        model(x, training=False)  # evaluation in between, which is not counted
    if monitor is not None:
        monitor.close()
    return everything(model, optimizer) | {"losses": np.array([float(loss) for loss in losses])}, monitor


def everything(model, *optimizers):
    variables = [*model.variables, *(variable for one in optimizers for variable in one.variables)]
    return {f"{at} {variable.path}": np.asarray(variable) for at, variable in enumerate(variables)}


def run_in(log_dir):
    run = deadunits_tb.load(log_dir)["."]
    assert run.records[-1].errors == ()
    return run


@contextlib.contextmanager
def listening():
    """What the monitor says in the body."""
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(warning.message) for warning in caught if issubclass(warning.category, MonitorWarning)]


def ours(value):
    owner = getattr(value, "__self__", value)
    return "deadunits_tb" in f"{getattr(value, '__module__', '')} {type(owner).__module__}" or hasattr(
        value, "__wrapped__"
    )


def assert_nothing_left(model, *optimizers):
    for owner in (model, *keras_private.sublayers(model), *optimizers):
        assert not {"call", "activation", "apply", "compute_loss"} & {
            name for name, value in vars(owner).items() if ours(value)
        }, owner


@pytest.mark.parametrize("name", ["unbuilt", "subclassed"])
def test_every_model_trains_the_same(name, tmp_path):
    plain, _ = trained(name=name)
    watched, _ = trained(tmp_path, name=name)
    assert_same_state(plain, watched)
    run = run_in(tmp_path)
    assert run.layers
    assert all(layer.steps[0] == 0 for layer in run.layers.values())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["graph", "eager"])
@pytest.mark.parametrize("name", ZOO)
def test_every_model_of_the_zoo_trains_the_same(name, mode, tmp_path):
    plain, _ = trained(name=name, mode=mode)
    watched, _ = trained(tmp_path, name=name, mode=mode)
    assert_same_state(plain, watched)
    assert run_in(tmp_path).layers


def sgd():
    return keras.optimizers.SGD(0.05, momentum=0.9)


@pytest.mark.parametrize(
    ("mode", "name", "arguments"),
    [
        pytest.param("eager", "separate", {}, marks=pytest.mark.slow),
        ("eager", "dense", {"wrap": False}),
        ("eager", "subclassed", {"wrap": False, "every": 2}),
        pytest.param("jit", "dense", {}, marks=pytest.mark.slow),
        pytest.param("graph", "dense", {"every": 3}, marks=pytest.mark.slow),
        ("graph", "dense", {"policy": "mixed_bfloat16"}),
        ("graph", "separate", {"optimizer": sgd}),
    ],
    ids=["eager", "not wrapped", "subclassed not wrapped", "jit", "every third", "bfloat16", "momentum"],
)
def test_every_way_to_run_it_trains_the_same(mode, name, arguments, tmp_path):
    without = {key: value for key, value in arguments.items() if key not in ("wrap", "every")}
    plain, _ = trained(name=name, mode=mode, **without)
    watched, _ = trained(tmp_path, name=name, mode=mode, **arguments)
    assert_same_state(plain, watched)
    run = run_in(tmp_path)
    assert len(run.layers) >= 3
    assert next(iter(run.layers.values())).steps[0] == 0


def half():
    """Scales up every second step, so that it overflows and skips some."""
    return keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), initial_scale=2.0**15, dynamic_growth_steps=1
    )


def test_loss_scaling_is_undone_and_skipped_steps_have_no_gradients(tmp_path):
    plain, _ = trained(policy="mixed_float16", optimizer=half, epochs=3)
    watched, _ = trained(tmp_path / "half", policy="mixed_float16", optimizer=half, epochs=3)
    assert_same_state(plain, watched)
    trained(tmp_path / "full", epochs=3)
    one, other = (run_in(tmp_path / name).layers["dense"] for name in ("half", "full"))
    np.testing.assert_allclose(one.statistic("gradient")[0], other.statistic("gradient")[0], rtol=0.05)
    np.testing.assert_allclose(one.statistic("weight_gradient")[0], other.statistic("weight_gradient")[0], rtol=0.05)


@pytest.mark.parametrize(
    "mode", [mode if mode == "graph" else pytest.param(mode, marks=pytest.mark.slow) for mode in MODES]
)
def test_the_record_of_a_step_is_that_of_fit(mode, tmp_path):
    """One step on the same weights and batch, with a loop and with fit."""
    model, (x, y) = built("dense")
    model.fit(x, y, batch_size=len(x), verbose=0, shuffle=False, callbacks=[DeadUnitsCallback(tmp_path / "fit")])
    model, (x, y), optimizer = made()
    with watch(model, tmp_path / "loop", optimizer) as monitor:
        monitor.step(monitor.wrap(step_of(model, optimizer, mode))(tf.constant(x), tf.constant(y)))
    fit, loop = (run_in(tmp_path / name) for name in ("fit", "loop"))
    assert list(fit.layers) == list(loop.layers)
    for name, layer in fit.layers.items():
        ours, theirs = loop.layers[name].info, layer.info
        assert (ours.activation_function, ours.role, ours.witness, ours.units) == (
            theirs.activation_function,
            theirs.role,
            theirs.witness,
            theirs.units,
        )
        for statistic in ("active_fraction", "mean", "std", "min", "max", "gradient", "weight_gradient", "drift"):
            np.testing.assert_allclose(
                loop.layers[name].statistic(statistic),
                layer.statistic(statistic),
                rtol=0.01,
                atol=1e-6,
                err_msg=f"{name} {statistic}",
            )
    one, other = fit.records[0], loop.records[0]
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-6)
    assert (one.examples, one.learning_rate) == (other.examples, other.learning_rate)
    np.testing.assert_allclose(one.inputs.mean, other.inputs.mean, rtol=1e-5)


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


def test_evaluation_is_not_counted(tmp_path):
    model, data, optimizer = made()
    step = step_of(model, optimizer, "eager")
    with watch(model, tmp_path, optimizer, every=1) as monitor:
        for x, y in batches(data)[:2]:
            model(x)  # no tape
            with tf.GradientTape():
                model(x, training=False)
            monitor.step(step(x, y))
    assert [record.examples for record in run_in(tmp_path).records] == [8, 8]


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

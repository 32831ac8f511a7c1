"""No false alarm in Keras: real runs of ``fit``, each with dead units that are found among healthy ones that are not.

Which test rules out which alarm is listed in ``test_false_alarms_torch.py``.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as L
from sklearn.datasets import load_digits

import deadunits_tb
from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.units import FLAGGED, UnitState

BACKEND = keras.backend.backend()
PLANTED = [1, 4]
"""Units that are made dead; all others are healthy."""
slow = pytest.mark.slow


def digits():
    images, labels = load_digits(return_X_y=True)
    return ((images - images.mean(0)) / np.maximum(images.std(0), 1e-3)).astype("f4"), labels


def compiled(model, optimizer="adam", loss="sparse_categorical_crossentropy", **arguments):
    model.compile(optimizer, loss, **arguments)
    return model


def dense(*between, classes=10, inputs=64):
    keras.utils.set_random_seed(3)
    between = between or (L.ReLU(),)
    return keras.Sequential(
        [keras.Input((inputs,)), L.Dense(12, name="hidden"), *between, L.Dense(classes, "softmax", name="output")]
    )


def kill(layer, units=PLANTED):
    """So far below zero that nothing wakes them."""
    bias = np.asarray(layer.bias).copy()
    bias[units] = -1e4
    layer.bias.assign(bias)


def trained(model, log_dir, data=None, *, epochs=3, **arguments):
    """Watch every step of ``fit``; ``[records, units]`` states by layer."""
    x, y = data or digits()
    callbacks = [DeadUnitsCallback(log_dir, every=1), *arguments.pop("callbacks", ())]
    model.fit(x, y, batch_size=256, epochs=epochs, verbose=0, callbacks=callbacks, **arguments)
    assert callbacks[0]._monitor.errors == ()
    run = deadunits_tb.load(log_dir)["."]
    return {name: layer.states for name, layer in run.layers.items()}


def check(states, dead=PLANTED):
    """These units are dead at the end; all others were never flagged."""
    assert np.flatnonzero(states[-1] == UnitState.DEAD).tolist() == list(dead)
    others = np.delete(states, dead, axis=1)
    found = {(UnitState(others[at]).label, at[1]) for at in zip(*np.nonzero(FLAGGED[others]), strict=True)}
    assert found == set()


@slow
def test_dropout(tmp_path):
    model = compiled(dense(L.Dropout(0.8), L.ReLU(), L.Dropout(0.8)))
    kill(model.get_layer("hidden"))
    check(trained(model, tmp_path, epochs=4)["hidden"])


def test_validation(tmp_path):
    """All healthy units are silent on what is validated, and the dead ones fire."""
    model = compiled(dense())
    hidden = model.get_layer("hidden")
    kill(hidden)
    kernel, bias = (np.asarray(w, "f8") for w in hidden.get_weights())
    aims = np.full(12, -1e4)
    aims[PLANTED] = 1e5
    loud = np.linalg.lstsq(kernel.T, aims - bias, rcond=None)[0].astype("f4")
    x = np.tile(loud, (3000, 1))
    check(trained(model, tmp_path, validation_data=(x, np.zeros(3000)))["hidden"])


@slow
def test_functions_without_zeros(tmp_path):
    """Units deep in the negative part, where a ReLU would be dead; without weights of any kind some of them are."""
    keras.utils.set_random_seed(1)
    functions = {"leaky_relu": L.LeakyReLU(), "prelu": L.PReLU(), "gelu": "gelu", "silu": "silu", "elu": "elu"}
    inputs = keras.Input((64,))
    outputs = []
    for name, function in functions.items():
        fused = isinstance(function, str)
        x = L.Dense(12, function if fused else None, name=name)(inputs)
        outputs.append(L.Dense(10, name=f"{name}_head")(x if fused else function(x)))
    model = compiled(keras.Model(inputs, L.Activation("softmax")(L.add(outputs))))
    random = np.random.default_rng(0)  # the same weights on every backend
    for name in functions:
        kernel, bias = random.normal(0, 1 / 8, (64, 12)), np.zeros(12)
        head, shift = (np.asarray(w).copy() for w in model.get_layer(f"{name}_head").get_weights())
        bias[6:8] = -2.5
        kernel[:, PLANTED], bias[PLANTED], head[PLANTED] = 0.0, 0.0, 0.0
        model.get_layer(name).set_weights([kernel, bias])
        model.get_layer(f"{name}_head").set_weights([head, shift])
    found = trained(model, tmp_path)
    for name in functions:
        check(found[name])


@slow
def test_fresh_normalisation(tmp_path):
    """A scale of one and a shift of zero say nothing of the units."""
    keras.utils.set_random_seed(0)
    steps = [L.Reshape((8, 8, 1)), L.Conv2D(6, 3, use_bias=False, name="conv"), L.BatchNormalization(name="batch"),
             L.ReLU(), L.Flatten(), L.Dense(8, name="hidden"), L.LayerNormalization(name="norm"), L.ReLU()]  # fmt: skip
    model = compiled(keras.Sequential([keras.Input((64,)), *steps, L.Dense(10, "softmax", name="output")]))
    for norm in ("batch", "norm"):
        beta = np.zeros(model.get_layer(norm).beta.shape)
        beta[PLANTED] = -1e4
        model.get_layer(norm).beta.assign(beta)
    found = trained(model, tmp_path, epochs=4)
    check(found["conv"])
    check(found["hidden"])


@slow
def test_output_layers(tmp_path):
    """Outputs that are next to never wanted; one of ReLUs is dead."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    x = L.Dense(24, "relu")(inputs)
    functions = ("linear", "sigmoid", "softmax", "relu")
    outputs = [L.Dense(6, function, name=function)(x) for function in functions]
    model = compiled(keras.Model(inputs, outputs), keras.optimizers.SGD(0.01), ["mse"] * 4)
    for function in functions:
        bias = np.full(6, 0.3)
        bias[3] = -20.0
        model.get_layer(function).bias.assign(bias)
    x, y = digits()
    wanted = np.eye(6, dtype="f4")[y % 3]
    found = trained(model, tmp_path, (x, [wanted] * 4))
    for function in functions:
        check(found[function], [3] if function == "relu" else [])


@pytest.mark.parametrize("layout", ["sequences", pytest.param("images", marks=slow), pytest.param("first", marks=slow)])
def test_layouts(layout, tmp_path):
    """Positions that are always silent are no units; there are as many positions as units, so that a mistake shows."""
    if layout == "first" and BACKEND == "tensorflow":
        pytest.skip("TensorFlow cannot train channels_first on a CPU; test_on_other_backends does")
    keras.utils.set_random_seed(1)
    if layout == "sequences":
        steps = [L.Reshape((8, 8)), L.Dense(8, "relu", name="before"), L.Conv1D(8, 1, activation="relu", name="units")]
    else:
        first = layout == "first"
        order = "channels_first" if first else "channels_last"
        conv = L.Conv2D(8, 1, activation="relu", name="units", data_format=order)
        steps = [L.Reshape((1, 8, 8) if first else (8, 8, 1)), conv]
    model = keras.Sequential([keras.Input((64,)), *steps, L.Flatten(), L.Dense(10, "softmax")])
    compiled(model, keras.optimizers.SGD(0.01))
    model.get_layer("units").bias.assign(np.full(8, 0.3))
    kill(model.get_layer("units"))
    x, y = digits()
    x.reshape(-1, 8, 8)[:, 5] = 0.0
    check(trained(model, tmp_path, (x, y))["units"])


def test_masks(tmp_path):
    """Nine tenths of all positions are padding: some units fire on nothing else, others on all but that."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    ids = random.integers(1, 30, (1800, 20))
    ids[np.arange(20) >= random.integers(1, 4, (1800, 1))] = 0
    inputs = keras.Input((20,), dtype="int32")
    x = L.Embedding(30, 8, mask_zero=True, name="words")(inputs)
    x = L.GlobalAveragePooling1D()(L.Dense(12, "relu", name="hidden")(x))
    model = compiled(keras.Model(inputs, L.Dense(10, "softmax")(x)))
    table = np.asarray(model.get_layer("words").embeddings).copy()
    table[:, 7], table[0, 7] = 0.0, 1.0
    model.get_layer("words").embeddings.assign(table)
    kernel, bias = (np.asarray(w).copy() for w in model.get_layer("hidden").get_weights())
    kernel[7], kernel[7, PLANTED] = -50.0, 50.0
    kernel[:7, PLANTED] *= 0.01
    bias[PLANTED] = -5.0
    model.get_layer("hidden").set_weights([kernel, bias])
    found = trained(model, tmp_path, (ids, ids[:, 0] % 10))
    check(found["hidden"])


@slow
def test_shared_layers(tmp_path):
    """Units that are silent in one of two calls of their layer."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    shared = L.Dense(12, "relu", name="shared")
    marks = [L.Lambda(lambda x, sign=sign: x * 0.01 + sign, name=f"mark_{at}") for at, sign in enumerate((1.0, -1.0))]
    x = L.concatenate([shared(mark(inputs)) for mark in marks])
    model = compiled(keras.Model(inputs, L.Dense(10, "softmax")(x)), keras.optimizers.SGD(1e-4))
    kernel = np.asarray(shared.kernel).copy()
    kernel += np.where(np.arange(12) < 6, 1, -1) * 0.5
    shared.kernel.assign(kernel)
    kill(shared)
    check(trained(model, tmp_path)["shared"])


@slow
def test_embeddings(tmp_path):
    """Of rows that are not looked up nothing is claimed: the layer is skipped, and units behind it are judged."""
    keras.utils.set_random_seed(0)
    ids = np.random.default_rng(0).integers(0, 20, (1800, 3))
    layers = [L.Embedding(40, 6, name="words"), L.Flatten(), L.Dense(12, "relu", name="hidden")]
    model = compiled(keras.Sequential([keras.Input((3,), dtype="int32"), *layers, L.Dense(10, "softmax")]))
    kill(model.get_layer("hidden"))
    found = trained(model, tmp_path, (ids, ids[:, 0] % 10))
    check(found["hidden"])
    assert "words" not in found


@slow
def test_frozen_layers(tmp_path):
    model = dense(L.ReLU(), L.Dense(12, "relu", name="second"))
    model.get_layer("hidden").trainable = False
    compiled(model)
    model.get_layer("second").bias.assign(np.full(12, 0.5))
    for name in ("hidden", "second"):
        kill(model.get_layer(name))
    found = trained(model, tmp_path)
    assert (found["hidden"] == UnitState.FROZEN).all()
    check(found["second"])


@slow
@pytest.mark.parametrize("kind", ["accumulation", "several steps in one call"])
def test_gradient_accumulation(kind, tmp_path):
    """Most steps leave all weights where they are, or are not seen: no unit is stagnant for that."""
    accumulate = {"gradient_accumulation_steps": 4} if kind == "accumulation" else {}
    together = {} if kind == "accumulation" or BACKEND == "torch" else {"steps_per_execution": 2}
    model = compiled(dense(), keras.optimizers.Adam(1e-3, **accumulate), **together)
    kill(model.get_layer("hidden"))
    check(trained(model, tmp_path, epochs=5)["hidden"])


@slow
def test_steps_skipped_by_a_loss_scaler(tmp_path):
    """Gradients that a scale has made infinite are nothing."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = dense()
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-3), initial_scale=2.0**30)
    compiled(model, scaled)
    kill(model.get_layer("hidden"))
    check(trained(model, tmp_path, epochs=6)["hidden"])
    assert float(keras.ops.convert_to_numpy(scaled.dynamic_scale)) < 2.0**29


@slow
def test_examples_without_weight(tmp_path):
    """Most examples have no weight, so no gradient: their steps teach nothing, and kill nothing."""
    model = compiled(dense())
    kill(model.get_layer("hidden"))
    x, y = digits()
    check(trained(model, tmp_path, (x, y), class_weight={k: float(k == 0) for k in range(10)}, epochs=4)["hidden"])


@slow
@pytest.mark.parametrize("kind", ["momentum", "decay", "penalty"])
def test_weights_of_dead_units_that_move(kind, tmp_path):
    """Units that die in mid-training are dead since then, whatever still moves their weights."""
    optimizer = {"momentum": keras.optimizers.SGD(0.05, momentum=0.9)}.get(kind) or keras.optimizers.AdamW(
        1e-3, weight_decay=0.5 if kind == "decay" else 0.0
    )
    model = dense()
    hidden = model.get_layer("hidden")
    if kind == "penalty":
        hidden.kernel_regularizer = keras.regularizers.L2(0.01)
    killed = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: kill(hidden) if epoch == 1 else None)
    compiled(model, optimizer)
    found = trained(model, tmp_path, epochs=4, callbacks=[killed])
    check(found["hidden"])
    layer = deadunits_tb.load(tmp_path)["."].layers["hidden"]
    assert layer.since[-1, PLANTED].tolist() == [8, 8]
    assert (layer.statistic("update_ratio")[9, PLANTED] > 0).all()


@slow
def test_a_layer_that_is_tiny_as_a_whole(tmp_path):
    """An activation of a millionth is as good as any other; one unit that is tiny beside its neighbours is dormant."""
    model = compiled(dense(L.Activation("gelu")), keras.optimizers.SGD(1e-16))
    hidden, output = model.get_layer("hidden"), model.get_layer("output")
    kernel = np.asarray(hidden.kernel) * 1e-6
    kernel[:, 2] *= 1e-2
    hidden.kernel.assign(kernel)
    output.kernel.assign(np.asarray(output.kernel) * 1e6)
    found = trained(model, tmp_path)["hidden"]
    assert (found[-1, 2]) == UnitState.DORMANT
    check(np.delete(found, 2, axis=1), [])


@slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_other_backends(backend, root: pathlib.Path):
    if BACKEND != "tensorflow":
        pytest.skip("it is what runs here")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            __file__,
            "-q",
            "-x",
            "--slow=all",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
        ],
        cwd=root,
        env=dict(os.environ, KERAS_BACKEND=backend, JAX_PLATFORMS="cpu", DEADUNITS_FAILED=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

"""Rule one: training is the same to the last bit with the callback and without it, whatever the model."""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np
import pytest

import deadunits_tb
from deadunits_tb.keras import DeadUnitsCallback
from keras_zoo import BACKEND, ZOO, assert_same_state, built, state

OFTEN = {
    "tensorflow": {"dense", "convolutions", "own_step", "separate"},
    "jax": {"convolutions", "own_step", "shared"},
    "torch": set(ZOO),
}[BACKEND]
"""Models tried at each commit; TensorFlow and JAX compile for seconds what then runs for milliseconds."""


def seldom(*case: Any) -> Any:
    """A case that only ``scripts/test --full`` runs."""
    return pytest.param(*case, marks=pytest.mark.slow)


def sgd() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)


def adamw() -> keras.optimizers.Optimizer:
    return keras.optimizers.AdamW(0.01, clipnorm=1.0)


def assert_identical(name: str, log_dir: pathlib.Path, *, every: int = 1, **compile_arguments: Any) -> None:
    """Train the same model twice, and compare weights, optimizer, logs and random state."""
    results = []
    for watched in (False, True):
        model, (x, y) = built(name, **compile_arguments)
        callbacks = [DeadUnitsCallback(log_dir, every=every)] if watched else []
        # 22 examples: two batches of 8 and a smaller one; validation in between must not be counted.
        history = model.fit(
            x, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks, validation_data=(x[:8], y[:8])
        )
        drawn = keras.ops.convert_to_numpy(keras.random.uniform((2,)))
        results.append((state(model), history.history, np.random.random(), drawn))  # noqa: NPY002
    (before, logs, number, draw), (after, watched_logs, watched_number, watched_draw) = results
    assert_same_state(before, after)
    assert "dead_fraction" in watched_logs
    assert logs == {key: values for key, values in watched_logs.items() if key != "dead_fraction"}
    assert number == watched_number
    np.testing.assert_array_equal(draw, watched_draw)
    run = deadunits_tb.load(log_dir)["."]
    assert run.layers
    assert run.records[-1].errors == ()


@pytest.mark.parametrize("name", [name if name in OFTEN else seldom(name) for name in ZOO])
def test_every_model(name: str, tmp_path: pathlib.Path) -> None:
    assert_identical(name, tmp_path)


WAYS = {
    "tensorflow": [
        seldom("dense", {"jit_compile": True}),
        seldom("dense", {"jit_compile": False}),
        seldom("convolutions", {"jit_compile": True}),
        seldom("convolutions", {"jit_compile": False}),
        seldom("separate", {"run_eagerly": True}),
        seldom("subclassed", {"run_eagerly": True}),
        ("dense", {"policy": "mixed_float16"}),
        seldom("convolutions", {"policy": "mixed_float16"}),
        seldom("separate", {"policy": "mixed_bfloat16"}),
        ("dense", {"steps_per_execution": 2}),
        seldom("dense", {"every": 3}),
        ("separate", {"optimizer": sgd}),
        seldom("convolutions", {"optimizer": sgd}),
        seldom("residual", {"optimizer": adamw}),
    ],
    "jax": [  # jit_compile=False means eager there
        seldom("dense", {"run_eagerly": True}),
        seldom("subclassed", {"run_eagerly": True}),
        ("dense", {"policy": "mixed_float16"}),
        seldom("convolutions", {"policy": "mixed_float16"}),
        seldom("separate", {"policy": "mixed_bfloat16"}),
        ("dense", {"steps_per_execution": 2}),
        ("dense", {"every": 3}),
        seldom("separate", {"optimizer": sgd}),
        seldom("residual", {"optimizer": adamw}),
        seldom("convolutions_first", {}),
    ],
    "torch": [  # no steps_per_execution, says Keras; jit_compile=True is not watched, see test_keras_callback.py
        ("separate", {"run_eagerly": True}),
        ("dense", {"policy": "mixed_float16"}),
        ("convolutions", {"policy": "mixed_float16"}),
        ("separate", {"policy": "mixed_bfloat16"}),
        ("dense", {"every": 3}),
        ("separate", {"optimizer": sgd}),
        ("residual", {"optimizer": adamw}),
        ("convolutions_first", {}),
    ],
}[BACKEND]


def named(value: Any) -> str:
    """Names of cases."""
    if isinstance(value, str):
        return value
    return " ".join(f"{key}={getattr(one, '__name__', one)}" for key, one in value.items()) or "default"


@pytest.mark.parametrize(("name", "arguments"), WAYS, ids=named)
def test_every_way_to_compile(name: str, arguments: dict[str, Any], tmp_path: pathlib.Path) -> None:
    assert_identical(name, tmp_path, **arguments)

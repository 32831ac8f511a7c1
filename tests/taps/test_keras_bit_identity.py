"""Rule one: training is the same to the last bit with the callback and without it, whatever the model."""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np
import pytest

import deadunits_tb
from deadunits_tb.keras import DeadUnitsCallback
from keras_zoo import ZOO, assert_same_state, built, state


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
        results.append((state(model), history.history, np.random.random(), keras.random.uniform((2,))))  # noqa: NPY002
    (before, logs, number, draw), (after, watched_logs, watched_number, watched_draw) = results
    assert_same_state(before, after)
    assert "dead_fraction" in watched_logs
    assert logs == {key: values for key, values in watched_logs.items() if key != "dead_fraction"}
    assert number == watched_number
    np.testing.assert_array_equal(draw, watched_draw)
    run = deadunits_tb.load(log_dir)["."]
    assert run.layers
    assert run.records[-1].errors == ()


@pytest.mark.parametrize("name", ZOO)
def test_every_model(name: str, tmp_path: pathlib.Path) -> None:
    assert_identical(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("dense", {"jit_compile": True}),
        ("dense", {"jit_compile": False}),
        ("convolutions", {"jit_compile": True}),
        ("convolutions", {"jit_compile": False}),
        ("separate", {"run_eagerly": True}),
        ("subclassed", {"run_eagerly": True}),
        ("dense", {"policy": "mixed_float16"}),
        ("convolutions", {"policy": "mixed_float16"}),
        ("separate", {"policy": "mixed_bfloat16"}),
        ("dense", {"steps_per_execution": 2}),
        ("dense", {"every": 3}),
        ("separate", {"optimizer": sgd}),
        ("residual", {"optimizer": adamw}),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else " ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in value.items())
    ),
)
def test_every_way_to_compile(name: str, arguments: dict[str, Any], tmp_path: pathlib.Path) -> None:
    assert_identical(name, tmp_path, **arguments)

"""What watching adds to a Keras training step, with TensorBoard's own callback beside it.

    KERAS_BACKEND=jax python benchmarks/overhead_keras.py [--rounds 15] [--steps 40] [--seconds 45] [--case mlp]

Keras runs on the backend that KERAS_BACKEND names, TensorFlow by default.

First table: every variant takes turns in every round, on a model of its own that was trained before, so that nothing is
compiled within the measurement. Counted is the processor time of the process, over all threads, per step, and the ratio
to the bare step of the same round. ``every=1`` observes all signals at each step. A run begins with 200 records of one
observation each ("a record each step"); from then on, in a run of 400,000 steps, one observation in 500 is a record.

Second table: the callback as it is by default, for a while of training; what it spent is its own account, which the
report shows too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import deadunits_tb
from deadunits_tb.capture.schedule import OPENING_SECONDS
from deadunits_tb.keras import DeadUnitsCallback

L = keras.layers


@dataclass(frozen=True)
class Case:
    """A network and the shape of its batches."""

    key: str
    name: str
    shape: tuple[int, ...]
    batch: int
    output: Callable[[Any], Any]

    def model(self) -> keras.Model:
        """Compiled, with weights."""
        keras.utils.set_random_seed(0)
        inputs = keras.Input(self.shape)
        model = keras.Model(inputs, self.output(inputs))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    def data(self, steps: int) -> tuple[Any, Any]:
        """Random images and labels for so many steps."""
        rng = np.random.default_rng(0)
        images = rng.normal(size=(steps * self.batch, *self.shape)).astype(np.float32)
        return images, rng.integers(0, 10, len(images))


def mlp(x: Any) -> Any:
    """Two hidden layers."""
    return L.Dense(10, "softmax")(L.Dense(512, "relu")(L.Dense(512, "relu")(x)))


def cnn(x: Any) -> Any:
    """Three convolutions with pooling."""
    for filters in (32, 64, 128):
        x = L.MaxPooling2D()(L.Conv2D(filters, 3, padding="same", activation="relu")(x))
    return L.Dense(10, "softmax")(L.Flatten()(x))


def transformer(x: Any) -> Any:
    """Four blocks, normalised before each part."""
    for _ in range(4):
        y = L.LayerNormalization()(x)
        x = L.Add()([x, L.MultiHeadAttention(4, 64)(y, y)])
        y = L.Dense(1024, "gelu")(L.LayerNormalization()(x))
        x = L.Add()([x, L.Dense(256)(y)])
    return L.Dense(10, "softmax")(L.GlobalAveragePooling1D()(x))


CASES = (
    Case("mlp", "MLP 784-512-512-10, batch 128", (784,), 128, mlp),
    Case("cnn", "CNN 32-64-128 on 32x32x3, batch 64", (32, 32, 3), 64, cnn),
    Case("transformer", "transformer, 4 layers, d 256, ff 1024, sequence 128, batch 8", (128, 256), 8, transformer),
)

LONG = 10_000
"""Epochs that a run is said to have; each call of fit stops after one."""


class OneEpoch(keras.callbacks.Callback):
    """Ends training after an epoch of however many."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop."""
        self.model.stop_training = True


VARIANTS: dict[str, Callable[[str], list[Any]]] = {
    "bare": lambda directory: [],
    "every=1": lambda directory: [DeadUnitsCallback(directory, every=1), OneEpoch()],
    "every=1, a record each step": lambda directory: [DeadUnitsCallback(directory, every=1)],
    "every=10": lambda directory: [DeadUnitsCallback(directory, every=10), OneEpoch()],
    "TensorBoard(histogram_freq=1)": lambda directory: [keras.callbacks.TensorBoard(directory, histogram_freq=1)],
}


def per_step(case: Case, rounds: int, steps: int) -> dict[str, list[float]]:
    """Variant to processor milliseconds per step, one figure a round."""
    images, labels = case.data(steps)
    figures: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as directory:
        ready = {
            name: (case.model(), callbacks(f"{directory}/{number}"))
            for number, (name, callbacks) in enumerate(VARIANTS.items())
        }
        for round_ in range(-(220 // steps) - 1, rounds):
            names = list(VARIANTS)
            for name in names if round_ % 2 else reversed(names):
                model, callbacks = ready[name]
                epochs = LONG if any(isinstance(each, OneEpoch) for each in callbacks) else 1
                began = time.process_time()
                model.fit(
                    images, labels, batch_size=case.batch, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
                )
                if round_ >= 0:
                    figures[name].append(1e3 * (time.process_time() - began) / steps)
    return figures


def by_default(case: Case, seconds: float) -> tuple[float, float, int, int]:
    """Training seconds, the monitor's own, steps, and records of a run with the callback as it is by default."""
    images, labels = case.data(100)

    class Stop(keras.callbacks.Callback):
        until = time.perf_counter() + seconds

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = time.perf_counter() > self.until

    with tempfile.TemporaryDirectory() as directory:
        model = case.model()
        model.fit(
            images,
            labels,
            batch_size=case.batch,
            epochs=10_000,
            verbose=0,
            callbacks=[DeadUnitsCallback(Path(directory)), Stop()],
        )
        last = deadunits_tb.load(directory)["."].records[-1]
        assert last.overhead
        return last.overhead_seconds / last.overhead, last.overhead_seconds, last.step, last.records_written


def spread(values: list[float], form: str) -> str:
    """Median, with the smallest and largest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--case", choices=[case.key for case in CASES], help="all without it")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.case in (None, case.key)]
    console = Console(width=130)
    console.print(f"Keras {keras.__version__} on {keras.backend.backend()}, {time.strftime('%Y-%m-%d %H:%M')}")
    for case in cases:
        figures = per_step(case, arguments.rounds, arguments.steps)
        table = Table("variant", "processor ms per step", "ratio to bare, round by round", title=case.name)
        for name, values in figures.items():
            ratios = [value / bare for value, bare in zip(values, figures["bare"], strict=True)]
            table.add_row(name, spread(values, ".2f"), spread(ratios, ".3f"))
        console.print(table)
    table = Table("by default", "training s", "own s", "share beyond the allowance", "steps", "records")
    for case in cases:
        training, own, steps, records = by_default(case, arguments.seconds)
        beyond = max(0.0, own - OPENING_SECONDS) / training
        table.add_row(case.name, f"{training:.1f}", f"{own:.2f}", f"{beyond:.2%}", f"{steps:,}", f"{records:,}")
    console.print(table)


if __name__ == "__main__":
    main()

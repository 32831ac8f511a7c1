"""What watching adds to a Keras training step, with TensorBoard's own callback beside it.

    KERAS_BACKEND=jax python benchmarks/overhead_keras.py [--rounds 15] [--steps 40] [--case mlp]
    python benchmarks/overhead_keras.py --default [--seconds 60] [--case mlp]

Keras runs on the backend that KERAS_BACKEND names, TensorFlow by default.

Every variant takes turns in every round, on a model of its own that was trained before, so that nothing is compiled
within the measurement. Counted is the processor time of the process, over all threads, per step, and the ratio to the
bare step of the same round. ``every=1`` observes all signals at each step. A run makes about 1,000 records, the first
200 of one observation each: so a step with a record and one without are measured apart, and what a run of some length
has on average is computed from both by the schedule of records.

With ``--default``: the callback as it is by default, for a while of training. Epochs of a bare model take turns with
its own, within its ``fit``. What the monitor says it spent, by the clock, stands beside the difference in processor
time, of the whole run and, epoch by epoch, of its second half, when the opening is over.
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
from deadunits_tb.capture.schedule import OPENING_SECONDS, RecordSchedule
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


WITHOUT, WITH = "every=1, steps without a record", "every=1, a record each step"
RUNS = (1_000, 10_000, 100_000)
"""Lengths of runs, in steps."""

VARIANTS: dict[str, Callable[[str], list[Any]]] = {
    "bare": lambda directory: [],
    WITHOUT: lambda directory: [DeadUnitsCallback(directory, every=1), OneEpoch()],
    WITH: lambda directory: [DeadUnitsCallback(directory, every=1)],
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


def records_in(steps: int) -> int:
    """How many of a run's observations become records, where each step is observed."""
    schedule = RecordSchedule(total_steps=steps)
    for step in filter(schedule.due, range(steps)):
        schedule.recorded(step)
    return schedule.records


class EpochTimer(keras.callbacks.Callback):
    """Notes the processor seconds of each epoch."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self.seconds: list[float] = []
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin."""
        self._began = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note."""
        self.seconds.append(time.process_time() - self._began)


@dataclass(frozen=True)
class Default:
    """What a run with the callback as it is by default took.

    Attributes:
        training: Seconds of its steps.
        own: Of the monitor, as it says itself.
        added: Processor seconds more than the bare model's.
        later: Ratios of processor time to the bare model's, epoch by epoch, in the second half.
        steps: Training steps.
        records: Written.
    """

    training: float
    own: float
    added: float
    later: list[float]
    steps: int
    records: int


def by_default(case: Case, seconds: float, steps: int) -> Default:
    """Train with the callback as it is by default, and a bare model in turns with it."""
    images, labels = case.data(steps)
    bare, bare_timer, timer = case.model(), EpochTimer(), EpochTimer()

    def fit(model: keras.Model, epochs: int, callbacks: list[Any]) -> None:
        model.fit(images, labels, batch_size=case.batch, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)

    class InTurns(keras.callbacks.Callback):
        until = time.perf_counter() + seconds

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            fit(bare, 1, [bare_timer])
            self.model.stop_training = time.perf_counter() > self.until

    with tempfile.TemporaryDirectory() as directory:
        fit(case.model(), LONG, [DeadUnitsCallback(Path(directory)), timer, InTurns()])
        last = deadunits_tb.load(directory)["."].records[-1]
    assert last.overhead
    pairs = list(zip(timer.seconds, bare_timer.seconds, strict=True))
    return Default(
        training=last.overhead_seconds / last.overhead,
        own=last.overhead_seconds,
        added=sum(timer.seconds) - sum(bare_timer.seconds),
        later=[watched / plain for watched, plain in pairs[len(pairs) // 2 :]],
        steps=last.step,
        records=last.records_written,
    )


def spread(values: list[float], form: str) -> str:
    """Median, with the smallest and largest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--case", choices=[case.key for case in CASES], help="all without it")
    parser.add_argument("--default", action="store_true", help="the callback as it is by default")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.case in (None, case.key)]
    console = Console(width=130)
    console.print(f"Keras {keras.__version__} on {keras.backend.backend()}, {time.strftime('%Y-%m-%d %H:%M')}")
    if arguments.default:
        columns = (
            "training s",
            "own s",
            "beyond the allowance",
            "added processor s",
            "later ratio",
            "steps",
            "records",
        )
        table = Table("by default", *columns)
        for case in cases:
            run = by_default(case, arguments.seconds, arguments.steps)
            beyond = max(0.0, run.own - OPENING_SECONDS) / run.training
            seconds = f"{run.training:.1f}", f"{run.own:.2f}", f"{beyond:.2%}", f"{run.added:.2f}"
            table.add_row(case.name, *seconds, spread(run.later, ".3f"), f"{run.steps:,}", f"{run.records:,}")
        console.print(table)
        return
    for case in cases:
        figures = per_step(case, arguments.rounds, arguments.steps)
        table = Table("variant", "processor ms per step", "ratio to bare, round by round", title=case.name)
        ratios: dict[str, float] = {}
        for name, values in figures.items():
            each = [value / bare for value, bare in zip(values, figures["bare"], strict=True)]
            ratios[name] = statistics.median(each)
            table.add_row(name, spread(values, ".2f"), spread(each, ".3f"))
        for steps in RUNS:
            share = records_in(steps) / steps
            average = share * ratios[WITH] + (1 - share) * ratios[WITHOUT]
            table.add_row(f"every=1, a run of {steps:,} steps (computed)", "", f"{average:.3f}")
        console.print(table)


if __name__ == "__main__":
    main()

"""Records of units that go through every kind of trouble at random, made by the real accumulator: for properties."""

from __future__ import annotations

import numpy as np

from deadunits_tb.capture.accumulators import LayerAccumulator, largest_update
from deadunits_tb.capture.observation import Observation, WeightObservation
from deadunits_tb.record import LayerRecord
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo

UNITS, RECORDS = 24, 30


def lives(info: LayerInfo, thresholds: Thresholds, seed: int, *, dataset: int = 0, first: int = 0) -> list[LayerRecord]:
    """Records of units that change their ways at random: silent, rare, constant, at a bound, tiny, NaN, healthy."""
    random = np.random.default_rng(seed)
    accumulator = LayerAccumulator(info, thresholds, dataset_examples=dataset)
    ways = random.integers(0, 8, UNITS)
    records, step = [], first
    for _ in range(RECORDS):
        ways = np.where(random.random(UNITS) < 0.1, random.integers(0, 8, UNITS), ways)
        for _ in range(int(random.integers(1, 4))):
            step += int(random.integers(1, 4))
            accumulator.add(step, _observation(ways, random, trainable=random.random() < 0.97))
        statistics = accumulator.statistics()
        moves = largest_update(statistics)
        records.append(
            accumulator.record(statistics, step=step, wall_time=float(step), run_moves=moves, from_start=first == 0)
        )
    return records


def _observation(ways: np.ndarray, random: np.random.Generator, *, trainable: bool) -> Observation:
    silent, rare, constant, bound, tiny, bad, still = (ways == way for way in range(1, 8))
    n = int(random.choice([16, 64, 200]))
    rate = np.where(silent, 0, np.where(rare, 0.004, 0.6))
    fired = np.where(constant | bound, n, random.binomial(n, rate)).astype(float)
    size = np.where(fired == 0, 0.0, np.where(tiny, 1e-4, random.uniform(0.5, 2, UNITS)))
    mean = np.where(bad, np.where(random.random(UNITS) < 0.5, np.nan, np.inf), size)
    spread = np.where(constant | (fired == 0), 0.0, size)
    change = np.where(still, 0.0, 1e-3)
    return Observation(
        examples=n,
        positions=4 * n,
        fired_examples=fired,
        fired_positions=fired * 2,
        mean=mean,
        squares=spread**2 * 4 * n,
        sum_abs=mean * 4 * n,
        min=mean - spread,
        max=mean + spread,
        saturated=np.where(bound, 4.0 * n, 0.0),
        gradient_squares=None if random.random() < 0.1 else (fired > 0) * random.uniform(0.1, 1, UNITS),
        weights=WeightObservation(norm_in=np.ones(UNITS), norm_out=(ways != 0) * 1.0, change=change),
        trainable=trainable,
    )

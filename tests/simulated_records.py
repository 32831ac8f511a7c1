"""Records of a layer whose units fire at random at known rates, and of which some die: for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deadunits_tb.capture.lately import Lately
from deadunits_tb.capture.reference_rate import ReferenceRate
from deadunits_tb.rates import REFERENCE_SHARE, rates_code
from deadunits_tb.record import Evidence, LayerRecord, Memory, Statistics, Window
from deadunits_tb.run_record import RunRecord
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import STATISTICS, LayerInfo, UnitState
from deadunits_tb.verdicts import judge

OBSERVATIONS, INTERVAL, BATCH = 8, 10, 64
"""Observations in a record, steps from one to the next, examples of a full batch."""


def layer(units: int, name: str = "dense", order: int = 0) -> LayerInfo:
    return LayerInfo(name, "Dense", order, units, "relu", fan_in=64, fan_out=10, witness="pre_activation")


def simulate(
    units: int, records: int, *, dying: float = 0.03, lowest_rate: float = 0.05, seed: int = 0
) -> Iterator[LayerRecord]:
    """Records of :func:`layer`.

    Args:
        units: How many.
        records: How many.
        dying: Share of the units that fall silent at random times, for good.
        lowest_rate: Firing rates are spread evenly in their logarithm from here to 1.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    rates = np.exp(random.uniform(np.log(lowest_rate), 0, units))
    doomed = random.choice(units, int(units * dying), replace=False)
    death = np.full(units, np.iinfo(np.int64).max)
    death[doomed] = random.integers(0, records * OBSERVATIONS * INTERVAL, len(doomed))
    columns = {s.name: random.uniform(0.5, 1.5, units) for s in STATISTICS}
    carried, memory = Evidence.none(units), Memory.none(units, 0)
    rates_of, lately = ReferenceRate(units, Thresholds()), Lately(units, Thresholds())
    step = seen = 0
    for _ in range(records):
        fired, examples = np.zeros(units), 0
        for _ in range(OBSERVATIONS):
            step += INTERVAL
            batch = BATCH if random.random() < 0.95 else int(random.integers(1, BATCH))
            hits = random.binomial(batch, np.where(step < death, rates, 0))
            carried = _carry(carried, hits > 0, batch, step)
            rates_of.add(hits[None], np.array([batch]), np.ones((1, units), bool))
            fired, examples = fired + hits, examples + batch
        seen += examples
        share = fired / examples
        lately.add(fired, share * columns["mean_abs"], examples)
        codes = rates_code(rates_of.rate, rates_of.recent) + lately.code(np.arange(units), fired)
        reference = np.where(share < REFERENCE_SHARE, codes, 0)
        evidence = Evidence(
            carried.examples_since_active,
            carried.tokens_since_active,
            carried.observations_since_active,
            carried.examples_without_signal,
            carried.last_active_step,
            reference,
        )
        columns |= {"active_fraction": share, "min": share * 0, "gradient": share * 1e-3}
        statistics = Statistics.of(columns, units)
        window = Window(step, INTERVAL, 1.7e9 + step / 7, examples, examples, OBSERVATIONS, seen, run_moves=1e-3)
        verdict = judge(layer(units), window, statistics, evidence, memory, Thresholds())
        yield LayerRecord("dense", window, statistics, evidence, memory, verdict.states, verdict.since)
        memory = verdict.memory


def run_record(*records: LayerRecord) -> RunRecord:
    """The run's record for those of its layers."""
    window = records[0].window
    counts = {record.layer: _counts(record) for record in records}
    return RunRecord(window.step, window.wall_time, window.examples, window.observations, 80, loss=0.5, counts=counts)


def _carry(before: Evidence, active: np.ndarray, batch: int, step: int) -> Evidence:
    def grown(counter: np.ndarray, by: int) -> np.ndarray:
        return np.where(active, 0, counter + by)

    return Evidence(
        grown(before.examples_since_active, batch),
        grown(before.tokens_since_active, batch),
        grown(before.observations_since_active, 1),
        grown(before.examples_without_signal, batch),
        np.where(active, step, before.last_active_step),
        before.reference,
    )


def _counts(record: LayerRecord) -> tuple[int, ...]:
    return tuple(np.bincount(record.states, minlength=len(UnitState)).tolist())

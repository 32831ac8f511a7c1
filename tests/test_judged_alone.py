"""A record alone gives its own states, and all in a row give the same."""

import dataclasses
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deadunits_tb.capture.accumulators import LayerAccumulator
from deadunits_tb.capture.observation import WeightObservation
from deadunits_tb.capture.reductions import observe_arrays
from deadunits_tb.record import Evidence, Memory
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, UnitState
from deadunits_tb.verdicts import judge

T = Thresholds()
FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "gelu": lambda x: np.maximum(x, 0) + 0.01 * np.tanh(x),
    None: lambda x: x,
}
EAGER = Thresholds(unknown_examples=8, dead_examples=40, confirm_examples=8, reference_examples=50, dying_share=0.1)


def train(seed, function, thresholds, records=25):
    """One layer whose units do all kinds of things, changing every now and then; yields info and each record."""
    rng = np.random.default_rng(seed)
    units = 8
    info = LayerInfo("l", "Dense", 0, units, function, witness="pre_activation", tokens=bool(rng.integers(2)))
    accumulator = LayerAccumulator(info, thresholds, dataset_examples=int(rng.choice([0, 30])))
    kinds = rng.integers(0, 9, units)
    step = 0
    for _ in range(records):
        kinds = np.where(rng.random(units) < 0.1, rng.integers(0, 9, units), kinds)
        for _ in range(rng.integers(1, 4)):
            step += int(rng.integers(1, 3))
            x = rng.normal(size=(int(rng.integers(1, 30)), int(rng.integers(1, 3)), units))
            x[..., kinds == 1] = -9  # silent, or at a bound
            x[..., kinds == 2] = np.where(rng.random(x.shape) < 0.02, 1, -9)[..., kinds == 2]
            x[..., kinds == 3] = 2.5
            x[..., kinds == 4] *= 1e-4
            x[..., kinds == 5] = 40
            y = FUNCTIONS[function](x)
            g = rng.normal(size=y.shape) * ((y != 0) & (kinds != 1))
            if rng.random() < 0.1:
                y[0, 0, kinds == 6] = np.nan
            if rng.random() < 0.1:
                g = None
            seen = observe_arrays(y, activation_function=function, gradients=g, scale=accumulator.scale)
            weights = WeightObservation(
                norm_in=np.ones(units),
                norm_out=(kinds != 7).astype(float),
                change=np.where(kinds == 8, 0, 1e-3),
            )
            seen = dataclasses.replace(seen, weights=weights, trainable=bool(rng.random() > 0.02))
            accumulator.add(step, seen)
        yield (
            info,
            accumulator.record(
                accumulator.statistics(),
                step=step,
                wall_time=0.0,
                run_moves=float(rng.choice([1e-3, math.nan])),
                from_start=True,
            ),
        )


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(FUNCTIONS)), st.sampled_from([T, EAGER]))
@settings(max_examples=60, deadline=None)
def test_each_record_alone_gives_its_own_states_and_so_do_all_in_a_row(seed, function, thresholds):
    memory = None
    for info, record in train(seed, function, thresholds):
        alone = judge(info, record.window, record.statistics, record.evidence, record.memory, thresholds)
        np.testing.assert_array_equal(alone.states, record.states)
        np.testing.assert_array_equal(alone.since, record.since)
        before = Memory.none(record.units, record.window.first_step) if memory is None else memory
        assert before.equals(record.memory)
        memory = judge(info, record.window, record.statistics, record.evidence, before, thresholds).memory


def test_the_records_of_that_property_hold_every_state():
    seen = {
        UnitState(code)
        for seed in range(4)
        for function in FUNCTIONS
        for _, record in train(seed, function, EAGER, records=60)
        for code in record.states
    }
    assert seen == set(UnitState)


def test_judging_changes_nothing_that_it_was_given():
    info, record = list(train(1, "relu", EAGER))[-1]
    given_ = [record.statistics.values, *(getattr(record.evidence, f.name) for f in dataclasses.fields(Evidence))]
    given_ += [getattr(record.memory, f.name) for f in dataclasses.fields(Memory)]
    before = [array.copy() for array in given_]
    judge(info, record.window, record.statistics, record.evidence, record.memory, T)
    for one, other in zip(given_, before, strict=True):
        np.testing.assert_array_equal(one, other)

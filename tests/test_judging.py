"""Judging again gives what the writer stored; with other thresholds, what a writer with those would have stored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadunits_tb.capture.accumulators import LayerAccumulator
from deadunits_tb.capture.observation import Observation
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.reading.judging import rejudge
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, UnitState
from recorded import history_of
from simulated_lives import RECORDS, UNITS, lives

INFOS = st.builds(
    LayerInfo,
    name=st.just("layer"),
    kind=st.just("Dense"),
    order=st.just(0),
    units=st.just(UNITS),
    activation_function=st.sampled_from(["relu", "relu6", "tanh", "gelu", "linear", None]),
    role=st.sampled_from(["hidden", "hidden", "output"]),
    witness=st.sampled_from(["pre_activation", "output", "none"]),
    tokens=st.booleans(),
)
THRESHOLDS = st.fixed_dictionaries(
    {},
    optional={
        "unknown_examples": st.integers(1, 256),
        "dead_examples": st.integers(256, 5000),
        "dead_tokens": st.integers(1000, 10**6),
        "dead_observations": st.integers(1, 60),
        "saturated_share": st.floats(0.5, 1),
        "dying_share": st.floats(0, 0.1),
        "stagnant_records": st.integers(1, 6),
        "dormant_share": st.floats(0, 1),
        "confirm_records": st.integers(1, 5),
        "confirm_examples": st.integers(1, 1000),
    },
).map(lambda changes: Thresholds(**changes))


@settings(max_examples=30, deadline=None)
@given(info=INFOS, thresholds=THRESHOLDS, seed=st.integers(0, 2**32), dataset=st.sampled_from([0, 300]))
def test_with_the_writers_thresholds_it_gives_what_is_stored(
    info: LayerInfo, thresholds: Thresholds, seed: int, dataset: int
) -> None:
    written = lives(info, thresholds, seed, dataset=dataset)
    states, since = rejudge(history_of(info, written, thresholds), thresholds)
    assert np.array_equal(states, [record.states for record in written])
    assert np.array_equal(since, [record.since for record in written])


@settings(max_examples=30, deadline=None)
@given(info=INFOS, thresholds=THRESHOLDS, seed=st.integers(0, 2**32), dataset=st.sampled_from([0, 300]))
def test_with_other_thresholds_it_gives_what_a_writer_with_those_had_stored(
    info: LayerInfo, thresholds: Thresholds, seed: int, dataset: int
) -> None:
    states, since = rejudge(history_of(info, lives(info, Thresholds(), seed, dataset=dataset)), thresholds)
    wanted = lives(info, thresholds, seed, dataset=dataset)
    assert np.array_equal(states, [record.states for record in wanted])
    assert np.array_equal(since, [record.since for record in wanted])


RELU = LayerInfo("layer", "Dense", 0, UNITS, "relu", witness="pre_activation")


def test_the_simulated_lives_reach_many_states() -> None:
    """Otherwise the properties above would say little."""
    seen = {int(code) for seed in range(5) for record in lives(RELU, Thresholds(), seed) for code in record.states}
    assert {UnitState(code).label for code in seen} >= {
        "active", "dormant", "stagnant", "dying", "constant", "disconnected", "dead", "non_finite", "unknown", "frozen",
    }  # fmt: skip


def test_a_resumed_run_is_judged_anew_from_where_it_was_taken_up() -> None:
    before, after = lives(RELU, Thresholds(), 1), lives(RELU, Thresholds(), 2, first=1000)
    history = history_of(RELU, [*before, *after], sessions=[1] * RECORDS + [2] * RECORDS)
    states, since = rejudge(history, Thresholds())
    assert np.array_equal(states, [record.states for record in [*before, *after]])
    assert np.array_equal(since, [record.since for record in [*before, *after]])


def test_between_records_with_statistics_the_states_stay() -> None:
    written = lives(RELU, Thresholds(), 3)
    thinned = [r if i % 4 == 2 else dataclasses.replace(r, statistics=None) for i, r in enumerate(written)]
    states, since = rejudge(history_of(RELU, thinned), Thresholds(confirm_records=1, confirm_examples=1))
    assert (states[:2] == UnitState.UNKNOWN).all()
    for index in range(3, RECORDS):
        if index % 4 != 2:
            assert np.array_equal(states[index], states[index - 1])
            assert np.array_equal(since[index], since[index - 1])
    assert (states[2:] != UnitState.UNKNOWN).any()


def test_a_larger_dead_gradient_takes_a_faint_error_signal_for_none() -> None:
    gelu = dataclasses.replace(RELU, activation_function="gelu")
    accumulator = LayerAccumulator(gelu, Thresholds())
    faint = np.arange(UNITS) == 5
    records = []
    for step in range(40):
        fired, squares = np.where(faint, 0, 60.0), np.where(faint, 1e-8, 1.0) * 100
        mean = fired / 100
        seen = {"fired_examples": fired, "fired_positions": fired, "mean": mean, "squares": mean, "sum_abs": mean}
        accumulator.add(
            step,
            Observation(examples=100, positions=100, min=mean * 0, max=mean, gradient_squares=squares, **seen),
        )
        statistics = accumulator.statistics()
        records.append(accumulator.record(statistics, step=step, wall_time=0.0, run_moves=1e-3, from_start=True))
    history = history_of(gelu, records)
    assert (history.states()[-1, 5], history.states()[-1, 6]) == (UnitState.DORMANT, UnitState.ACTIVE)
    states, since = rejudge(history, Thresholds(dead_gradient=1e-3))
    assert (states[-1, 5], since[-1, 5]) == (UnitState.DEAD, 0)
    assert (states[-1, 6], states[28, 5], states[31, 5]) == (UnitState.ACTIVE, UnitState.DYING, UnitState.DEAD)
    smaller, _ = rejudge(history, Thresholds(dead_gradient=0.0))
    assert np.array_equal(smaller, history.states())


def test_what_acts_while_writing_cannot_be_changed_afterwards() -> None:
    history = history_of(RELU, lives(RELU, Thresholds(), 4))
    with pytest.raises(InvalidArgumentError, match=r"fired_scale acts while writing: .* with 0\.001; 0\.01 needs"):
        rejudge(history, Thresholds(fired_scale=0.01))

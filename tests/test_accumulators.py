"""Windows are merged exactly, evidence is carried exactly, and NaN is seen once and poisons nothing."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slow_reference
from deadunits_tb.capture.accumulators import LayerAccumulator, largest_update, merge
from deadunits_tb.capture.observation import LayerSteps, Observation, WeightObservation
from deadunits_tb.capture.reductions import observe_arrays
from deadunits_tb.capture.reference_rate import ReferenceRate
from deadunits_tb.rates import reference_rate
from deadunits_tb.record import NEVER, round_bfloat16
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, UnitState

T = Thresholds()


def layer(units=3, **changes):
    said = {"activation_function": "relu", "witness": "pre_activation", **changes}
    return LayerInfo("hidden", "Dense", 0, units, **said)


def record(accumulator, step, run_moves=math.nan):
    return accumulator.record(accumulator.statistics(), step=step, wall_time=0.0, run_moves=run_moves, from_start=True)


def relu_batch(rng, shape, dead=()):
    values = np.maximum(rng.normal(size=shape), 0).astype(np.float32)
    values[..., list(dead)] = 0
    return values


def assert_same(one, other):
    for field in dataclasses.fields(Observation):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a is None or b is None:
            assert a is b, field.name
        else:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=field.name)


batch_sizes = st.integers(1, 9)


@given(st.integers(0, 2**32 - 1), batch_sizes, batch_sizes, batch_sizes, st.sampled_from([1.0, 1e6, 1e-6]))
@settings(max_examples=60, deadline=None)
def test_merging_is_associative_and_equals_one_big_batch(seed, a, b, c, offset):
    rng = np.random.default_rng(seed)
    batches = [offset + rng.normal(size=(n, 2, 4)) for n in (a, b, c)]
    gradients = [rng.normal(size=batch.shape) for batch in batches]
    one, two, three = (
        observe_arrays(batch, activation_function="tanh", gradients=slopes, scale=1.0)
        for batch, slopes in zip(batches, gradients, strict=True)
    )
    left, right = merge(merge(one, two), three), merge(one, merge(two, three))
    together = observe_arrays(
        np.concatenate(batches), activation_function="tanh", gradients=np.concatenate(gradients), scale=1.0
    )
    for merged in (left, right, merge(three, merge(two, one))):
        np.testing.assert_allclose(merged.squares, together.squares, rtol=1e-6, atol=1e-12 * offset**2)
        assert_same(dataclasses.replace(merged, squares=together.squares), together)


def test_equal_constants_keep_a_spread_of_exactly_zero():
    one, two = (observe_arrays(np.full((n, 2), 3.3, np.float32), activation_function=None) for n in (5, 7))
    merged = merge(one, two)
    assert not merged.squares.any()
    assert (merged.mean == np.float32(3.3)).all()


def test_a_gradient_measured_in_one_of_two_is_dropped():
    one = observe_arrays(np.ones((2, 1)), activation_function="relu", gradients=np.ones((2, 1)))
    assert merge(one, dataclasses.replace(one, gradient_squares=None)).gradient_squares is None


@pytest.mark.parametrize("function", ["relu", "tanh", "sigmoid", "relu6"])
def test_statistics_of_a_window_agree_with_plain_loops(function):
    rng = np.random.default_rng(5)
    apply = {"relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(3 * x, 0, 6), "tanh": np.tanh}
    apply["sigmoid"] = lambda x: 1 / (1 + np.exp(-5 * x))
    batches = [apply[function](rng.normal(0, 3, (n, 4, 3))) for n in (2, 5, 1)]
    gradients = [rng.normal(size=batches[0].shape), None, rng.normal(size=batches[2].shape)]
    accumulator = LayerAccumulator(layer(activation_function=function), T)
    for step, (batch, slopes) in enumerate(zip(batches, gradients, strict=True)):
        seen = observe_arrays(batch, activation_function=function, gradients=slopes, scale=1.0)
        accumulator.add(step, seen)
    statistics = accumulator.statistics()
    for unit in range(3):
        reference = slow_reference.of_unit(
            [slow_reference.examples_of(batch, unit) for batch in batches],
            fires=(lambda y: y > 0) if "relu" in function else (lambda y: abs(y) > 1e-3),
            function=function,
            gradients=[None if g is None else slow_reference.examples_of(g, unit) for g in gradients],
        )
        assert set(statistics.names) == set(reference)
        for name, value in reference.items():
            assert statistics.get(name)[unit] == pytest.approx(value, rel=2**-8, abs=1e-12), name
    np.testing.assert_array_equal(statistics.values, round_bfloat16(statistics.values))


def test_weights_of_a_window():
    def look(change, norm, gradient, drift):
        array = lambda *v: np.array(v, float)  # noqa: E731
        return WeightObservation(
            norm_in=array(*norm),
            norm_out=array(1, 1, 1),
            gradient=array(*gradient),
            change=array(*change),
            change_since_first=array(*drift),
            norm_first=array(1, 2, 0),
        )

    plain = observe_arrays(np.ones((8, 3)), activation_function="relu")
    accumulator = LayerAccumulator(layer(), T)
    accumulator.add(0, dataclasses.replace(plain, weights=look((0.5, 0, 0), (1, 2, 0), (3, 0, 1), (0.5, 0, 0))))
    accumulator.add(1, dataclasses.replace(plain, weights=look((0.25, 0, 7), (2, 2, 0), (4, 0, 1), (0.75, 0, 7))))
    accumulator.add(2, plain)  # weights were not looked at: what is known stays
    statistics = accumulator.statistics()
    assert statistics.get("update_ratio").tolist() == [0.5, 0, 1]  # the largest; from zero weights it is 1, not Inf
    assert statistics.get("drift").tolist() == [0.75, 0, 1]
    assert statistics.get("norm_in").tolist() == [2, 2, 0]
    np.testing.assert_allclose(statistics.get("weight_gradient"), [math.sqrt(12.5), 0, 1], rtol=2**-8)
    assert largest_update(statistics) == 1


def test_what_was_not_measured_has_no_row():
    accumulator = LayerAccumulator(layer(), T)
    accumulator.add(0, observe_arrays(np.ones((8, 3)), activation_function="relu"))
    statistics = accumulator.statistics()
    assert not {"gradient", "update_ratio", "norm_in", "saturated_fraction"} & set(statistics.names)
    assert math.isnan(largest_update(statistics))


class SlowEvidence:
    """The counters of one unit, one observation after the other."""

    def __init__(self):
        self.examples = self.tokens = self.observations = self.without = 0
        self.last = NEVER

    def add(self, step, values, gradients):
        if (values > 0).any():
            self.examples = self.tokens = self.observations = 0
            self.last = step
        else:
            self.examples += len(values)
            self.tokens += values.size
            self.observations += 1
        if gradients is not None:
            self.without = 0 if (gradients != 0).any() else self.without + len(values)

    def row(self):
        return [self.examples, self.tokens, self.observations, self.without, self.last]


@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.booleans()), min_size=1))
@settings(max_examples=60, deadline=None)
def test_evidence_goes_on_exactly_from_observation_to_observation(seed, plan):
    rng = np.random.default_rng(seed)
    accumulator, slow, step = LayerAccumulator(layer(), T), [SlowEvidence() for _ in range(3)], 0
    for examples, measured, due in plan:
        step += int(rng.integers(1, 5))
        values = relu_batch(rng, (examples, 2, 3)) * (rng.random(3) < 0.3)
        gradients = rng.normal(size=values.shape) * (rng.random(3) < 0.5) if measured else None
        accumulator.add(step, observe_arrays(values, activation_function="relu", gradients=gradients))
        for unit, counter in enumerate(slow):
            counter.add(step, values[..., unit], None if gradients is None else gradients[..., unit])
        if due:
            evidence = record(accumulator, step).evidence
            rows = np.stack(
                [
                    evidence.examples_since_active,
                    evidence.tokens_since_active,
                    evidence.observations_since_active,
                    evidence.examples_without_signal,
                    evidence.last_active_step,
                ]
            )
            assert rows.T.tolist() == [counter.row() for counter in slow]


def test_the_window_of_a_record_counts_what_it_covers():
    accumulator = LayerAccumulator(layer(units=2), T, dataset_examples=100)
    for step, examples in [(5, 3), (6, 4), (8, 5), (9, 6)]:
        accumulator.add(step, observe_arrays(np.ones((examples, 2, 2)), activation_function="relu"))
        if step == 6:
            assert accumulator.examples == 7
            assert record(accumulator, 6).window.contiguous_examples == 7
    window = record(accumulator, 9).window
    assert (window.step, window.first_step, window.examples, window.positions) == (9, 5, 11, 22)
    assert (window.observations, window.examples_seen, window.contiguous_examples) == (2, 18, 11)  # 7 was missed
    assert (window.dataset_examples, window.from_start) == (100, True)
    assert accumulator.examples == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_value_shows_in_its_record_and_not_in_the_next(bad):
    rng = np.random.default_rng(2)
    accumulator = LayerAccumulator(layer(units=4), T)
    for step in range(20):
        values, gradients = relu_batch(rng, (64, 4), dead=[3]), rng.normal(size=(64, 4))
        gradients[:, 3] = 0
        if step == 10:
            values[3, 0], gradients[5, 1], values[7, 3] = bad, bad, np.nan
        accumulator.add(step, observe_arrays(values, activation_function="relu", gradients=gradients))
        seen = record(accumulator, step)
        expected = [0, 1, 3] if step == 10 else []
        assert np.flatnonzero(seen.states == UnitState.NON_FINITE).tolist() == expected
    assert seen.evidence.examples_since_active[3] == 64 * 19  # what gave NaN was not silent
    np.testing.assert_allclose(accumulator._reference.rate, [0.5, 0.5, 0.5, 0], atol=0.05)
    assert math.isfinite(accumulator.scale)


def test_numbers_beyond_float32_are_neither_inf_nor_zero():
    values = np.array([[1e39, 1e-60], [1e39, 0.0]])
    accumulator = LayerAccumulator(layer(units=2), T)
    accumulator.add(0, observe_arrays(values, activation_function="relu", gradients=values))
    seen = record(accumulator, 0)
    assert np.isfinite(seen.statistics.values).all()
    assert (seen.statistics.get("gradient") > 0).all()
    assert (seen.states == UnitState.UNKNOWN).all()


def test_bad_weights_stay_to_be_seen_until_the_record():
    plain = observe_arrays(np.ones((8, 3)), activation_function="relu")
    accumulator = LayerAccumulator(layer(), T)
    for norm in (1.0, np.nan, 1.0):
        weights = WeightObservation(norm_in=np.array([norm, 1, 1]))
        accumulator.add(0, dataclasses.replace(plain, weights=weights))
    assert record(accumulator, 0).states[0] == UnitState.NON_FINITE
    accumulator.add(1, dataclasses.replace(plain, weights=WeightObservation(norm_in=np.ones(3))))
    assert record(accumulator, 1).states[0] != UnitState.NON_FINITE


def test_a_gradient_that_is_no_number_neither_counts_as_a_signal_nor_as_none():
    accumulator = LayerAccumulator(layer(units=2), T)
    for slope in (0.0, np.nan, 0.0):
        gradients = np.array([[slope, 1.0]] * 8)
        accumulator.add(0, observe_arrays(np.zeros((8, 2)), activation_function="relu", gradients=gradients))
    assert record(accumulator, 0).evidence.examples_without_signal.tolist() == [16, 0]


def test_another_number_of_units_is_refused():
    with pytest.raises(ValueError, match="has 3 units, not 1"):
        LayerAccumulator(layer(), T).add(0, observe_arrays(np.ones((8, 1)), activation_function="relu"))


def test_the_reference_is_kept_for_rare_units_only_and_is_never_above_the_rate():
    accumulator = LayerAccumulator(layer(units=3), T)
    for step in range(40):
        values = np.ones((100, 3))
        values[1:, 1] = 0  # one in a hundred
        values[:, 2] *= step < 30  # used to fire always
        accumulator.add(step, observe_arrays(values, activation_function="relu"))
    rates = reference_rate(record(accumulator, 39).evidence.reference)
    assert rates[0] == 0
    assert 0.005 < rates[1] <= 0.01
    assert rates[2] == 0  # over the window it fired often
    for step in range(40, 60):
        accumulator.add(step, observe_arrays(np.zeros((100, 3)), activation_function="relu"))
    assert reference_rate(record(accumulator, 59).evidence.reference)[2] > 0.6


def rates_of(probability, batch, steps, seed=0):
    """The reference after each observation of units that fire at a fixed rate."""
    rng = np.random.default_rng(seed)
    reference = ReferenceRate(len(probability), T)
    fired = rng.binomial(batch, probability, (steps, len(probability))).astype(float)
    for some in np.array_split(fired, 4):
        reference.add(some, np.full(len(some), batch), np.ones(some.shape, bool))
    return reference.rate


@pytest.mark.parametrize("batch", [1, 8, 64, 1024])
@pytest.mark.parametrize("probability", [0.5, 0.005])
def test_chance_does_not_draw_the_reference_up(batch, probability):
    rates = rates_of(np.full(200, probability), batch, max(40, 40_000 // batch))
    assert 0.5 * probability < np.median(rates) < 2 * probability
    assert rates.max() < 4 * probability


def test_the_reference_of_a_unit_without_a_finite_output_stays():
    reference = ReferenceRate(2, T)
    for fired, known in [(50, True), (0, False), (math.nan, True)]:
        reference.add(np.array([[fired, 50.0]]), np.array([100]), np.array([[known, True]]))
    assert reference.rate.tolist() == [0.5, 0.5]


def test_the_reference_rises_fast_and_is_forgotten_slowly():
    reference = ReferenceRate(1, T)

    def run(share, examples):
        for _ in range(examples // 100):
            reference.add(np.array([[100.0 * share]]), np.array([100]), np.ones((1, 1), bool))
        return float(reference.rate[0])

    assert run(0.2, 3000) == pytest.approx(0.2)
    assert run(0.8, 6000) > 0.65
    assert run(0.0, 20_000) > 0.5
    assert run(0.0, 400_000) < 0.02


def test_a_layer_of_one_unit_and_a_single_example():
    accumulator = LayerAccumulator(layer(units=1), T)
    accumulator.add(0, observe_arrays(np.array([[0.0]]), activation_function="relu"))
    seen = record(accumulator, 0)
    assert seen.states.tolist() == [UnitState.UNKNOWN]
    assert seen.statistics.get("std").tolist() == [0]


@given(
    st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=2, max_size=6), st.sampled_from(["relu", "tanh"])
)
@settings(max_examples=60, deadline=None)
def test_several_steps_at_once_are_as_one_by_one(seed, sizes, function):
    rng = np.random.default_rng(seed)
    units, info = 6, layer(6, activation_function=function)
    seen = []
    for n in sizes:
        values = rng.normal(size=(n, 2, units)) * (rng.random((n, 2, units)) < 0.2) * (rng.random(units) < 0.7)
        values[rng.random(values.shape) < 0.01] = np.nan
        values[..., 5] = 3.3
        slopes = rng.normal(size=values.shape) * (rng.random(units) < 0.6)
        seen.append(observe_arrays(values, activation_function=function, gradients=slopes, scale=1.0))
    steps = np.cumsum(rng.integers(1, 4, len(seen))).tolist()

    def stacked(observations):
        parts = [LayerSteps.of(one) for one in observations]
        columns = {
            field.name: [getattr(part, field.name) for part in parts] for field in dataclasses.fields(LayerSteps)
        }
        del columns["trainable"]
        return LayerSteps(**{k: None if v[0] is None else np.concatenate(v) for k, v in columns.items()})

    one_by_one, at_once = (LayerAccumulator(info, T) for _ in range(2))
    cut = int(rng.integers(1, len(seen)))
    for step, observation in zip(steps, seen, strict=True):
        one_by_one.add(step, observation)
    at_once.add_steps(steps[:cut], stacked(seen[:cut]))
    at_once.add_steps(steps[cut:], stacked(seen[cut:]))
    one, other = (record(each, steps[-1]) for each in (one_by_one, at_once))
    for name in ("window", "evidence"):
        for a, b in zip(
            dataclasses.astuple(getattr(one, name)), dataclasses.astuple(getattr(other, name)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.states, other.states)
    np.testing.assert_allclose(one.statistics.values, other.statistics.values, rtol=2**-7)
    assert other.statistics.get("std")[5] == 0

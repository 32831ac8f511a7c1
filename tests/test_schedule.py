"""Observing keeps its budget, records their number, whatever a run looks like."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadunits_tb.capture.schedule import (
    EXAMPLES_PER_RECORD,
    MOST_RECORDS,
    OPENING_SECONDS,
    ObservationSchedule,
    RecordSchedule,
)
from deadunits_tb.errors import InvalidArgumentError


class Run:
    """A training loop whose steps and observations take the time that they are told to take."""

    def __init__(self, schedule, *, step_seconds, cost, examples=64, first_cost=0.0, timed=True):
        self.schedule, self.step_seconds, self.cost = schedule, step_seconds, cost
        self.examples, self.first_cost, self.timed = examples, first_cost, timed
        self.observed, self.intervals = [], []

    def go(self, steps):
        for step in steps:
            seen = self.schedule.wants(step)
            cost = 0.0
            if seen:
                cost = self.cost() if self.observed else self.first_cost + self.cost()
                self.schedule.observed(step, examples=self.examples, seconds=cost)
                self.observed.append(step)
                self.intervals.append(self.schedule.interval)
            if self.timed:
                self.schedule.trained(observed=seen, seconds=self.step_seconds() + cost)
        return self

    @property
    def share_beyond_opening(self):
        return (self.schedule.own_seconds - OPENING_SECONDS) / self.schedule.training_seconds


def steady(seconds):
    return lambda: seconds


def noisy(seconds, seed=0):
    """Log-normal, and one in fifty takes twenty times as long."""
    rng = random.Random(seed)
    return lambda: seconds * rng.lognormvariate(0, 0.4) * (20 if rng.random() < 0.02 else 1)


def test_a_fixed_interval_is_kept():
    run = Run(ObservationSchedule(every=7), step_seconds=steady(0.001), cost=steady(1.0)).go(range(50))
    assert run.observed == list(range(0, 50, 7))


@pytest.mark.parametrize("initial", [0, 1, 5000])
@pytest.mark.parametrize("every", [None, 1, 10])
def test_the_first_step_is_always_observed(initial, every):
    schedule = ObservationSchedule(every=every, initial_step=initial)
    assert schedule.wants(initial)
    assert Run(schedule, step_seconds=steady(1), cost=steady(1)).go(range(initial, initial + 3)).observed[0] == initial


def test_an_interval_that_falls_between_executions_is_made_up_for():
    run = Run(ObservationSchedule(every=5), step_seconds=steady(1), cost=steady(0.001)).go(range(3, 100, 4))
    assert set(np.diff(run.observed)) == {8}


def test_the_opening_observes_every_step_while_it_is_cheap():
    run = Run(ObservationSchedule(), step_seconds=steady(0.01), cost=steady(0.005), examples=32).go(range(2000))
    assert run.observed[:94] == list(range(94))  # 3,000 examples


@pytest.mark.parametrize(("cost", "compiling"), [(0.003, 0.8), (0.003, 4.0), (0.02, 4.0)])
def test_a_short_run_of_known_length_is_watched_to_its_end(cost, compiling):
    schedule = ObservationSchedule(total_steps=1570)
    run = Run(schedule, step_seconds=steady(0.002), cost=steady(cost), examples=32, first_cost=compiling)
    run.go(range(1570))
    later = np.diff([step for step in run.observed if step > 500])
    assert later.max() <= later.min() + 2
    assert run.observed[-1] >= 1570 - later.max() - 1
    assert len(run.observed) >= 70
    assert schedule.own_seconds <= max(OPENING_SECONDS, compiling + 1.5) + 0.01 * schedule.training_seconds


def test_the_opening_observes_every_fourth_step_once_half_the_allowance_is_spent():
    run = Run(ObservationSchedule(), step_seconds=steady(0.5), cost=steady(0.125), examples=1).go(range(300))
    assert run.observed[:6] == list(range(6))
    assert run.observed[6:12] == list(range(9, 33, 4))
    assert run.observed[15] - run.observed[14] > 4


@pytest.mark.parametrize("cost", [1e-4, 2e-3, 0.05])
@pytest.mark.parametrize("step", [2e-4, 5e-3, 0.2])
@pytest.mark.parametrize("noise", [steady, noisy])
def test_the_budget_is_kept_and_used(cost, step, noise):
    steps = min(200_000, int(4000 * cost / step) + 20_000)
    run = Run(ObservationSchedule(), step_seconds=noise(step), cost=noise(cost)).go(range(steps))
    one_too_many = (20 if noise is noisy else 2) * cost / run.schedule.training_seconds  # it cannot be taken back
    assert run.share_beyond_opening <= 0.0105 + one_too_many
    schedule = run.schedule
    if schedule.interval > 1 and schedule.training_seconds > 500 * cost:
        assert schedule.own_seconds / schedule.training_seconds >= 0.004  # not shy either


@pytest.mark.parametrize("by", [8, 1000])
def test_the_budget_is_kept_where_steps_are_numbered_by_more_than_one(by):
    """Several are run together, or examples are counted: what lies between two numbers is not one step."""
    run = Run(ObservationSchedule(), step_seconds=steady(0.01), cost=steady(0.004)).go(range(by - 1, 40_000 * by, by))
    assert 0.008 < run.share_beyond_opening < 0.0105
    known = ObservationSchedule(total_steps=5000 * by)
    late = [
        step for step in Run(known, step_seconds=steady(0.01), cost=steady(0.02)).go(range(0, 5000 * by, by)).observed
    ]
    assert 4000 * by < late[-1]
    assert known.own_seconds <= OPENING_SECONDS + 0.0105 * known.training_seconds


def test_the_budget_is_kept_where_now_and_then_much_is_done_at_once():
    costs = itertools.cycle([1e-4] * 7 + [1e-2])  # the waiting observations are fetched, and a record is made of them
    run = Run(ObservationSchedule(), step_seconds=steady(0.01), cost=lambda: next(costs)).go(range(100_000))
    assert 0.005 < run.share_beyond_opening < 0.0105


def test_an_expensive_compilation_is_worked_off():
    run = Run(ObservationSchedule(), step_seconds=steady(0.01), cost=steady(0.001), first_cost=4.0).go(range(60_000))
    assert run.share_beyond_opening <= 0.0101
    assert len(run.observed) > 1000


@pytest.mark.parametrize("compiling", [[0], [0, 20, 30]])
def test_compiling_leaves_time_for_the_first_verdicts(compiling):
    count = itertools.count()
    costs = lambda: 2.5 if next(count) in compiling else 0.01  # noqa: E731
    run = Run(ObservationSchedule(), step_seconds=steady(0.001), cost=costs, examples=32).go(range(20_000))
    gaps = np.diff(run.observed[:80])  # 2,560 examples
    assert gaps.max() <= 4
    assert (gaps[:30] == 1).all()
    assert run.schedule.interval > 100


def test_the_interval_does_not_swing():
    run = Run(ObservationSchedule(), step_seconds=noisy(0.01, 1), cost=noisy(0.004, 2)).go(range(100_000))
    late = run.intervals[len(run.intervals) // 3 :]
    assert max(late) <= 3 * min(late)
    for before, after in itertools.pairwise(late):
        assert before // 2 <= after <= 2 * before


def test_the_interval_follows_a_change():
    schedule = ObservationSchedule()
    run = Run(schedule, step_seconds=steady(0.01), cost=steady(0.002)).go(range(5000))
    assert 15 <= schedule.interval <= 25
    run.step_seconds = steady(0.1)
    run.go(range(5000, 15_000))
    assert 1 <= schedule.interval <= 3
    changed = len(run.intervals)
    run.step_seconds = steady(0.001)
    run.go(range(15_000, 100_000))
    assert 150 <= schedule.interval <= 300
    assert all(after <= 2 * before for before, after in itertools.pairwise(run.intervals[changed - 1 :]))


def test_without_times_it_still_observes():
    run = Run(ObservationSchedule(), step_seconds=steady(1), cost=steady(0.001), timed=False).go(range(2000))
    assert 100 < len(run.observed) < 400


def test_when_each_step_is_observed_the_step_is_told_from_the_work():
    schedule = ObservationSchedule(max_overhead=0.5)
    Run(schedule, step_seconds=steady(0.01), cost=steady(0.004)).go(range(1000))
    assert schedule.interval == 1


@pytest.mark.parametrize("every", [0, -1, 2.5, "often", True, float("nan")])
def test_a_wrong_interval_is_refused(every):
    with pytest.raises(InvalidArgumentError, match="every must be a whole number from 1, or None to choose by cost"):
        ObservationSchedule(every=every)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan"), "1%", None, True])
def test_a_wrong_share_is_refused(share):
    with pytest.raises(InvalidArgumentError, match="max_overhead must be above 0 and at most 1"):
        ObservationSchedule(max_overhead=share)


def records_of(schedule, steps, examples=64):
    """Steps at which records are made, with that of the end."""
    made, window, last = [], 0, None
    for step in steps:
        window, last = window + examples, step
        if schedule.due(step) and schedule.enough(window):
            schedule.recorded(step)
            made.append(step)
            window = 0
    if window:
        schedule.recorded(last)
        made.append(last)
    return made


@given(
    initial=st.sampled_from([0, 1, 17, 5000, 10**9]),
    total=st.none() | st.integers(0, 10**7),
    gaps=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 1200)), min_size=1, max_size=6),
    examples=st.integers(0, 300),
)
@settings(max_examples=150, deadline=None)
def test_never_more_records_than_promised(initial, total, gaps, examples):
    schedule = RecordSchedule(initial_step=initial, total_steps=total)
    steps = itertools.accumulate(itertools.chain([initial], *([gap] * times for gap, times in gaps)))
    made = records_of(schedule, steps, examples)
    assert len(made) <= MOST_RECORDS
    assert made[:-1] == sorted(set(made[:-1]))
    assert schedule.records == len(made)


@pytest.mark.parametrize("total", [None, 3000, 10**6, 50])
def test_a_run_of_many_million_steps_keeps_to_the_most(total):
    schedule, made, step = RecordSchedule(total_steps=total), 0, 0
    while step < 10**13:  # jump to the next step that is due
        if schedule.due(step) and schedule.enough(64):
            schedule.recorded(step)
            made += 1
        step += max(1, int(schedule._distance) // 2)
    assert 1000 <= made <= MOST_RECORDS - 1


@pytest.mark.parametrize(("initial", "most"), [(0, MOST_RECORDS), (1000, MOST_RECORDS // 2)])
def test_the_last_record_is_kept_for_the_end(initial, most):
    schedule, step = RecordSchedule(initial_step=initial), initial
    while schedule.due(step):
        schedule.recorded(step)
        step += int(schedule._distance) + 1
    assert schedule.records == most - 1
    assert not schedule.due(2**2000)


@pytest.mark.parametrize("total", [1, 10, 900, 1500, 5000, 20_000, 100_000])
def test_a_run_of_known_length_is_covered_evenly(total):
    made = records_of(RecordSchedule(total_steps=total), range(total))
    assert made[: min(total, 200)] == list(range(min(total, 200)))
    assert min(total, 600) <= len(made) <= 1100
    gaps = np.diff(made[200:])
    if len(gaps) > 10:
        assert gaps[:-1].max() <= 2 * gaps[:-1].min()


@pytest.mark.parametrize("total", [600, 5000, 50_000, 300_000])
def test_a_run_of_unknown_length_thins_out(total):
    made = records_of(RecordSchedule(), range(total))
    assert made[:600] == list(range(600))
    assert min(total, 800) <= len(made) <= 1500
    gaps = np.diff(made[:-1])
    assert (np.diff(gaps) >= 0).all()


def test_sparse_observations_are_all_recorded():
    made = records_of(RecordSchedule(total_steps=100_000), range(0, 100_000, 200))
    assert len(made) == 500


def test_records_wait_for_enough_examples_except_the_first():
    schedule = RecordSchedule()
    made = records_of(schedule, range(20), examples=3)
    assert made == [0, 3, 6, 9, 12, 15, 18, 19]
    assert EXAMPLES_PER_RECORD == 8
    assert not RecordSchedule().enough(0)


def test_a_resumed_run_goes_on_as_densely_as_before():
    fresh = records_of(RecordSchedule(total_steps=100_000), range(50_000))
    resumed = records_of(RecordSchedule(initial_step=50_000, total_steps=100_000), range(50_000, 100_000))
    assert 400 <= len(resumed) <= 600
    assert len(fresh) + len(resumed) <= 1300
    unknown = sum(
        len(records_of(RecordSchedule(initial_step=start), range(start, start + 10_000)))
        for start in range(0, 100_000, 10_000)
    )
    assert unknown <= MOST_RECORDS


def test_training_that_goes_on_beyond_the_expected_end_thins_out():
    schedule = RecordSchedule(total_steps=1000)
    made = records_of(schedule, range(200_000))
    assert made[:900] == list(range(900))
    assert len(made) <= MOST_RECORDS
    assert made[-1] == 199_999


def test_a_corrected_length_spreads_the_rest():
    schedule = RecordSchedule()
    records_of(schedule, range(300))
    schedule.expect(30_000)
    made = records_of(schedule, range(300, 30_000))
    assert 500 <= len(made) <= 800


def test_the_opening_is_told_apart() -> None:
    chosen, fixed = ObservationSchedule(), ObservationSchedule(every=1)
    for schedule in (chosen, fixed):
        schedule.observed(0, examples=64, seconds=1.5)  # compiles
        for step in range(1, 60):
            schedule.observed(step, examples=64, seconds=0.01)
    assert fixed.opening_seconds == 1.5
    assert 1.5 < chosen.opening_seconds < chosen.own_seconds

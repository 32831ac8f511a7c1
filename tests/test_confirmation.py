"""How many records must agree before a candidate becomes a state, and since when it holds."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadunits_tb.record import Memory
from deadunits_tb.units import SEVERITY, UnitState
from deadunits_tb.verdicts import LINGERING, confirm
from planted_units import WINDOW, T, evidence

S = UnitState


def walk(found, examples=1000, t=T, steps=None):
    """States and their onset for one unit that is found in these states at records 10 steps apart."""
    memory, states = Memory.none(1, 0), []
    for number, state in enumerate(found):
        window = dataclasses.replace(WINDOW, step=10 * number, examples=examples)
        carried = dataclasses.replace(evidence(1), last_active_step=np.array([3]))
        verdict = confirm(np.array([state], np.uint8), window, carried, memory, t)
        memory = verdict.memory
        states.append((UnitState(verdict.states[0]), int(verdict.since[0])))
    return states


def states_of(found, **settings_):
    return [state for state, _ in walk(found, **settings_)]


WAITING = [state for state in UnitState if state not in (S.ACTIVE, S.UNKNOWN, S.FROZEN, S.NON_FINITE, S.STAGNANT)]


@pytest.mark.parametrize("state", [state for state in WAITING if not LINGERING[state]])
def test_two_records_enter_and_one_leaves(state):
    A = S.ACTIVE
    assert states_of([A, state, A, state, state, A]) == [A, A, A, A, state, A]
    onset = 4 if state == S.DEAD else 10  # dead: since the step after its last firing
    assert walk([A, state, state, state])[-1] == (state, onset)
    assert walk([A, state, A])[-1] == (A, 0)


@pytest.mark.parametrize("state", np.flatnonzero(LINGERING))
def test_two_records_enter_what_is_measured_and_two_leave_it(state):
    A, state = S.ACTIVE, UnitState(state)
    assert states_of([A, state, state, A, state, A, A, state]) == [A, A, *[state] * 4, A, A]
    assert walk([A, state, state, A, A])[-1] == (A, 30)
    assert states_of([A, state, state, *[A] * 5], examples=130) == [A, A, state, state, A, A, A, A]
    assert states_of([A, state, state, *[A] * 5], examples=100) == [A] * 8  # the first two do not cover 256 examples
    assert states_of([A, *[state] * 3, *[A] * 5], examples=100) == [A] * 3 + [state] * 3 + [A] * 3
    assert states_of([A, state, state, S.NON_FINITE])[-1] == S.NON_FINITE
    assert states_of([A, state, state, S.DEAD, S.DEAD])[-2:] == [state, S.DEAD]


def test_what_is_milder_in_all_records_is_what_is_left_for():
    A, D, C = S.ACTIVE, S.DORMANT, S.CONSTANT
    assert states_of([A, C, C, A, D]) == [A, A, C, C, D]
    assert states_of([A, C, C, D, A]) == [A, A, C, C, D]


@pytest.mark.parametrize("state", [S.NON_FINITE, S.FROZEN, S.UNKNOWN, S.ACTIVE])
def test_what_needs_no_confirmation_is_entered_at_once(state):
    assert walk([S.ACTIVE, S.ACTIVE, state])[-1] == (state, 0 if state == S.ACTIVE else 20)
    assert states_of([S.DEAD, S.DEAD, S.DEAD, state])[-1] == state


def test_stagnant_takes_three_records():
    A = S.ACTIVE
    assert states_of([A, S.STAGNANT, S.STAGNANT, S.STAGNANT]) == [A, A, A, S.STAGNANT]
    assert states_of([A, *[S.STAGNANT] * 2], t=T.replace(stagnant_records=1))[-1] == S.STAGNANT


def test_records_of_few_examples_do_not_confirm_one_another():
    found = [S.ACTIVE, *[S.DEAD] * 5]
    assert states_of(found, examples=64) == [S.ACTIVE] * 4 + [S.DEAD] * 2
    assert states_of(found, examples=255) == [S.ACTIVE] * 2 + [S.DEAD] * 4


def test_a_milder_state_is_entered_at_once_and_a_worse_one_waits():
    A, M, W = S.ACTIVE, S.SPARSE, S.DEAD
    assert states_of([A, W, W, M, W, M]) == [A, A, W, M, M, M]
    assert states_of([A, M, M, W, W]) == [A, A, M, M, W]


def test_records_that_disagree_confirm_what_all_of_them_show():
    assert states_of([S.ACTIVE, S.DEAD, S.DYING]) == [S.ACTIVE, S.ACTIVE, S.DYING]
    assert walk([S.ACTIVE, S.SPARSE, S.DEAD, S.DEAD])[2:] == [(S.SPARSE, 10), (S.DEAD, 4)]


def test_a_revived_unit_is_active_at_once():
    assert walk([S.ACTIVE, S.DEAD, S.DEAD, S.ACTIVE])[-1] == (S.ACTIVE, 30)


def test_a_unit_that_is_no_longer_frozen_is_unknown_until_judged():
    assert states_of([S.FROZEN, S.DYING, S.DYING]) == [S.FROZEN, S.UNKNOWN, S.DYING]


def test_flicker_gives_no_transitions():
    rng = np.random.default_rng(0)
    found = np.where(rng.random(1000) < 0.02, S.DORMANT, S.ACTIVE)
    assert np.count_nonzero(np.diff(np.array(states_of(found)))) <= 4


@given(st.lists(st.sampled_from(list(UnitState)), min_size=1, max_size=30), st.integers(1, 400), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_a_state_that_waits_was_found_often_enough(found, examples, confirm_records):
    t = T.replace(confirm_records=confirm_records)
    states = states_of(found, examples=examples, t=t)
    for at, state in enumerate(states):
        if state in WAITING and (at == 0 or SEVERITY[states[at - 1]] < SEVERITY[state]):
            needed = max(confirm_records, math.ceil(256 / examples))
            assert at + 1 >= needed
            assert all(SEVERITY[one] >= SEVERITY[state] for one in found[at + 1 - needed : at + 1])

"""Each state from planted numbers, each boundary, confirmation, and: a record alone gives its own states."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadunits_tb.capture.accumulators import LayerAccumulator
from deadunits_tb.capture.observation import WeightObservation
from deadunits_tb.capture.reductions import observe_arrays
from deadunits_tb.record import NEVER, Evidence, Memory, Statistics, Window, rates_code, reference_code
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import SEVERITY, LayerInfo, UnitState
from deadunits_tb.verdicts import LINGERING, candidates, chance_of_loss, confirm, judge, no_signal

S = UnitState
T = Thresholds()
HEALTHY = {
    "active_fraction": 0.5,
    "active_positions": 0.5,
    "mean": 0.4,
    "mean_abs": 0.4,
    "std": 0.6,
    "min": 0.0,
    "max": 3.0,
    "gradient": 0.01,
    "update_ratio": 1e-3,
    "norm_in": 1.0,
    "norm_out": 1.0,
}
SILENT = {"active_fraction": 0, "active_positions": 0, "mean": 0, "mean_abs": 0, "std": 0, "max": 0, "gradient": 0}
UNWITNESSED = {name: 0 for name in SILENT if name != "gradient"}
WINDOW = Window(step=1000, first_step=0, wall_time=0.0, examples=1000, positions=1000, observations=10,
                examples_seen=50_000, run_moves=1e-3)  # fmt: skip


def layer(function="relu", **changes):
    return LayerInfo("hidden", "Dense", 0, 9, function, **{"witness": "pre_activation", **changes})


def evidence(units=9, **first):
    """Of units that all fire; ``first`` changes the first one."""
    carried = Evidence.none(units)
    carried = dataclasses.replace(carried, last_active_step=np.full(units, 1000))
    for name, value in first.items():
        column = getattr(carried, name).copy()
        column[0] = value
        carried = dataclasses.replace(carried, **{name: column})
    return carried


def candidate(first=(), *, info=None, window=None, carried=None, t=T, drop=(), **columns):
    """The candidate of a unit with the numbers ``first`` among eight healthy ones."""
    values = {name: np.full(9, value) for name, value in {**HEALTHY, **columns}.items() if name not in drop}
    for name, value in dict(first).items():
        values[name] = values.get(name, np.zeros(9)).copy()
        values[name][0] = value
    window = dataclasses.replace(WINDOW, **(window or {}))
    found = candidates(info or layer(), window, Statistics.of(values, 9), evidence(**(carried or {})), t)
    assert (found[1:] == found[1]).all()
    return UnitState(found[0])


QUIET = {"examples_since_active": 3000, "examples_without_signal": 3000, "last_active_step": 700}
REFERENCE = int(reference_code(np.array([0.5]))[0])
AT_5_PERCENT = int(reference_code(np.array([0.05]))[0])  # rounded down to 4.4 %
SMALL = {"examples": 64}
AT_BOUND = {"active_fraction": 1, "saturated_fraction": 0.953125, "mean": 0.999, "min": 0.99, "max": 1.0, "std": 0.002}


def recently(rate, reference=1):
    """What a unit carries that fires at this rate of late."""
    return reference + int(rates_code(np.zeros(1), np.array([rate]))[0])


@pytest.mark.parametrize(
    ("state", "settings_"),
    [
        (S.ACTIVE, {}),
        (S.NON_FINITE, {"first": {"max": math.inf}}),
        (S.NON_FINITE, {"first": {"gradient": math.nan}}),
        (S.NON_FINITE, {"first": {"norm_in": math.nan}, "window": {"trainable": False}}),
        (S.FROZEN, {"window": {"trainable": False}}),
        (S.FROZEN, {"window": {"trainable": False, "examples_seen": 8}}),
        (S.UNKNOWN, {"window": {"examples_seen": 255}}),
        (S.DEAD, {"first": SILENT, "carried": QUIET}),
        (S.DEAD, {"first": SILENT, "carried": {**QUIET, "last_active_step": NEVER}}),
        (S.DISCONNECTED, {"first": {"norm_out": 0}}),
        (S.SATURATED, {"first": AT_BOUND, "info": layer("tanh")}),
        (S.CONSTANT, {"first": {"active_fraction": 1, "mean": 3.3, "std": 0, "min": 3.3, "max": 3.3}}),
        (S.DYING, {"first": {"active_fraction": 0.002}, "carried": {"reference": REFERENCE}}),
        (S.DYING, {"first": SILENT, "carried": {**QUIET, "examples_since_active": 2999, "reference": REFERENCE}}),
        (S.STAGNANT, {"first": {"update_ratio": 0}}),
        (S.DORMANT, {"first": {"mean_abs": 0.001, "mean": 0.001}}),
        (S.SPARSE, {"first": {"active_fraction": 0.005}}),
    ],
)
def test_every_state_from_numbers_that_show_it(state, settings_):
    assert candidate(**settings_) == state


def just_below(value):
    """The next smaller number that a record can hold."""
    return float(np.float32(value)) * (1 - 2**-7)


BOUNDARIES = {
    "sparse: fires on fewer than 1 % of the recent examples": (
        S.SPARSE,
        {"first": {"active_fraction": 0.03}, "carried": {"reference": recently(0.006)}},
        {"first": {"active_fraction": 0.0}, "carried": {"reference": recently(0.008)}},
    ),
    "sparse: not by chance": (
        S.SPARSE,
        {"first": {"active_fraction": 0.0}, "window": {"examples_seen": 299}},
        {"first": {"active_fraction": 0.0}, "window": {"examples_seen": 298}},
    ),
    "sparse: its recent rate is known where it fires on fewer than a tenth of a window": (
        S.SPARSE,
        {"first": {"active_fraction": just_below(0.1)}},
        {"first": {"active_fraction": 0.1}},
    ),
    "dying: of the recent examples": (
        S.DYING,
        {"first": {"active_fraction": 0.0}, "carried": {"reference": recently(0.004, REFERENCE)}, "window": SMALL},
        {"first": {"active_fraction": 0.0}, "carried": {"reference": recently(0.004, AT_5_PERCENT)}, "window": SMALL},
    ),
    "dead: 3,000 silent examples": (
        S.DEAD,
        {"first": SILENT, "carried": QUIET},
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 2999}},
    ),
    "dead: 3,000 examples without error signal": (
        S.DEAD,
        {"first": SILENT, "carried": QUIET},
        {"first": SILENT, "carried": {**QUIET, "examples_without_signal": 2999}},
    ),
    "dead on silence alone where no gradient was recorded": (
        S.DEAD,
        {"first": UNWITNESSED, "carried": {**QUIET, "examples_without_signal": 0}, "drop": ["gradient"]},
        {"first": SILENT, "carried": {**QUIET, "examples_without_signal": 0}},
    ),
    "dead on silence alone where the gradient is no witness": (
        S.DEAD,
        {"first": SILENT, "carried": {**QUIET, "examples_without_signal": 0}, "info": layer(witness="output")},
        {"first": SILENT, "carried": {**QUIET, "examples_without_signal": 0}},
    ),
    "dead: twice a small data set": (
        S.DEAD,
        {
            "first": SILENT,
            "carried": {**QUIET, "examples_since_active": 400},
            "window": {"dataset_examples": 200, "contiguous_examples": 400},
        },
        {
            "first": SILENT,
            "carried": {**QUIET, "examples_since_active": 400},
            "window": {"dataset_examples": 200, "contiguous_examples": 399},
        },
    ),
    "dead: twice a data set below 256 examples is too little": (
        S.DEAD,
        {
            "first": SILENT,
            "carried": {**QUIET, "examples_since_active": 256},
            "window": {"dataset_examples": 100, "contiguous_examples": 999},
        },
        {
            "first": SILENT,
            "carried": {**QUIET, "examples_since_active": 255},
            "window": {"dataset_examples": 100, "contiguous_examples": 999},
        },
    ),
    "dead: a million tokens": (
        S.DEAD,
        {
            "info": layer(tokens=True),
            "first": SILENT,
            "carried": {
                "examples_since_active": 1000,
                "examples_without_signal": 1000,
                "tokens_since_active": 1_000_000,
                "observations_since_active": 100,
            },
        },
        {
            "info": layer(tokens=True),
            "first": SILENT,
            "carried": {
                "examples_since_active": 1000,
                "examples_without_signal": 1000,
                "tokens_since_active": 999_999,
                "observations_since_active": 100,
            },
        },
    ),
    "dead: tokens of a hundred observations": (
        S.DEAD,
        {
            "info": layer(tokens=True),
            "first": SILENT,
            "carried": {
                "examples_since_active": 1000,
                "examples_without_signal": 1000,
                "tokens_since_active": 2_000_000,
                "observations_since_active": 100,
            },
        },
        {
            "info": layer(tokens=True),
            "first": SILENT,
            "carried": {
                "examples_since_active": 1000,
                "examples_without_signal": 1000,
                "tokens_since_active": 2_000_000,
                "observations_since_active": 99,
            },
        },
    ),
    "dead: tokens count in token models only": (
        S.DEAD,
        {
            "info": layer(tokens=True),
            "first": SILENT,
            "carried": {
                "examples_since_active": 1000,
                "examples_without_signal": 1000,
                "tokens_since_active": 2_000_000,
                "observations_since_active": 100,
            },
        },
        {
            "first": SILENT,
            "carried": {
                "examples_since_active": 1000,
                "examples_without_signal": 1000,
                "tokens_since_active": 2_000_000,
                "observations_since_active": 100,
            },
        },
    ),
    "dead: only a part of the silent tokens was without signal": (
        S.DEAD,
        {
            "info": layer(tokens=True),
            "first": SILENT,
            "carried": {
                "examples_since_active": 1000,
                "examples_without_signal": 500,
                "tokens_since_active": 2_000_000,
                "observations_since_active": 100,
            },
        },
        {
            "info": layer(tokens=True),
            "first": SILENT,
            "carried": {
                "examples_since_active": 1000,
                "examples_without_signal": 499,
                "tokens_since_active": 2_000_000,
                "observations_since_active": 100,
            },
        },
    ),
    "saturated: on 95 % of positions": (
        S.SATURATED,
        {"first": AT_BOUND, "info": layer("tanh")},
        {"first": {**AT_BOUND, "saturated_fraction": just_below(0.95)}, "info": layer("tanh")},
    ),
    "saturated: an output layer may be": (
        S.SATURATED,
        {"first": AT_BOUND, "info": layer("sigmoid")},
        {"first": AT_BOUND, "info": layer("sigmoid", role="output")},
    ),
    "constant: a spread of 1e-4 of the layer's scale": (
        S.CONSTANT,
        {"first": {"active_fraction": 1, "mean": 0.5, "std": 5e-5, "min": 0.5, "max": 0.5}},
        {"first": {"active_fraction": 1, "mean": 0.5, "std": 5e-4, "min": 0.498, "max": 0.504}},
    ),
    "constant: a rare excursion is no constancy": (
        S.CONSTANT,
        {"first": {"active_fraction": 1, "mean": 0.5, "std": 0, "min": 0.5, "max": 0.5}},
        {"first": {"active_fraction": 1, "mean": 0.5, "std": 1e-5, "min": 0.5, "max": 0.6}},
    ),
    "constant: over eight positions": (
        S.CONSTANT,
        {"first": {"active_fraction": 1, "std": 0, "min": 0.4, "max": 0.4}, "window": {"positions": 8}},
        {"first": {"active_fraction": 1, "std": 0, "min": 0.4, "max": 0.4}, "window": {"positions": 7}},
    ),
    "constant at zero where there is no activation function": (
        S.CONSTANT,
        {"first": {**SILENT, "min": 0}, "info": layer("linear")},
        {"first": {**SILENT, "min": 0}},
    ),
    "dying: nine tenths of its own rate": (
        S.DYING,
        {"first": {"active_fraction": 0.002}, "carried": {"reference": AT_5_PERCENT}, "window": {"examples": 20_000}},
        {"first": {"active_fraction": 0.0045}, "carried": {"reference": AT_5_PERCENT}, "window": {"examples": 10**6}},
    ),
    "dying: not by chance": (
        S.DYING,
        {"first": {"active_fraction": 0}, "carried": {"reference": REFERENCE}, "window": {"examples": 256}},
        {"first": {"active_fraction": 0}, "carried": {"reference": REFERENCE}, "window": {"examples": 128}},
    ),
    "dying: silent for 256 examples since the start": (
        S.DYING,
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 256, "last_active_step": NEVER}},
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 255, "last_active_step": NEVER}},
    ),
    "dying: silent for longer than its own rate allows": (
        S.DYING,
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 300, "reference": REFERENCE}},
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 300, "reference": REFERENCE + 8}},
    ),
    "stagnant: an update ratio below 1e-8": (
        S.STAGNANT,
        {"first": {"update_ratio": just_below(1e-8)}},
        {"first": {"update_ratio": 1.01e-8}},
    ),
    "stagnant: in a run where other weights move": (
        S.STAGNANT,
        {"first": {"update_ratio": 0}, "window": {"run_moves": 1.1e-8}},
        {"first": {"update_ratio": 0}, "window": {"run_moves": 1e-8}},
    ),
    "stagnant: in a run whose movement is known": (
        S.STAGNANT,
        {"first": {"update_ratio": 0}},
        {"first": {"update_ratio": 0}, "window": {"run_moves": math.nan}},
    ),
    "stagnant: a unit that fired": (
        S.STAGNANT,
        {"first": {"update_ratio": 0}},
        {"first": {"update_ratio": 0, "active_fraction": 0}},
    ),
    "disconnected: every outgoing weight zero": (
        S.DISCONNECTED,
        {"first": {"norm_out": 0}},
        {"first": {"norm_out": 1e-30}},
    ),
    "disconnected: it fires": (
        S.DISCONNECTED,
        {"first": {"norm_out": 0}},
        {"first": {"norm_out": 0, "active_fraction": 0}},
    ),
    "dormant: 2.5 % of the layer's mean": (
        S.DORMANT,
        {"first": {"mean_abs": 0.0088}},
        {"first": {"mean_abs": 0.0092}},
    ),
    "unknown: fewer than 256 examples": (
        S.UNKNOWN,
        {"window": {"examples_seen": 255}},
        {"window": {"examples_seen": 256}},
    ),
}


@pytest.mark.parametrize("rule", BOUNDARIES)
def test_both_sides_of_every_boundary(rule):
    state, inside, outside = BOUNDARIES[rule]
    assert candidate(**inside) == state
    assert candidate(**outside) != state


def test_without_error_signal_silence_is_told_against_the_layer_for_functions_without_zeros():
    gradient = np.array([0.6e-6, 0.8e-6, 1, 1, math.nan], np.float32)  # root mean square 0.7
    assert no_signal(layer("gelu"), gradient, T).tolist() == [True, False, False, False, False]
    assert no_signal(layer("relu"), gradient, T).tolist() == [False] * 5
    assert no_signal(layer("relu"), np.array([0.0, 1e-38], np.float32), T).tolist() == [True, False]


@pytest.mark.parametrize("state", [S.DEAD, S.DYING, S.DORMANT, S.SPARSE])
def test_an_output_layer_may_be_silent_unless_it_is_relu_like(state):
    for settings_ in (
        {"first": SILENT, "carried": QUIET},
        {"first": {"active_fraction": 0.002}, "carried": {"reference": REFERENCE}},
        {"first": {"mean_abs": 0.001}},
        {"first": {"active_fraction": 0.005}},
    ):
        for function in ("sigmoid", "softmax", "linear", "tanh"):
            assert candidate(**settings_, info=layer(function, role="output")) in (S.ACTIVE, S.CONSTANT)
    assert candidate(first=SILENT, carried=QUIET, info=layer("relu", role="output")) == S.DEAD


def test_a_layer_without_activation_function_is_not_judged_by_silence():
    for function in (None, "linear"):
        assert candidate(first={**SILENT, "std": 0.5}, carried=QUIET, info=layer(function)) == S.ACTIVE


def test_a_layer_that_is_uniformly_tiny_is_healthy():
    tiny = {name: HEALTHY[name] * 1e-6 for name in ("mean", "mean_abs", "std", "min", "max", "gradient")}
    assert candidate(**tiny) == S.ACTIVE


def test_a_layer_that_is_silent_throughout_is_dead():
    assert candidate(**SILENT, first={}, carried=QUIET) == S.DEAD
    assert candidate(**SILENT, first={}) == S.SPARSE  # and not dormant: there is nothing to compare with


def test_without_activations_nothing_is_known_but_movement():
    none = [name for name in HEALTHY if name not in ("update_ratio", "norm_in")]
    assert candidate(drop=none) == S.UNKNOWN
    assert candidate(drop=none, first={"update_ratio": 0}) == S.STAGNANT


def test_the_chance_is_an_upper_bound_of_the_binomial_tail():
    for n, p, fired in [(100, 0.1, 2), (1000, 0.01, 0), (500, 0.05, 10), (50, 0.5, 10)]:
        tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(fired + 1))
        bound = chance_of_loss(np.array([fired / n]), np.asarray(n), np.array([p]))[0]
        assert tail <= bound * (1 + 1e-9)
        assert bound < 30 * tail
    assert chance_of_loss(np.array([0.2]), np.asarray(100), np.array([0.1]))[0] == 1


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

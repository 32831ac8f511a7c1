"""Each state from planted numbers, and what no layer is accused of."""

import math

import numpy as np
import pytest

from deadunits_tb.record import NEVER
from deadunits_tb.units import UnitState
from deadunits_tb.verdicts import chance_of_loss, no_signal
from planted_units import AT_BOUND, HEALTHY, QUIET, REFERENCE, SILENT, T, candidate, layer

S = UnitState


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

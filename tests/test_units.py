"""The words that all share keep their codes and their order."""

import numpy as np
import pytest

from deadunits_tb.units import (
    ALARM,
    BY_SEVERITY,
    FLAGGED,
    SEVERITY,
    STATE_BY_LABEL,
    STATISTIC_BY_NAME,
    STATISTICS,
    LayerInfo,
    Level,
    UnitState,
    count_states,
)

WIRE_CODES = {
    "active": 0,
    "sparse": 1,
    "dormant": 2,
    "stagnant": 3,
    "dying": 4,
    "constant": 5,
    "saturated": 6,
    "disconnected": 7,
    "dead": 8,
    "non_finite": 9,
    "unknown": 10,
    "frozen": 11,
}
"""In files that exist: never to be changed, only added to."""


def test_wire_codes_never_change():
    assert {state.label: int(state) for state in UnitState} == WIRE_CODES
    assert {label: STATE_BY_LABEL[label].label for label in WIRE_CODES} == {label: label for label in WIRE_CODES}


def test_levels_are_those_of_the_definitions():
    levels = {level: {state.label for state in UnitState if state.level == level} for level in Level}
    assert levels == {
        Level.ALARM: {"non_finite", "dead", "disconnected", "saturated", "constant"},
        Level.WARNING: {"dying", "stagnant", "dormant"},
        Level.INFORMATION: {"frozen", "unknown", "sparse"},
        Level.OK: {"active"},
    }
    assert [level.label for level in Level] == ["ok", "information", "warning", "alarm"]


def test_tables_by_code_agree_with_the_states():
    assert FLAGGED.tolist() == [state.level >= Level.WARNING for state in UnitState]
    assert FLAGGED.tolist() == [state.flagged for state in UnitState]
    assert ALARM.tolist() == [state.level == Level.ALARM for state in UnitState]
    assert sorted(SEVERITY) == list(range(len(UnitState)))
    assert BY_SEVERITY[SEVERITY].tolist() == list(range(len(UnitState)))
    order = [UnitState(code).label for code in BY_SEVERITY]
    assert order[:3] == ["unknown", "frozen", "active"]
    assert order[-2:] == ["dead", "non_finite"]


def test_statistics_are_named_once():
    assert len(STATISTIC_BY_NAME) == len(STATISTICS) == 14
    assert {s.name for s in STATISTICS if s.signed} == {"mean", "min", "max"}


@pytest.mark.parametrize(
    ("function", "relu_like", "nonlinear"),
    [
        ("relu", True, True),
        ("relu6", True, True),
        ("gelu", False, True),
        ("tanh", False, True),
        ("linear", False, False),
        ("softmax", False, False),
        (None, False, False),
    ],
)
def test_what_silence_means_follows_from_the_activation_function(function, relu_like, nonlinear):
    info = LayerInfo("l", "Dense", 0, 1, function)
    assert (info.relu_like, info.nonlinear) == (relu_like, nonlinear)


def test_states_are_counted_in_the_order_of_their_codes():
    states = np.array([8, 0, 0, 8, 10, 0], np.uint8)
    assert list(count_states(states).items()) == [("active", 3), ("dead", 2), ("unknown", 1)]
    assert count_states(np.zeros(0, np.uint8)) == {}

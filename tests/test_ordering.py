"""Orders of a heatmap's rows."""

from __future__ import annotations

import numpy as np
import pytest

from deadunits_tb.errors import UnknownNameError
from deadunits_tb.reading.columns import evenly_spaced, peaks
from deadunits_tb.reading.ordering import ORDERS, row_order, seriate
from deadunits_tb.units import UnitState

S = UnitState


def test_death_comes_in_the_order_of_its_step_and_the_living_last() -> None:
    states = np.array([[S.ACTIVE] * 6, [S.DEAD, S.ACTIVE, S.DEAD, S.DEAD, S.DYING, S.DEAD]], np.uint8)
    since = np.array([70, 0, 20, 70, 5, 20])
    assert row_order("death", states, since).tolist() == [2, 5, 0, 3, 1, 4]


def test_a_revived_unit_counts_as_alive() -> None:
    states = np.array([[S.DEAD, S.DEAD], [S.ACTIVE, S.DEAD]], np.uint8)
    assert row_order("death", states, np.array([9, 3])).tolist() == [1, 0]


def test_severity_comes_worst_first_and_the_longest_first_within() -> None:
    states = np.array([[S.ACTIVE, S.UNKNOWN, S.DEAD, S.NON_FINITE, S.DEAD, S.SATURATED, S.FROZEN]], np.uint8)
    since = np.array([0, 0, 9, 5, 2, 1, 0])
    assert row_order("severity", states, since).tolist() == [3, 4, 2, 5, 0, 6, 1]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("units", [1, 2, 17, 300])
def test_every_order_has_each_unit_once_and_is_the_same_again(order: str, units: int) -> None:
    rng = np.random.default_rng(units)
    states = rng.integers(0, 12, (40, units)).astype(np.uint8)
    since = rng.integers(0, 900, units)
    fraction = rng.random((40, units)).astype(np.float32)
    fraction[3] = np.nan
    fraction[5, 0] = np.inf
    first = row_order(order, states, since, fraction)  # type: ignore[arg-type]
    assert sorted(first.tolist()) == list(range(units))
    assert first.tolist() == row_order(order, states, since, fraction).tolist()  # type: ignore[arg-type]


def test_an_unknown_order_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match=r"'deaths'.*Did you mean 'death'"):
        row_order("deaths", np.zeros((1, 3), np.uint8), np.zeros(3, np.int64))  # type: ignore[arg-type]


def test_similar_histories_become_neighbours() -> None:
    """Units of 15 kinds, shuffled, with noise: each kind comes out in one piece, or nearly so."""
    rng = np.random.default_rng(0)
    time = np.linspace(0, 1, 32)
    kinds = np.array([np.clip((time - at) * steep, 0, 1) for at in (0.1, 0.3, 0.5, 0.7, 0.9) for steep in (1, 3, 8)])
    kind = rng.integers(0, len(kinds), 3000)
    features = kinds[kind] + rng.normal(size=(3000, 32)) * 0.01
    order = seriate(features)
    pieces = 1 + int((np.diff(kind[order]) != 0).sum())
    assert pieces <= 3 * len(kinds), "one component alone gives hundreds of pieces, the index thousands"

    def path(rows: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(features[rows], axis=0), axis=1).sum())

    assert path(order) < 0.2 * path(np.arange(3000))


def test_equal_units_keep_their_order() -> None:
    assert seriate(np.ones((50, 4))).tolist() == list(range(50))
    assert seriate(np.empty((0, 4))).tolist() == []


def test_columns_hold_the_first_and_the_last_record() -> None:
    assert evenly_spaced(3).tolist() == [0, 1, 2]
    for records in (240, 241, 1000, 2000):
        columns = evenly_spaced(records)
        assert len(columns) == 240
        assert (columns[0], columns[-1]) == (0, records - 1)
        assert set(np.diff(columns).tolist()) <= {records // 240, records // 240 + 1, -(-(records - 1) // 239)}


def test_a_peak_of_one_record_is_kept() -> None:
    weight = np.zeros(1000, np.int64)
    weight[[0, 517, 999]] = 5, 9, 1
    columns = evenly_spaced(1000)
    found = peaks(weight, columns)
    assert {0, 517, 999} <= set(found.tolist())
    assert (found <= columns).all()
    assert (np.diff(found) > 0).all()
    assert peaks(np.empty(0), np.empty(0, np.int64)).tolist() == []
    assert peaks(np.zeros(4), np.array([0, 3])).tolist() == [0, 3]  # of equals, the latest

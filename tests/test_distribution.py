"""Units by value, against a slow and obvious reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deadunits_tb.reading.distribution import distribution
from deadunits_tb.units import STATISTICS

VALUES = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(width=32, allow_nan=True)
)


@settings(max_examples=200, deadline=None)
@given(values=VALUES, statistic=st.sampled_from([s.name for s in STATISTICS]), bins=st.integers(8, 200))
def test_every_unit_is_counted_once(values: np.ndarray, statistic: str, bins: int) -> None:
    if not next(s for s in STATISTICS if s.name == statistic).signed:
        values = np.abs(values)
    found = distribution(statistic, values, bins)
    records, units = values.shape
    assert found.counts.shape == (records, bins)
    assert np.isfinite(found.edges).all()
    assert (np.diff(found.edges) > 0).all()
    total = found.counts.sum(axis=1) + found.zeros + found.non_finite + found.below + found.above
    assert total.tolist() == [units] * records
    for record in range(records):
        row = values[record].astype(np.float64)
        assert found.zeros[record] == sum(v == 0 for v in row)
        assert found.non_finite[record] == sum(not np.isfinite(v) for v in row)
        usable = [v for v in row if np.isfinite(v) and v != 0]
        assert found.below[record] == sum(v < found.edges[0] for v in usable)
        assert found.above[record] == sum(v > found.edges[-1] for v in usable)
        for b in range(bins):
            low, high = found.edges[b], found.edges[b + 1]
            inside = sum(low <= v < high or (b == bins - 1 and v == high) for v in usable)
            assert found.counts[record, b] == inside


def test_scales() -> None:
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(size=(3, 500)) * 4).astype(np.float32)
    narrow = rng.uniform(1, 2, (3, 500)).astype(np.float32)
    assert distribution("gradient", spread, 48).scale == "log"
    assert distribution("gradient", narrow, 48).scale == "linear"
    assert distribution("mean", rng.normal(size=(3, 500)).astype(np.float32), 48).scale == "linear"
    share = distribution("active_fraction", narrow - 1, 20)
    assert (share.edges[0], share.edges[-1], share.scale) == (0.0, 1.0, "linear")


def test_an_outlier_does_not_squeeze_the_rest() -> None:
    values = np.random.default_rng(1).uniform(1, 2, (4, 2000)).astype(np.float32)
    values[2, 7] = 1e9
    found = distribution("norm_in", values, 48)
    assert found.edges[-1] < 3
    assert found.above[2] >= 1
    assert (found.counts > 0).mean() > 0.9


def test_quantiles_are_those_of_the_finite_values() -> None:
    values = np.array([[0, 1, 2, 3, np.nan], [np.nan, np.inf, -np.inf, np.nan, np.nan]], np.float32)
    found = distribution("mean", values, 8)
    assert found.quantiles["p50"][0] == pytest.approx(1.5)
    assert found.quantiles["p05"][0] == pytest.approx(np.quantile([0, 1, 2, 3], 0.05))
    assert all(np.isnan(q[1]) for q in found.quantiles.values())
    assert found.non_finite.tolist() == [1, 5]


def test_nothing_to_count() -> None:
    found = distribution("gradient", np.zeros((2, 5), np.float32), 8)
    assert found.zeros.tolist() == [5, 5]
    assert not found.counts.any()
    assert distribution("gradient", np.empty((0, 5), np.float32), 8).counts.shape == (0, 8)

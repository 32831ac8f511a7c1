"""How far weights have moved, exactly or by projections that need little memory."""

import numpy as np
import pytest

from deadunits_tb.capture.weight_history import WeightBudget, WeightHistory


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 50, 9000])
def test_projections_tell_how_far_weights_moved(dtype, rows):
    rng = np.random.default_rng(0)
    exact, projection = WeightHistory("exact"), WeightHistory("projection")
    before = rng.normal(size=(rows, 300)).astype(dtype)
    after = before.copy()
    after[:, 100:] += (rng.normal(size=(rows, 200)) * 0.1).astype(dtype)
    for history_ in (exact, projection):
        history_.look(before)
    one, other = exact.look(after), projection.look(after)
    assert not one.change[:100].any()
    assert not other.change[:100].any()  # exactly unchanged stays exactly unchanged
    np.testing.assert_array_equal(one.norm_first, other.norm_first)
    moved = one.change[100:] > 0
    ratio = other.change[100:][moved] / one.change[100:][moved]
    assert 0.95 < ratio.mean() < 1.05
    assert (np.abs(ratio - 1) < 0.7).all()
    for history_ in (exact, projection):
        assert not history_.look(before).change_since_first.any()


def test_a_single_changed_bit_is_seen_by_a_projection():
    weights = np.ones((5000, 4), np.float32)
    projection = WeightHistory("projection")
    projection.look(weights)
    weights[4321, 2] = np.nextafter(np.float32(1), np.float32(2))
    change = projection.look(weights).change
    assert change[2] > 0
    assert not change[[0, 1, 3]].any()


def test_copies_are_kept_as_long_as_they_are_small_together():
    budget = WeightBudget(exact_bytes=1000)
    small, large = np.ones((5, 5)), np.ones((50, 50))
    assert [budget.method(weights) for weights in (large, small, small, small)] == [
        "projection", "exact", "exact", "projection",
    ]  # fmt: skip

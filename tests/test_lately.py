"""What a single record cannot tell of a unit: its recent size, and the examples since its rate fell."""

import numpy as np
import pytest

from deadunits_tb.capture.lately import Lately
from deadunits_tb.rates import SMALLEST_SIZE, lately_code, low_stretch, recent_rate, recent_size, reference_rate
from deadunits_tb.thresholds import Thresholds


def after(fired, sizes, *, examples=64, lately=None):
    """What is recorded of a unit that fired so often in each record, and was so large, beside a steady one."""
    lately = lately or Lately(2, Thresholds())
    for number, size in zip(fired, sizes, strict=True):
        lately.add(np.array([number, 0.5 * examples]), np.array([size, 1.0]), examples)
    return lately.code(np.array([0]), np.zeros(1))


def test_codes_hold_what_was_coded_and_never_more_evidence() -> None:
    size, examples, fired = (
        np.array([0.02, 0.3, 1e-9, 0.0]),
        np.array([640.0, 64, 5000, 300]),
        np.array([1.0, 0.5, 3, 0]),
    )
    code = lately_code(size, examples, fired)
    np.testing.assert_allclose(recent_size(code)[:2], size[:2], rtol=0.1)
    assert recent_size(code)[2:].tolist() == [SMALLEST_SIZE, np.inf]
    rate, behind = low_stretch(code)
    assert (behind[:3] <= examples[:3]).all()
    assert (behind[:3] > 0.9 * examples[:3]).all()
    assert (rate[:3] >= fired[:3] / examples[:3]).all()
    assert (rate[:3] <= 1.2 * fired[:3] / examples[:3]).all()
    assert behind[3] == 0
    assert (recent_rate(code) == 0).all()
    assert (reference_rate(code) == 0).all()


def test_a_low_stretch_begins_where_the_rate_fell_and_outlives_a_firing() -> None:
    fell = [13] * 50 + [0, 0, 0, 1] + [0] * 8
    rate, examples = low_stretch(after(fell, [1] * len(fell)))
    assert examples[0] == pytest.approx(12 * 64, rel=0.2)
    assert rate[0] == pytest.approx(1 / 768, rel=0.3)
    again = [*fell, 13]
    assert low_stretch(after(again, [1] * len(again)))[1] == 0


def test_a_unit_that_recovers_is_not_low_for_as_long_as_it_was() -> None:
    lately = Lately(2, Thresholds())
    after([1] + [0] * 999, [1] * 1000, lately=lately)  # 64,000 examples
    assert low_stretch(after([1], [1], lately=lately))[1] < 6100
    assert low_stretch(after([3] * 40, [1] * 40, lately=lately))[1] == 0  # 5 % of 2,560


def test_the_recent_size_is_a_mean_over_its_horizon() -> None:
    sizes = [1.0] * 40 + [0.01] * 80
    assert recent_size(after([1] * 40, sizes[:40]))[0] == 1
    assert recent_size(after([1] * 48, sizes[:48]))[0] == pytest.approx(2 * np.exp(-512 / 500), rel=0.4)
    assert recent_size(after([1] * 120, sizes))[0] == pytest.approx(0.02, rel=0.1)
    assert recent_size(after([1] * 121, [*sizes, np.nan]))[0] == pytest.approx(0.02, rel=0.1)


def test_neither_is_recorded_where_nobody_asks_and_both_begin_anew() -> None:
    lately = Lately(2, Thresholds())
    after([1] + [0] * 9, [1] * 10, lately=lately)
    assert np.isinf(recent_size(lately.code(np.array([0]), np.array([10.0]))))
    lately.forget(np.array([0]))
    assert low_stretch(lately.code(np.array([0]), np.zeros(1)))[1] == 0
    assert np.isinf(recent_size(lately.code(np.array([0]), np.zeros(1))))

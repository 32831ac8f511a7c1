"""How much of the weights is remembered, whatever the framework."""

from __future__ import annotations

import numpy as np
import pytest

from deadunits_tb.taps.columns import SIGNS, Columns, methods, random_numbers


@pytest.mark.parametrize(("copies", "second"), [(1, "exact"), (2, "projection")])
def test_all_copies_that_are_held_count(copies: int, second: str) -> None:
    """Two layers of 400 bytes: copies of both, or of the first alone and of the small one behind."""
    of_100 = [Columns((10, 10), (-1,))]
    incoming = {"first": of_100, "second": of_100, "small": [Columns((5, 2), (-1,))]}
    found = methods(incoming, copies=copies, exact_bytes=880)
    assert found == {"first": "exact", "second": second, "small": "exact"}


def test_random_numbers_are_the_same_each_time() -> None:
    (signs, odd), again = random_numbers(7), random_numbers(7)
    assert signs.shape == (SIGNS, 7)
    assert set(np.unique(signs)) == {-1, 1}
    assert (odd % 2 == 1).all()
    assert (signs == again[0]).all()
    assert (odd == again[1]).all()

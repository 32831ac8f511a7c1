"""The reductions in C give what NumPy gives in float64, in each layout; a library of another source is not loaded."""

from __future__ import annotations

import math
import shutil

import numpy as np
import numpy.typing as npt
import pytest

from deadunits_tb.native import library, reductions

SIZES = [(3, 1, 5), (1, 1, 1), (1500, 1, 3), (2, 7, 300), (4, 16, 70), (3, 2100, 2), (2, 17_000, 2), (5, 1, 600)]
"""Examples, positions, units: beyond what is worked on at once, on each axis."""
Values = npt.NDArray[np.float32]

pytestmark = pytest.mark.skipif(
    not reductions.AVAILABLE and shutil.which("cc") is None, reason="no C compiler was here when the package was built"
)


def laid_out(values: Values, *, last: str) -> tuple[Values, reductions.Layout]:
    """``[examples, positions, units]`` with one axis last in memory."""
    if last == "positions":
        values = np.ascontiguousarray(values.transpose(0, 2, 1)).transpose(0, 2, 1)
    return values, reductions.Layout(values.shape, [stride // 4 for stride in values.strides])


def reduced(values: Values, *, last: str, relu_like: bool, limits: tuple[float, float] | None, limit: float) -> Values:
    values, layout = laid_out(values, last=last)
    out = np.full((7 + (not relu_like) + (limits is not None), values.shape[2]), np.nan, np.float32)
    reductions.activation(
        values.ctypes.data, layout, None, out.ctypes.data, relu_like=relu_like, limits=limits, limit=limit
    )
    np.testing.assert_array_equal(out[-1], values[0, 0])
    return out[:-1]


def expected(
    values: Values, *, relu_like: bool, limits: tuple[float, float] | None, limit: float
) -> list[npt.NDArray[np.float64]]:
    exact, axes = values.astype(np.float64), (0, 1)
    fired = exact > 0 if relu_like else np.abs(exact) > np.float32(limit)
    apart = exact - exact[0, 0]
    rows = [] if relu_like else [np.abs(exact).sum(axes)]
    if limits is not None:
        low, high = (np.float64(np.float32(bound)) for bound in limits)
        rows.append(((exact >= high) | ((exact <= low) & (low > -math.inf))).sum(axes))
    rows += [exact.sum(axes) if relu_like else apart.sum(axes), (apart**2).sum(axes), fired.sum(axes)]
    return [*rows, fired.any(1).sum(0), exact.max(axes), exact.min(axes)]


@pytest.mark.parametrize("last", ["units", "positions"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("relu_like", "limits"), [(True, None), (True, (-math.inf, 1.0)), (False, None), (False, (-1.2, 1.5))]
)
def test_an_activation_is_reduced_as_numpy_does(size, last, relu_like, limits):
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32) - 1
    values = np.maximum(values, 0) if relu_like else values
    found = reduced(values, last=last, relu_like=relu_like, limits=limits, limit=0.5)
    for row, wanted in zip(found, expected(values, relu_like=relu_like, limits=limits, limit=0.5), strict=True):
        terms = np.abs(values).astype(np.float64).sum((0, 1)) + np.abs(wanted)
        assert np.all(np.abs(row - wanted) <= 3e-6 * terms), (row, wanted)


@pytest.mark.parametrize("last", ["units", "positions"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_squares_are_those_of_numpy(size, last):
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32) * np.float32(1e-25)
    values, layout = laid_out(values, last=last)
    out = np.full(size[2], np.nan, np.float32)
    reductions.squares(values.ctypes.data, layout, out.ctypes.data, 2.0**64)
    np.testing.assert_allclose(out, ((values.astype(np.float64) * 2.0**64) ** 2).sum((0, 1)), rtol=2e-6)


@pytest.mark.parametrize("last", ["units", "positions"])
@pytest.mark.parametrize("where", [(0, 0), (1, 3), (2, 39)])
@pytest.mark.parametrize("relu_like", [True, False])
def test_a_nan_goes_on_and_is_no_firing(last, where, relu_like):
    values = np.ones((3, 40, 20), np.float32)
    values[(*where, 4)] = np.nan
    values[(*where, 5)] = np.inf
    found = reduced(values, last=last, relu_like=relu_like, limits=None, limit=0.5)[-6:]
    total, squares, positions, examples, largest, smallest = found
    assert [bool(np.isnan(row[4])) for row in (total, squares, largest, smallest)] == [True] * 4
    assert (positions[4], examples[4]) == (119, 3)
    assert (positions[5], largest[5], smallest[5]) == (120, np.inf, 1)
    others = [0, 1, 2, 3, *range(6, 20)]
    assert np.all(positions[others] == 120)
    assert not np.isnan(found[:, others]).any()


def test_a_library_of_another_source_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "SOURCE", tmp_path / "reductions.c")
    (tmp_path / "reductions.c").write_text("int other;\n")
    assert reductions._load() is None
    library.path().write_bytes(b"no library at all")
    assert reductions._load() is None

"""Compiled code and PyTorch's own operations reduce alike, and what is not for compiled code is left to PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from deadunits_tb.native import reductions as native
from deadunits_tb.taps.torch.in_one_pass import gradient_squares
from deadunits_tb.taps.torch.reductions import Reductions
from deadunits_tb.taps.torch.rows import Place

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="no C compiler was here when the package was built")

LAYOUTS = {
    "examples, units": ((6, 33), Place(1, 33)),
    "transposed": ((6, 33), Place(0, 6, examples=1)),
    "tokens": ((3, 7, 20), Place(2, 20)),
    "images": ((3, 18, 5, 7), Place(1, 18)),
    "channels last": ((3, 18, 5, 7), Place(1, 18)),
    "flattened images": ((4, 24), Place(1, 6, inner=4)),
    "a part of them": ((4, 24), Place(1, 10, start=8, whole=False)),
    "large": ((9, 40, 30, 32), Place(1, 40)),
}


def tensor_of(layout: str) -> torch.Tensor:
    values = torch.randn(LAYOUTS[layout][0], generator=torch.Generator().manual_seed(3))
    return values.contiguous(memory_format=torch.channels_last) if layout == "channels last" else values


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("limits", [(-math.inf, math.inf), (-1.0, 1.0)], ids=["unbounded", "bounded"])
@pytest.mark.parametrize("relu_like", [True, False], ids=["relu", "other"])
def test_both_ways_give_the_same(layout, limits, relu_like, monkeypatch):
    values, place = tensor_of(layout), LAYOUTS[layout][1]
    values = values.relu() if relu_like else values
    found = {}
    for compiled in (True, False):
        monkeypatch.setattr(native, "AVAILABLE", compiled)
        ask = {"relu_like": relu_like, "limits": limits, "fired_scale": 0.3}
        first = Reductions().activation_sums(values, place, scale=None, **ask).whole()
        again = Reductions().activation_sums(values, place, scale=0.8, shift=first["shift"] + 1, **ask).whole()
        squares = Reductions().gradient_squares(values, place)
        scaled = Reductions().gradient_squares(values, place, torch.tensor(8.0))
        found[compiled] = [first, again, {"squares": squares, "scaled": scaled}]
    for one, other in zip(found[True], found[False], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-4)


def test_what_is_not_for_compiled_code():
    values, place = torch.randn(4, 6, 8), Place(2, 8)
    assert gradient_squares(values, place) is not None
    assert gradient_squares(values.double(), place) is None
    assert gradient_squares(values.bfloat16(), place) is None
    assert gradient_squares(values[:, ::2, ::2], Place(2, 4)) is None
    assert gradient_squares(torch._neg_view(values), place) is None
    assert gradient_squares(values.to("meta"), place) is None
    assert gradient_squares(torch.randn(4, 6, 5, 8).transpose(2, 3)[:, :, ::2], Place(1, 6)) is None  # would be copied

"""What a reduction of activations gives: sums of each unit, which can be added to those of another call."""

from __future__ import annotations

from typing import Any

import torch

_COMMON = ("sum", "squares", "fired_positions", "fired_examples", "max", "min", "shift")
_FIELDS = {
    (relu_like, bounded): (() if relu_like else ("sum_abs",)) + (("saturated",) if bounded else ()) + _COMMON
    for relu_like in (False, True)
    for bounded in (False, True)
}


def fields_of(*, relu_like: bool, bounded: bool) -> tuple[str, ...]:
    """What is summed up of the outputs of an activation function, in its order."""
    return _FIELDS[relu_like, bounded]


class Sums(dict[str, Any]):
    """``examples`` and ``positions``, which are numbers, and fields, which are tensors ``[units]``.

    Attributes:
        matrix: ``[fields, units]``, None where the fields are not the rows of one matrix.
        rows: Its fields; the entries of the dictionary only after :meth:`whole`, as mostly nobody asks for them.
    """

    matrix: Any = None
    rows: tuple[str, ...] = ()

    def take(self, rows: tuple[str, ...], matrix: Any) -> None:
        """Have the rows of a matrix as fields."""
        self.rows, self.matrix = rows, matrix

    def whole(self) -> Sums:
        """These, with each field as an entry."""
        if self.matrix is not None and self.rows[0] not in self:
            self |= zip(self.rows, self.matrix.unbind(0), strict=True)
        return self

    @property
    def units(self) -> int:
        """How many units there are."""
        return int(self.matrix.shape[1] if self.matrix is not None else len(self["shift"]))

    def merge(self, other: Sums) -> Sums:
        """These and those of another call of the layer, taken about the same shift."""
        if not self["positions"]:
            return other
        if not other["positions"]:
            return self
        one, two = self.whole(), other.whole()
        both = Sums({name: values + two[name] for name, values in one.items()})
        both["shift"] = one["shift"]
        both["min"], both["max"] = torch.minimum(one["min"], two["min"]), torch.maximum(one["max"], two["max"])
        return both

    def about(self, shift: Any, *, relu_like: bool) -> Sums:
        """The same, about another shift."""
        sums = self.whole()
        n, apart = sums["positions"], sums["shift"] - shift
        total = torch.where(sums["squares"] == 0, 0, sums["sum"] - n * sums["shift"]) if relu_like else sums["sum"]
        squares = sums["squares"] + 2 * apart * total + n * apart * apart
        return Sums(sums | {"shift": shift, "sum": sums["sum"] if relu_like else total + n * apart, "squares": squares})


def root_mean_square(sums: Sums) -> Any:
    """Of the outputs of all units that were finite."""
    power = (sums["squares"] + 2 * sums["shift"] * sums["sum"]) / sums["positions"] + sums["shift"] ** 2
    finite = power.isfinite()
    mean = torch.where(finite, power, 0).sum() / finite.sum().clamp(min=1)
    return mean.clamp(min=0).sqrt()

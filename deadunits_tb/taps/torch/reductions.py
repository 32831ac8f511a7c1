"""Per-unit reductions of activations and gradients, on the device and without waiting for it.

On a CPU the memory is what it costs: each pass over a big tensor reads it, and one that writes takes twice as long as
one that only sums. So everything is computed block by block, in blocks that stay in the processor's cache, and what is
computed on the way goes into a scratch tensor that is used again and again (``benchmarks/README.md`` has figures).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from deadunits_tb.capture.packed import SQUARE_SCALE

Sums = dict[str, Any]
_BLOCK = 1 << 17
"""Numbers in a block: with the scratch one MiB, about half of what a core's own cache holds."""
_MOST_SCRATCHES = 64
"""Shapes for which a scratch tensor is kept; all are views of the same memory."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the units are in a tensor.

    Attributes:
        axis: That holds them, counted from the front.
        units: How many.
        outer: How often all units are repeated along this axis.
        inner: How often each is repeated there before the next: the positions of an image that was flattened.
        examples: Axis of the examples.
        positions: How many entries of that axis, one after the other, belong to one example: the tokens of a sequence
            where ``[examples, tokens, units]`` was reshaped to ``[examples * tokens, units]``.
        start: Where all that begins along the axis, if it is a part of it, as after a concatenation.
        whole: Whether it is all of it.
    """

    axis: int
    units: int
    outer: int = 1
    inner: int = 1
    examples: int = 0
    positions: int = 1
    start: int = 0
    whole: bool = True

    @property
    def length(self) -> int:
        """Of the part of the axis."""
        return self.outer * self.units * self.inner

    @property
    def alone(self) -> bool:
        """Whether the axis holds nothing but the units."""
        return self.outer == self.inner == 1


@dataclass(frozen=True, slots=True)
class Rows:
    """Values in a layout that can be reduced: ``[examples, units]``, or with positions before or after the units.

    Attributes:
        values: Of any type.
        positions: Axis of the positions, None if each example has one.
    """

    values: Any
    positions: int | None

    @classmethod
    def of(cls, tensor: Any, place: Place) -> Rows:
        """Bring a tensor of any layout there, as a view wherever that is possible."""
        axis, examples = place.axis, place.examples
        if not place.whole:
            tensor = tensor.narrow(axis, place.start, place.length)
        if place.positions > 1:
            tensor, axis = tensor.unflatten(examples, (-1, place.positions)), axis + (axis > examples)
        if not place.alone:
            tensor = tensor.unflatten(axis, (place.outer, place.units, place.inner))
            axis, examples = axis + 1, examples + 2 * (examples > axis)
        if tensor.dim() == 1 or axis == examples:  # one example, without an axis of its own
            tensor, axis, examples = tensor[None], axis + 1, 0
        if examples:
            order = [examples, *(at for at in range(tensor.dim()) if at != examples)]
            tensor, axis = tensor.permute(order), axis + (axis < examples)
        if tensor.dim() == 2:
            return cls(tensor, None)
        others = [at for at in range(1, tensor.dim()) if at != axis]
        last = tensor.stride(axis) == 1 or axis == tensor.dim() - 1
        order = [0, *others, axis] if last else [0, axis, *others]
        tensor = tensor.permute(order)
        return cls(tensor.flatten(1, -2) if last else tensor.flatten(2), 1 if last else 2)

    @property
    def examples(self) -> int:
        """How many."""
        return int(self.values.shape[0])

    @property
    def count(self) -> int:
        """Positions of all examples."""
        return self.examples * (1 if self.positions is None else int(self.values.shape[self.positions]))

    def first(self) -> Any:
        """``[units]``: at the first position."""
        values = self.values[0] if self.positions is None else self.values.select(self.positions, 0)[0]
        return values.to(torch.float32, copy=True)

    def parts(self) -> Iterator[tuple[slice, list[Any]]]:
        """Units, and the blocks of all that is theirs, each ``[examples, ...]``."""
        values = self.values
        if values.device.type != "cpu" or values.numel() <= _BLOCK:  # elsewhere calls cost more than memory does
            yield slice(None), [values]
            return
        axis = 1 if self.positions == 2 else values.dim() - 1
        units = values.shape[axis]
        each = values[0].numel()
        together = units if each <= 2 * _BLOCK else max(1, units * _BLOCK // each)
        for start in range(0, units, together):
            some = slice(start, start + together)
            part = values if together == units else values.narrow(axis, start, min(together, units - start))
            length = max(1, _BLOCK * units // (each * together))
            yield some, list(part.split(length)) if length < len(part) else [part]


class Reductions:
    """Reduces activations and gradients, with a scratch tensor for each thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    def activation_sums(
        self,
        tensor: Any,
        place: Place,
        *,
        relu_like: bool,
        limits: tuple[float, float],
        scale: float | None,
        fired_scale: float,
        shift: Any = None,
    ) -> Sums:
        """Reduce the outputs of an activation function.

        Args:
            tensor: The outputs.
            place: Of the units.
            relu_like: Whether firing means greater than zero.
            limits: Outputs at which a bounded function is saturated; infinite without.
            scale: Root mean square at the previous record, None if there is none. Unused for ReLU-like functions.
            fired_scale: Share of it beyond which a unit has fired.
            shift: ``[units]``, about which sums are taken; None for the unit's first output.

        Returns:
            ``examples`` and ``positions`` (numbers), and ``[units]`` tensors, as
            :meth:`deadunits_tb.taps.tensorflow.reductions.Reductions.activation_sums` says.
        """
        rows = Rows.of(tensor.detach(), place)
        sums: Sums = {"examples": rows.examples, "positions": rows.count}
        if not rows.count:
            return sums
        sums["shift"] = shift = rows.first() if shift is None else shift
        limit: Any = 0.0
        if not relu_like:
            if scale is None:  # at the first record only
                moments = _of_all(rows, lambda block, some: self._moments(block, rows.positions, shift[some], False))
                scale = _root_mean_square(sums | moments)
            limit = fired_scale * scale

        def reduced(block: Any, some: slice) -> Sums:
            moments = self._moments(block, rows.positions, shift[some], relu_like)
            return moments | self._firing(block, rows.positions, limit, limits, relu_like)

        sums |= _of_all(rows, reduced)
        if relu_like:
            sums["min"] = _smallest_of_relu(rows, sums)
        return sums

    def gradient_squares(self, gradient: Any, place: Place) -> Any:
        """``[units]``: sum of the squares of a gradient times :data:`~deadunits_tb.capture.packed.SQUARE_SCALE`.

        Args:
            gradient: Of the loss.
            place: Of the units.
        """
        rows = Rows.of(gradient.detach(), place)
        axes = _AXES[rows.positions]

        def squares(block: Any, some: slice) -> Sums:
            scratch = self._scratch(block)
            torch.mul(block.float(), SQUARE_SCALE, out=scratch)
            return {"squares": scratch.mul_(scratch).sum(axes)}

        return _of_all(rows, squares)["squares"]

    def release(self) -> None:
        """Let go of the scratch tensors."""
        self._local = threading.local()

    def _moments(self, block: Any, positions: int | None, shift: Any, relu_like: bool) -> Sums:
        axes, scratch = _AXES[positions], self._scratch(block)
        values = block.float()
        torch.sub(values, shift[:, None] if positions == 2 else shift, out=scratch)
        total = (values if relu_like else scratch).sum(axes)
        return {"sum": total, "squares": scratch.mul_(scratch).sum(axes)}

    def _firing(
        self, block: Any, positions: int | None, limit: Any, limits: tuple[float, float], relu_like: bool
    ) -> Sums:
        axes, scratch = _AXES[positions], self._scratch(block)
        values, (low, high) = block.float(), limits
        peak = values if positions is None else values.amax(positions)  # of each example
        found = {"max": peak.amax(0)}
        if relu_like:
            found["fired_positions"] = torch.gt(values, 0, out=scratch).sum(axes)
        else:
            smallest = values if positions is None else values.amin(positions)
            found["min"] = smallest.amin(0)
            found["sum_abs"] = torch.abs(values, out=scratch).sum(axes)
            found["fired_positions"] = torch.gt(scratch, limit, out=scratch).sum(axes)
            peak = None if positions is None else torch.maximum(peak, -smallest)
        if high < math.inf:
            found["saturated"] = torch.ge(values, high, out=scratch).sum(axes)
            if low > -math.inf:
                found["saturated"] += torch.le(values, low, out=scratch).sum(axes)
        found["fired_examples"] = found["fired_positions"]
        if positions is not None:
            found["fired_examples"] = (peak > limit).to(torch.float32).sum(0)
        return found

    def _scratch(self, block: Any) -> Any:
        """A tensor to write on, laid out in memory as a block is."""
        if block.device.type != "cpu":  # elsewhere allocators do this better
            return torch.empty_like(block, dtype=torch.float32)
        shape, flipped = block.shape, block.dim() == 3 and block.stride(1) < block.stride(2)
        views: dict[Any, Any] | None = getattr(self._local, "views", None)
        if views is None:
            views = self._local.views = {}
        if (found := views.get((shape, flipped))) is not None:
            return found
        numbers, buffer = block.numel(), getattr(self._local, "buffer", None)
        if buffer is None or buffer.numel() < numbers or len(views) >= _MOST_SCRATCHES:
            views.clear()
            buffer = self._local.buffer = torch.empty(max(numbers, 2 * _BLOCK), dtype=torch.float32, device="cpu")
        if flipped:
            found = buffer[:numbers].view(shape[0], shape[2], shape[1]).transpose(1, 2)
        else:
            found = buffer[:numbers].view(shape)
        views[shape, flipped] = found
        return found


def merge_sums(one: Sums, other: Sums) -> Sums:
    """Merge the sums of two calls of a layer, taken about the same shift."""
    if not one["positions"]:
        return other
    if not other["positions"]:
        return one
    both = {name: values + other[name] for name, values in one.items()}
    both["shift"] = one["shift"]
    both["min"], both["max"] = torch.minimum(one["min"], other["min"]), torch.maximum(one["max"], other["max"])
    return both


def value_summary(tensors: list[Any]) -> Any:
    """``[tensors * 6]``: count, first value, sum and sum of squares of the distances from it, smallest, largest."""
    columns = []
    for tensor in tensors:
        values = tensor.detach().float().flatten()
        shift = values[0]
        apart = values - shift
        low, high = torch.aminmax(values)
        columns += [torch.full_like(shift, values.numel()), shift, apart.sum(), (apart * apart).sum(), low, high]
    return torch.stack(columns)


_AXES: dict[int | None, int | tuple[int, int]] = {None: 0, 1: (0, 1), 2: (0, 2)}
"""All but that of the units, by the axis of the positions."""


def _of_all(rows: Rows, reduce: Callable[[Any, slice], Sums]) -> Sums:
    """Reduce block by block, and put together what all of them give."""
    parts = []
    for some, blocks in rows.parts():
        found = [reduce(block, some) for block in blocks]
        parts.append(found[0] if len(found) == 1 else {name: _put_together(name, found) for name in found[0]})
    return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _put_together(name: str, found: list[Sums]) -> Any:
    values = torch.stack([sums[name] for sums in found])
    return values.amin(0) if name == "min" else values.amax(0) if name == "max" else values.sum(0)


def _smallest_of_relu(rows: Rows, sums: Sums) -> Any:
    """``[units]``: zero where a unit did not fire somewhere, so mostly there is little to look for."""
    axes = _AXES[rows.positions]
    if rows.values.device.type != "cpu":  # nothing is waited for
        return rows.values.amin(axes).float()
    smallest = torch.zeros_like(sums["sum"])
    always = ((sums["fired_positions"] == rows.count) | sums["sum"].isnan()).nonzero().flatten()
    if len(always):
        axis = 1 if rows.positions == 2 else rows.values.dim() - 1
        smallest[always] = rows.values.index_select(axis, always).amin(axes).float()
    return smallest


def _root_mean_square(sums: Sums) -> Any:
    power = (sums["squares"] + 2 * sums["shift"] * sums["sum"]) / sums["positions"] + sums["shift"] ** 2
    finite = power.isfinite()
    mean = torch.where(finite, power, 0).sum() / finite.sum().clamp(min=1)
    return mean.clamp(min=0).sqrt()

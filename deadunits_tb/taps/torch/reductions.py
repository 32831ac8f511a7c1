"""Per-unit reductions of activations and gradients, on the device and without waiting for it.

Written for few passes over big tensors. On a CPU plain ``sum`` and ``amax`` run at the speed of the memory, other
spellings at a fraction of it, and each fresh temporary of a few megabytes costs as much again: so what is computed on
the way goes into a scratch tensor that is used again and again (``docs/capture.md`` has the figures).
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import torch

from deadunits_tb.taps.packed import SQUARE_SCALE

Sums = dict[str, Any]
_LARGEST_SCRATCH = 1 << 24
"""Numbers. Bigger tensors are rare, and then a scratch that stays would be felt."""


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
        values: In float32.
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
            return cls(tensor.float(), None)
        others = [at for at in range(1, tensor.dim()) if at != axis]
        last = tensor.stride(axis) == 1 or axis == tensor.dim() - 1
        order = [0, *others, axis] if last else [0, axis, *others]
        tensor = tensor.permute(order).float()
        return cls(tensor.flatten(1, -2) if last else tensor.flatten(2), 1 if last else 2)

    @property
    def examples(self) -> int:
        """How many."""
        return int(self.values.shape[0])

    @property
    def count(self) -> int:
        """Positions of all examples."""
        return self.examples * (1 if self.positions is None else int(self.values.shape[self.positions]))

    def shaped(self, units: Any) -> Any:
        """``[units]`` so that it broadcasts."""
        return units[:, None] if self.positions == 2 else units

    def first(self) -> Any:
        """``[units]``: at the first position."""
        return (self.values[0] if self.positions is None else self.values.select(self.positions, 0)[0]).clone()

    def sum(self, values: Any) -> Any:
        """``[units]``: of values in the same layout."""
        return values.sum(0) if self.positions is None else values.sum((0, self.positions))


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
        values = rows.values
        sums: Sums = {"examples": rows.examples, "positions": rows.count}
        if not rows.count:
            return sums
        low, high = limits
        shift = rows.first() if shift is None else shift
        largest = values if rows.positions is None else values.amax(rows.positions)
        sums |= {"shift": shift, "max": largest.amax(0)}
        scratch = self._scratch(values)
        total = rows.sum(values)
        torch.sub(values, rows.shaped(shift), out=scratch)
        if not relu_like:
            sums["sum"] = rows.sum(scratch)
        scratch.mul_(scratch)
        sums["squares"] = rows.sum(scratch)
        if relu_like:
            sums["sum"] = total
            sums["fired_positions"] = rows.sum(torch.gt(values, 0, out=scratch))
            limit, peak = 0.0, largest
            sums["min"] = _smallest_of_relu(rows, sums)
        else:
            smallest = values if rows.positions is None else values.amin(rows.positions)
            sums["min"] = smallest.amin(0)
            own = _root_mean_square(sums) if scale is None else scale
            limit, peak = fired_scale * own, torch.maximum(largest, -smallest)
            torch.abs(values, out=scratch)
            sums["sum_abs"] = rows.sum(scratch)
            sums["fired_positions"] = rows.sum(torch.gt(scratch, limit, out=scratch))
        if high < math.inf:
            sums["saturated"] = rows.sum(torch.ge(values, high, out=scratch))
            if low > -math.inf:
                sums["saturated"] += rows.sum(torch.le(values, low, out=scratch))
        sums["fired_examples"] = sums["fired_positions"]
        if rows.positions is not None:
            sums["fired_examples"] = (peak > limit).to(values.dtype).sum(0)
        return sums

    def gradient_squares(self, gradient: Any, place: Place, scale: Any = None) -> Any:
        """``[units]``: sum of the squares of a gradient times :data:`~deadunits_tb.taps.packed.SQUARE_SCALE`.

        Args:
            gradient: Of the loss.
            place: Of the units.
            scale: By which the loss was multiplied, a tensor; None for 1.
        """
        rows = Rows.of(gradient.detach(), place)
        scratch = self._scratch(rows.values)
        torch.mul(rows.values, SQUARE_SCALE if scale is None else SQUARE_SCALE / scale, out=scratch)
        return rows.sum(scratch.mul_(scratch))

    def release(self) -> None:
        """Let go of the scratch tensors."""
        self._local = threading.local()

    def _scratch(self, values: Any) -> Any:
        """A tensor to write on, laid out in memory as the values are."""
        if values.device.type != "cpu" or values.numel() > _LARGEST_SCRATCH:  # elsewhere allocators do this better
            return torch.empty_like(values)
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or buffer.numel() < values.numel():
            buffer = self._local.buffer = torch.empty(values.numel(), dtype=torch.float32, device="cpu")
        if values.dim() == 3 and values.stride(1) < values.stride(2):
            return buffer[: values.numel()].view(values.shape[0], values.shape[2], values.shape[1]).transpose(1, 2)
        return buffer[: values.numel()].view(values.shape)


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


def _smallest_of_relu(rows: Rows, sums: Sums) -> Any:
    """``[units]``: zero where a unit did not fire somewhere, so mostly there is nothing to look for."""
    silent = sums["fired_positions"] < rows.count
    if rows.values.device.type == "cpu" and bool(silent.all()) and not bool(sums["sum"].isnan().any()):
        return torch.zeros_like(sums["sum"])
    return rows.values.amin(0 if rows.positions is None else (0, rows.positions))


def _root_mean_square(sums: Sums) -> Any:
    power = (sums["squares"] + 2 * sums["shift"] * sums["sum"]) / sums["positions"] + sums["shift"] ** 2
    finite = power.isfinite()
    mean = torch.where(finite, power, 0).sum() / finite.sum().clamp(min=1)
    return mean.clamp(min=0).sqrt()

"""Per-unit reductions of activations and gradients, on the device and without waiting for it.

On a CPU the memory is what it costs: each pass over a big tensor reads it, and one that writes takes twice as long as
one that only sums. So everything is computed block by block, in blocks that stay in the processor's cache, and what is
computed on the way goes into a scratch tensor that is used again and again (``benchmarks/README.md`` has figures).
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from deadunits_tb.capture.packed import SQUARE_SCALE

_BLOCK = 1 << 17
"""Numbers in a block: with the scratch one MiB, about half of what a core's own cache holds."""
_FAR_FROM_ZERO = 1e-30
"""Sums of squares below this have perhaps lost digits, or all of them."""
_MOST_SCRATCHES = 64
"""Shapes for which a scratch tensor is kept; all are views of the same memory."""


Fields = dict[str, Any]


class Sums(dict[str, Any]):
    """Field to its values: two numbers, and tensors ``[units]``.

    Attributes:
        rows: Of the matrix.
        matrix: ``[rows, units]``, which the tensors are views of; None where some are not.
    """

    rows: tuple[str, ...] = ()
    matrix: Any = None


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

    @property
    def units(self) -> int:
        """How many."""
        return int(self.values.shape[1 if self.positions == 2 else -1])

    @property
    def small(self) -> bool:
        """Whether all can be reduced at once: on other devices than the CPU calls cost more than memory does."""
        return bool(self.values.device.type != "cpu" or self.values.numel() <= _BLOCK)

    def first(self) -> Any:
        """``[units]``: at the first position."""
        return self.values[0] if self.positions is None else self.values.select(self.positions, 0)[0]

    def parts(self) -> Iterator[tuple[slice, list[Any]]]:
        """Units, and the blocks of all that is theirs, each ``[examples, ...]``."""
        values = self.values
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
        sums = Sums(examples=rows.examples, positions=rows.count)
        if not rows.count:
            return sums
        names = _NAMES[relu_like, limits[1] < math.inf]
        matrix = torch.empty((len(names), rows.units), dtype=torch.float32, device=rows.values.device)
        found = dict(zip(names, matrix.unbind(0), strict=True))
        sums |= found
        if shift is None:
            sums.rows, sums.matrix = names, matrix
            shift = found.pop("shift").copy_(rows.first())
        else:
            sums["shift"] = shift
            del found["shift"]
        limit: Any = 0.0
        if not relu_like:
            if scale is None:  # at the first record only
                moments = {name: found[name] for name in ("sum", "squares")}
                self._reduce(rows, shift, moments, functools.partial(_moments, relu_like=False))
                scale = _root_mean_square(sums)
            limit = fired_scale * scale
        elif not rows.small:
            del found["min"]

        def all_of(values: Any, shift: Any, positions: int | None, scratch: Any, out: Fields) -> None:
            _moments(values, shift, positions, scratch, out, relu_like=relu_like)
            _firing(values, limit, limits, positions, scratch, out, relu_like=relu_like)

        self._reduce(rows, shift, found, all_of)
        if "min" not in found:
            _smallest_of_relu(rows, sums)
        return sums

    def gradient_squares(self, gradient: Any, place: Place, loss_scale: Any = None) -> Any:
        """``[units]``: sum of the squares of a gradient times :data:`~deadunits_tb.capture.packed.SQUARE_SCALE`.

        Args:
            gradient: Of the loss.
            place: Of the units.
            loss_scale: What the loss was multiplied by, a tensor; undone before the square, which it could make Inf.
        """
        rows = Rows.of(gradient.detach(), place)
        if loss_scale is not None or rows.small:
            return self._scaled_squares(
                rows, SQUARE_SCALE if loss_scale is None else SQUARE_SCALE / loss_scale.to(rows.values.device)
            )
        # A pass over a large gradient is saved where squares are far from the smallest numbers there are.
        found = torch.empty(rows.units, dtype=torch.float32)
        self._reduce(rows, found, {"squares": found}, _squares)
        few = (found < _FAR_FROM_ZERO).nonzero().flatten()  # mostly of dead units, whose gradient is exactly zero
        found.mul_(SQUARE_SCALE).mul_(SQUARE_SCALE)
        if len(few):
            chosen = rows.values.index_select(1 if rows.positions == 2 else rows.values.dim() - 1, few)
            found[few] = self._scaled_squares(Rows(chosen, rows.positions), SQUARE_SCALE)
        return found

    def _scaled_squares(self, rows: Rows, factor: Any) -> Any:
        found = torch.empty(rows.units, dtype=torch.float32, device=rows.values.device)

        def squares(values: Any, _: Any, positions: int | None, scratch: Any, out: Fields) -> None:
            torch.mul(values, factor, out=scratch)
            torch.sum(scratch.mul_(scratch), _AXES[positions], out=out["squares"])

        self._reduce(rows, found, {"squares": found}, squares)
        return found

    def _reduce(self, rows: Rows, shift: Any, found: Fields, reduce: Callable[..., None]) -> None:
        """Reduce block by block, and put together what all of them give.

        Args:
            rows: What there is to reduce.
            shift: ``[units]``, handed on to ``reduce``.
            found: ``[units]`` tensors by name, to be filled.
            reduce: Fills such tensors from ``values, shift, positions, scratch``, for a block.
        """
        if rows.small:
            reduce(rows.values.float(), shift, rows.positions, self._scratch(rows.values), found)
            return
        for some, blocks in rows.parts():
            here = {name: values[some] for name, values in found.items()}
            parts = torch.empty((len(found), len(blocks), len(shift[some])), dtype=torch.float32)
            for block, part in zip(blocks, parts.unbind(1), strict=True):
                out = dict(zip(here, part.unbind(0), strict=True))
                reduce(block.float(), shift[some], rows.positions, self._scratch(block), out)
            for (name, values), part in zip(here.items(), parts, strict=True):
                _PUT_TOGETHER.get(name, torch.sum)(part, 0, out=values)

    def release(self) -> None:
        """Let go of the scratch tensors."""
        self._local = threading.local()

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
    both = Sums({name: values + other[name] for name, values in one.items()})
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


_PUT_TOGETHER = {"min": torch.amin, "max": torch.amax}
_COMMON = ("sum", "squares", "fired_positions", "fired_examples", "max", "min", "shift")
_NAMES = {
    (relu_like, bounded): (() if relu_like else ("sum_abs",)) + (("saturated",) if bounded else ()) + _COMMON
    for relu_like in (False, True)
    for bounded in (False, True)
}


def _moments(values: Any, shift: Any, positions: int | None, scratch: Any, out: Fields, *, relu_like: bool) -> None:
    axes = _AXES[positions]
    torch.sub(values, shift[:, None] if positions == 2 else shift, out=scratch)
    torch.sum(values if relu_like else scratch, axes, out=out["sum"])
    torch.sum(scratch.mul_(scratch), axes, out=out["squares"])


def _firing(
    values: Any,
    limit: Any,
    limits: tuple[float, float],
    positions: int | None,
    scratch: Any,
    out: Fields,
    *,
    relu_like: bool,
) -> None:
    axes, (low, high) = _AXES[positions], limits
    peak = values if positions is None else values.amax(positions)  # of each example
    torch.amax(peak, 0, out=out["max"])
    if relu_like:
        torch.sum(torch.gt(values, 0, out=scratch), axes, out=out["fired_positions"])
        if "min" in out:
            torch.amin(values, axes, out=out["min"])
    else:
        smallest = values if positions is None else values.amin(positions)
        torch.amin(smallest, 0, out=out["min"])
        torch.sum(torch.abs(values, out=scratch), axes, out=out["sum_abs"])
        torch.sum(torch.gt(scratch, limit, out=scratch), axes, out=out["fired_positions"])
        peak = None if positions is None else torch.maximum(peak, -smallest)
    if "saturated" in out:
        torch.sum(torch.ge(values, high, out=scratch), axes, out=out["saturated"])
        if low > -math.inf:
            out["saturated"] += torch.le(values, low, out=scratch).sum(axes)
    if positions is None:
        out["fired_examples"].copy_(out["fired_positions"])
    else:
        torch.sum((peak > limit).to(torch.float32), 0, out=out["fired_examples"])


def _squares(values: Any, _: Any, positions: int | None, scratch: Any, out: Fields) -> None:
    if positions == 2:  # along memory this is the quickest
        torch.sum(torch.linalg.vector_norm(values, dim=2).square_(), 0, out=out["squares"])
    else:
        torch.sum(torch.mul(values, values, out=scratch), _AXES[positions], out=out["squares"])


def _smallest_of_relu(rows: Rows, sums: Sums) -> None:
    """Zero where a unit did not fire somewhere, so mostly there is little to look for."""
    sums["min"].zero_()
    always = ((sums["fired_positions"] == rows.count) | sums["sum"].isnan()).nonzero().flatten()
    if len(always):
        axis = 1 if rows.positions == 2 else rows.values.dim() - 1
        smallest = rows.values.index_select(axis, always).amin(_AXES[rows.positions])
        sums["min"][always] = smallest.float()


def _root_mean_square(sums: Sums) -> Any:
    power = (sums["squares"] + 2 * sums["shift"] * sums["sum"]) / sums["positions"] + sums["shift"] ** 2
    finite = power.isfinite()
    mean = torch.where(finite, power, 0).sum() / finite.sum().clamp(min=1)
    return mean.clamp(min=0).sqrt()

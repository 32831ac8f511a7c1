"""Per-unit reductions of activations and gradients, on the device and without waiting for it.

On a CPU the memory is what it costs: each pass over a big tensor reads it, and one that writes takes twice as long as
one that only sums. So everything is computed block by block, in blocks that stay in the processor's cache, and what is
computed on the way goes into a scratch tensor that is used again and again (``benchmarks/README.md`` has figures).
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import torch

from deadunits_tb.capture.packed import SQUARE_SCALE
from deadunits_tb.taps.torch import in_one_pass as compiled
from deadunits_tb.taps.torch.rows import BLOCK, Place, Rows
from deadunits_tb.taps.torch.sums import Sums, fields_of, root_mean_square

_FAR_FROM_ZERO = 1e-30
"""Sums of squares below this have perhaps lost digits, or all of them."""
_MOST_SCRATCHES = 64
"""Shapes for which a scratch tensor is kept; all are views of the same memory."""


Fields = dict[str, Any]


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
        ask: dict[str, Any] = {"relu_like": relu_like, "limits": limits, "scale": scale, "fired_scale": fired_scale}
        in_one_pass = compiled.activation_sums(tensor, place, shift=shift, **ask)
        if in_one_pass is not None:
            return in_one_pass
        rows = Rows.of(tensor.detach(), place)
        sums = Sums(examples=rows.examples, positions=rows.count)
        if not rows.count:
            return sums
        fields = fields_of(relu_like=relu_like, bounded=limits[1] < math.inf)
        sums.take(fields, torch.empty((len(fields), rows.units), dtype=torch.float32, device=rows.values.device))
        found = {name: values for name, values in sums.whole().items() if name in fields}
        shift = sums["shift"] = found.pop("shift").copy_(rows.first()) if shift is None else shift
        limit: Any = 0.0
        if not relu_like:
            if scale is None:  # at the first record only
                moments = {name: found[name] for name in ("sum", "squares")}
                self._reduce(rows, shift, moments, functools.partial(_moments, relu_like=False))
                scale = root_mean_square(sums)
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
        if (in_one_pass := compiled.gradient_squares(gradient, place, loss_scale)) is not None:
            return in_one_pass
        rows = Rows.of(gradient.detach(), place)
        if loss_scale is not None or rows.small:
            return self._scaled_squares(
                rows, SQUARE_SCALE if loss_scale is None else SQUARE_SCALE / loss_scale.to(rows.values.device)
            )
        # A pass over a large gradient is saved where squares are far from the smallest numbers there are.
        found = torch.empty(rows.units, dtype=torch.float32, device="cpu")
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
            parts = torch.empty((len(found), len(blocks), len(shift[some])), dtype=torch.float32, device="cpu")
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
            buffer = self._local.buffer = torch.empty(max(numbers, 2 * BLOCK), dtype=torch.float32, device="cpu")
        if flipped:
            found = buffer[:numbers].view(shape[0], shape[2], shape[1]).transpose(1, 2)
        else:
            found = buffer[:numbers].view(shape)
        views[shape, flipped] = found
        return found


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

"""Per-unit reductions of tensors of which some positions are padding, as Keras's masks say.

Without waiting for the device: which positions are real is not known on the host.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from deadunits_tb.capture.packed import SQUARE_SCALE


def masked_activation_sums(
    tensor: Any, mask: Any, *, relu_like: bool, limits: tuple[float, float], scale: float | None, fired_scale: float
) -> dict[str, Any]:
    """As :meth:`deadunits_tb.taps.torch.reductions.Reductions.activation_sums`, of what is real.

    Args:
        tensor: ``[examples, ..., units]``, the outputs.
        mask: ``[examples, ...]``, what is real, of some leading axes of ``tensor``.
        relu_like: As there.
        limits: As there.
        scale: As there.
        fired_scale: As there.
    """
    values, real = _rows(tensor, mask)
    low, high = limits

    def total(each: Any) -> Any:
        return torch.where(real, each.float(), 0).sum(1).sum(0)

    first = real & (real.flatten().cumsum(0).view_as(real) == 1)
    shift = torch.where(first, values, 0).sum((0, 1))
    largest = torch.where(real, values, -math.inf).amax(1)
    smallest = torch.where(real, values, math.inf).amin(1)
    positions = real.sum()
    sums = {
        "examples": real.any(1).sum(),
        "positions": positions,
        "shift": shift,
        "sum": total(values if relu_like else values - shift),
        "squares": total((values - shift) ** 2),
        "max": largest.amax(0),
        "min": smallest.amin(0),
    }
    if relu_like:
        fired, some = values > 0, largest > 0
    else:
        sums["sum_abs"] = total(values.abs())
        limit = fired_scale * (_root_mean_square(sums) if scale is None else scale)
        fired, some = values.abs() > limit, torch.maximum(largest, -smallest) > limit
    if high < math.inf:
        sums["saturated"] = total((values >= high) | (values <= low))
    return sums | {"fired_positions": total(fired), "fired_examples": some.float().sum(0)}


def masked_squares(tensor: Any, mask: Any) -> Any:
    """``[units]``: sums of the squares of :data:`~deadunits_tb.capture.packed.SQUARE_SCALE` times what is real."""
    values, real = _rows(tensor, mask)
    return torch.where(real, (values * SQUARE_SCALE) ** 2, 0).sum((0, 1))


def _rows(tensor: Any, mask: Any) -> tuple[Any, Any]:
    """``[examples, positions, units]`` in float32, and ``[examples, positions, 1]``."""
    leading = tensor.shape[:-1]
    mask = mask.bool().reshape(*mask.shape, *[1] * (len(leading) - mask.dim())).expand(leading)
    return tensor.detach().float().reshape(leading[0], -1, tensor.shape[-1]), mask.reshape(leading[0], -1, 1)


def _root_mean_square(sums: dict[str, Any]) -> Any:
    """Of the layer, units that are not finite left out."""
    power = (sums["squares"] + 2 * sums["shift"] * sums["sum"]) / sums["positions"].clamp(min=1) + sums["shift"] ** 2
    finite = power.isfinite()
    mean = torch.where(finite, power, 0).sum() / finite.sum().clamp(min=1)
    return mean.clamp(min=0).sqrt()

"""Reductions by compiled code, in one pass over the host's memory: of float32 that lies there in a usual order."""

from __future__ import annotations

import math
from typing import Any

import torch

from deadunits_tb.native import reductions as native
from deadunits_tb.taps.torch.rows import Rows


def array_of(rows: Rows) -> native.Array | None:
    """Where the values are, None if they are not for compiled code."""
    values = rows.values
    if (
        not native.AVAILABLE
        or type(values) is not torch.Tensor
        or values.dtype is not torch.float32
        or values.device.type != "cpu"
        or values.layout is not torch.strided
        or values.is_neg()
    ):
        return None
    size, stride = values.shape, values.stride()
    if rows.positions is None:
        size, stride = (size[0], 1, size[1]), (stride[0], 0, stride[1])
    elif rows.positions == 2:
        size, stride = (size[0], size[2], size[1]), (stride[0], stride[2], stride[1])
    if stride[2] == 1 or size[2] == 1:
        stride = (stride[0], stride[1], 1)
    elif stride[1] != 1 and size[1] != 1:
        return None
    return native.Array(values.data_ptr(), (size[0], size[1], size[2]), (stride[0], stride[1], stride[2]))


def activation(
    values: native.Array, shift: Any, *, relu_like: bool, limits: tuple[float, float], limit: float, out: Any
) -> None:
    """Reduce the outputs of an activation function.

    Args:
        values: The outputs.
        shift: ``[units]``, about which sums are taken.
        relu_like: Whether firing means greater than zero.
        limits: Outputs at which it is saturated; infinite without.
        limit: Size beyond which a unit has fired; unused where ``relu_like``.
        out: ``[rows, units]``, filled in the order that
            :func:`deadunits_tb.native.reductions.activation` gives.
    """
    bounded = limits[1] < math.inf
    native.activation(
        values,
        shift.data_ptr(),
        relu_like=relu_like,
        limits=limits if bounded else None,
        limit=limit,
        out=out.data_ptr(),
    )


def squares(values: native.Array, factor: float) -> Any:
    """``[units]``: sums of squares of the values times ``factor``."""
    found = torch.empty(values.size[2], dtype=torch.float32, device="cpu")
    native.squares(values, factor, found.data_ptr())
    return found

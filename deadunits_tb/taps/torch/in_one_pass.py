"""Reductions by compiled code, in one pass over the host's memory: of float32 that lies there in a usual order."""

from __future__ import annotations

import math
from typing import Any

import torch

from deadunits_tb.capture.packed import SQUARE_SCALE
from deadunits_tb.native import reductions as native
from deadunits_tb.taps.torch.rows import Rows
from deadunits_tb.taps.torch.sums import Sums, root_mean_square


def activation_sums(
    rows: Rows,
    sums: Sums,
    fields: tuple[str, ...],
    shift: Any,
    *,
    relu_like: bool,
    limits: tuple[float, float],
    scale: float | None,
    fired_scale: float,
) -> bool:
    """Reduce the outputs of an activation function.

    Args:
        rows: The outputs.
        sums: Are given what was found.
        fields: To be found.
        shift: ``[units]``, about which sums are taken, None for the unit's first output.
        relu_like: Whether firing means greater than zero.
        limits: Outputs at which it is saturated; infinite without.
        scale: Root mean square at the previous record, None if there is none. Unused for ReLU-like functions.
        fired_scale: Share of it beyond which a unit has fired.

    Returns:
        Whether that was done: False where the outputs are not for compiled code.
    """
    values = array_of(rows)
    if values is None or not (shift is None or shift.is_contiguous()):
        return False
    matrix = torch.empty((len(fields), rows.units), dtype=torch.float32, device="cpu")
    sums.take(fields, matrix)

    def reduce(limit: float) -> None:
        native.activation(
            values,
            None if shift is None else shift.data_ptr(),
            relu_like=relu_like,
            limits=limits if limits[1] < math.inf else None,
            limit=limit,
            out=matrix.data_ptr(),
        )

    if shift is not None:
        matrix[fields.index("shift")] = shift
    if not relu_like and scale is None:  # at the first record only
        reduce(math.inf)
        scale = float(root_mean_square(sums.whole()))
    reduce(0.0 if relu_like or scale is None else fired_scale * float(scale))
    if shift is not None:
        sums.whole()["shift"] = shift  # the same object tells that they can be added
    return True


def squares(rows: Rows, loss_scale: Any = None) -> Any:
    """``[units]``: sums of squares of a gradient times ``SQUARE_SCALE``, None where it is not for compiled code.

    Args:
        rows: The gradient.
        loss_scale: What the loss was multiplied by, a tensor.
    """
    values = array_of(rows)
    if values is None:
        return None
    found = torch.empty(rows.units, dtype=torch.float32, device="cpu")
    native.squares(values, SQUARE_SCALE if loss_scale is None else SQUARE_SCALE / float(loss_scale), found.data_ptr())
    return found


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

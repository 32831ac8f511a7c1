"""Reductions by compiled code, in one pass over the host's memory: of float32 that lies there in a usual order."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch

from deadunits_tb.capture.packed import SQUARE_SCALE
from deadunits_tb.native import reductions as native
from deadunits_tb.taps.torch.rows import Place, Rows
from deadunits_tb.taps.torch.sums import Sums, fields_of, root_mean_square


def activation_sums(
    tensor: Any,
    place: Place,
    *,
    relu_like: bool,
    limits: tuple[float, float],
    scale: float | None,
    fired_scale: float,
    shift: Any = None,
) -> Sums | None:
    """Reduce the outputs of an activation function.

    Returns:
        What :meth:`~deadunits_tb.taps.torch.reductions.Reductions.activation_sums` gives, of the same arguments; None
        where the outputs are not for compiled code.
    """
    found = _found(tensor, place)
    if found is None or not (shift is None or shift.is_contiguous()):
        return None
    sums = Sums(examples=found.layout.size[0], positions=found.layout.size[0] * found.layout.size[1])
    if not sums["positions"]:
        return sums
    bounded = limits[1] < math.inf
    fields = fields_of(relu_like=relu_like, bounded=bounded)
    matrix = torch.empty((len(fields), found.layout.size[2]), dtype=torch.float32, device="cpu")
    sums.take(fields, matrix)
    reduce = functools.partial(
        native.activation,
        tensor.data_ptr() + found.offset,
        found.layout,
        None if shift is None else shift.data_ptr(),
        matrix.data_ptr(),
        relu_like=relu_like,
        limits=limits if bounded else None,
    )
    if shift is not None:
        matrix[-1] = shift
    if not relu_like and scale is None:  # at the first record only
        reduce(limit=math.inf)
        scale = float(root_mean_square(sums.whole()))
    reduce(limit=0.0 if relu_like or scale is None else fired_scale * float(scale))
    if shift is not None:
        sums.whole()["shift"] = shift  # the same object tells that they can be added
    return sums


def gradient_squares(gradient: Any, place: Place, loss_scale: Any = None) -> Any:
    """``[units]``: sums of squares of a gradient.

    Returns:
        What :meth:`~deadunits_tb.taps.torch.reductions.Reductions.gradient_squares` gives, of the same arguments; None
        where the gradient is not for compiled code.
    """
    found = _found(gradient, place)
    if found is None:
        return None
    squares = torch.empty(found.layout.size[2], dtype=torch.float32, device="cpu")
    factor = SQUARE_SCALE if loss_scale is None else SQUARE_SCALE / float(loss_scale)
    native.squares(gradient.data_ptr() + found.offset, found.layout, squares.data_ptr(), factor)
    return squares


class _Found(NamedTuple):
    """Where units are in the memory of a tensor.

    Attributes:
        offset: Of their first value, in bytes.
        layout: Of all.
    """

    offset: int
    layout: native.Layout


def _found(tensor: Any, place: Place) -> _Found | None:
    """Where the units are, None if they are not for compiled code."""
    if (
        not native.AVAILABLE
        or type(tensor) is not torch.Tensor
        or tensor.dtype is not torch.float32
        or not tensor.is_cpu
        or tensor.layout is not torch.strided
        or tensor.is_neg()
    ):
        return None
    return _looked_up(tensor.shape, tensor.stride(), place)


@functools.lru_cache(maxsize=512)  # the same in each step
def _looked_up(shape: tuple[int, ...], stride: tuple[int, ...], place: Place) -> _Found | None:
    """By a tensor without memory: what cannot be had as a view would be copied."""
    whole = torch.empty_strided(shape, stride, dtype=torch.float32, device="meta")
    rows = Rows.of(whole, place)
    values = rows.values
    if values.untyped_storage()._cdata != whole.untyped_storage()._cdata:
        return None
    values = values[:, None] if rows.positions is None else values.transpose(1, 2) if rows.positions == 2 else values
    size, (example, position, unit) = values.shape, values.stride()
    if unit == 1 or size[2] == 1:
        unit = 1
    elif position != 1 and size[1] != 1:
        return None
    return _Found(values.storage_offset() * values.element_size(), native.Layout(size, (example, position, unit)))

"""Where the units of a tensor are after a call that hands them on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from deadunits_tb.taps.torch import calls
from deadunits_tb.taps.torch.rows import Place

T = torch.Tensor


def after_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tensor: Any,
    shape: Sequence[int],
    place: Place,
    out: Any,
) -> Place | None:
    """Where units are in what a call gave; None if it does not hand them on.

    Args:
        function: Called.
        args: Its arguments.
        kwargs: Others.
        tensor: Among them, with units.
        shape: It had before the call.
        place: Of its units.
        out: What the call gave.
    """
    if not isinstance(out, T):
        return None
    first = args[0] if args else kwargs.get("input")
    if function in calls.SUMS or function in calls.SCALINGS:
        return unchanged(shape, out.shape, place)
    if function in calls.CONCATENATIONS and isinstance(first, (list, tuple)):
        which = next(at for at, one in enumerate(first) if one is tensor)
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return after_concatenation(first, which, dim, len(shape), place)
    if tensor is not first:
        return None
    if function in calls.PASSING or function in calls.ACTIVATIONS:
        return unchanged(shape, out.shape, place) if len(shape) == out.dim() else None
    if function in calls.RESHAPES:
        return after_reshape(shape, out.shape, place)
    if function in calls.PERMUTATIONS:
        return after_permutation(function, args, kwargs, place)
    if function in calls.REDUCTIONS:
        return after_reduction(shape, args, kwargs, place)
    if function is T.__getitem__ and simple_index(args[1]):
        return after_permutation(function, args, kwargs, place)
    return None


def unchanged(before: Sequence[int], after: Sequence[int], place: Place) -> Place | None:
    """After an operation that leaves axes where they are, or broadcasts new ones in front; None if units changed."""
    axis = place.axis + len(after) - len(before)
    if axis < 0 or len(after) < len(before) or after[axis] != before[place.axis]:
        return None
    return replace(place, axis=axis)


def after_reshape(before: Sequence[int], after: Sequence[int], place: Place) -> Place | None:
    """After a reshape; None if units were mixed with examples, or torn apart."""
    found = _units_after_reshape(before, after, place)
    if found is None or place.examples or not place.axis or not found.axis or not before[0]:
        return found
    examples = before[0] // place.positions
    return replace(found, positions=after[0] // examples) if examples and after[0] % examples == 0 else found


def _units_after_reshape(before: Sequence[int], after: Sequence[int], place: Place) -> Place | None:
    if not place.whole:  # only if the axis stays as it is
        same = [axis for axis, size in enumerate(after) if size == before[place.axis]]
        kept = [axis for axis in same if math.prod(after[:axis]) == math.prod(before[: place.axis])]
        return replace(place, axis=kept[0]) if kept else None
    in_front = math.prod(before[: place.axis]) * place.outer
    examples = before[0] if place.axis else 1
    found = []
    for axis, size in enumerate(after):
        ahead = math.prod(after[:axis])
        if not ahead or in_front % ahead or (examples > 1 and ahead % examples):
            continue
        outer = in_front // ahead
        if size and size % (outer * place.units) == 0:
            found.append(replace(place, axis=axis, outer=outer, inner=size // (outer * place.units)))
    return next((one for one in (*(one for one in found if one.alone), *found)), None)


def after_permutation(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], place: Place
) -> Place | None:
    """After axes changed places, or some were left out: found out on a tensor without memory, all sizes different."""
    if place.positions > 1 and function is torch.Tensor.__getitem__:  # rows that belong together may be torn apart
        return None
    tensor, *rest = args
    probe = function(torch.empty([size + 2 for size in range(tensor.dim())], device="meta"), *rest, **kwargs)
    sizes = list(probe.shape)
    if place.axis + 2 not in sizes:
        return None
    examples = sizes.index(place.examples + 2) if place.examples + 2 in sizes else 0
    return replace(place, axis=sizes.index(place.axis + 2), examples=examples)


def after_reduction(
    before: Sequence[int], args: tuple[Any, ...], kwargs: Mapping[str, Any], place: Place
) -> Place | None:
    """After a mean or maximum over some axes; None if the units were among them."""
    dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if dims is None:
        return None
    gone = {dim % len(before) for dim in ([dims] if isinstance(dims, int) else dims)}
    if place.axis in gone or place.examples in gone:
        return None
    if kwargs.get("keepdim", args[2] if len(args) > 2 else False):
        return place
    left = [axis for axis in range(len(before)) if axis not in gone]
    return replace(place, axis=left.index(place.axis), examples=left.index(place.examples))


def after_concatenation(tensors: Sequence[Any], which: int, dim: int, rank: int, place: Place) -> Place | None:
    """After a concatenation along the axis of the units; along another one they would be mixed with others.

    Args:
        tensors: That are put together.
        which: Of them holds the units.
        dim: Along which.
        rank: Axes of each.
        place: Of the units in it.
    """
    if dim % rank != place.axis:
        return None
    ahead = sum(int(tensor.shape[place.axis]) for tensor in tensors[:which])
    return replace(place, start=place.start + ahead, whole=False)


def simple_index(index: Any) -> bool:
    """Whether an index only picks, drops or adds along whole axes."""
    parts = index if isinstance(index, tuple) else (index,)
    return not any(isinstance(part, bool) for part in parts) and all(
        part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts
    )

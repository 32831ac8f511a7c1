"""Fields of several replicas become those of the whole batch, as if one process had seen it. Knows no framework."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture import packed
from deadunits_tb.capture.packed import Layout, Vector

Loss = Literal["sum", "mean"]
Fields = dict[str, Vector]

_ENDS = dict.fromkeys(packed.LOWEST, functools.partial(np.fmin.reduce, axis=0)) | dict.fromkeys(
    packed.HIGHEST, functools.partial(np.fmax.reduce, axis=0)
)
"""Of ranges, how they are merged."""
_SUMS = ("examples", "fired_examples", "fired_positions", "saturated", "sum_abs", "gradient")


def merge_vectors(layout: Layout, vectors: npt.NDArray[np.floating], *, loss: Loss) -> tuple[Layout, Vector]:
    """Merge what the replicas packed in one step: :func:`merge_fields` of the rows, packed again.

    Args:
        layout: Of every row.
        vectors: ``[replicas, numbers]``.
        loss: As there.

    Returns:
        What the merged vector's numbers mean, and the vector in float64.
    """
    fields = merge_fields(layout, [layout.split(vector) for vector in vectors], loss=loss)
    sizes = {name: len(values) for name, values in fields.items()}
    return replace(layout, sizes=sizes), np.concatenate(list(fields.values()))


def merge_fields(layout: Layout, replicas: Sequence[Fields], *, loss: Loss) -> Fields:
    """Merge the fields of replicas that each ran the same step on its share of the batch.

    Each in its own way, in float64: examples, positions and other counts, sums of absolute outputs and of squared
    gradients add up; smallest and largest are the extremes; ``skipped`` if any was. Moments are brought to one shift
    ``s``, the first replica's that saw an example: with ``d = shift - s``, ``n`` positions and ``a`` the sum of
    distances from the replica's own shift,

        sum of (y - s)    =  a + n d
        sum of (y - s)^2  =  squares + 2 d a + n d^2

    so that outputs that are the same constant everywhere keep a spread of exactly zero. The rest, of weights and
    optimizer, is the same on all replicas: gradients of weights must have been added up before their norm was taken.

    Args:
        layout: Of all of them.
        replicas: What :meth:`~deadunits_tb.capture.packed.Layout.split` gives, one for each replica.
        loss: Whether the loss of the step is the sum of the replicas' or their mean.

    Returns:
        Fields for :func:`~deadunits_tb.capture.packed.observation`. ``positions`` takes the place of ``each``, as
        replicas may have padded their examples to different lengths.
    """
    merged = dict(replicas[0])
    for name in merged:
        values = [fields[name] for fields in replicas]
        if name == "skipped":
            merged[name] = np.max(values, axis=0)
        elif name == "loss":
            merged[name] = np.sum(values, axis=0) / (len(values) if loss == "mean" else 1)
        elif name.startswith("range:"):
            merged[name] = _ENDS[name.rpartition(":")[2]](values)
        elif name == "inputs":  # a row for each tensor, which are merged when they are unpacked
            merged[name] = np.concatenate(values)
    for tap in sorted({call.tap for call in layout.calls}):
        parts = [packed.of_tap(fields, tap) for fields in replicas]
        merged.pop(f"{tap}:each", None)
        merged |= {f"{tap}:{name}": values for name, values in _merged_tap(parts, tap in layout.relu_like).items()}
    return merged


def _merged_tap(parts: list[Fields], relu_like: bool) -> Fields:
    positions = [packed.positions(part) for part in parts]
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are data
        merged = {name: np.sum([part[name] for part in parts], axis=0) for name in _SUMS if name in parts[0]}
        merged["positions"] = np.sum(positions, axis=0)
        merged["min"] = np.min([part["min"] for part in parts], axis=0)
        merged["max"] = np.max([part["max"] for part in parts], axis=0)
        seen = [(part, n) for part, n in zip(parts, positions, strict=True) if n[0] > 0]
        if not seen:
            return {name: values for name, values in (parts[0] | merged).items() if name != "each"}
        shift = seen[0][0]["shift"]
        total, squares = np.zeros_like(shift), np.zeros_like(shift)
        for part, n in seen:
            d = part["shift"] - shift
            apart = part["sum"] - n * part["shift"] if relu_like else part["sum"]
            apart = np.where(part["squares"] == 0, 0.0, apart)  # no output differs from the first: rounding only
            squares += part["squares"] + 2 * d * apart + n * d * d
            total += part["sum"] if relu_like else apart + n * d
    return merged | {"shift": shift, "sum": total, "squares": np.maximum(squares, 0)}


def join(parts: Sequence[tuple[Layout, Vector]], more: Fields) -> tuple[Layout, Vector]:
    """Put together what several functions of one step packed, as if one had: a loop may call a model in several.

    Args:
        parts: Of one step, in the order of the calls.
        more: Fields of the step as a whole.

    Returns:
        What the numbers mean, and the numbers in float64.
    """
    fields: Fields = {}
    calls: list[packed.Call] = []
    relu_like: set[int] = set()
    for layout, vector in parts:
        first = len({name.partition(":")[0] for name in fields if name.partition(":")[0].isdigit()})
        for name, values in layout.split(vector).items():
            tap, colon, kind = name.partition(":")
            if colon and tap.isdigit():
                fields[f"{first + int(tap)}:{kind}"] = values
            elif name == "inputs" and name in fields:
                fields[name] = np.concatenate([fields[name], values])
            elif name == "skipped" and name in fields:
                fields[name] = np.maximum(fields[name], values)
            elif tap == "range" and name in fields:
                fields[name] = _ENDS[name.rpartition(":")[2]]([fields[name], values])
            else:
                fields[name] = values
        calls += [replace(call, tap=first + call.tap) for call in layout.calls]
        relu_like |= {first + tap for tap in layout.relu_like}
    fields |= more
    sizes = {name: len(values) for name, values in fields.items()}
    return Layout(sizes, tuple(calls), frozenset(relu_like)), np.concatenate([np.zeros(0), *fields.values()])

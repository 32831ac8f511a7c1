"""The ranges of what layers take in, and of batch statistics behind them, reduced on the device in an observed step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from deadunits_tb.capture.packed import HIGHEST, range_field
from deadunits_tb.taps.keras.sums import input_axes
from deadunits_tb.taps.keras.trails import StepTrace


@dataclass(frozen=True, eq=False, slots=True)
class Ranged:
    """A tensor whose ranges are wanted.

    Attributes:
        layer: Name of the layer.
        axes: Along which each feature has a range of its own, in their order.
        statistics: Whether mean and variance are wanted, and not the values themselves.
    """

    layer: str
    axes: tuple[int, ...]
    statistics: bool = False


def wanted(step: StepTrace) -> tuple[list[Ranged], list[Any]]:
    """What is to be looked at in a finished step, and the tensors."""
    found: list[Ranged] = []
    tensors: list[Any] = []
    unknown = {trail.layer.name for trail in step.trails if trail.given is None or trail.way.lost}
    for trail in step.trails:
        if trail.layer.name in unknown:
            continue
        rank = len(trail.given.shape)
        found.append(Ranged(trail.layer.name, tuple(axis % rank for axis in input_axes(trail.layer))))
        tensors.append(trail.given)
        if trail.way.source is not None:
            axis = trail.way.norm.axis % len(trail.way.source.shape)
            found.append(Ranged(trail.layer.name, (axis,), statistics=True))
            tensors.append(trail.way.source)
    return found, tensors


def ends(what: Sequence[Ranged], tensors: Sequence[Any]) -> dict[str, Any]:
    """Field to its numbers; several calls of a layer together."""
    found: dict[str, Any] = {}
    for ranged, tensor in zip(what, tensors, strict=True):
        if 0 in tuple(tensor.shape):
            continue
        for end, values in (_statistics if ranged.statistics else _extremes)(tensor, ranged.axes).items():
            name = range_field(ranged.layer, end)
            if name in found:
                values = (ops.maximum if end in HIGHEST else ops.minimum)(found[name], values)
            found[name] = values
    return found


def nothing(sizes: Mapping[str, int]) -> npt.NDArray[np.float32]:
    """What stands for all of :func:`ends` where nobody looked.

    Args:
        sizes: Field to how many numbers.
    """
    infinite = [np.full(size, -np.inf if name.endswith(HIGHEST) else np.inf) for name, size in sizes.items()]
    return np.concatenate([np.zeros(0), *infinite]).astype(np.float32)


def let_go(step: StepTrace) -> None:
    """Of the tensors."""
    for trail in step.trails:
        trail.given = None
        if trail.way.source is not None:
            trail.way = trail.way.without_source()


def _extremes(tensor: Any, axes: tuple[int, ...]) -> dict[str, Any]:
    others = [axis for axis in range(len(tensor.shape)) if axis not in axes]
    kept = sorted(axes)
    order = [kept.index(axis) for axis in axes]

    def vector(values: Any) -> Any:
        values = values if order == sorted(order) else ops.transpose(values, order)
        return ops.cast(ops.reshape(values, [math.prod(values.shape)]), "float32")

    return {
        "input_low": vector(ops.min(tensor, others)),
        "input_high": vector(ops.max(tensor, others)),
    }


def _statistics(tensor: Any, axes: tuple[int, ...]) -> dict[str, Any]:
    """As a batch normalisation takes them, with the same operations."""
    if keras.backend.standardize_dtype(tensor.dtype) in ("float16", "bfloat16"):
        tensor = ops.cast(tensor, "float32")
    mean, variance = ops.moments(tensor, [axis for axis in range(len(tensor.shape)) if axis not in axes])
    mean, variance = (ops.cast(values, "float32") for values in (mean, variance))
    return {"mean_low": mean, "mean_high": mean, "variance_low": variance, "variance_high": variance}

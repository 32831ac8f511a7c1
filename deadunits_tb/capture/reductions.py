"""NumPy arrays of one training step become an observation. Framework taps compute the same on their device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.activation_functions import output_limits
from deadunits_tb.capture.observation import Observation
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import RELU_LIKE

Matrix = npt.NDArray[Any]
Vector = npt.NDArray[np.float64]

_CHUNK = 1 << 16  # values that are looked at together, so that they stay in the processor's cache


def rows_by_unit(values: Matrix, unit_axis: int) -> tuple[Matrix, tuple[int, ...]]:
    """Bring an array of any layout to ``[rows, units]``.

    Args:
        values: With the units along ``unit_axis``.
        unit_axis: Of the units.

    Returns:
        The matrix, and the shape of all other axes in their order.
    """
    last = np.moveaxis(values, unit_axis, -1)
    return last.reshape(math.prod(last.shape[:-1]), last.shape[-1]), last.shape[:-1]


def observe_arrays(
    activations: Matrix,
    *,
    activation_function: str | None,
    unit_axis: int = -1,
    gradients: Matrix | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    scale: float | None = None,
    thresholds: Thresholds | None = None,
) -> Observation | None:
    """Reduce one step's arrays over examples and positions.

    Args:
        activations: ``[examples, ..., units]`` outputs of the activation function, of any real type; the units along
            ``unit_axis``.
        activation_function: Field name, None if unknown.
        unit_axis: Of the units; not the first.
        gradients: Of the loss with respect to the pre-activation, shaped like ``activations``.
        mask: Which examples ``[examples]`` or positions ``[examples, ...]`` are real and not padding.
        scale: Root mean square of the layer at the previous record, against which firing is told; None for that of
            these very activations.
        thresholds: For ``fired_scale`` and ``saturated_derivative``; None for the defaults.

    Returns:
        The observation, in float64; None where no position is left. Sums are about the first position of each unit, so
        a constant output has squares of exactly zero.
    """
    thresholds = thresholds or Thresholds()
    values, shape = rows_by_unit(activations, unit_axis)
    slopes = None if gradients is None else rows_by_unit(gradients, unit_axis)[0]
    per_example = math.prod(shape[1:])
    starts = np.arange(0, len(values), max(per_example, 1))
    if mask is not None and not mask.all():
        real = np.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape).reshape(len(values))
        values, slopes = values[real], None if slopes is None else slopes[real]
        counts = real.reshape(shape[0], per_example).sum(axis=1)
        counts = counts[counts > 0]
        starts = np.cumsum(counts) - counts
    if not values.size:
        return None
    positions = len(values)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are data
        mean, squares, sum_abs, low, high = _moments(values)
        if activation_function in RELU_LIKE:
            fired = values > 0
        else:
            own = _root_mean_square(mean, squares / positions) if scale is None else scale
            limit = thresholds.fired_scale * own
            fired = (values > limit) | (values < -limit)
        by_example = fired if len(starts) == positions else np.logical_or.reduceat(fired, starts, axis=0)
        lower, upper = output_limits(activation_function, thresholds.saturated_derivative)
        bounded = upper < math.inf
        return Observation(
            examples=len(starts),
            positions=positions,
            fired_examples=_count(by_example),
            fired_positions=_count(fired),
            mean=mean,
            squares=squares,
            sum_abs=sum_abs,
            min=low,
            max=high,
            saturated=_count((values >= upper) | (values <= lower)) if bounded else None,
            gradient_squares=None if slopes is None else squared_sum(slopes),
        )


def squared_sum(values: Matrix) -> Vector:
    """``[units]``: sum of the squares of a matrix ``[rows, units]``, in float64: small squares must not vanish."""
    total = np.zeros(values.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):
        for chunk in _chunks(values):
            total += np.einsum("ij,ij->j", chunk, chunk)
    return total


def summarise_inputs(values: Matrix) -> tuple[int, float, float, float, float] | None:
    """``(count, mean, sum of squared distances from it, min, max)`` of all values, None for an empty array."""
    if not values.size:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        mean, squares, _, low, high = _moments(values.reshape(-1, 1))
    return values.size, float(mean[0]), float(squares[0]), float(low[0]), float(high[0])


def _moments(values: Matrix) -> tuple[Vector, Vector, Vector, Vector, Vector]:
    """Mean, sum of squared distances from it, sum of absolute values, minimum and maximum of each column."""
    n, units = values.shape
    first = values[0].astype(np.float64)
    total, squares, sum_abs = np.zeros((3, units))
    low, high = first.copy(), first.copy()
    for chunk in _chunks(values):
        np.minimum(low, chunk.min(axis=0), out=low)
        np.maximum(high, chunk.max(axis=0), out=high)
        sum_abs += np.abs(chunk).sum(axis=0)
        chunk -= first
        total += chunk.sum(axis=0)
        squares += np.einsum("ij,ij->j", chunk, chunk)
    return first + total / n, np.maximum(squares - total * total / n, 0), sum_abs, low, high


def _chunks(values: Matrix) -> Iterator[npt.NDArray[np.float64]]:
    """Copies of some rows at a time, in float64."""
    rows = max(1, _CHUNK // max(1, values.shape[1]))
    for start in range(0, len(values), rows):
        yield values[start : start + rows].astype(np.float64)


def _count(flags: npt.NDArray[np.bool_]) -> Vector:
    counts: Vector = flags.sum(axis=0, dtype=np.int64).astype(np.float64)
    return counts


def _root_mean_square(mean: Vector, variance: Vector) -> float:
    power = mean * mean + variance
    finite = power[np.isfinite(power)]
    return math.sqrt(float(finite.mean())) if finite.size else 0.0

"""What a product with parameters takes in: which axes hold the features, and which weight takes which of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.jax.inputs import precision
from deadunits_tb.taps.jax.plan import Layer

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Feed:
    """The inputs of one product.

    Attributes:
        layer: Whose weights they meet.
        operand: Of the product.
        axes: Of the features, in the order of the axes of the weights that they meet.
        inputs: How many features.
        weight_axis: Of the kernel of a convolution: that of the features; None for a matrix.
        padded: Whether there are zeros beside them.
        eps: The coarsest precision among what is multiplied and what comes out.
    """

    layer: str
    operand: int
    axes: tuple[int, ...]
    inputs: int
    weight_axis: int | None
    padded: bool
    eps: float


def feed_of(eqn: Any, which: int, weight_axes: tuple[int, ...], layer: str, eps: float) -> Feed:
    """The inputs of a matrix product or a convolution.

    Args:
        eqn: The operation.
        which: Of its operands are the weights.
        weight_axes: Which axis of the parameter each axis of that operand is.
        layer: Its name.
        eps: The coarsest precision that the weights were cast to before.
    """
    source = 1 - which
    shape = eqn.invars[source].aval.shape
    if eqn.primitive.name == "conv_general_dilated":
        numbers, params = eqn.params["dimension_numbers"], eqn.params
        axes: tuple[int, ...] = (numbers.lhs_spec[1],)
        weight_axis: int | None = weight_axes[numbers.rhs_spec[1]]
        beyond = any(end > 0 for ends in params["padding"] for end in ends)
        padded = beyond or any(step > 1 for step in params["lhs_dilation"])
    else:
        contracted = eqn.params["dimension_numbers"][0]
        pairs = sorted(
            (weight_axes[own], axis) for own, axis in zip(contracted[which], contracted[source], strict=True)
        )
        axes, weight_axis, padded = tuple(axis for _, axis in pairs), None, False
    eps = max(eps, *(precision(atom.aval.dtype) for atom in (*eqn.invars, *eqn.outvars)))
    return Feed(layer, source, axes, math.prod(shape[axis] for axis in axes), weight_axis, padded, eps)


def of_each_weight(values: Vector, layer: Layer, columns: Columns, units: npt.NDArray[np.int64]) -> Vector:
    """From numbers of each feature to those of what each weight takes in.

    Args:
        values: ``[features]``.
        layer: What is known of the layer.
        columns: Where its units are in the weights.
        units: ``[k]`` indices of some.

    Returns:
        ``[rows]``; ``[rows, k]`` where groups of units take in features of their own.
    """
    if layer.weight_input_axis is None:
        return values
    rest = columns.order[: len(columns.order) - len(columns.axes)]
    axis = layer.weight_input_axis % len(columns.shape)
    length = columns.shape[axis]
    groups = len(values) // length
    grouped = values.reshape(groups, *(length if other == axis else 1 for other in rest))
    rows = np.broadcast_to(grouped, (groups, *(columns.shape[other] for other in rest))).reshape(groups, -1)
    each: Vector = rows[0] if groups == 1 else rows[units // (columns.units // groups)].T
    return each


def fits(layer: Layer, columns: Columns) -> bool:
    """Whether as many features as a layer says can be what its weights take in."""
    shape, axis = columns.shape, layer.weight_input_axis
    if layer.inputs is None or axis is None:
        return layer.inputs in (None, columns.rows)
    if not -len(shape) <= axis < len(shape) or axis % len(shape) not in columns.order[: -len(columns.axes)]:
        return False
    return layer.inputs % shape[axis] == 0 and columns.units % (layer.inputs // shape[axis]) == 0

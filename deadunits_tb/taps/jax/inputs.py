"""The ranges of what the weights of a layer take in, as fields of its statistics: by them dead units are certified."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.taps.jax.plan import Layer
from deadunits_tb.taps.jax.reductions import AxisNames, input_ranges

FIELDS = ("inputs_low", "inputs_high", "inputs_eps")
"""Smallest and largest value ``[features]``, and the coarsest precision among what is multiplied, a number."""


def no_inputs(layer: Layer) -> dict[str, Any]:
    """The fields before anything is taken in; none for a layer whose inputs are not looked at."""
    if layer.inputs is None:
        return {}
    nothing = np.full(layer.inputs, np.inf, np.float32)
    return {"inputs_low": nothing, "inputs_high": -nothing, "inputs_eps": np.float32(0)}


def range_fields(
    values: Any,
    axes: tuple[int, ...],
    eps: float,
    mask: Any = None,
    *,
    batched: bool = True,
    axis_name: AxisNames | None = None,
) -> dict[str, Any]:
    """The fields of one call, to be merged with those before.

    Args:
        values: What a product takes in.
        axes: Of the features in it, in their order.
        eps: The coarsest precision among what is multiplied and what comes out.
        mask: As :func:`~deadunits_tb.taps.jax.reductions.input_ranges` takes it.
        batched: Likewise.
        axis_name: Likewise.
    """
    low, high = input_ranges(values, axes, mask, batched=batched, axis_name=axis_name)
    return {"inputs_low": low, "inputs_high": high, "inputs_eps": jnp.float32(eps)}


def ranges_of(
    name: str, layer: Layer, inputs: Any, output: Any, mask: Any, *, batched: bool, axis_name: AxisNames | None
) -> dict[str, Any]:
    """The fields of inputs as a user hands them over.

    Args:
        name: Of the layer.
        layer: What is known of it.
        inputs: ``[examples, ..., features]``, or with the layer's own ``input_axis``.
        output: The pre-activation that was made of them.
        mask: As the user gave it for the pre-activation; unused where the inputs have other positions.
        batched: Whether there is an axis of examples.
        axis_name: As :func:`~deadunits_tb.taps.jax.statistics.observe` takes it.

    Raises:
        InvalidArgumentError: They do not fit the layer.
    """
    shape = jnp.shape(inputs)
    if layer.inputs is None:
        raise InvalidArgumentError(
            f"the inputs of layer {name!r} were handed to observe(), and the layer does not say how many there are: "
            "give Layer(inputs=..., weights=..., biases=...)"
        )
    fits = -len(shape) <= layer.input_axis < len(shape) and shape[layer.input_axis] == layer.inputs
    if not fits or (batched and len(shape) < 2):
        raise InvalidArgumentError(
            f"layer {name!r} takes in {layer.inputs} features along axis {layer.input_axis}, and inputs of shape "
            f"{shape} came: correct Layer(inputs=..., input_axis=...), or pass what the weights are multiplied with"
        )
    axis = layer.input_axis % len(shape)
    positions = shape[:axis] + shape[axis + 1 :]
    if mask is not None and jnp.shape(mask) != positions[: jnp.ndim(mask)]:
        mask = None  # positions that are no outputs: all count, and the ranges are too wide rather than too narrow
    eps = max(precision(jnp.result_type(inputs)), precision(jnp.result_type(output)))
    return range_fields(inputs, (axis,), eps, mask, batched=batched, axis_name=axis_name)


def precision(kind: Any) -> float:
    """How far apart numbers of a type are, relative to their size; 0 for whole numbers, which are exact."""
    return float(jnp.finfo(kind).eps) if jnp.issubdtype(kind, jnp.floating) else 0.0

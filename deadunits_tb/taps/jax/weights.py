"""The weights of the layers around one optimizer step, inside the user's own step."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import lax

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.jax.feeds import fits
from deadunits_tb.taps.jax.plan import Layer, Plan
from deadunits_tb.taps.jax.statistics import Statistics


def observe_weights(
    statistics: Statistics | None, params: Any, gradients: Any = None, new_params: Any = None
) -> Statistics | None:
    """Look at the weights of each layer that says where they are. Once in each step, at its end.

    With Optax::

        updates, state = optimizer.update(gradients, state, params)
        new_params = optax.apply_updates(params, updates)
        statistics = observe_weights(statistics, params, gradients, new_params)

    Args:
        statistics: So far. None to do nothing.
        params: Before the optimizer step, as :attr:`Layer.weights` takes them.
        gradients: Of the loss with respect to them, unscaled; None if there are none.
        new_params: After the optimizer step; None if they are not at hand.

    Raises:
        InvalidArgumentError: The weights of a layer are not where it says, or do not fit it.
    """
    if statistics is None:
        return None
    for name, layer in statistics.plan.layers:
        if layer.weights is None:
            continue
        old = weights_of(name, layer, params)
        columns = columns_of(name, layer, params)
        found = {"norm_in": norms(columns, old)}
        if new_params is not None:
            new = weights_of(name, layer, new_params)
            found["change"] = norms(columns, [wide(two) - wide(one) for one, two in zip(old, new, strict=True)])
        if gradients is not None:
            found["weight_gradient"] = norms(columns, weights_of(name, layer, gradients))
        statistics = statistics.with_layer(name, **found)
    looked = jnp.array([1, new_params is not None, gradients is not None], jnp.float32)
    return statistics.with_run(looked=looked)


def weights_of(name: str, layer: Layer, params: Any) -> list[Any]:
    """The incoming weights of a layer.

    Raises:
        InvalidArgumentError: They are not where the layer says.
    """
    assert layer.weights is not None
    return _found(name, "weights", layer.weights, params)


def outgoing_of(name: str, layer: Layer, params: Any) -> list[Any]:
    """The weights that a layer feeds.

    Raises:
        InvalidArgumentError: They are not where the layer says.
    """
    assert layer.outgoing is not None
    return _found(name, "outgoing", layer.outgoing, params)


def biases_of(name: str, layer: Layer, params: Any) -> Any:
    """The biases of a layer, None if it has none.

    Raises:
        InvalidArgumentError: They are not where the layer says, or not one for each unit.
    """
    if layer.biases is None:
        return None
    found = _found(name, "biases", layer.biases, params)
    if len(found) != 1 or math.prod(jnp.shape(found[0])) != layer.units:
        shapes = ", ".join(str(jnp.shape(array)) for array in found)
        raise InvalidArgumentError(f"layer {name!r} has {layer.units} units, and its biases have shape {shapes}")
    return found[0]


def columns_of(name: str, layer: Layer, params: Any) -> list[Columns]:
    """Where the units of a layer's incoming weights are.

    Raises:
        InvalidArgumentError: The weights are not where the layer says, or do not fit it.
    """
    axis = layer.weight_unit_axis
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    columns = []
    for array in weights_of(name, layer, params):
        shape = jnp.shape(array)
        fits = all(-len(shape) <= each < len(shape) for each in axes)
        column = Columns(shape, axes) if fits else None
        if column is None or column.units != layer.units:
            raise InvalidArgumentError(
                f"layer {name!r} has {layer.units} units, and its weights have shape {shape}: "
                "say along which axis the units are with Layer(weight_unit_axis=...)"
            )
        columns.append(column)
    return columns


def check_params(plan: Plan, params: Any) -> None:
    """Find out whether all weights are where the layers say.

    Raises:
        InvalidArgumentError: Some are not.
    """
    for name, layer in plan.layers:
        if layer.weights is not None:
            columns = columns_of(name, layer, params)
            if not all(fits(layer, column) for column in columns):
                raise InvalidArgumentError(
                    f"layer {name!r} takes in {layer.inputs} features, and its weights have shape {columns[0].shape}: "
                    "correct Layer(inputs=...); of the kernel of a convolution say which axis holds the features "
                    "with Layer(weight_input_axis=...)"
                )
        biases_of(name, layer, params)
        if layer.outgoing is not None:
            for array in outgoing_of(name, layer, params):
                if jnp.shape(array)[:1] != (layer.units,):
                    raise InvalidArgumentError(
                        f"layer {name!r} has {layer.units} units, and its outgoing weights have shape "
                        f"{jnp.shape(array)}: they must be [units, ...], so reshape or transpose them"
                    )


def _found(name: str, what: str, where: Any, params: Any) -> list[Any]:
    try:
        found = where(params)
    except Exception as error:
        raise InvalidArgumentError(
            f"the {what} of layer {name!r} are not in the parameters where Layer({what}=...) looks: "
            f"{type(error).__name__}: {error}"
        ) from error
    arrays = list(found) if isinstance(found, (tuple, list)) else [found]
    for array in arrays:
        if not hasattr(array, "shape"):
            raise InvalidArgumentError(f"the {what} of layer {name!r} must be arrays, not {array!r}")
    return arrays


def matrix(array: Any, columns: Columns) -> Any:
    """``[rows, units]`` of an array of weights, in float32."""
    return jnp.transpose(wide(array), columns.order).reshape(columns.rows, columns.units)


def norms(columns: list[Columns], arrays: list[Any]) -> Any:
    """``[units]``: norms over all weights of each unit, in several arrays."""
    squares = [jnp.square(matrix(array, each)).sum(0) for each, array in zip(columns, arrays, strict=True)]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def wide(array: Any) -> Any:
    """In float32, and without a gradient."""
    return lax.stop_gradient(array).astype(jnp.float32)

"""Looks at the weights of some units, on the device: gathered now, fetched when a record is made."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from deadunits_tb.record import Int
from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.jax.moments import Moments
from deadunits_tb.taps.jax.plan import Layer
from deadunits_tb.taps.jax.weights import biases_of, columns_of, matrix, weights_of

Matrix = npt.NDArray[np.float64]

MOST_WEIGHTS = 1 << 23
"""Weights of the silent units of one layer that are looked at: 32 MB, before an optimizer step and after it."""

SEVERAL_ARRAYS = "its weights are several arrays"
DONATED = "another function took over the buffers of its parameters before they could be looked at"
SHARDED = "each process holds only a part of its weights"
TOO_LARGE = f"its silent units have more weights than are looked at, {MOST_WEIGHTS:,}"


class Unlookable(Exception):
    """The weights of a layer cannot be looked at; the reason in words."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Of one parameter ``[rows, k]``: what it is, what moves it, and what that is divided by; None for what is unknown.

    Attributes:
        values: The parameter.
        first: Momentum; None where there is none.
        second: Mean of squared gradients; None where there is none.
        known: Whether it is known what the optimizer carries on.
    """

    values: Matrix
    first: Matrix | None
    second: Matrix | None
    known: bool


@dataclass(frozen=True, slots=True)
class Look:
    """At the silent units of one layer.

    Attributes:
        units: ``int64 [k]``.
        columns: Where the units are in the weights.
        precision: Rounding of the parameters.
        platform: Of the device that holds them, such as ``"cpu"``.
        known: Of weights and biases, whether it is known what the optimizer carries on.
        arrays: On the device: of weights and biases each the parameter and its moments, None for what there is not.
    """

    units: Int
    columns: Columns
    precision: float
    platform: str
    known: tuple[bool, bool]
    arrays: tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]

    def numbers(self) -> Iterator[Numbers]:
        """Of weights and of biases, fetched from the device."""
        for known, held in zip(self.known, jax.device_get(self.arrays), strict=True):
            values, first, second = (None if array is None else self._cut(array) for array in held)
            yield Numbers(np.zeros((1, len(self.units))) if values is None else values, first, second, known)

    def _cut(self, array: Any) -> Matrix:
        return np.asarray(array, np.float64)[:, : len(self.units)]


def look(name: str, layer: Layer, units: Int, params: Any, moments: Moments) -> Look:
    """Gather the weights of some units. Waits for nothing.

    Args:
        name: Of the layer.
        layer: What is known of it.
        units: Some of its units.
        params: As :attr:`Layer.weights` takes them.
        moments: What the optimizer carries on of them.

    Raises:
        Unlookable: There is no way to.
        InvalidArgumentError: They are not where the layer says, or do not fit it.
    """
    found, bias = weights_of(name, layer, params), biases_of(name, layer, params)
    if len(found) != 1:
        raise Unlookable(SEVERAL_ARRAYS)
    weights = found[0]
    columns = columns_of(name, layer, params)[0]
    if columns.rows * len(units) > MOST_WEIGHTS:
        raise Unlookable(TOO_LARGE)
    picked = np.zeros(1 << (len(units) - 1).bit_length(), np.int32)  # few lengths, so that few functions are compiled
    picked[: len(units)] = units
    known: list[bool] = []
    arrays: list[tuple[Any, Any, Any]] = []
    for parameter, where in ((weights, columns), (bias, None)):
        carried = None if parameter is None else moments.of(parameter)
        known.append(parameter is None or carried is not None)
        first, second = carried or (None, None)
        arrays.append(
            (_gathered(parameter, picked, where), _gathered(first, picked, where), _gathered(second, picked, where))
        )
    kinds = [jnp.result_type(each) for each in (weights, bias) if each is not None]
    return Look(
        units=units,
        columns=columns,
        precision=max(float(jnp.finfo(kind).eps) for kind in kinds) / 2,
        platform=_platform(weights),
        known=(known[0], known[1]),
        arrays=(arrays[0], arrays[1]),
    )


def _gathered(array: Any, picked: Any, columns: Columns | None) -> Any:
    return None if array is None else _picked(_local(array), picked, columns)


@functools.partial(jax.jit, static_argnums=2)
def _picked(array: Any, picked: Any, columns: Columns | None) -> Any:
    """``[rows, k]`` of weights, or ``[1, k]`` of biases."""
    rows = jnp.ravel(array).astype(jnp.float32)[None] if columns is None else matrix(array, columns)
    return jnp.take(rows, picked, axis=1)


def _local(array: Any) -> Any:
    """What this process can look at by itself."""
    if not isinstance(array, jax.Array):
        return array
    if array.is_deleted():
        raise Unlookable(DONATED)
    if array.is_fully_addressable:
        return array
    if not array.is_fully_replicated:
        raise Unlookable(SHARDED)
    return array.addressable_data(0)


def _platform(array: Any) -> str:
    return str(next(iter(array.devices())).platform) if isinstance(array, jax.Array) else jax.default_backend()

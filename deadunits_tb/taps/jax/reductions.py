"""Per-unit reductions of activations and gradients, as pure functions of JAX arrays.

Their results have the names of :mod:`deadunits_tb.capture.packed`. All are additive over examples but ``min``, ``max``
and ``shift``, and :func:`activation_sums` can reduce each in its own way over named axes of ``vmap``, ``pmap`` and
``shard_map``; arrays that are sharded over devices under ``jit`` are reduced by XLA itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from deadunits_tb.capture.packed import SQUARE_SCALE

Sums = dict[str, Any]
AxisNames = str | tuple[str, ...]


def rows_of_units(values: Any, axes: tuple[int, ...], mask: Any = None, *, batched: bool = True) -> tuple[Any, Any]:
    """Bring an array of any layout to ``[examples, positions, units]``.

    Args:
        values: ``[examples, ...]`` with unit axes ``axes``.
        axes: Of the units, counted from the front, in the order of the units.
        mask: ``[examples, ...]``, what is real, of some leading axes of ``values`` without the units; None for all.
        batched: Whether the first of the other axes holds the examples; otherwise all is one example, as inside
            ``jax.vmap``.

    Returns:
        The values in float32, and the mask as ``bool [examples, positions]`` or None.
    """
    others = [axis for axis in range(values.ndim) if axis not in axes]
    lengths = [values.shape[axis] for axis in others]
    examples = lengths[0] if batched else 1
    shape = (examples, math.prod(lengths[1:] if batched else lengths))
    units = math.prod(values.shape[axis] for axis in axes)
    if mask is not None:
        wide = jnp.reshape(mask, jnp.shape(mask) + (1,) * (len(lengths) - jnp.ndim(mask)))
        mask = jnp.broadcast_to(wide != 0, lengths).reshape(shape)
    rows = jnp.transpose(values, [*others, *axes]).reshape(*shape, units)
    return rows.astype(jnp.float32), mask


def activation_sums(
    values: Any,
    axes: tuple[int, ...],
    mask: Any = None,
    *,
    relu_like: bool,
    limits: tuple[float, float],
    scale: Any,
    fired_scale: float,
    batched: bool = True,
    earlier: tuple[Any, Any] | None = None,
    axis_name: AxisNames | None = None,
) -> Sums:
    """Reduce the outputs of an activation function.

    Args:
        values: As :func:`rows_of_units` takes them.
        axes: Likewise.
        mask: Likewise.
        relu_like: Whether firing means greater than zero.
        limits: Outputs at which a bounded function is saturated; infinite without.
        scale: Root mean square at the previous record, negative if there is none. Unused for ReLU-like functions.
        fired_scale: Share of it beyond which a unit has fired.
        batched: As :func:`rows_of_units` takes it.
        earlier: Examples that were reduced before, and their shift, which is used again, so that the sums add up.
        axis_name: Of axes of ``vmap``, ``pmap`` or ``shard_map`` that hold other examples of the same batch.

    Returns:
        In float32: ``examples`` and ``positions`` (numbers), ``shift`` (the unit's first output), ``sum`` (ReLU-like:
        of the outputs; otherwise of their distances from the shift), ``squares`` (of the distances from the shift),
        ``min``, ``max``, ``fired_positions``, ``fired_examples``, and where they say more ``sum_abs`` and
        ``saturated``. Of no position at all the smallest output is infinite and the largest minus infinite.
    """
    rows, real = rows_of_units(lax.stop_gradient(values), axes, mask, batched=batched)
    add, least, most = _over(lax.psum, axis_name), _over(lax.pmin, axis_name), _over(lax.pmax, axis_name)

    def total(each: Any) -> Any:  # of each example first: counts stay exact in float32 for longer
        return add(_where(real, each, 0).sum(1).sum(0))

    sums = {name: add(number) for name, number in _counts(rows, real).items()}
    shift = _first(rows, real, most)
    if earlier is not None:
        shift = jnp.where(earlier[0] > 0, earlier[1], shift)
    smallest, largest = (
        _where(real, rows, math.inf).min(1, initial=math.inf),
        _where(real, rows, -math.inf).max(1, initial=-math.inf),
    )
    sums |= {
        "shift": shift,
        "min": least(smallest.min(0, initial=math.inf)),
        "max": most(largest.max(0, initial=-math.inf)),
        "sum": total(rows if relu_like else rows - shift),
        "squares": total(jnp.square(rows - shift)),
    }
    low, high = limits
    if high < math.inf:
        sums["saturated"] = total(((rows >= high) | (rows <= low)).astype(jnp.float32))
    if relu_like:
        fired, some = rows > 0, largest > 0
    else:
        sums["sum_abs"] = total(jnp.abs(rows))
        limit = fired_scale * jnp.where(scale < 0, _root_mean_square(sums), scale)
        fired, some = jnp.abs(rows) > limit, jnp.maximum(largest, -smallest) > limit
    sums["fired_positions"] = total(fired.astype(jnp.float32))
    sums["fired_examples"] = add(some.astype(jnp.float32).sum(0))
    return sums


def square_sums(values: Any, axes: tuple[int, ...], mask: Any = None, *, batched: bool = True) -> Any:
    """``[units]`` sums of the squares of :data:`~deadunits_tb.capture.packed.SQUARE_SCALE` times some values.

    Args:
        values: As :func:`rows_of_units` takes them.
        axes: Likewise.
        mask: Likewise.
        batched: Likewise.
    """
    rows, real = rows_of_units(values, axes, mask, batched=batched)
    return _where(real, jnp.square(rows * SQUARE_SCALE), 0).sum(1).sum(0)


def input_ranges(
    values: Any,
    axes: tuple[int, ...],
    mask: Any = None,
    *,
    batched: bool = True,
    axis_name: AxisNames | None = None,
) -> tuple[Any, Any]:
    """``[features]`` smallest and largest value of each feature; infinite and minus infinite where there is none.

    Args:
        values: What a product with weights takes in, as :func:`rows_of_units` takes it.
        axes: Of the features.
        mask: Likewise.
        batched: Likewise.
        axis_name: As :func:`activation_sums` takes it.
    """
    rows, real = rows_of_units(lax.stop_gradient(values), axes, mask, batched=batched)
    low = _where(real, rows, math.inf).min((0, 1), initial=math.inf)
    high = _where(real, rows, -math.inf).max((0, 1), initial=-math.inf)
    return _over(lax.pmin, axis_name)(low), _over(lax.pmax, axis_name)(high)


def value_summary(arrays: Sequence[Any]) -> Any:
    """``[arrays, 6]``: count, first value, sum and sum of squares of the distances from it, smallest, largest."""
    columns = []
    for array in arrays:
        values = jnp.ravel(lax.stop_gradient(array)).astype(jnp.float32)
        shift = values[:1].sum()
        apart = values - shift
        spread = values.min(initial=math.inf), values.max(initial=-math.inf)
        columns.append(jnp.stack([jnp.float32(values.size), shift, apart.sum(), jnp.square(apart).sum(), *spread]))
    return jnp.stack(columns)


def _over(collective: Callable[..., Any], axis_name: AxisNames | None) -> Callable[[Any], Any]:
    return (lambda value: value) if axis_name is None else (lambda value: collective(value, axis_name))


def _where(real: Any, rows: Any, nothing: float) -> Any:
    return rows if real is None else jnp.where(real[..., None], rows, nothing)


def _counts(rows: Any, real: Any) -> Sums:
    if real is None:
        examples, positions = rows.shape[:2]
        return {"examples": jnp.float32(examples), "positions": jnp.float32(examples * positions)}
    each = real.sum(1, dtype=jnp.float32)
    return {"examples": (each > 0).sum(dtype=jnp.float32), "positions": each.sum()}


def _first(rows: Any, real: Any, most: Callable[[Any], Any]) -> Any:
    """``[units]``: outputs at the first real position, the largest of those over named axes; zero if there is none."""
    flat = rows.reshape(-1, rows.shape[-1])
    if not len(flat):
        first = jnp.full(rows.shape[-1], -math.inf, jnp.float32)
    elif real is None:
        first = flat[0]
    else:
        first = jnp.where(real.any(), flat[jnp.argmax(real.ravel())], -math.inf)
    first = most(first)
    return jnp.where(first == -math.inf, 0.0, first)


def _root_mean_square(sums: Sums) -> Any:
    power = (sums["squares"] + 2 * sums["shift"] * sums["sum"]) / jnp.maximum(sums["positions"], 1)
    power = power + jnp.square(sums["shift"])
    finite = jnp.isfinite(power)
    mean = jnp.where(finite, power, 0).sum() / jnp.maximum(finite.sum(), 1)
    return jnp.sqrt(jnp.maximum(mean, 0))

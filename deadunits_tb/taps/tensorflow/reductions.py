"""Per-unit reductions of activations and gradients, inside a TensorFlow graph.

Written for few passes over big tensors. TensorFlow's own sums over all but the last axis run at a fraction of the
memory's speed on a CPU and write their operands out first. XLA's are three times faster, provided that a sum is
written as a short sum of slices, which it computes in one loop; but compiling them takes a good part of a second for
each shape. So that is an option, for big tensors (``docs/capture.md`` has the figures).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from deadunits_tb.capture.packed import SQUARE_SCALE
from deadunits_tb.taps.tensorflow.apart import marked

_SLICES = 8
_BIG = 1 << 12

Sums = dict[str, Any]


def rows_of_units(values: Any, axes: tuple[int, ...], mask: Any = None) -> tuple[Any, Any]:
    """Bring a tensor of any layout to ``[examples, positions, units]``, or ``[examples, units]`` without positions.

    Args:
        values: ``[examples, ...]`` with unit axes ``axes``.
        axes: Of the units, counted from the front, in the order of the units.
        mask: ``[examples, ...]``, what is real, of some leading axes of ``values``; None for all.

    Returns:
        The values in float32, and the mask as ``bool [examples, positions]`` or None.
    """
    rank = len(values.shape)
    others = [axis for axis in range(rank) if axis not in axes]
    if [*others, *axes] != list(range(rank)):
        values = tf.transpose(values, [*others, *axes])
    values = tf.cast(values, tf.float32)
    units = math.prod(values.shape[len(others) :])
    if len(others) == 1:
        return tf.reshape(values, [-1, units]), None if mask is None else tf.cast(mask, tf.bool)
    positions = _product(values.shape[1 : len(others)])
    if mask is not None:
        shape = tf.shape(values)[: len(others)]
        wide = tf.reshape(mask, tf.concat([tf.shape(mask), [1] * (len(others) - len(mask.shape))], 0))
        mask = tf.reshape(tf.broadcast_to(tf.cast(wide, tf.bool), shape), [shape[0], -1])
    if positions is None:  # an empty batch leaves nothing to infer -1 from
        count = tf.reduce_prod(tf.shape(values)[1 : len(others)])
        return tf.reshape(values, [tf.shape(values)[0], count, units]), mask
    return tf.reshape(values, [tf.shape(values)[0], positions, units]), mask


class Reductions:
    """Reduces activations and gradients.

    Args:
        compiled: Whether to have XLA compile the reductions of big tensors. Equal shapes share what was compiled.
        xla: Whether XLA may compile the step.
    """

    def __init__(self, *, compiled: bool, xla: bool = True) -> None:
        self._xla = xla
        self._compiled = compiled and xla_compiles()
        self._functions: dict[object, Callable[..., Any]] = {}

    def activation_sums(
        self,
        values: Any,
        mask: Any,
        *,
        relu_like: bool,
        limits: tuple[float, float],
        scale: Any,
        fired_scale: float,
    ) -> Sums:
        """Reduce the outputs of an activation function.

        Args:
            values: As :func:`rows_of_units` gives them.
            mask: Likewise.
            relu_like: Whether firing means greater than zero.
            limits: Outputs at which a bounded function is saturated; infinite without.
            scale: Root mean square at the previous record, negative if there is none. Unused for ReLU-like functions.
            fired_scale: Share of it beyond which a unit has fired.

        Returns:
            ``examples`` (a number), ``positions`` or ``each``, positions of each example (a number), ``shift`` (the
            unit's first output), ``sum`` (ReLU-like: of the outputs; otherwise of their distances from the shift),
            ``squares`` (of the distances from the shift), ``min``, ``max``, ``fired_positions``, ``fired_examples``,
            and where they say more ``sum_abs`` and ``saturated``.
        """

        def reduce(values: Any, mask: Any, scale: Any, sliced: bool) -> Sums:
            return _activation_sums(_Rows(values, mask, sliced), scale, relu_like, limits, fired_scale)

        scale = tf.zeros([]) if relu_like else scale
        result: Sums = self._run((relu_like, limits, fired_scale), reduce, values, mask, scale)
        return result

    def square_sums(self, values: Any, mask: Any = None) -> Any:
        """``[units]`` sums of the squares of :data:`~deadunits_tb.capture.packed.SQUARE_SCALE` times some values.

        Args:
            values: As :func:`rows_of_units` gives them.
            mask: Likewise.
        """

        def reduce(values: Any, mask: Any, sliced: bool) -> Any:
            # A norm takes one pass, where squares are first written out for a sum; XLA has no operation for it.
            if mask is None and not sliced and not self._xla:
                return tf.square(tf.math.reduce_euclidean_norm(values * SQUARE_SCALE, _but_last(values)))
            return tf.reduce_sum(_Rows(values, mask, sliced).sums(lambda part: tf.square(part * SQUARE_SCALE))[0], 0)

        return self._run("squares", reduce, values, mask)

    def _run(self, key: object, reduce: Callable[..., Any], values: Any, mask: Any, *rest: Any) -> Any:
        values = tf.stop_gradient(values)
        if mask is not None or not self._compiled or not _is_big(values) or tf.executing_eagerly():
            return reduce(values, mask, *rest, sliced=False)
        if key not in self._functions:
            self._functions[key] = compiled(lambda values, *rest: reduce(values, None, *rest, sliced=True))
        return self._functions[key](values, *rest)


def value_summary(tensors: Sequence[Any]) -> Any:
    """``[tensors, 6]``: count, first value, sum and sum of squares of the distances from it, smallest, largest."""
    columns = []
    for tensor in tensors:
        values = tf.reshape(tf.cast(tensor, tf.float32), [-1])
        shift = tf.reduce_sum(values[:1])
        apart = values - shift
        columns.append(
            tf.stack(
                [
                    tf.cast(tf.size(values), tf.float32),
                    shift,
                    tf.reduce_sum(apart),
                    2 * tf.nn.l2_loss(apart),
                    tf.reduce_min(values),
                    tf.reduce_max(values),
                ]
            )
        )
    return tf.stack(columns)


def only_if(look: Any, work: Callable[[], Any], instead: Callable[[Any], Any]) -> Any:
    """Do some work in a step only if it is wanted there.

    Args:
        look: True, or eagerly False, or a tensor that says so when the step runs.
        work: Gives a structure of tensors.
        instead: For each of them, what to give where nobody wants to look. Eagerly an empty dictionary is given.
    """
    if look is True:
        return work()
    if look is False:
        return {}
    found: list[Any] = []

    def yes() -> list[Any]:  # traced before the other
        with marked():
            found.append(work())
            return [tf.identity(tensor) for tensor in tf.nest.flatten(found[0])]

    def no() -> list[Any]:
        with marked():
            return [instead(tensor) for tensor in tf.nest.flatten(found[0])]

    flat = tf.cond(look, yes, no)
    return tf.nest.pack_sequence_as(found[0], flat)


def zeros_like(tensor: Any) -> Any:
    """Of the same static shape and type, without reading it."""
    return tf.zeros(tensor.shape, tensor.dtype)


@functools.cache
def xla_compiles() -> bool:
    """Whether XLA is at hand and helps: on a GPU it may not be installed completely, and plain reductions are fast."""
    return bool(tf.test.is_built_with_xla() and not tf.config.list_logical_devices("GPU"))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of tensors, compiled by XLA."""
    made: Callable[..., Any] = tf.function(function, jit_compile=True, autograph=False)
    return made


@dataclass(frozen=True, slots=True)
class _Rows:
    """Values ``[examples, positions, units]`` or ``[examples, units]``, and what is real of them.

    Attributes:
        values: In float32.
        mask: ``bool``, shaped like the values without their last axis; None for all.
        sliced: Whether to write sums as XLA likes them.
    """

    values: Any
    mask: Any
    sliced: bool

    @property
    def flat(self) -> bool:
        """Whether each example has one position."""
        return len(self.values.shape) == 2

    def counts(self) -> Sums:
        """Examples, and positions, or positions of each example."""
        if self.mask is None:
            each = 1 if self.flat else tf.shape(self.values)[1]
            return {
                "examples": tf.cast(tf.shape(self.values)[0], tf.float32),
                "each": tf.cast(each, tf.float32),
            }
        some = self.mask if self.flat else tf.reduce_any(self.mask, 1)
        return {
            "examples": tf.reduce_sum(tf.cast(some, tf.float32)),
            "positions": tf.reduce_sum(tf.cast(self.mask, tf.float32)),
        }

    def first(self) -> Any:
        """``[units]``: values at the first real position; zeros for an empty batch."""
        if self.mask is None:
            one = self.values[:1] if self.flat else self.values[:1, :1]
            return tf.reduce_sum(one, list(range(len(self.values.shape) - 1)))
        real = tf.cast(tf.reshape(self.mask, [-1]), tf.float32)
        first = tf.math.cumsum(real) * real == 1
        return tf.reduce_sum(tf.where(first[:, None], tf.reshape(self.values, [-1, self.values.shape[-1]]), 0.0), 0)

    def extreme(self, reduce: Callable[..., Any], nothing: float) -> Any:
        """``[examples, units]``: the smallest or largest value of each example."""
        values = self.values if self.mask is None else tf.where(self.mask[..., None], self.values, nothing)
        return values if self.flat else reduce(values, 1)

    def smallest_of_relu(self, sums: Sums) -> Any:
        """``[units]``: zero where a unit did not fire somewhere, so in most layers there is nothing to look for."""

        def look() -> Any:
            return tf.reduce_min(self.extreme(tf.reduce_min, math.inf), 0)

        if not self.sliced:
            return look()
        positions = sums["examples"] * sums["each"]
        always = tf.reduce_any(sums["fired_positions"] >= 0.999999 * positions) | tf.reduce_any(
            tf.math.is_nan(sums["sum"])
        )
        return tf.cond(always, look, lambda: tf.zeros_like(sums["sum"]))

    def sums(self, *terms: Callable[[Any], Any]) -> list[Any]:
        """``[examples, units]`` each: sums over positions of functions of the values."""
        if self.flat or not self.sliced:
            return [self._sum(term(self.values)) for term in terms]
        # One loop over the values for all terms: they are an axis of the result, outside of the units.
        positions, units = self.values.shape[1:]
        count = _slices(positions)
        blocks = tf.reshape(self.values, [tf.shape(self.values)[0], positions // count, count, 1, units])
        which = tf.range(len(terms))[:, None]

        def chosen(part: Any) -> Any:
            value = terms[-1](part)
            for at, term in enumerate(terms[:-1]):
                value = tf.where(which == at, term(part), value)
            return value

        summed = tf.reduce_sum(_pairwise([chosen(blocks[:, :, at]) for at in range(count)]), 1)
        return list(tf.unstack(summed, axis=1))

    def _sum(self, values: Any) -> Any:
        values = values if self.mask is None else tf.where(self.mask[..., None], values, 0.0)
        return values if self.flat else tf.reduce_sum(values, 1)


def _but_last(values: Any) -> list[int]:
    return list(range(len(values.shape) - 1))


def _is_big(values: Any) -> bool:
    """By the numbers of one example: how many there will be is not always known in advance."""
    positions = values.shape[1] or 0 if len(values.shape) == 3 else 0
    return bool(positions >= _SLICES and positions * values.shape[-1] >= _BIG)


def _activation_sums(rows: _Rows, scale: Any, relu_like: bool, limits: tuple[float, float], fired_scale: float) -> Sums:
    low, high = limits
    bounded = high < math.inf
    shift = rows.first()
    largest = rows.extreme(tf.reduce_max, -math.inf)
    sums = rows.counts() | {"shift": shift, "max": tf.reduce_max(largest, 0)}

    def total(values: Any) -> Any:
        return tf.reduce_sum(values, 0)

    def squares(part: Any) -> Any:
        return tf.math.squared_difference(part, shift)

    def positive(part: Any) -> Any:
        # The derivative of a ReLU times one: TensorFlow's own comparison and cast take several times as long on a CPU.
        if rows.sliced:
            return tf.cast(part > 0, tf.float32)
        return tf.raw_ops.ReluGrad(gradients=tf.ones_like(part), features=part)

    def at_bound(part: Any) -> Any:
        return tf.cast((part >= high) | (part <= low), tf.float32)

    if relu_like:
        first = [lambda part: part, squares, positive]
        names = ["sum", "squares", "fired_positions"]
        if bounded:
            first.append(at_bound)
            names.append("saturated")
        sums |= {name: total(values) for name, values in zip(names, rows.sums(*first), strict=True)}
        limit, peak = tf.zeros([]), largest
        sums["min"] = rows.smallest_of_relu(sums)
    else:
        smallest = rows.extreme(tf.reduce_min, math.inf)
        names = ["sum", "squares", "sum_abs"]
        moments = rows.sums(lambda part: part - shift, squares, tf.abs)
        sums |= {name: total(values) for name, values in zip(names, moments, strict=True)}
        sums["min"] = tf.reduce_min(smallest, 0)
        limit = fired_scale * tf.where(scale < 0, _root_mean_square(sums), scale)
        peak = tf.maximum(largest, -smallest)
        later = [lambda part: positive(tf.abs(part) - limit), *([at_bound] if bounded else [])]
        fired, *saturated = rows.sums(*later)
        sums["fired_positions"] = total(fired)
        if bounded:
            sums["saturated"] = total(saturated[0])
    sums["fired_examples"] = sums["fired_positions"]
    if not rows.flat:
        sums["fired_examples"] = total(tf.cast(peak > limit, tf.float32))
    return sums


def _root_mean_square(sums: Sums) -> Any:
    count = tf.maximum(sums["positions"] if "positions" in sums else sums["examples"] * sums["each"], 1.0)
    power = (sums["squares"] + 2 * sums["shift"] * sums["sum"]) / count + tf.square(sums["shift"])
    finite = tf.math.is_finite(power)
    units = tf.maximum(tf.reduce_sum(tf.cast(finite, tf.float32)), 1.0)
    return tf.sqrt(tf.maximum(tf.reduce_sum(tf.where(finite, power, 0.0)) / units, 0.0))


def _slices(length: int) -> int:
    """Into how many slices a sum of so many terms is cut: the largest divisor that is not too large."""
    return next(count for count in range(_SLICES, 0, -1) if length % count == 0)


def _pairwise(terms: list[Any]) -> Any:
    """Sum in pairs, for the sake of rounding."""
    while len(terms) > 1:
        rest = terms[-1:] if len(terms) % 2 else []
        terms = [one + other for one, other in zip(terms[::2], terms[1::2], strict=False)] + rest
    return terms[0]


def _product(dimensions: Sequence[int | None]) -> int | None:
    return None if None in dimensions else math.prod(d for d in dimensions if d is not None)

"""Per-unit reductions of activations, gradients and weights, inside a TensorFlow graph.

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
    """

    def __init__(self, *, compiled: bool) -> None:
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
            return tf.reduce_sum(_Rows(values, mask, sliced).sum(lambda part: tf.square(part * SQUARE_SCALE)), 0)

        return self._run("squares", reduce, values, mask)

    def _run(self, key: object, reduce: Callable[..., Any], values: Any, mask: Any, *rest: Any) -> Any:
        values = tf.stop_gradient(values)
        if mask is not None or not self._compiled or not _is_big(values) or tf.executing_eagerly():
            return reduce(values, mask, *rest, sliced=False)
        if key not in self._functions:
            self._functions[key] = compiled(lambda values, *rest: reduce(values, None, *rest, sliced=True))
        return self._functions[key](values, *rest)


def column_squares(term: Callable[..., Any], *matrices: Any, sliced: bool = False) -> Any:
    """``[units]``: sums over the rows of the square of a function of matrices ``[rows, units]``.

    Args:
        term: The function.
        matrices: Its arguments.
        sliced: Whether XLA compiles this.
    """
    rows, units = matrices[0].shape
    count = _slices(rows) if sliced else 1
    blocks = [tf.reshape(matrix, [count, rows // count, units]) for matrix in matrices]
    return tf.reduce_sum(_pairwise([tf.square(term(*(block[at] for block in blocks))) for at in range(count)]), 0)


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

    def sum(self, term: Callable[[Any], Any] = lambda part: part) -> Any:
        """``[examples, units]``: sums over positions of a function of the values."""
        if self.flat or not self.sliced:
            terms = term(self.values)
            terms = terms if self.mask is None else tf.where(self.mask[..., None], terms, 0.0)
            return terms if self.flat else tf.reduce_sum(terms, 1)
        positions, units = self.values.shape[1:]
        count = _slices(positions)
        blocks = tf.reshape(self.values, [tf.shape(self.values)[0], positions // count, count, units])
        return tf.reduce_sum(_pairwise([term(blocks[:, :, at]) for at in range(count)]), 1)


def _is_big(values: Any) -> bool:
    """By the numbers of one example: how many there will be is not always known in advance."""
    positions = values.shape[1] or 0 if len(values.shape) == 3 else 0
    return bool(positions >= _SLICES and positions * values.shape[-1] >= _BIG)


def _activation_sums(rows: _Rows, scale: Any, relu_like: bool, limits: tuple[float, float], fired_scale: float) -> Sums:
    shift = rows.first()
    lowest, highest = rows.extreme(tf.reduce_min, math.inf), rows.extreme(tf.reduce_max, -math.inf)
    sums = rows.counts()
    sums |= {
        "shift": shift,
        "sum": tf.reduce_sum(rows.sum() if relu_like else rows.sum(lambda part: part - shift), 0),
        "squares": tf.reduce_sum(rows.sum(lambda part: tf.square(part - shift)), 0),
        "min": tf.reduce_min(lowest, 0),
        "max": tf.reduce_max(highest, 0),
    }
    if relu_like:
        limit, peak = tf.zeros([]), highest
        fired = rows.sum(lambda part: tf.cast(part > 0, tf.float32))
    else:
        limit = fired_scale * tf.where(scale < 0, _root_mean_square(sums), scale)
        peak = tf.maximum(highest, -lowest)
        fired = rows.sum(lambda part: tf.cast(tf.abs(part) > limit, tf.float32))
        sums["sum_abs"] = tf.reduce_sum(rows.sum(tf.abs), 0)
    sums["fired_positions"] = tf.reduce_sum(fired, 0)
    sums["fired_examples"] = sums["fired_positions"]
    if not rows.flat:
        sums["fired_examples"] = tf.reduce_sum(tf.cast(peak > limit, tf.float32), 0)
    low, high = limits
    if high < math.inf:
        at_bound = rows.sum(lambda part: tf.cast((part >= high) | (part <= low), tf.float32))
        sums["saturated"] = tf.reduce_sum(at_bound, 0)
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

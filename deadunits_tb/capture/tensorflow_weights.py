"""How far the weights of each unit moved, measured inside a TensorFlow graph with bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deadunits_tb.capture.observation import WeightObservation
from deadunits_tb.capture.packed import SQUARE_SCALE
from deadunits_tb.capture.tensorflow_reductions import column_squares, compiled, xla_compiles

EXACT_BYTES = 64 * 2**20
"""First weights are copied as long as the copies of a run together take no more than this."""
_SIGNS = 32  # random signs: the estimated norm has a standard deviation of 1 / sqrt(2 * 32) = 12.5 %
_FEW = 1 << 15  # numbers; for fewer, a call of what XLA compiled costs more than it saves

Method = Literal["exact", "projection"]


@dataclass(frozen=True, slots=True)
class Columns:
    """A variable seen as ``[rows, units]``.

    Attributes:
        variable: Of any shape.
        axes: Of the units, in the order of the units.
        groups: The last unit axis holds this many blocks of all units.
    """

    variable: tf.Variable
    axes: tuple[int, ...]
    groups: int = 1

    @property
    def units(self) -> int:
        """How many units."""
        return int(math.prod(self.variable.shape[axis] for axis in self.axes)) // self.groups

    @property
    def size(self) -> int:
        """How many weights."""
        return int(math.prod(self.variable.shape))

    def of(self, value: Any) -> Any:
        """``[rows, units]`` of a value shaped like the variable, in float32."""
        rank = len(self.variable.shape)
        axes = [axis % rank for axis in self.axes]
        order = [axis for axis in range(rank) if axis not in axes] + axes
        value = tf.cast(value, tf.float32)
        if order != list(range(rank)):
            value = tf.transpose(value, order)
        return tf.reshape(value, [self.size // self.units, self.units])


Weighed = Mapping[str, Sequence[Columns]]
"""Name of a layer to its incoming, or outgoing, weights."""


class WeightWatch:
    """The weights of some layers, around optimizer steps and since the first observed one.

    Changes are measured against copies while those are small, otherwise by 32 random sums of each unit's weights
    (Johnson and Lindenstrauss 1984) and a digest of their bits, so that unchanged weights have moved by exactly zero.

    Args:
        incoming: Of each layer.
        outgoing: Of each layer of which every consumer is known.
        compiled: Whether to have XLA compile big reductions.
        exact_bytes: Memory for copies.
    """

    def __init__(
        self, incoming: Weighed, outgoing: Weighed, *, compiled: bool = False, exact_bytes: int = EXACT_BYTES
    ) -> None:
        self._incoming = {name: list(columns) for name, columns in incoming.items() if columns}
        self._outgoing = {name: list(columns) for name, columns in outgoing.items() if columns}
        self.methods: dict[str, Method] = {}
        """Name of the layer to how its changes are measured."""
        left = exact_bytes
        for name, columns in self._incoming.items():
            size = 4 * sum(each.size for each in columns)
            self.methods[name] = "exact" if size <= left else "projection"
            left -= size if size <= left else 0
        self._first: dict[str, list[Any]] = {}
        self._norms_first: dict[str, npt.NDArray[np.floating]] = {}
        self._later: Any = None
        total = sum(each.size for columns in self._incoming.values() for each in columns)
        self._compiled = compiled and total >= _FEW and xla_compiles()

    def begin(self) -> None:
        """Remember the first weights. Called before the first observed step, outside of any graph."""
        if self._first:
            return
        for name, columns in self._incoming.items():
            values = [np.array(each.variable) for each in columns]
            matrices = [np.asarray(each.of(value), np.float64) for each, value in zip(columns, values, strict=True)]
            self._norms_first[name] = np.sqrt(sum(np.sum(np.square(matrix), 0) for matrix in matrices))
            self._first[name] = self._kept(name, [tf.constant(value) for value in values])
        self._later = tf.function(self._distances, jit_compile=self._compiled, autograph=False)

    def before(self) -> dict[str, list[Any]]:
        """What is to be remembered of the weights before an optimizer step."""
        return {name: self._kept(name, [each.variable for each in columns]) for name, columns in self._incoming.items()}

    def around(self, before: Mapping[str, list[Any]], gradients: Mapping[int, Any]) -> dict[str, Any]:
        """Look at the weights after the optimizer step.

        Args:
            before: What :meth:`before` gave.
            gradients: Of the loss, by ``id`` of the variable.

        Returns:
            ``name:norm_in``, ``name:change`` and ``name:weight_gradient``: squares of norms, ``[units]``, the latter
            two times the square of :data:`~deadunits_tb.capture.packed.SQUARE_SCALE`.
        """
        after = self.before()
        slopes = {
            name: [tf.convert_to_tensor(gradients[id(each.variable)]) for each in columns]
            for name, columns in self._incoming.items()
            if all(gradients.get(id(each.variable)) is not None for each in columns)
        }
        compile_ = self._compiled and not tf.executing_eagerly()
        result: dict[str, Any] = (compiled(self._moved) if compile_ else self._moved)(dict(before), after, slopes)
        return result

    def since_first(self) -> dict[str, WeightObservation]:
        """Change of the weights since the first observed step, and outgoing norms, as of now."""
        if self._later is None:
            return {}
        now = {name: [each.variable for each in columns] for name, columns in self._incoming.items()}
        outgoing = {name: [each.variable for each in columns] for name, columns in self._outgoing.items()}
        found = {name: np.sqrt(np.asarray(values, np.float64)) for name, values in self._later(now, outgoing).items()}
        seen: dict[str, WeightObservation] = {}
        for name in self._incoming:
            seen[name] = WeightObservation(
                change_since_first=found[f"{name}:since_first"] / SQUARE_SCALE, norm_first=self._norms_first[name]
            )
        for name in self._outgoing:
            known = seen.get(name, WeightObservation())
            seen[name] = replace(known, norm_out=found[f"{name}:norm_out"])
        return seen

    def _kept(self, name: str, values: list[Any]) -> list[Any]:
        if self.methods[name] == "exact":
            return [tf.convert_to_tensor(value) for value in values]
        matrices = [each.of(value) for each, value in zip(self._incoming[name], values, strict=True)]
        return [part for matrix in matrices for part in _projected(matrix)]

    def _squares(self, term: Callable[..., Any], *matrices: Any) -> Any:
        return column_squares(term, *matrices, sliced=self._compiled and not tf.executing_eagerly())

    def _moved(self, before: Any, after: Any, slopes: Any) -> dict[str, Any]:
        sums: dict[str, Any] = {}
        for name, columns in self._incoming.items():
            if self.methods[name] == "exact":
                pairs = [
                    (each.of(old), each.of(new))
                    for each, old, new in zip(columns, before[name], after[name], strict=True)
                ]
                sums[f"{name}:norm_in"] = tf.add_n([self._squares(lambda x: x, old) for old, _ in pairs])
                sums[f"{name}:change"] = tf.add_n([self._squares(_scaled_difference, new, old) for old, new in pairs])
            else:
                sums[f"{name}:norm_in"] = tf.add_n(before[name][2::3])
                sums[f"{name}:change"] = _projected_change(before[name], after[name])
            if name in slopes:
                matrices = [each.of(slope) for each, slope in zip(columns, slopes[name], strict=True)]
                sums[f"{name}:weight_gradient"] = tf.add_n(
                    [self._squares(lambda x: x * SQUARE_SCALE, matrix) for matrix in matrices]
                )
        return sums

    def _distances(self, now: Any, outgoing: Any) -> dict[str, Any]:
        sums: dict[str, Any] = {}
        for name, columns in self._incoming.items():
            first, kept = self._first[name], self._kept(name, now[name])
            if self.methods[name] == "exact":
                pairs = zip(columns, first, kept, strict=True)
                distance = tf.add_n(
                    [self._squares(_scaled_difference, each.of(new), each.of(old)) for each, old, new in pairs]
                )
            else:
                distance = _projected_change(first, kept)
            sums[f"{name}:since_first"] = distance
        for name, columns in self._outgoing.items():
            matrices = [each.of(value) for each, value in zip(columns, outgoing[name], strict=True)]
            sums[f"{name}:norm_out"] = tf.add_n([self._squares(lambda x: x, matrix) for matrix in matrices])
        return sums


def _scaled_difference(new: Any, old: Any) -> Any:
    return (new - old) * SQUARE_SCALE


def _projected(matrix: Any) -> list[Any]:
    """Random sums ``[signs, units]``, a digest of the bits and the squared norm, both ``[units]``."""
    rows = matrix.shape[0]
    random = np.random.default_rng((20, rows))  # the same signs each time
    signs = random.integers(0, 2, (_SIGNS, rows)) * 2.0 - 1.0
    odd = random.integers(0, 2**30, (rows, 1)) * 2 + 1
    digest = tf.reduce_sum(tf.bitcast(matrix, tf.int32) * tf.constant(odd, tf.int32), 0)
    return [tf.matmul(tf.constant(signs, tf.float32), matrix), digest, column_squares(lambda x: x, matrix)]


def _projected_change(before: list[Any], after: list[Any]) -> Any:
    squares = []
    for at in range(0, len(before), 3):
        apart = (after[at] - before[at]) * SQUARE_SCALE
        unchanged = before[at + 1] == after[at + 1]
        squares.append(tf.where(unchanged, 0.0, tf.reduce_mean(tf.square(apart), 0)))
    return tf.add_n(squares)

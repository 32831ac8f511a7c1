"""How far the weights of each unit moved, measured inside a TensorFlow graph with bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deadunits_tb.capture.observation import WeightObservation
from deadunits_tb.taps.tensorflow.reductions import only_if, zeros_like

EXACT_BYTES = 64 * 2**20
"""First weights are copied as long as the copies of a run together take no more than this."""
_SIGNS = 32  # random signs: the estimated norm has a standard deviation of 1 / sqrt(2 * 32) = 12.5 %

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

    Looking at all weights costs as much as an optimizer's step, so each method that works in the step takes ``look``:
    True, or a tensor that says so when the step runs; where it says no, next to nothing is done.

    Args:
        incoming: Of each layer.
        outgoing: Of each layer of which every consumer is known.
        xla: Whether XLA compiles the step.
        exact_bytes: Memory for copies.
    """

    def __init__(
        self, incoming: Weighed, outgoing: Weighed, *, xla: bool = False, exact_bytes: int = EXACT_BYTES
    ) -> None:
        self._xla = xla
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

    def begin(self) -> None:
        """Remember the first weights. Called before the first observed step, outside of any graph."""
        if self._later is not None:
            return
        for name, columns in self._incoming.items():
            values = [np.array(each.variable) for each in columns]
            matrices = [np.asarray(each.of(value), np.float64) for each, value in zip(columns, values, strict=True)]
            self._norms_first[name] = np.sqrt(sum(np.sum(np.square(matrix), 0) for matrix in matrices))
            self._first[name] = self._kept(name, [tf.constant(value) for value in values])
        self._later = tf.function(self._distances, autograph=False)

    def before(self, look: Any = True) -> dict[str, list[Any]]:
        """What is to be remembered of the weights before an optimizer step."""

        def keep() -> dict[str, list[Any]]:
            return {name: self._now(name) for name in self._incoming}

        kept: dict[str, list[Any]] = only_if(look, keep, _nothing_like)
        return kept

    def gradients(self, gradients: Mapping[int, Any], look: Any = True) -> dict[str, Any]:
        """``name:weight_gradient``: norms of the gradients of each layer's weights, ``[units]``.

        Args:
            gradients: Of the loss, by ``id`` of the variable.
            look: Whether to look.
        """

        def norms() -> dict[str, Any]:
            return {
                f"{name}:weight_gradient": self._norms(
                    [each.of(tf.convert_to_tensor(gradients[id(each.variable)])) for each in columns]
                )
                for name, columns in self._incoming.items()
                if all(gradients.get(id(each.variable)) is not None for each in columns)
            }

        found: dict[str, Any] = only_if(look, norms, zeros_like)
        return found

    def around(self, before: Mapping[str, list[Any]], look: Any = True) -> dict[str, Any]:
        """``name:norm_in`` and ``name:change``: norms of the weights before and of their change, ``[units]``.

        Args:
            before: What :meth:`before` gave.
            look: Whether to look.
        """

        def norms() -> dict[str, Any]:
            seen: dict[str, Any] = {}
            for name, columns in self._incoming.items():
                if self.methods[name] == "exact":
                    seen[f"{name}:norm_in"] = self._norms(
                        [each.of(old) for each, old in zip(columns, before[name], strict=True)]
                    )
                else:
                    seen[f"{name}:norm_in"] = tf.sqrt(tf.add_n([tf.square(norm) for norm in before[name][2::3]]))
                seen[f"{name}:change"] = self._apart(name, before[name], self._now(name))
            return seen

        found: dict[str, Any] = only_if(look, norms, zeros_like)
        return found

    def since_first(self) -> dict[str, WeightObservation]:
        """Change of the weights since the first observed step, and outgoing norms, as of now."""
        if self._later is None:
            return {}
        found = {name: np.asarray(norms, np.float64) for name, norms in self._later().items()}
        seen = {
            name: WeightObservation(change_since_first=found[f"{name}:since_first"], norm_first=self._norms_first[name])
            for name in self._incoming
        }
        for name in self._outgoing:
            seen[name] = replace(seen.get(name, WeightObservation()), norm_out=found[f"{name}:norm_out"])
        return seen

    def _distances(self) -> dict[str, Any]:
        found = {
            f"{name}:since_first": self._apart(name, self._first[name], self._now(name)) for name in self._incoming
        }
        for name, columns in self._outgoing.items():
            found[f"{name}:norm_out"] = self._norms([each.of(each.variable) for each in columns])
        return found

    def _now(self, name: str) -> list[Any]:
        return self._kept(name, [tf.convert_to_tensor(each.variable) for each in self._incoming[name]])

    def _kept(self, name: str, values: list[Any]) -> list[Any]:
        if self.methods[name] == "exact":
            return values
        matrices = [each.of(value) for each, value in zip(self._incoming[name], values, strict=True)]
        return [part for matrix in matrices for part in _projected(matrix)]

    def _apart(self, name: str, old: list[Any], new: list[Any]) -> Any:
        """``[units]``: norm of the difference of what was kept at two times."""
        if self.methods[name] == "exact":
            columns = self._incoming[name]
            return self._norms([each.of(two - one) for each, one, two in zip(columns, old, new, strict=True)])
        squares = []
        for at in range(0, len(old), 3):
            apart = tf.reduce_mean(tf.square(new[at] - old[at]), 0)
            squares.append(tf.where(old[at + 1] == new[at + 1], 0.0, apart))
        return tf.sqrt(tf.add_n(squares))

    def _norms(self, matrices: list[Any]) -> Any:
        """``[units]``: norms over the rows of all matrices ``[rows, units]``."""
        if len(matrices) > 1 or self._xla:  # which has no single operation for it
            return tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(matrix), 0) for matrix in matrices]))
        return tf.math.reduce_euclidean_norm(matrices[0], 0)


def _projected(matrix: Any) -> list[Any]:
    """Random sums ``[signs, units]``, a digest of the bits and the norms, both ``[units]``."""
    rows = matrix.shape[0]
    random = np.random.default_rng((20, rows))  # the same signs each time
    signs = random.integers(0, 2, (_SIGNS, rows)) * 2.0 - 1.0
    odd = random.integers(0, 2**30, (rows, 1)) * 2 + 1
    digest = tf.reduce_sum(tf.bitcast(matrix, tf.int32) * tf.constant(odd, tf.int32), 0)
    return [tf.matmul(tf.constant(signs, tf.float32), matrix), digest, tf.sqrt(tf.reduce_sum(tf.square(matrix), 0))]


def _nothing_like(kept: Any) -> Any:
    return tf.zeros([0] * len(kept.shape), kept.dtype)

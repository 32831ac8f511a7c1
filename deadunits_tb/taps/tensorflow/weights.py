"""How far the weights of each unit moved, measured inside a TensorFlow graph with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deadunits_tb.capture.observation import WeightObservation
from deadunits_tb.capture.weight_history import EXACT_BYTES
from deadunits_tb.taps.columns import Columns, methods, random_numbers
from deadunits_tb.taps.tensorflow.reductions import only_if, zeros_like

Weighed = Mapping[str, Sequence[tuple[tf.Variable, Columns]]]
"""Name of a layer to its incoming, or outgoing, weights: variables, and where their units are."""


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
        exact_bytes: Memory for copies, two of each weight.
    """

    def __init__(
        self, incoming: Weighed, outgoing: Weighed, *, xla: bool = False, exact_bytes: int = EXACT_BYTES
    ) -> None:
        self._xla = xla
        self._incoming = {name: list(weights) for name, weights in incoming.items() if weights}
        self._outgoing = {name: list(weights) for name, weights in outgoing.items() if weights}
        columns = {name: [each for _, each in weights] for name, weights in self._incoming.items()}
        self.methods = methods(columns, copies=2, exact_bytes=exact_bytes)  # the first ones, and those before a step
        """Name of the layer to how its changes are measured."""
        self._first: dict[str, list[Any]] = {}
        self._norms_first: dict[str, npt.NDArray[np.floating]] = {}
        self._later: Any = None

    def begin(self) -> None:
        """Remember the first weights. Called before the first observed step, outside of any graph."""
        if self._later is not None:
            return
        for name, weights in self._incoming.items():
            values = [np.array(variable) for variable, _ in weights]
            matrices = [np.asarray(matrix, np.float64) for matrix in _matrices(weights, values)]
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
                    _matrices(weights, [tf.convert_to_tensor(gradients[id(variable)]) for variable, _ in weights])
                )
                for name, weights in self._incoming.items()
                if all(gradients.get(id(variable)) is not None for variable, _ in weights)
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
            for name, weights in self._incoming.items():
                if self.methods[name] == "exact":
                    seen[f"{name}:norm_in"] = self._norms(_matrices(weights, before[name]))
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
        for name, weights in self._outgoing.items():
            found[f"{name}:norm_out"] = self._norms(_matrices(weights, [variable for variable, _ in weights]))
        return found

    def _now(self, name: str) -> list[Any]:
        return self._kept(name, [tf.convert_to_tensor(variable) for variable, _ in self._incoming[name]])

    def _kept(self, name: str, values: list[Any]) -> list[Any]:
        if self.methods[name] == "exact":
            return values
        return [part for matrix in _matrices(self._incoming[name], values) for part in _projected(matrix)]

    def _apart(self, name: str, old: list[Any], new: list[Any]) -> Any:
        """``[units]``: norm of the difference of what was kept at two times."""
        if self.methods[name] == "exact":
            apart = [two - one for one, two in zip(old, new, strict=True)]
            return self._norms(_matrices(self._incoming[name], apart))
        squares = []
        for at in range(0, len(old), 3):
            square = tf.reduce_mean(tf.square(new[at] - old[at]), 0)
            squares.append(tf.where(old[at + 1] == new[at + 1], 0.0, square))
        return tf.sqrt(tf.add_n(squares))

    def _norms(self, matrices: list[Any]) -> Any:
        """``[units]``: norms over the rows of all matrices ``[rows, units]``."""
        if len(matrices) > 1 or self._xla:  # which has no single operation for it
            return tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(matrix), 0) for matrix in matrices]))
        return tf.math.reduce_euclidean_norm(matrices[0], 0)


def _matrices(weights: Sequence[tuple[tf.Variable, Columns]], values: Sequence[Any]) -> list[Any]:
    """``[rows, units]`` of values shaped like the variables, in float32."""
    return [matrix(columns, value) for (_, columns), value in zip(weights, values, strict=True)]


def matrix(columns: Columns, value: Any) -> Any:
    """``[rows, units]`` of a value shaped like the variable, in float32."""
    value = tf.cast(value, tf.float32)
    if columns.order != tuple(range(len(columns.shape))):
        value = tf.transpose(value, columns.order)
    return tf.reshape(value, [columns.rows, columns.units])


def _projected(matrix: Any) -> list[Any]:
    """Random sums ``[signs, units]``, a digest of the bits and the norms, both ``[units]``."""
    signs, odd = random_numbers(matrix.shape[0])
    digest = tf.reduce_sum(tf.bitcast(matrix, tf.int32) * tf.constant(odd.astype(np.int32)), 0)
    return [
        tf.matmul(tf.constant(signs.astype(np.float32)), matrix),
        digest,
        tf.sqrt(tf.reduce_sum(tf.square(matrix), 0)),
    ]


def _nothing_like(kept: Any) -> Any:
    return tf.zeros([0] * len(kept.shape), kept.dtype)

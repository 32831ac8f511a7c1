"""How far the weights of each unit moved, measured on the device beside Keras's own training step on JAX.

The step itself is compiled without any of this: it takes the buffers of the weights over, so what is compared later is
copied before, and only in steps that become records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.observation import WeightObservation
from deadunits_tb.taps.columns import EXACT_BYTES, Columns, methods

_SIGNS = 32  # random signs: the estimated norm has a standard deviation of 1 / sqrt(2 * 32) = 12.5 %

Arrays = Mapping[int, Any]
"""``id`` of a variable to its value."""
Weighed = Mapping[str, Sequence[tuple[int, Columns]]]
"""Name of a layer to its incoming, or outgoing, weights: ``id`` of the variable, and where its units are."""
Vector = npt.NDArray[np.floating]


class WeightWatch:
    """The weights of some layers, around optimizer steps and since the first observed one.

    Changes are measured against copies while those are small, otherwise by 32 random sums of each unit's weights
    (Johnson and Lindenstrauss 1984) and a digest of their bits, so that unchanged weights have moved by exactly zero.

    Args:
        incoming: Of each layer.
        outgoing: Of each layer of which every consumer is known.
        exact_bytes: Memory for copies.
    """

    def __init__(self, incoming: Weighed, outgoing: Weighed, *, exact_bytes: int = EXACT_BYTES) -> None:
        self._incoming = {name: list(weights) for name, weights in incoming.items() if weights}
        self._outgoing = {name: list(weights) for name, weights in outgoing.items() if weights}
        self.methods = methods(
            {name: [columns for _, columns in weights] for name, weights in self._incoming.items()}, exact_bytes
        )
        """Name of the layer to how its changes are measured."""
        self._needed = sorted(
            {key for weights in (*self._incoming.values(), *self._outgoing.values()) for key, _ in weights}
        )
        self._first: dict[str, list[Any]] | None = None
        self._norms_first: dict[str, Any] = {}
        self._project = jax.jit(_project)
        self._compare = jax.jit(self._distances)
        self._since: dict[str, WeightObservation] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """Field to how many numbers, in the order of what :meth:`compare` gives."""
        kinds = ("norm_in", "change", "since_first", "norm_first")
        sizes = {f"{name}:{kind}": weights[0][1].units for name, weights in self._incoming.items() for kind in kinds}
        return sizes | {f"{name}:norm_out": weights[0][1].units for name, weights in self._outgoing.items()}

    def keep(self, values: Arrays) -> dict[str, list[Any]]:
        """What is to be remembered of the weights before an optimizer step; the first time, for good."""
        kept = {name: self._kept(name, values) for name in self._incoming}
        if self._first is None:
            self._first = kept
        return kept

    def gradients(self, gradients: Arrays) -> dict[str, Any]:
        """``name:weight_gradient``: norms of the gradients of each layer's weights, ``[units]``. Pure."""
        return {
            f"{name}:weight_gradient": _norms([_matrix(columns, gradients[key]) for key, columns in weights])
            for name, weights in self._incoming.items()
            if all(gradients.get(key) is not None for key, _ in weights)
        }

    def compare(self, kept: Mapping[str, list[Any]], values: Arrays) -> Any:
        """Numbers on the device, of the weights before and after an optimizer step.

        Args:
            kept: What :meth:`keep` gave before it.
            values: After it.
        """
        return self._compare(self._first, dict(kept), {key: values[key] for key in self._needed})

    def fetch(self, numbers: Any) -> dict[str, Vector]:
        """Wait for what :meth:`compare` gave: ``name:norm_in`` and ``name:change``; the rest is remembered."""
        vector, at = np.asarray(numbers), 0
        fields: dict[str, Vector] = {}
        for name, size in self.sizes.items():
            fields[name] = vector[at : at + size]
            at += size
        self._since = {
            name: WeightObservation(
                norm_out=_float64(fields.get(f"{name}:norm_out")),
                change_since_first=_float64(fields.get(f"{name}:since_first")),
                norm_first=_float64(fields.get(f"{name}:norm_first")),
            )
            for name in {**self._incoming, **self._outgoing}
        }
        return {name: values for name, values in fields.items() if name.endswith((":norm_in", ":change"))}

    def since_first(self) -> dict[str, WeightObservation]:
        """Change of the weights since the first look, and outgoing norms, at the latest look that was fetched."""
        return self._since

    def _kept(self, name: str, values: Arrays) -> list[Any]:
        """Copies ``[array]``, or per array random sums ``[signs, units]``, a digest of the bits and the norms."""
        weights = self._incoming[name]
        if self.methods[name] == "exact":
            return [jnp.array(values[key], copy=True) for key, _ in weights]
        return [part for key, columns in weights for part in self._project(_matrix(columns, values[key]))]

    def _distances(self, first: Any, before: Any, values: Arrays) -> Any:
        found: list[Any] = []
        for name, weights in self._incoming.items():
            if self.methods[name] == "exact":
                now = [values[key] for key, _ in weights]
                found.append(self._norms_of(name, before))
                found += [self._apart(name, old[name], now) for old in (before, first)]
            else:
                now = [part for key, columns in weights for part in _project(_matrix(columns, values[key]))]
                found.append(self._norms_of(name, before))
                found += [_projected_apart(old[name], now) for old in (before, first)]
            found.append(self._norms_of(name, first))
        for weights in self._outgoing.values():
            found.append(_norms([_matrix(columns, values[key]) for key, columns in weights]))
        return jnp.concatenate(found) if found else jnp.zeros(0)

    def _norms_of(self, name: str, kept: Mapping[str, list[Any]]) -> Any:
        if self.methods[name] == "projection":
            return jnp.sqrt(sum(jnp.square(norm) for norm in kept[name][2::3]))
        columns = [each for _, each in self._incoming[name]]
        return _norms([_matrix(each, value) for each, value in zip(columns, kept[name], strict=True)])

    def _apart(self, name: str, old: list[Any], new: list[Any]) -> Any:
        columns = [each for _, each in self._incoming[name]]
        return _norms(
            [_matrix(each, two) - _matrix(each, one) for each, one, two in zip(columns, old, new, strict=True)]
        )


def _matrix(columns: Columns, value: Any) -> Any:
    """``[rows, units]`` in float32."""
    return jnp.transpose(value, columns.order).astype(jnp.float32).reshape(columns.rows, columns.units)


def _norms(matrices: list[Any]) -> Any:
    """``[units]``: norms over the rows of all matrices ``[rows, units]``."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(matrix), 0) for matrix in matrices))


def _project(matrix: Any) -> list[Any]:
    """Random sums ``[signs, units]``, a digest of the bits and the norms, both ``[units]``."""
    rows = matrix.shape[0]
    signs, odd = jax.random.split(jax.random.key(20))  # the same signs each time, without keeping them
    sums = jax.random.rademacher(signs, (_SIGNS, rows), jnp.float32) @ matrix
    odd = jax.random.bits(odd, (rows, 1), jnp.uint32) | 1
    digest = jnp.sum(jax.lax.bitcast_convert_type(matrix, jnp.uint32) * odd, 0, dtype=jnp.uint32)
    return [sums, digest, jnp.sqrt(jnp.sum(jnp.square(matrix), 0))]


def _projected_apart(old: list[Any], new: list[Any]) -> Any:
    squares = [
        jnp.where(old[at + 1] == new[at + 1], 0.0, jnp.mean(jnp.square(new[at] - old[at]), 0))
        for at in range(0, len(old), 3)
    ]
    return jnp.sqrt(sum(squares))


def _float64(values: Vector | None) -> Any:
    return None if values is None else values.astype(np.float64)

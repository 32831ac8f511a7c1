"""How far weights have moved since training began, measured on the device with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deadunits_tb.capture.observation import StepObservation, WeightObservation
from deadunits_tb.capture.weight_history import EXACT_BYTES
from deadunits_tb.taps.columns import Columns, methods
from deadunits_tb.taps.jax.plan import Plan
from deadunits_tb.taps.jax.projection import projected
from deadunits_tb.taps.jax.weights import columns_of, matrix, norms, outgoing_of, weights_of, wide


class WeightDrift:
    """The weights of some layers since they were first seen.

    Changes are measured against copies while those are small, otherwise by 32 random sums of each unit's weights
    (Johnson and Lindenstrauss 1984) and a digest of their bits, so that unchanged weights have moved by exactly zero.

    Args:
        plan: The layers.
        params: As they are now.
        exact_bytes: Memory for copies.

    Raises:
        InvalidArgumentError: The weights of a layer are not where it says, or do not fit it.
    """

    def __init__(self, plan: Plan, params: Any, *, exact_bytes: int = EXACT_BYTES) -> None:
        self._plan = plan
        self._incoming = {name: columns_of(name, layer, params) for name, layer in plan.layers if layer.weights}
        self.methods = methods(self._incoming, copies=1, exact_bytes=exact_bytes)
        """Layer to how its changes are measured."""
        self.fan_in = {name: sum(each.rows for each in columns) for name, columns in self._incoming.items()}
        """Layer to the weights that one of its units has."""
        self.fan_out = {
            name: sum(array.size for array in outgoing_of(name, layer, params)) // layer.units
            for name, layer in plan.layers
            if layer.outgoing
        }
        """Layer to the weights that one of its units feeds."""
        self._compare = jax.jit(self._distances)
        first = self._chosen(params)[0]
        self._first: dict[str, Any] = {
            name: [jnp.array(array, copy=True) for array in first[name]]  # the training step may take over its own
            if self.methods[name] == "exact"
            else jax.jit(_projected, static_argnums=0)(tuple(columns), first[name])
            for name, columns in self._incoming.items()
        }
        self._norms = {name: norms(columns, first[name]) for name, columns in self._incoming.items()}

    def compare(self, params: Any) -> Any:
        """Numbers on the device, of the weights as they are now.

        Raises:
            InvalidArgumentError: The weights of a layer are not where it says.
        """
        return self._compare(self._first, *self._chosen(params))

    def added(self, observation: StepObservation, numbers: Any) -> StepObservation:
        """An observation together with what :meth:`compare` has found. Waits for it."""
        moved, outgoing = ({name: _float64(of) for name, of in part.items()} for part in jax.device_get(numbers))
        layers = {}
        for name, seen in observation.layers.items():
            if name in moved or name in outgoing:
                weights = replace(
                    seen.weights or WeightObservation(),
                    norm_out=outgoing.get(name),
                    change_since_first=moved.get(name),
                    norm_first=_float64(self._norms[name]) if name in moved else None,
                )
                seen = replace(seen, weights=weights)
            layers[name] = seen
        return replace(observation, layers=layers)

    def _chosen(self, params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Incoming and outgoing weights of each layer."""
        layers = self._plan.layers
        return (
            {name: weights_of(name, layer, params) for name, layer in layers if layer.weights},
            {name: outgoing_of(name, layer, params) for name, layer in layers if layer.outgoing},
        )

    def _distances(self, first: Mapping[str, Any], incoming: Any, outgoing: Any) -> tuple[Any, Any]:
        moved = {}
        for name, columns in self._incoming.items():
            if self.methods[name] == "exact":
                apart = [wide(two) - wide(one) for one, two in zip(first[name], incoming[name], strict=True)]
                moved[name] = norms(columns, apart)
            else:
                moved[name] = _apart(first[name], _projected(tuple(columns), incoming[name]))
        fed = {name: norms([Columns(array.shape, (0,)) for array in of], of) for name, of in outgoing.items()}
        return moved, fed


def _projected(columns: tuple[Columns, ...], arrays: Any) -> list[tuple[Any, Any]]:
    return [projected(matrix(array, column)) for column, array in zip(columns, arrays, strict=True)]


def _apart(old: list[tuple[Any, Any]], new: list[tuple[Any, Any]]) -> Any:
    """``[units]``: norm of the difference of what was kept at two times."""
    squares = [
        jnp.where(before == after, 0.0, jnp.mean(jnp.square(two - one), 0))
        for (one, before), (two, after) in zip(old, new, strict=True)
    ]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def _float64(values: Any) -> Any:
    return np.asarray(values, np.float64)

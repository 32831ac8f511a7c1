"""How far the weights of each unit moved, measured on the device beside a training step of Keras on JAX or torch.

The step itself runs without any of this. Optimizers overwrite weights, or take their buffers over: so what is compared
later is copied before, and only in steps that become records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.observation import WeightObservation
from deadunits_tb.capture.weight_history import EXACT_BYTES
from deadunits_tb.taps.columns import Columns, methods
from deadunits_tb.taps.keras.layers import Weights

Vector = npt.NDArray[np.floating]
Values = Mapping[int, Any]
"""``id`` of a variable to its value."""
Weighed = Mapping[str, Sequence[tuple[int, Columns]]]
"""Name of a layer to its incoming, or outgoing, weights: ``id`` of the variable, and where its units are."""


class Device(Protocol):
    """What a backend does with arrays."""

    def copy(self, value: Any) -> Any:
        """The same numbers elsewhere in memory."""

    def matrix(self, columns: Columns, value: Any) -> Any:
        """``[rows, units]`` in float32."""

    def project(self, matrix: Any) -> list[Any]:
        """Random sums ``[SIGNS, units]``, a digest of the bits and the norms, both ``[units]``."""

    def where(self, condition: Any, one: Any, other: Any) -> Any:
        """Element by element."""

    def concatenate(self, vectors: list[Any]) -> Any:
        """One vector."""

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, compiled where that pays."""

    def numpy(self, vector: Any) -> Vector:
        """Wait for a vector."""


class WeightWatch:
    """The weights of some layers, around optimizer steps and since the first observed one.

    Changes are measured against copies while those are small, otherwise by 32 random sums of each unit's weights
    (Johnson and Lindenstrauss 1984) and a digest of their bits, so that unchanged weights have moved by exactly zero.

    Args:
        incoming: Of each layer.
        outgoing: Of each layer of which every consumer is known.
        device: Of the backend.
        exact_bytes: Memory for copies, two of each weight.
    """

    def __init__(self, incoming: Weighed, outgoing: Weighed, device: Device, *, exact_bytes: int = EXACT_BYTES) -> None:
        self._incoming = {name: list(weights) for name, weights in incoming.items() if weights}
        self._outgoing = {name: list(weights) for name, weights in outgoing.items() if weights}
        self.device = device
        """Of the backend."""
        columns = {name: [each for _, each in weights] for name, weights in self._incoming.items()}
        self.methods = methods(columns, copies=2, exact_bytes=exact_bytes)  # the first ones, and those before a step
        """Name of the layer to how its changes are measured."""
        self._needed = {key for weights in (*self._incoming.values(), *self._outgoing.values()) for key, _ in weights}
        kinds = ("norm_in", "change", "since_first", "norm_first")
        self._sizes = {f"{name}:{kind}": each[0].units for name, each in columns.items() for kind in kinds}
        self._sizes |= {f"{name}:norm_out": weights[0][1].units for name, weights in self._outgoing.items()}
        self._first: dict[str, list[Any]] | None = None
        self._project = device.compiled(device.project)
        self._compare = device.compiled(self._distances)
        self._since: dict[str, WeightObservation] = {}

    @property
    def begun(self) -> bool:
        """Whether the first weights are remembered."""
        return self._first is not None

    def keep(self, values: Values) -> dict[str, list[Any]]:
        """What is to be remembered of the weights before an optimizer step; the first time, for good."""
        kept = {name: self._kept(name, values) for name in self._incoming}
        if self._first is None:
            self._first = kept
        return kept

    def gradients(self, gradients: Values) -> dict[str, Any]:
        """``name:weight_gradient``: norms of the gradients of each layer's weights, ``[units]``. A pure function."""
        return {
            f"{name}:weight_gradient": _norms([self.device.matrix(each, gradients[key]) for key, each in weights])
            for name, weights in self._incoming.items()
            if all(gradients.get(key) is not None for key, _ in weights)
        }

    def compare(self, kept: Mapping[str, list[Any]], values: Values) -> Any:
        """Numbers on the device, of the weights before and after an optimizer step.

        Args:
            kept: What :meth:`keep` gave before it.
            values: After it.
        """
        return self._compare(self._first, kept, {key: values[key] for key in self._needed})

    def fetch(self, numbers: Any) -> dict[str, Vector]:
        """Wait for what :meth:`compare` gave: ``name:norm_in`` and ``name:change``; the rest is remembered."""
        vector, at = self.device.numpy(numbers), 0
        fields: dict[str, npt.NDArray[np.float64]] = {}
        for name, size in self._sizes.items():
            fields[name] = vector[at : at + size].astype(np.float64)
            at += size
        self._since = {
            name: WeightObservation(
                norm_out=fields.get(f"{name}:norm_out"),
                change_since_first=fields.get(f"{name}:since_first"),
                norm_first=fields.get(f"{name}:norm_first"),
            )
            for name in {**self._incoming, **self._outgoing}
        }
        return {name: values for name, values in fields.items() if name.endswith((":norm_in", ":change"))}

    def since_first(self) -> dict[str, WeightObservation]:
        """Change of the weights since the first look, and outgoing norms, at the latest look that was fetched."""
        return self._since

    def _kept(self, name: str, values: Values) -> list[Any]:
        """A copy of each array, or its projection."""
        weights = self._incoming[name]
        if self.methods[name] == "exact":
            return [self.device.copy(values[key]) for key, _ in weights]
        return [part for key, each in weights for part in self._project(self.device.matrix(each, values[key]))]

    def _distances(self, first: Mapping[str, list[Any]], before: Mapping[str, list[Any]], values: Values) -> Any:
        found: list[Any] = []
        for name, weights in self._incoming.items():
            if self.methods[name] == "exact":
                now = [values[key] for key, _ in weights]
            else:
                matrices = [self.device.matrix(each, values[key]) for key, each in weights]
                now = [part for matrix in matrices for part in self.device.project(matrix)]
            found += [
                self._norms_of(name, before[name]),
                self._apart(name, before[name], now),
                self._apart(name, first[name], now),
                self._norms_of(name, first[name]),
            ]
        for weights in self._outgoing.values():
            found.append(_norms([self.device.matrix(each, values[key]) for key, each in weights]))
        return self.device.concatenate(found)

    def _norms_of(self, name: str, kept: list[Any]) -> Any:
        if self.methods[name] == "projection":
            return sum(norm * norm for norm in kept[2::3]) ** 0.5
        return _norms(
            [self.device.matrix(each, old) for (_, each), old in zip(self._incoming[name], kept, strict=True)]
        )

    def _apart(self, name: str, old: list[Any], new: list[Any]) -> Any:
        """``[units]``: norm of the difference of what was kept at two times."""
        if self.methods[name] == "exact":
            pairs = zip(self._incoming[name], old, new, strict=True)
            matrix = self.device.matrix
            return _norms([matrix(each, two) - matrix(each, one) for (_, each), one, two in pairs])
        squares = []
        for at in range(0, len(old), 3):
            apart = ((new[at] - old[at]) ** 2).mean(0)
            squares.append(self.device.where(old[at + 1] == new[at + 1], 0.0 * old[at + 2], apart))
        return sum(squares) ** 0.5


def _norms(matrices: list[Any]) -> Any:
    """``[units]``: norms over the rows of all matrices ``[rows, units]``."""
    return sum((matrix * matrix).sum(0) for matrix in matrices) ** 0.5


def columns_of(weights: Sequence[Weights]) -> list[tuple[int, Columns]]:
    """``id`` of each variable, and where its units are."""
    return [(id(each.variable), each.columns) for each in weights]

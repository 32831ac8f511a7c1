"""How far the weights of each unit moved, measured on the device with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from deadunits_tb.capture.weight_history import EXACT_BYTES
from deadunits_tb.taps.torch.distributed import is_sharded, own_part
from deadunits_tb.taps.torch.follow import Consumer
from deadunits_tb.taps.torch.layers import UnitLayer, sizes

_SIGNS = 32  # random signs: the estimated norm has a standard deviation of 1 / sqrt(2 * 32) = 12.5 %

Method = Literal["exact", "projection"]
Fields = dict[str, Any]


class WeightWatch:
    """The weights of some layers, around optimizer steps and since the first observed one.

    Changes are measured against copies while those are small, otherwise by 32 random sums of each unit's weights
    (Johnson and Lindenstrauss 1984) and a digest of their bits, so that unchanged weights have moved by exactly zero.

    Call its methods with gradients disabled.

    Args:
        exact_bytes: Memory for copies of the first weights.
    """

    def __init__(self, exact_bytes: int = EXACT_BYTES) -> None:
        self._left = exact_bytes
        self.methods: dict[str, Method] = {}
        """Name of a layer to how its changes are measured."""
        self._first: dict[str, list[Any]] = {}
        self._norm_first: dict[str, Any] = {}
        self._signs: dict[tuple[int, Any], tuple[Any, Any]] = {}

    def before(self, layers: Mapping[str, UnitLayer]) -> dict[str, list[Any]]:
        """What is to be remembered of the weights before an optimizer step.

        Args:
            layers: By name; those whose weights are not known are left out.
        """
        kept = {}
        for name, layer in layers.items():
            if not _ready(layer):
                continue
            if name not in self.methods:
                size = 4 * sum(sizes(layer))
                self.methods[name] = "exact" if size <= self._left else "projection"
                self._left -= size if size <= self._left else 0
            kept[name] = self._kept(name, layer)
            if name not in self._first:
                self._first[name], self._norm_first[name] = kept[name], self._norms(name, kept[name])
        return kept

    def gradients(self, layers: Mapping[str, UnitLayer], scale: Any = None) -> Fields:
        """``name:weight_gradient``: norms of the gradients of each layer's weights, ``[units]``.

        Args:
            layers: By name.
            scale: By which the gradients are still multiplied, a tensor; None for 1.
        """
        found = {}
        for name, layer in layers.items():
            gradients = [weights.parameter.grad for group in layer.incoming for weights in group]
            if not _ready(layer) or any(gradient is None or gradient.is_sparse for gradient in gradients):
                continue
            norms = self._exact_norms(_matrices(layer, gradients))
            found[f"{name}:weight_gradient"] = norms if scale is None else norms / scale
        return found

    def around(self, before: Mapping[str, list[Any]], layers: Mapping[str, UnitLayer], *, moved: bool = True) -> Fields:
        """``name:norm_in``, ``name:change``, ``name:since_first`` and ``name:norm_first``: norms, ``[units]``.

        Args:
            before: What :meth:`before` gave.
            layers: By name.
            moved: Whether an optimizer step has been made since; otherwise nothing is said of a change.
        """
        found = {}
        for name, old in before.items():
            now = self._kept(name, layers[name], copy=False)
            found[f"{name}:norm_in"] = self._norms(name, old)
            if moved:
                found[f"{name}:change"] = self._apart(name, old, now)
            found[f"{name}:since_first"] = self._apart(name, self._first[name], now)
            found[f"{name}:norm_first"] = self._norm_first[name]
        return found

    def outgoing(self, consumers: Mapping[str, Sequence[Consumer]]) -> Fields:
        """``name:norm_out``: norms of the weights that take in each unit, ``[units]``."""
        found = {}
        for name, taken in consumers.items():
            squares: Any = 0
            for one in taken:
                value = one.parameter.detach().transpose(0, one.axis).flatten(1).float()
                place = one.place
                value = (
                    value[place.start : place.start + place.length]
                    .unflatten(0, (place.outer, place.units, place.inner))
                    .square()
                    .sum((0, 2, 3))
                )
                squares = squares + value
            found[f"{name}:norm_out"] = squares.sqrt()
        return found

    def _kept(self, name: str, layer: UnitLayer, *, copy: bool = True) -> list[Any]:
        """For each group of units: a copy of the weights, or what stands for them."""
        matrices = _matrices(layer, [weights.parameter for group in layer.incoming for weights in group])
        if self.methods[name] == "projection":
            return [self._projected(matrix) for matrix in matrices]
        return [matrix.clone() for matrix in matrices] if copy else matrices

    def _apart(self, name: str, old: list[Any], new: list[Any]) -> Any:
        if self.methods[name] == "exact":
            return self._exact_norms([two - one for one, two in zip(old, new, strict=True)])
        found = []
        for (one, digest, _), (two, other, _) in zip(old, new, strict=True):
            found.append(torch.where(digest == other, 0.0, (two - one).square().mean(1).sqrt()))
        return torch.cat(found)

    def _norms(self, name: str, kept: list[Any]) -> Any:
        return torch.cat([norm for *_, norm in kept]) if self.methods[name] == "projection" else self._exact_norms(kept)

    @staticmethod
    def _exact_norms(matrices: list[Any]) -> Any:
        return torch.cat([(matrix * matrix).sum(1).sqrt() for matrix in matrices])

    def _projected(self, matrix: Any) -> tuple[Any, Any, Any]:
        """Random sums ``[units, signs]``, a digest of the bits and the norms, both ``[units]``."""
        rows, matrix = matrix.shape[1], matrix.float()
        if (rows, matrix.device) not in self._signs:  # the same each time, from a generator of its own
            random = np.random.default_rng((20, rows))
            signs = torch.from_numpy(random.integers(0, 2, (rows, _SIGNS)).astype(np.float32) * 2 - 1)
            odd = torch.from_numpy(random.integers(0, 2**30, rows).astype(np.int32) * 2 + 1)
            self._signs[rows, matrix.device] = signs.to(matrix.device), odd.to(matrix.device)
        signs, odd = self._signs[rows, matrix.device]
        digest = (matrix.contiguous().view(torch.int32) * odd).sum(1)
        with torch.autocast(matrix.device.type, enabled=False):
            sums = matrix @ signs
        return sums, digest, (matrix * matrix).sum(1).sqrt()


def _ready(layer: UnitLayer) -> bool:
    return bool(layer.incoming) and all(
        weights.ready and (weights.first_axis or not is_sharded(weights.parameter))
        for group in layer.incoming
        for weights in group
    )


def _matrices(layer: UnitLayer, values: Sequence[Any]) -> list[Any]:
    """For each group of units ``[units, weights]``, at least in float32, of values shaped like its parameters."""
    rest = iter(values)
    found = []
    for group in layer.incoming:
        parts = [_at_least_float32(weights.rows(own_part(next(rest).detach()))) for weights in group]
        found.append(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
    return found


def _at_least_float32(values: Any) -> Any:
    return values if values.dtype == torch.float64 else values.float()

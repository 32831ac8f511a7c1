"""How far the weights of each unit moved, measured on the device with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from deadunits_tb.capture.weight_history import EXACT_BYTES
from deadunits_tb.taps.torch.distributed import is_sharded, own_part
from deadunits_tb.taps.torch.layers import UnitLayer, sizes
from deadunits_tb.taps.torch.trails import Consumer

_SIGNS = 32  # random signs: the estimated norm has a standard deviation of 1 / sqrt(2 * 32) = 12.5 %

_BLOCK = 1 << 17
"""Numbers that are worked on at a time: with the scratch one MiB, about half of what a core's own cache holds."""
_LARGE_BLOCK = 1 << 24
"""The same for devices that are slow to be told what to do."""

Method = Literal["exact", "projection"]
Fields = dict[str, Any]


class WeightWatch:
    """The weights of some layers, around optimizer steps and since the first observed one.

    Changes are measured against two copies of each weight while those are small, otherwise by 32 random sums of each
    unit's weights (Johnson and Lindenstrauss 1984) and a digest of their bits, so that unchanged weights have moved by
    exactly zero. Beside the copies nothing is as large as a layer: all is computed in blocks of some units.

    Call its methods with gradients disabled.

    Args:
        exact_bytes: Memory for copies of weights.
    """

    def __init__(self, exact_bytes: int = EXACT_BYTES) -> None:
        self._left = exact_bytes
        self.methods: dict[str, Method] = {}
        """Name of a layer to how its changes are measured."""
        self._first: dict[str, list[Any]] = {}
        self._latest: dict[str, list[Any]] = {}
        self._norm_first: dict[str, Any] = {}
        self._signs: dict[tuple[int, Any], tuple[Any, Any]] = {}
        self._buffers: dict[tuple[Any, Any], Any] = {}

    def before(self, layers: Mapping[str, UnitLayer]) -> dict[str, list[Any]]:
        """What is to be remembered of the weights before an optimizer step, until this is called again.

        Args:
            layers: By name; those whose weights are not known are left out.
        """
        kept: dict[str, list[Any]] = {}
        for name, layer in layers.items():
            if not _ready(layer):
                continue
            if name not in self.methods:
                size = 2 * 4 * sum(sizes(layer))
                self.methods[name] = "exact" if size <= self._left else "projection"
                self._left -= size if size <= self._left else 0
            matrices = _incoming(layer)
            if self.methods[name] == "projection":
                kept[name] = [self._projected(matrix) for matrix in matrices]
            else:
                kept[name] = self._latest[name] = _copies(matrices, self._latest.get(name))
            if name not in self._first:
                exact = self.methods[name] == "exact"
                self._first[name] = [matrix.clone() for matrix in kept[name]] if exact else kept[name]
                self._norm_first[name] = self._norms(name, kept[name])
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
            norms = torch.cat([self._row_norms(matrix) for matrix in _matrices(layer, gradients)])
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
            now = _incoming(layers[name])
            if self.methods[name] == "projection":
                now = [self._projected(matrix) for matrix in now]
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
                place = one.place
                along = self._squares_along(one.parameter.detach(), one.axis)[place.start : place.start + place.length]
                squares = squares + along.view(place.outer, place.units, place.inner).sum((0, 2))
            found[f"{name}:norm_out"] = squares.sqrt()
        return found

    def _apart(self, name: str, old: list[Any], new: list[Any]) -> Any:
        found = []
        if self.methods[name] == "exact":
            for one, two in zip(old, new, strict=True):
                found.append(self._row_norms(two, one))
            return torch.cat(found)
        for (one, digest, _), (two, other, _) in zip(old, new, strict=True):
            found.append(torch.where(digest == other, 0.0, (two - one).square().mean(1).sqrt()))
        return torch.cat(found)

    def _norms(self, name: str, kept: list[Any]) -> Any:
        exact = self.methods[name] == "exact"
        return torch.cat([self._row_norms(one) for one in kept] if exact else [norm for *_, norm in kept])

    def _row_norms(self, matrix: Any, other: Any = None) -> Any:
        """``[units]``: norms of the rows, or of what lies between them and those of another matrix."""
        found = []
        blocks = matrix.split(_rows(matrix))
        for block, there in zip(blocks, blocks if other is None else other.split(_rows(matrix)), strict=True):
            values = _at_least_float32(block)
            if other is not None:
                values = torch.sub(values, there, out=self._scratch(values))
            if values.stride(1) == 1:  # the only direction in which this is quick
                found.append(torch.linalg.vector_norm(values, dim=1))
            else:
                found.append(torch.mul(values, values, out=self._scratch(values)).sum(1).sqrt())
        return found[0] if len(found) == 1 else torch.cat(found)

    def _squares_along(self, tensor: Any, axis: int) -> Any:
        """``[length of the axis]``: sums of squares over all other axes."""
        tensor = tensor.transpose(0, axis).flatten(2) if tensor.dim() > 2 else tensor.transpose(0, axis)
        others = tuple(at for at in range(tensor.dim()) if at != 0)
        squares: Any = 0
        each = max(1, _BLOCK * tensor.shape[1] // max(1, tensor.numel()))
        for block in tensor.split(each, 1):
            values = _at_least_float32(block)
            squares = squares + torch.mul(values, values, out=self._scratch(values)).sum(others)
        return squares

    def _projected(self, matrix: Any) -> tuple[Any, Any, Any]:
        """Random sums ``[units, signs]``, a digest of the bits and the norms, both ``[units]``."""
        rows = matrix.shape[1]
        if (rows, matrix.device) not in self._signs:  # the same each time, from a generator of its own
            random = np.random.default_rng((20, rows))
            signs = torch.from_numpy(random.integers(0, 2, (rows, _SIGNS)).astype(np.float32) * 2 - 1)
            odd = torch.from_numpy(random.integers(0, 2**30, rows).astype(np.int32) * 2 + 1)
            self._signs[rows, matrix.device] = signs.to(matrix.device), odd.to(matrix.device)
        signs, odd = self._signs[rows, matrix.device]
        # Into memory that is there already: small results between large intermediates would keep these from being used
        # again, and the heap of a process would grow by as much as the weights.
        sums = torch.empty((len(matrix), _SIGNS), dtype=torch.float32, device=matrix.device)
        digests = torch.empty(len(matrix), dtype=torch.int64, device=matrix.device)
        each = _rows(matrix)
        with torch.autocast(matrix.device.type, enabled=False):
            for block, some, digest in zip(matrix.split(each), sums.split(each), digests.split(each), strict=True):
                values = block.float().contiguous()
                torch.mm(values, signs, out=some)
                bits = values.view(torch.int32)
                torch.sum(torch.mul(bits, odd, out=self._scratch(bits)), 1, out=digest)
        return sums, digests, self._row_norms(matrix)

    def _scratch(self, values: Any) -> Any:
        """A tensor to write on, laid out in memory as the values are."""
        if values.device.type != "cpu":  # elsewhere allocators do this better
            return torch.empty_like(values)
        numbers, kind = values.numel(), values.dtype
        buffer = self._buffers.get(kind)
        if buffer is None or buffer.numel() < numbers:
            buffer = self._buffers[kind] = torch.empty(max(numbers, _BLOCK), dtype=kind, device="cpu")
        if values.dim() == 2 and values.stride(0) < values.stride(1):
            return buffer[:numbers].view(values.shape[1], values.shape[0]).t()
        return buffer[:numbers].view(values.shape)


def _ready(layer: UnitLayer) -> bool:
    return bool(layer.incoming) and all(
        weights.ready and (weights.first_axis or not is_sharded(weights.parameter))
        for group in layer.incoming
        for weights in group
    )


def _incoming(layer: UnitLayer) -> list[Any]:
    return _matrices(layer, [weights.parameter for group in layer.incoming for weights in group])


def _matrices(layer: UnitLayer, values: Sequence[Any]) -> list[Any]:
    """For each group of units ``[units, weights]``, of values shaped like its parameters; views where that can be."""
    rest = iter(values)
    found = []
    for group in layer.incoming:
        parts = [weights.rows(own_part(next(rest).detach())) for weights in group]
        found.append(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
    return found


def _at_least_float32(values: Any) -> Any:
    return values if values.dtype == torch.float64 else values.float()


def _rows(matrix: Any) -> int:
    """Units whose weights make a block."""
    numbers = _BLOCK if matrix.device.type == "cpu" else _LARGE_BLOCK
    return int(max(1, numbers // max(1, matrix.shape[1])))


def _copies(matrices: Sequence[Any], memory: Sequence[Any] | None) -> list[Any]:
    """Copies, at least in float32, in memory that has held such copies before."""
    if memory is None or [(one.shape, one.device) for one in memory] != [(one.shape, one.device) for one in matrices]:
        return [_at_least_float32(matrix).clone() for matrix in matrices]
    return [copy.copy_(matrix) for copy, matrix in zip(memory, matrices, strict=True)]

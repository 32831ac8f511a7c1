"""The numbers of a step, as one vector that leaves the device."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deadunits_tb.capture.packed import Call, Layout

Fields = dict[Any, Any]
"""Field to its values, or a tuple of fields to the matrix whose rows they are."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Numbers of a step, some of them still on the device. Nobody changes them any more.

    Attributes:
        numbers: Field to what the host knows; they come first.
        tensors: Field to what is on the device, perhaps on several.
        layer_calls: Of the layers with units.
        relu_like: Taps whose activation function is.
    """

    numbers: Mapping[str, float]
    tensors: Fields
    layer_calls: tuple[Call, ...]
    relu_like: frozenset[int]

    def fetch(self) -> tuple[Layout, npt.NDArray[np.floating]]:
        """Everything as one vector. The one place where the device is waited for."""
        values = list(self.tensors.values())
        devices = {value.device for value in values}
        if len(devices) > 1:
            target = next(value.device for value in values if value.device.type != "cpu")
            values = [value.to(target, non_blocking=True) for value in values]
        flat = [value.detach().reshape(-1).to(torch.float32) for value in values]
        layout = _layout(
            tuple(self.numbers),
            tuple(self.tensors),
            tuple(value.numel() for value in flat),
            self.layer_calls,
            self.relu_like,
        )
        vector = torch.cat(flat).cpu().numpy() if flat else np.zeros(0)
        return layout, np.concatenate([np.array(list(self.numbers.values()), np.float64), vector])


def named(tensors: Fields) -> Fields:
    """Field to tensor, also of those that are rows of a matrix."""
    found: Fields = {}
    for name, value in tensors.items():
        found |= {name: value} if isinstance(name, str) else dict(zip(name, value.unbind(0), strict=True))
    return found


@functools.lru_cache(maxsize=256)
def rows_of(tap: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """Fields of a tap, as they are called among those of the step."""
    return tuple(f"{tap}:{name}" for name in names)


@functools.lru_cache(maxsize=16)  # the same in each step
def _layout(
    numbers: tuple[str, ...],
    names: tuple[str | tuple[str, ...], ...],
    sizes: tuple[int, ...],
    layer_calls: tuple[Call, ...],
    relu_like: frozenset[int],
) -> Layout:
    found = dict.fromkeys(numbers, 1)
    for name, size in zip(names, sizes, strict=True):
        found |= {name: size} if isinstance(name, str) else dict.fromkeys(name, size // len(name))
    return Layout(found, layer_calls, relu_like)

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
        values = [value.detach() for value in self.tensors.values()]
        layout = _layout(
            tuple(self.numbers),
            tuple(self.tensors),
            tuple(value.numel() for value in values),
            self.layer_calls,
            self.relu_like,
        )
        there = next((value.device for value in values if not value.is_cpu), None)
        if there is not None:
            flat = [value.to(there, torch.float32, non_blocking=True).reshape(-1) for value in values]
            vectors = [torch.cat(flat).cpu().numpy()]
        else:
            vectors = [value.float().numpy().reshape(-1) for value in values]
        return layout, np.concatenate([np.array(list(self.numbers.values()), np.float64), *vectors])


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

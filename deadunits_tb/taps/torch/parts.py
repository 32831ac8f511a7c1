"""What a PyTorch model is made of: so that two runs can be told apart by their dropout or normalisation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch import nn

from deadunits_tb.run_record import MODEL_PARTS, ModelPart
from deadunits_tb.taps.torch import private as torch_private

_SETTINGS = (
    "p", "dropout", "eps", "momentum", "affine", "negative_slope", "alpha", "in_features", "out_features",
    "in_channels", "out_channels", "kernel_size", "stride", "groups", "hidden_size", "num_layers", "bidirectional",
    "num_groups", "normalized_shape", "num_heads",
)  # fmt: skip
"""Attributes of PyTorch's own modules that make one recipe another."""


def model_parts(model: nn.Module) -> tuple[ModelPart, ...]:
    """Modules that hold no others, and those that drop something, in the model's order. Nothing is computed."""
    return tuple(itertools.islice(_parts(model), MODEL_PARTS))


def _parts(model: nn.Module) -> Iterator[ModelPart]:
    for name, module in model.named_modules():
        settings = _settings(module)
        if not any(True for _ in module.children()) or settings.get("dropout"):
            yield ModelPart(name, torch_private.class_name(module), settings)


def _settings(module: Any) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for name in _SETTINGS:
        value = vars(module).get(name)  # not by getattr: that may run code of the user's own
        if isinstance(value, (bool, int, float)):
            found[name] = float(value)
        elif isinstance(value, (str, tuple)):
            found[name] = str(value)[:80]
    return found

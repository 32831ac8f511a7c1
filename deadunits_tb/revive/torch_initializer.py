"""New weights for a PyTorch layer, by its own initializer or another one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from deadunits_tb.errors import InvalidArgumentError

Initializer = str | Callable[[torch.Tensor], object] | None
"""None for the layer's ``reset_parameters``; ``"he"``, ``"glorot"``, or ``"auto"`` for one of both by the activation
function; or a function that fills a tensor, such as ``nn.init.orthogonal_``."""
_BY_NAME = ("he", "glorot", "auto")
_HE = frozenset({"relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "gelu", "silu", "mish", "hard_silu"})


def check_initializer(initializer: Any) -> None:
    """Check what a user gave.

    Raises:
        InvalidArgumentError: It is nothing of :data:`Initializer`.
    """
    if initializer is not None and not callable(initializer) and initializer not in _BY_NAME:
        raise InvalidArgumentError(
            f"initializer must be None for the layer's own, one of {', '.join(map(repr, _BY_NAME))}, "
            f"or a function that fills a tensor, not {initializer!r}"
        )


@torch.no_grad()  # type: ignore[untyped-decorator]  # PyTorch is read without types
def fresh_weight(module: Any, initializer: Initializer, function: str | None) -> torch.Tensor:
    """A new weight for a layer, of the shape of its own, which stays as it is.

    Args:
        module: A linear layer or convolution.
        initializer: As :func:`check_initializer` allows.
        function: The layer's activation function, for ``"auto"``; unknown ones get He's.
    """
    if initializer is None:
        other = copy.copy(module)
        other._parameters = {
            name: None if parameter is None else nn.Parameter(torch.empty_like(parameter))
            for name, parameter in module._parameters.items()
        }
        other.reset_parameters()
        return torch.as_tensor(other.weight.detach())
    weight = torch.empty_like(module.weight)
    if callable(initializer):
        initializer(weight)
    elif initializer == "he" or (initializer == "auto" and (function is None or function in _HE)):
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(weight)
    return weight

"""What a PyTorch optimizer remembers of single weights, set back as if they were new.

A count of steps belongs to a whole tensor. So single entries cannot be told to begin at step 0, and zero second moments
at step *t* would be no fresh start: Adam divides by ``1 - beta2 ** t``, which is nearly 1 by then, and its next steps
would be up to 6.6 times too long (3.2 times at the first one, 6.6 at the 12th, with its default decay rates). What a
fresh entry has after bias correction is an estimate of its own squared gradient; under the tensor's count that is the
raw moment of entries like it. So second moments with bias correction become the mean of those of the layer's working
units, and everything else becomes zero, as it is in a fresh optimizer. Where every entry of a tensor is new, its count
of steps is set back, too, and the state is exactly that of a fresh optimizer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from deadunits_tb.errors import InvalidArgumentError

_ADAM = frozenset({"exp_avg_sq", "max_exp_avg_sq"})
_ZERO = frozenset({"momentum_buffer", "exp_avg", "square_avg", "grad_avg"})
_SUPPORTED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)


def check_optimizer(optimizer: Any) -> None:
    """Make sure that it is known what an optimizer remembers.

    Raises:
        InvalidArgumentError: It is not.
    """
    if optimizer is None or isinstance(optimizer, _SUPPORTED):
        return
    known = ", ".join(kind.__name__ for kind in _SUPPORTED)
    raise InvalidArgumentError(
        f"it is not known what {type(optimizer).__name__} remembers of single weights: revival works with {known}, "
        "or with optimizer=None, where you set its state back yourself"
    )


@torch.no_grad()  # type: ignore[untyped-decorator]  # PyTorch is read without types
def forget(optimizer: Any, parameter: nn.Parameter, new: torch.Tensor, peers: torch.Tensor) -> None:
    """Set back what an optimizer remembers of some entries of a parameter, their gradients included.

    Args:
        optimizer: As :func:`check_optimizer` allows, or None.
        parameter: One of its parameters; of others nothing is remembered.
        new: ``bool``, shaped like the parameter: the entries that are new.
        peers: Likewise the entries of units that work, which the new ones are likened to.
    """
    if parameter.grad is not None:
        parameter.grad[new] = 0
    state = {} if optimizer is None else optimizer.state.get(parameter, {})
    whole = bool(new.all())
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            continue
        if name in _ADAM:
            likened = value[peers & ~new]
            typical = likened.mean() if likened.numel() else _typical(optimizer, name)
            value[new] = 0 if whole else typical
        elif name in _ZERO:
            value[new] = 0
        elif name == "step" and whole:
            value.zero_()


def _typical(optimizer: Any, name: str) -> float:
    """Mean of a moment over all parameters: for a layer in which no unit works."""
    values = [state[name] for state in optimizer.state.values() if name in state]
    total = sum(float(value.double().sum()) for value in values)
    return float(total / max(1, sum(value.numel() for value in values)))

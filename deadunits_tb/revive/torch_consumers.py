"""Which weights of a PyTorch module take in given units, and what those units give to its bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deadunits_tb.revive.torch_graph import RECURRENT, Lost
from deadunits_tb.taps.torch.private import CONVOLUTIONS, TRANSPOSED


@dataclass(frozen=True, eq=False, slots=True)
class Outgoing:
    """Weights that some units feed.

    Attributes:
        weight: The parameter.
        mask: ``bool``, shaped like it: the weights that take in the units.
        bias: Beside it, None if there is none.
        shift: ``[outputs]`` what the units give on average, to be added to the bias; None for nothing.
    """

    weight: nn.Parameter
    mask: torch.Tensor
    bias: nn.Parameter | None
    shift: torch.Tensor | None


def outgoing(
    consumer: nn.Module, producer: nn.Module, units: torch.Tensor, total: int, means: torch.Tensor | None
) -> list[Outgoing]:
    """Find the weights with which a module takes in units.

    Args:
        consumer: The module.
        producer: The layer of the units; behind a flattening it decides their order.
        units: ``int64 [n]`` indices.
        total: How many units the layer has.
        means: ``[features]`` mean of each input of the consumer; None where those of the units are zero.

    Raises:
        Lost: The sizes do not fit, or the mean cannot be moved.
    """
    if isinstance(consumer, CONVOLUTIONS):
        found = [_convolution(consumer, units, total, means)]
    else:
        found = list(_matrices(consumer, producer, units, total, means))
    for one in found:
        if one.shift is not None and one.bias is None and bool((one.shift != 0).any()):
            raise Lost(f"{type(consumer).__name__} has no bias that could take over what they send on average")
    return found


def _matrices(consumer: Any, producer: nn.Module, units: torch.Tensor, total: int, means: torch.Tensor | None) -> Any:
    if isinstance(consumer, nn.Linear):
        names = [("weight", "bias")]
    elif isinstance(consumer, RECURRENT):
        ends = ["", "_reverse"] if consumer.bidirectional else [""]
        names = [(f"weight_ih_l0{end}", f"bias_ih_l0{end}") for end in ends]
    else:
        raise Lost(f"it is not known how {type(consumer).__name__} takes them in")
    for weight_name, bias_name in names:
        weight, bias = getattr(consumer, weight_name), getattr(consumer, bias_name, None)
        columns = _columns(weight.shape[1], total, producer)[units.cpu()].reshape(-1).to(weight.device)
        mask = torch.zeros_like(weight, dtype=torch.bool)
        mask[:, columns] = True
        shift = None if means is None else weight.detach()[:, columns].double() @ means[columns].double()
        yield Outgoing(weight, mask, bias, shift)


def _columns(features: int, total: int, producer: nn.Module) -> torch.Tensor:
    """``[units, repeats]``: where each unit lies in the input, flattened or not."""
    repeats, rest = divmod(features, total)
    if rest or not repeats:
        raise Lost(f"a layer of {features} inputs takes in {total} units, which do not fill them evenly")
    places = torch.arange(features)
    if isinstance(producer, CONVOLUTIONS):  # [examples, units, positions...]: unit by unit
        return places.view(total, repeats)
    return places.view(repeats, total).T  # [examples, positions, units]: position by position


def _convolution(consumer: Any, units: torch.Tensor, total: int, means: torch.Tensor | None) -> Outgoing:
    weight, groups = consumer.weight, consumer.groups
    if consumer.in_channels != total:
        raise Lost(f"a convolution of {consumer.in_channels} channels takes in {total} units")
    mask = torch.zeros_like(weight, dtype=torch.bool)
    if isinstance(consumer, TRANSPOSED):
        mask[units] = True
        if means is not None and bool((means[units.to(means.device)] != 0).any()):
            raise Lost("a transposed convolution takes them in: what they send is not the same at all positions")
        return Outgoing(weight, mask, consumer.bias, None)
    inputs, outputs = total // groups, weight.shape[0] // groups
    units = units.to(weight.device)
    grouped = mask.view(groups, outputs, *weight.shape[1:])
    grouped[units // inputs, :, units % inputs] = True
    shift = None
    if means is not None:
        kernel = weight.detach().double().flatten(2).sum(2).view(groups, outputs, inputs)
        only = torch.zeros(total, dtype=torch.float64, device=weight.device)
        only[units] = means.to(weight.device).double()[units]
        shift = (kernel @ only.view(groups, inputs, 1)).reshape(-1)
    return Outgoing(weight, mask, consumer.bias, shift)

"""Everything that changes when units of a PyTorch layer are revived, worked out before anything is changed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deadunits_tb.revive.policy import Candidate, LayerPlan
from deadunits_tb.revive.torch_consumers import Outgoing, outgoing
from deadunits_tb.revive.torch_graph import RECURRENT, Lost, Route
from deadunits_tb.revive.torch_initializer import Initializer, fresh_weight
from deadunits_tb.revive.torch_optimizer import forget
from deadunits_tb.revive.torch_target import unit_count
from deadunits_tb.taps.torch.private import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED


class Means:
    """What each module is fed on average, as a sample of inputs shows it."""

    def __init__(self, model: nn.Module, sample: Any) -> None:
        self._model, self._sample = model, sample

    @property
    def known(self) -> bool:
        """Whether there is a sample."""
        return self._sample is not None

    def into(self, modules: Iterable[nn.Module]) -> dict[nn.Module, torch.Tensor]:
        """``float64 [features]`` of each module that is called."""
        sums: dict[nn.Module, Any] = {}
        counts: Counter[nn.Module] = Counter()

        def look(module: nn.Module, args: Any) -> None:
            axis = -len(module.kernel_size) - 1 if isinstance(module, CONVOLUTIONS) else -1
            values = args[0].detach().double().movedim(axis, -1).flatten(0, -2)
            sums[module] = sums.get(module, 0) + values.sum(0)
            counts[module] += len(values)

        trained = [module for module in self._model.modules() if module.training]
        handles = [module.register_forward_pre_hook(look) for module in modules]
        arguments = self._sample if isinstance(self._sample, tuple) else (self._sample,)
        try:
            with torch.no_grad(), seeded(0):  # whatever the model draws, training draws the same as without us
                self._model.eval()(*arguments)
        finally:
            for module in trained:
                module.training = True
            for handle in handles:
                handle.remove()
        return {module: total / counts[module] for module, total in sums.items()}


@dataclass(eq=False, slots=True)
class Surgery:
    """Everything that changes for one layer, worked out before anything is changed."""

    plan: LayerPlan
    module: Any
    rows: torch.Tensor
    peer_rows: torch.Tensor
    units: torch.Tensor
    peers: torch.Tensor
    weight: torch.Tensor
    norms: tuple[Any, ...]
    outgoing: list[tuple[Outgoing, torch.Tensor]]

    @torch.no_grad()  # type: ignore[untyped-decorator]  # PyTorch is read without types
    def disconnect(self, optimizer: Any) -> None:
        """Nothing takes in the units any more; what they sent on average comes from the biases."""
        for one, peers in self.outgoing:
            if one.shift is not None and one.bias is not None:
                one.bias.add_(one.shift.to(one.bias.dtype))
            one.weight[one.mask] = 0
            forget(optimizer, one.weight, one.mask, peers)

    @torch.no_grad()  # type: ignore[untyped-decorator]  # PyTorch is read without types
    def renew(self, optimizer: Any) -> None:
        """New incoming weights and normalisation."""
        self.module.weight[self.rows] = self.weight[self.rows]
        forget(optimizer, self.module.weight, self.rows, self.peer_rows)
        vectors = [(self.module.bias, 0)]
        for norm in self.norms:
            vectors += [(norm.weight, 1), (norm.bias, 0)]
            if norm.running_mean is not None:
                norm.running_mean[self.units], norm.running_var[self.units] = 0, 1
        for vector, value in vectors:
            if vector is not None:
                vector[self.units] = value
                forget(optimizer, vector, _mask(vector, 0, self.units), _mask(vector, 0, self.peers))


def prepare(
    model: nn.Module, module: Any, route: Route, chosen: Candidate, initializer: Initializer, means: Means
) -> Surgery:
    """Work out everything that will change.

    Raises:
        Lost: The layer cannot be revived.
    """
    total = chosen.plan.total
    axis = _unit_axis(module)
    if unit_count(module) != total:
        raise Lost(f"it has {unit_count(module)} units, but records of {total}")
    for norm in route.norms:
        if not isinstance(norm, BATCH_NORMS) or norm.num_features != total:
            raise Lost(f"{type(norm).__name__} on the way does not normalise each of the {total} units by itself")
    _check_own(model, module, *route.norms, *route.consumers)
    if not module.weight.requires_grad:
        raise Lost("its weights are frozen")
    if not means.known and not (chosen.silent and route.zero_when_silent):
        raise Lost("what its units send is not known to be zero: give sample=, a batch of inputs, to ask the model")
    fed = means.into(route.consumers) if means.known else {}
    device = module.weight.device
    units, peers = (torch.as_tensor(each, dtype=torch.long, device=device) for each in (chosen.units, chosen.peers))
    taken = []
    for consumer in route.consumers:
        if means.known and consumer not in fed:
            raise Lost(f"the sample does not reach {type(consumer).__name__}, which takes its units in")
        to = outgoing(consumer, module, units, total, fed.get(consumer))
        likened = outgoing(consumer, module, peers, total, None)
        if not all(one.weight.requires_grad for one in to):
            raise Lost(f"{type(consumer).__name__}, which takes its units in, is frozen: they would stay disconnected")
        taken += [(one, peer.mask) for one, peer in zip(to, likened, strict=True)]
    return Surgery(
        plan=chosen.plan,
        module=module,
        rows=_mask(module.weight, axis, units),
        peer_rows=_mask(module.weight, axis, peers),
        units=units,
        peers=peers,
        weight=fresh_weight(module, initializer, chosen.function or route.function),
        norms=route.norms,
        outgoing=taken,
    )


def _unit_axis(module: Any) -> int:
    """Of the units in the weight.

    Raises:
        Lost: There is no known initializer for single units of such a layer.
    """
    if not isinstance(module, (nn.Linear, CONVOLUTIONS)) or "weight" not in module._parameters:
        kind = type(module).__name__
        raise Lost(f"there is no known initializer for single units of {kind}: Linear and Conv layers with weights of "
                   "their own can be revived")  # fmt: skip
    if not isinstance(module, TRANSPOSED):
        return 0
    if module.groups != 1:
        raise Lost("it is a transposed convolution in groups")
    return 1


def _check_own(model: nn.Module, *modules: nn.Module) -> None:
    """Refuse weights that are used elsewhere, too, or computed from others, or spread over machines."""
    users = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    for module in modules:
        kind = type(module).__name__
        names = ("weight_ih_l0", "bias_ih_l0") if isinstance(module, RECURRENT) else ("weight", "bias")
        for name in names:
            value = getattr(module, name, None)
            if value is None:
                continue
            if name not in module._parameters:
                raise Lost(f"the {name} of {kind} is computed from other parameters")
            if users[id(value)] > 1:
                raise Lost(f"the {name} of {kind} is tied to another layer's")
            if hasattr(value, "device_mesh") or isinstance(value, nn.parameter.UninitializedTensorMixin):
                raise Lost(f"the {name} of {kind} is not whole on this machine, or not there yet")


def _mask(parameter: torch.Tensor, axis: int, units: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros_like(parameter, dtype=torch.bool)
    mask.movedim(axis, 0)[units.to(mask.device)] = True
    return mask


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw random numbers from a seed of one's own, or, with None, as always."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield

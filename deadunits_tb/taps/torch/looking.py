"""What steps that become records look at beside their passes: inputs, weights and their gradients, learning rate."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from deadunits_tb.taps.torch.layers import UnitLayer
from deadunits_tb.taps.torch.pack import Fields
from deadunits_tb.taps.torch.reductions import value_summary
from deadunits_tb.taps.torch.trails import Consumer
from deadunits_tb.taps.torch.weights import WeightWatch

Layers = Callable[[], Mapping[str, UnitLayer]]


@dataclass(eq=False, slots=True)
class Look:
    """One observed step.

    Attributes:
        weights: Looks at them.
        optimizer: That makes the step, None where nobody says.
        parameters: Of the model.
        wanted: Whether the step is one that looks at more than its passes.
        fields: What was found, still on the device.
        numbers: What was found and is known to the host.
    """

    weights: WeightWatch
    optimizer: Any
    parameters: Callable[[], Any]
    wanted: bool = False
    fields: Fields = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    _prepared: bool = False
    _before: dict[str, list[Any]] = field(default_factory=dict)
    _versions: list[int] = field(default_factory=list)

    def prepare(self, inputs: Sequence[Any], layers: Layers, *, tokens: bool) -> None:
        """Before the first pass: what will not be as it is then.

        Args:
            inputs: Of the model.
            layers: Gives those whose weights are known, by name.
            tokens: Whether the model looks up embeddings.
        """
        if not self.wanted or self._prepared:
            return
        self._prepared = True
        numbers = [tensor for tensor in _tensors(inputs) if _is_numeric(tensor, tokens=tokens)]
        if numbers:
            with torch.no_grad():
                self.fields["inputs"] = value_summary(numbers)
        if self.optimizer is None:
            self._versions = self._now()
            self._before = self.weights.before(layers())

    def before(self, layers: Layers) -> None:
        """Before the optimizer's step."""
        self._before = self.weights.before(layers())

    def skipping(self) -> None:
        """Whether a scaler has the optimizer skip the step, where such an optimizer does so by itself."""
        skipped = self._scaling("found_inf")
        if skipped is not None:
            self.fields["skipped"] = skipped.detach().clone()

    def gradients(self, layers: Layers) -> None:
        """Gradients of weights, when they are there."""
        self.fields |= self.weights.gradients(layers(), self._scaling("grad_scale"))

    def _scaling(self, what: str) -> Any:
        """Of an optimizer that unscales, and skips, within its step."""
        return getattr(self.optimizer, what, None) if hasattr(self.optimizer, "_step_supports_amp_scaling") else None

    @property
    def moved(self) -> bool:
        """Without an optimizer: whether the weights were changed since; if not, that is later, where nobody looks."""
        return self._now() != self._versions

    def around(self, layers: Layers, consumers: Callable[[], Mapping[str, Sequence[Consumer]]], *, moved: bool) -> None:
        """After the step: its weights, if it is one that looks at them, and the learning rate.

        Args:
            layers: Gives those whose weights are known, by name.
            consumers: Gives the weights that take in each layer's units.
            moved: Whether the weights were changed.
        """
        if self.wanted:
            self.fields |= self.weights.around(self._before, layers(), moved=moved)
            self.fields |= self.weights.outgoing(consumers())
        rate = _learning_rate(self.optimizer)
        if isinstance(rate, torch.Tensor):
            self.fields["learning_rate"] = rate.detach().clone()
        elif rate is not None:
            self.numbers["learning_rate"] = rate

    def _now(self) -> list[int]:
        return [parameter._version for parameter in self.parameters() if _has_numbers(parameter)]


def fed(batch: Any) -> list[Any]:
    """What of a batch, or of a model's named arguments, a model takes in; not what its outputs are compared with.

    Pairs begin with the inputs; elsewhere the names tell.
    """
    if isinstance(batch, Mapping):
        return [value for name, value in batch.items() if name != "y" and not _OF_TARGETS.search(str(name))]
    return list(batch[:1]) if isinstance(batch, (list, tuple)) else [batch]


_OF_TARGETS = re.compile("label|target", re.IGNORECASE)


def _learning_rate(optimizer: Any) -> Any:
    """The largest of all groups, or a tensor."""
    rates = [] if optimizer is None else [group["lr"] for group in optimizer.param_groups if "lr" in group]
    if not rates:
        return None
    if any(isinstance(rate, torch.Tensor) for rate in rates):
        return torch.stack([torch.as_tensor(rate).detach().float().reshape(()) for rate in rates]).amax()
    return max(float(rate) for rate in rates)


def _has_numbers(parameter: Any) -> bool:
    return not isinstance(parameter, torch.nn.parameter.UninitializedTensorMixin)


def _is_numeric(tensor: Any, *, tokens: bool) -> bool:
    if not (tensor.numel() and tensor.dim()) or tensor.layout != torch.strided or tensor.is_complex():
        return False  # a single number is a setting
    # Where there are embeddings whole numbers are names of tokens, elsewhere perhaps pixels.
    return bool(tensor.is_floating_point() or (tensor.dtype != torch.bool and not tokens))


def _tensors(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, Mapping):
            yield from _tensors(tuple(value.values()))

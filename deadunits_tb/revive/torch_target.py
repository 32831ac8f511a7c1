"""What is to be revived in PyTorch: which units of which model, as records or the user say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.record import NEVER
from deadunits_tb.revive.policy import Candidate, RevivePolicy, by_hand, candidates


@dataclass(eq=False, slots=True)
class Target:
    """What is to be revived."""

    model: nn.Module
    optimizer: Any
    monitor: Monitor | None
    units: Mapping[str, Any] | None
    step: int

    @classmethod
    def of(cls, watched: Any, optimizer: Any, units: Mapping[str, Any] | None) -> Target:
        """From what a user gave.

        Raises:
            InvalidArgumentError: It is no watched model, nor a model with units.
        """
        while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):  # wrapped, as by Accelerate
            optimizer = optimizer.optimizer
        if isinstance(watched, nn.Module):
            if not isinstance(units, Mapping):
                raise InvalidArgumentError(
                    "with a model, units must say what to revive, such as units={'fc1': [3, 17]}; "
                    "with what watch() returned, its records say it"
                )
            return cls(_inner(watched), optimizer, None, units, NEVER)
        tap, monitor = getattr(watched, "_tap", None), getattr(watched, "_monitor", None)
        if tap is None or not isinstance(monitor, Monitor):
            raise InvalidArgumentError(
                f"revive() takes what watch() returned, or a torch.nn.Module with units=, not {type(watched).__name__}"
            )
        if units is not None:
            raise InvalidArgumentError(
                "units are chosen by the monitor's records: give the model instead to choose them"
            )
        tap.hand_over()
        return cls(tap._model, optimizer or tap._optimizer, monitor, None, tap.number - 1)

    def module(self, name: str) -> nn.Module | None:
        """Of that name, None if it is something else."""
        return dict(self.model.named_modules(remove_duplicate=False)).get(name)

    def name(self, layer: str | nn.Module) -> str:
        """Of a layer that a user named.

        Raises:
            UnknownNameError: There is none such.
        """
        names = {name: module for name, module in self.model.named_modules() if name}
        for name, module in names.items():
            if layer is module or layer == name:
                return str(name)
        raise UnknownNameError.of("layer", layer if isinstance(layer, str) else type(layer).__name__, names)

    def choose(self, policy: RevivePolicy, named: set[str] | None) -> tuple[list[Candidate], dict[str, str]]:
        """The units to revive, and layers that may not be."""
        if self.units is None:
            assert self.monitor is not None
            return candidates(self.monitor, policy, self.step, named)
        given = {self.name(layer): units for layer, units in self.units.items()}
        return [by_hand(name, units, unit_count(self.module(name))) for name, units in given.items()], {}


def unit_count(module: Any) -> int:
    """How many units a module has.

    Raises:
        InvalidArgumentError: It has none that could be revived.
    """
    for name in ("out_features", "out_channels"):
        if hasattr(module, name):
            return int(getattr(module, name))
    raise InvalidArgumentError(
        f"{type(module).__name__} has no units that could be revived: Linear and Conv layers have"
    )


def _inner(model: nn.Module) -> nn.Module:
    """The module that a wrapper runs."""
    while isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        model = model.module
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model

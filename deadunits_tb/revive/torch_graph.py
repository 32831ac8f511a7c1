"""Where the units of a PyTorch layer go: normalisation on the way, and every layer that takes them in.

Told by ``torch.fx``, which runs the model's own code on symbols. Where that code cannot be traced, or the units meet
others on their way, the answer is a reason, and the user may name the layers instead.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from deadunits_tb.capture.activation_functions import field_name
from deadunits_tb.taps.torch.private import BATCH_NORMS, CONVOLUTIONS

RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
COUPLING = frozenset({"softmax", "log_softmax", "sparsemax", "glu", "maxout", "crelu"})
"""Activation functions in which one unit's output depends on others."""
ZERO_WHEN_SILENT = frozenset({"relu", "relu6", "squared_relu"})
_PASSING = frozenset(
    {
        *("identity", "dropout", "dropout1d", "dropout2d", "dropout3d", "alphadropout", "featurealphadropout"),
        *("contiguous", "clone", "float", "double", "half", "to", "type", "flatten", "view", "reshape"),
    }
)
"""Modules, functions and methods that hand units on, each in its place; small letters without underscores."""
_OVER_POSITIONS = frozenset(
    {
        *(f"{kind}pool{rank}d" for kind in ("max", "avg", "adaptivemax", "adaptiveavg") for rank in (1, 2, 3)),
        *(f"zeropad{rank}d" for rank in (1, 2, 3)),
        "mean",
    }
)
"""Likewise, behind convolutions alone: behind other layers their axes would be those of the units."""
_ADDING = (operator.add, operator.iadd, operator.sub, operator.isub, torch.add, torch.sub, "add", "add_", "sub")


class Lost(Exception):
    """It is not known where the units go; the message says why."""


@dataclass(eq=False, slots=True)
class Route:
    """Where the units of one layer go.

    Attributes:
        consumers: Modules that take them in, each once.
        norms: Batch normalisations that they pass.
        function: The first activation function on the way, None if unknown.
        zero_when_silent: Whether a unit that does not fire sends exact zeros to every consumer.
    """

    consumers: tuple[nn.Module, ...]
    norms: tuple[nn.Module, ...]
    function: str | None
    zero_when_silent: bool


class Graph:
    """What ``torch.fx`` tells of a model.

    Args:
        model: The model; its own code runs once, on symbols.

    Attributes:
        problem: Why the model could not be traced, None if it was.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self.problem: str | None = None
        self._nodes: list[fx.Node] = []
        try:
            self._nodes = list(fx.Tracer().trace(model).nodes)
        except Exception as error:  # whatever the model's own code does with symbols
            said = (str(error) or type(error).__name__).splitlines()[0]
            self.problem = f"torch.fx cannot trace {type(model).__name__} ({said})"

    def route(self, layer: nn.Module) -> Route:
        """Follow the units of a layer.

        Raises:
            Lost: It is not known where they all go, or they are not the layer's alone.
        """
        if self.problem is not None:
            raise Lost(self.problem)
        calls = self._calls(layer)
        if not calls:
            raise Lost("the model does not call it as a module")
        walk = _Walk(self._modules, isinstance(layer, CONVOLUTIONS))
        for call in calls:
            walk.follow(call, None, silent_zero=False)
        for module in (*walk.consumers, *walk.norms):
            if {id(node) for node in self._calls(module)} - walk.seen:
                raise Lost(f"{self._name(module)} also takes in other units")
        if not walk.consumers:
            raise Lost("nothing takes in its units")
        return Route(tuple(walk.consumers), tuple(walk.norms), walk.function, walk.zero_when_silent)

    def _calls(self, module: nn.Module) -> list[fx.Node]:
        return [
            node for node in self._nodes if node.op == "call_module" and self._modules.get(str(node.target)) is module
        ]

    def _name(self, module: nn.Module) -> str:
        return str(next(name for name, each in self._modules.items() if each is module))


class _Walk:
    def __init__(self, modules: Mapping[str, nn.Module], convolution: bool) -> None:
        self._modules, self._convolution = modules, convolution
        self.consumers: dict[nn.Module, None] = {}
        self.norms: dict[nn.Module, None] = {}
        self.function: str | None = None
        self.zero_when_silent = True
        self.seen: set[int] = set()

    def follow(self, node: fx.Node, function: str | None, *, silent_zero: bool) -> None:
        """Follow what a node gives.

        Args:
            node: Of the graph.
            function: The activation function behind which it lies, None before it.
            silent_zero: Whether a silent unit is exactly zero here.
        """
        for user in node.users:
            self._step(user, function, silent_zero)

    def _step(self, user: fx.Node, function: str | None, silent_zero: bool) -> None:
        module = self._modules.get(str(user.target)) if user.op == "call_module" else None
        name = _operation(user, module)
        if user.op == "output":
            raise Lost("its units are part of the model's output")
        if name in ("size", "shape", "dim", "getattr"):
            return  # asks for the shape only
        if module is not None and isinstance(module, (nn.Linear, CONVOLUTIONS, *RECURRENT)):
            self.seen.add(id(user))
            self.consumers.setdefault(module)
            self.zero_when_silent &= silent_zero
            return
        if module is not None and isinstance(module, BATCH_NORMS) and not isinstance(module, _INSTANCE_NORMS):
            self.seen.add(id(user))
            self.norms.setdefault(module)
            self.follow(user, function, silent_zero=False)
            return
        known = field_name(name)
        if known in COUPLING:
            raise Lost(f"{name} mixes them with others")
        if known is not None and known != "linear":
            self.function = self.function or known
            zero = known in ZERO_WHEN_SILENT and function is None
            self.follow(user, known, silent_zero=zero or (silent_zero and known in ZERO_WHEN_SILENT))
            return
        tight = name.lower().replace("_", "")
        if tight in _PASSING or (self._convolution and tight in _OVER_POSITIONS):
            self.follow(user, function, silent_zero=silent_zero and "alpha" not in tight)
            return
        if user.target in _ADDING or name in ("add", "iadd", "sub", "isub"):
            raise Lost("its units are added to others, as in a residual stream")
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)) or "norm" in name.lower():
            raise Lost(f"{name} mixes them with others")
        raise Lost(f"they go through {name}, of which it is not known how it takes them in")


def _operation(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return type(module).__name__
    target: Any = node.target
    if target is getattr and node.args[1:] == ("shape",):
        return "shape"
    return target if isinstance(target, str) else str(getattr(target, "__name__", target)).strip("_")

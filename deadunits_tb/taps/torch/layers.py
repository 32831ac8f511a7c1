"""Which modules of a PyTorch model have units, and where their units and weights lie."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from deadunits_tb.capture.activation_functions import field_name
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.taps.torch import private as torch_private
from deadunits_tb.taps.torch.distributed import is_sharded
from deadunits_tb.units import LOOKUP

NORMS = (torch_private.BATCH_NORMS, nn.LayerNorm, nn.GroupNorm, *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []))
RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
WITH_UNITS = (nn.Linear, torch_private.CONVOLUTIONS, *RECURRENT, *CELLS, nn.MultiheadAttention)
_PLAIN_FORWARDS = frozenset(
    getattr(nn, name).forward
    for name in ("Linear", *(f"Conv{kind}{rank}d" for kind in ("", "Transpose") for rank in (1, 2, 3)))
)
_OUTSIDE_TORCH = re.compile("(activation|actv|act)$", re.IGNORECASE)


@dataclass(frozen=True, eq=False, slots=True)
class Weights:
    """A parameter, and how it is seen as one row for each unit.

    Attributes:
        parameter: Of any shape.
        rows: Makes ``[units, weights of each]`` of a tensor shaped like the parameter.
    """

    parameter: Any
    rows: Callable[[Any], Any] = torch.Tensor.detach

    @property
    def ready(self) -> bool:
        """Whether it has numbers: those of lazy modules come with the first batch."""
        return not isinstance(self.parameter, nn.parameter.UninitializedTensorMixin)

    @property
    def first_axis(self) -> bool:
        """Whether the units lie along the first axis, as the parts of sharded parameters do."""
        return self.rows is _first_axis


@dataclass(eq=False, slots=True)
class UnitLayer:
    """A module with units, or one whose own parameter is used as weights of a linear map.

    Attributes:
        module: The module.
        name: Unique in the model.
        incoming: Groups of units, each with the weights that lead to them; empty if they cannot be told.
        axis: Of the units in the output, counted from the end, None for convolutions, where it depends on the batch.
        examples: Axis of the examples in outputs of three axes.
        convolution: Whether the other axes are positions of one image or signal, never tokens.
        at_output: Whether only the output is seen, from outside of what computes it.
        function: Where only the output is seen, the activation function.
        linear: Whether nothing but a linear map can follow, as behind attention.
        rows: Whether the units are rows of a table that are looked up.
        is_output: Whether the user called it an output layer.
    """

    module: Any
    name: str
    incoming: tuple[tuple[Weights, ...], ...] = ()
    axis: int | None = -1
    examples: int = 0
    convolution: bool = False
    at_output: bool = False
    function: str | None = None
    linear: bool = False
    rows: bool = False
    is_output: bool = False

    @property
    def kind(self) -> str:
        """Its class, which a lazy module changes with its first batch, and a parametrized one when it becomes that."""
        return torch_private.class_name(self.module).removeprefix("Parametrized")

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights at present."""
        weights = [weights.parameter for group in self.incoming for weights in group]
        return any(parameter.requires_grad for parameter in weights or self.module.parameters())

    @property
    def fan_in(self) -> int | None:
        """Inputs of one unit, None if unknown."""
        if not self.incoming or not all(weights.ready for weights in self.incoming[0]):
            return None
        with torch.no_grad():
            shapes = [weights.rows(torch.empty(weights.parameter.shape, device="meta")) for weights in self.incoming[0]]
        return sum(int(shape.shape[1]) for shape in shapes)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a model is made of.

    Attributes:
        watched: Layers with units that are to be watched, by name.
        by_weight: Those that are recognised by their weight, by ``id`` of the parameter.
        by_module: Those that are recognised by a hook on their module.
        loose: Parameters that may turn out to be weights of a linear map, by ``id``, with the layer they would be.
        activations: Modules outside of PyTorch's own that are activation functions, with the field's name of it.
        skipped: Name of each other layer with weights to the reason.
        tokens: Whether the model looks up embeddings, so that positions of a sequence are tokens.
        signature: Changes when modules or parameters are added.
        sharded: Whether each process holds only a part of each parameter.
    """

    watched: Mapping[str, UnitLayer]
    by_weight: Mapping[int, UnitLayer]
    by_module: tuple[UnitLayer, ...]
    loose: Mapping[int, UnitLayer] = field(default_factory=dict)
    activations: tuple[tuple[Any, str], ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    tokens: bool = False
    signature: tuple[int, ...] = ()
    sharded: bool = False


def survey(model: Any, chosen: Sequence[str | Any] | None = None, outputs: Sequence[str | Any] | None = None) -> Survey:
    """Look through a model.

    Args:
        model: The model.
        chosen: Layers to watch, by name or object; a module stands for all within it. None for all.
        outputs: Layers to be called output layers; None to find them by what the model returns.

    Raises:
        UnknownNameError: The model has no such layer.
        InvalidArgumentError: There is nothing to watch.
    """
    modules = {
        torch_private.own_path(path): module
        for path, module in model.named_modules()
        if not torch_private.is_wrapper(module)
    }
    wanted = None if chosen is None else _chosen(modules, chosen)
    named_outputs = set() if outputs is None else _chosen(modules, outputs)
    users = Counter(id(p) for module in modules.values() for p in module.parameters(recurse=False))
    sequence_first = _sequence_first(modules)
    watched: dict[str, UnitLayer] = {}
    by_weight: dict[int, UnitLayer] = {}
    by_module: list[UnitLayer] = []
    loose: dict[int, UnitLayer] = {}
    activations: list[tuple[Any, str]] = []
    skipped: dict[str, str] = {}
    hidden: set[int] = set()
    for path, module in modules.items():
        if isinstance(module, nn.MultiheadAttention):
            hidden |= {id(inner) for inner in module.modules() if inner is not module}
        if id(module) in hidden or _inside_parametrization(path) or isinstance(module, (*NORMS, nn.PReLU)):
            continue
        name = path or type(module).__name__
        here = wanted is None or id(module) in wanted
        if isinstance(module, WITH_UNITS) or (isinstance(module, EMBEDDINGS) and wanted is not None and here):
            layer = describe(module, name, examples=1 if id(module) in sequence_first else 0)
            if isinstance(module, nn.MultiheadAttention):
                skipped[f"{name}.in_proj"] = "queries, keys and values are computed inside of PyTorch's own attention"
            for level in range(getattr(module, "num_layers", 1) - 1 if isinstance(module, RECURRENT) else 0):
                skipped[f"{name}.l{level}"] = "an inner level of a stack of which only the last level's output is seen"
            if not here:
                continue
            layer.is_output = outputs is not None and id(module) in named_outputs
            watched[layer.name] = layer
            weights = [weights.parameter for group in layer.incoming for weights in group]
            plain = type(module).forward in _PLAIN_FORWARDS and len(weights) == 1 and users[id(weights[0])] == 1
            if plain and not is_sharded(weights[0]):  # another tensor is there while a sharded module is called
                by_weight[id(weights[0])] = layer
            else:
                by_module.append(layer)
            continue
        function = _activation_module(module)
        if function is not None:
            activations.append((module, function))
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if isinstance(module, EMBEDDINGS):
                skipped[name] = "a table whose rows are looked up: a row not seen is not dead"
            if isinstance(parameter, nn.parameter.UninitializedTensorMixin) or parameter.dim() < 2 or not here:
                continue
            label = name if own == "weight" and not isinstance(module, EMBEDDINGS) else f"{path}.{own}".lstrip(".")
            loose.setdefault(id(parameter), UnitLayer(module, label))
            if not isinstance(module, EMBEDDINGS):
                skipped[label] = f"not used as the weights of a linear map or a convolution in {type(module).__name__}"
    if not watched and all(isinstance(layer.module, EMBEDDINGS) for layer in loose.values()):
        raise InvalidArgumentError(_nothing(model, modules, chosen))
    taken = {id(one.parameter) for layer in watched.values() for group in layer.incoming for one in group}
    return Survey(
        watched,
        by_weight,
        tuple(by_module),
        {key: layer for key, layer in loose.items() if key not in taken},
        tuple(activations),
        {} if wanted is not None else skipped,
        any(isinstance(module, EMBEDDINGS) for module in modules.values()),
        signature(model),
        any(is_sharded(parameter) for parameter in model.parameters()),
    )


def signature(model: Any) -> tuple[int, ...]:
    """Changes when modules or parameters are added to a model."""
    return (*(id(module) for module in model.modules()), *(id(parameter) for parameter in model.parameters()))


def renamed(now: Survey, before: Survey) -> Survey:
    """A later survey, in which a name that stood for another module before is another one: it has its own history."""
    watched = {}
    for name, layer in now.watched.items():
        unique, number = name, 2
        while unique in before.watched and before.watched[unique].module is not layer.module:
            unique, number = f"{name}#{number}", number + 1
        layer.name = unique
        watched[unique] = layer
    gone = {name: layer for name, layer in before.watched.items() if name not in watched}
    return replace(now, watched=gone | watched)


def describe(module: Any, name: str, *, examples: int = 0) -> UnitLayer:
    """Tell the units and weights of a module of a kind in :data:`WITH_UNITS`, or of an embedding.

    Args:
        module: The module.
        name: Of the layer.
        examples: Axis of the examples in outputs of three axes.
    """
    if isinstance(module, nn.MultiheadAttention):
        out_proj = ((Weights(module.out_proj.weight, _first_axis),),)
        examples = 0 if module.batch_first else 1
        return UnitLayer(module, f"{name}.out_proj", out_proj, examples=examples, linear=True)
    if isinstance(module, (*RECURRENT, *CELLS)):
        return _describe_recurrent(module, name)
    if isinstance(module, EMBEDDINGS):
        return UnitLayer(module, name, ((Weights(module.weight, _first_axis),),), rows=True, function=LOOKUP)
    incoming: tuple[tuple[Weights, ...], ...] = ()
    weight = vars(module).get("_parameters", {}).get("weight")
    if weight is not None:
        transposed = isinstance(module, torch_private.TRANSPOSED)
        rows = _second_axis(module.groups) if transposed else _first_axis
        incoming = ((Weights(weight, rows),),)
    convolution = isinstance(module, torch_private.CONVOLUTIONS)
    axis = -1 - len(module.kernel_size) if convolution else -1
    return UnitLayer(module, name, incoming, axis, examples, convolution)


def with_loose_weight(layer: UnitLayer, parameter: Any, axis: int, convolution: bool) -> UnitLayer:
    """A layer whose parameter was met as the weights of a linear map, with units along ``axis``."""
    rows = _first_axis if axis == 0 else _last_axis
    axis_out = 1 - parameter.dim() if convolution else -1
    return UnitLayer(layer.module, layer.name, ((Weights(parameter, rows),),), axis_out, convolution=convolution)


def _describe_recurrent(module: Any, name: str) -> UnitLayer:
    cell = isinstance(module, CELLS)
    projected = getattr(module, "proj_size", 0)
    endings = [""] if cell else [f"_l{module.num_layers - 1}"]
    if getattr(module, "bidirectional", False):
        endings.append(f"{endings[0]}_reverse")
    incoming = []
    for ending in endings:
        kinds = ("weight_hr",) if projected else ("weight_ih", "weight_hh")
        group = [vars(module)["_parameters"].get(f"{kind}{ending}") for kind in kinds]
        rows = _first_axis if projected else _gates(module.hidden_size)
        incoming.append(tuple(Weights(parameter, rows) for parameter in group if parameter is not None))
    known = all(incoming)
    function = getattr(module, "nonlinearity", None) or "tanh"
    return UnitLayer(
        module,
        name,
        tuple(incoming) if known else (),
        examples=0 if cell or module.batch_first else 1,
        at_output=True,
        # The output of an LSTM or GRU is a gated mixture of bounded values: it saturates as tanh does.
        function="custom" if projected else function,
    )


def _first_axis(value: Any) -> Any:
    return value.flatten(1)


def _last_axis(value: Any) -> Any:
    return value.flatten(0, -2).t()


def _second_axis(groups: int) -> Callable[[Any], Any]:
    def rows(value: Any) -> Any:  # [inputs, units of a group, ...], the inputs of one group after the other
        grouped = value.unflatten(0, (groups, value.shape[0] // groups)).transpose(1, 2)
        return grouped.flatten(0, 1).flatten(1)

    return rows


def _gates(units: int) -> Callable[[Any], Any]:
    def rows(value: Any) -> Any:  # [gates x units, inputs]
        return value.unflatten(0, (value.shape[0] // units, units)).transpose(0, 1).flatten(1)

    return rows


def _activation_module(module: Any) -> str | None:
    """The field's name of the activation function that a module outside of PyTorch is, by the name of its class.

    Libraries write some out in elementary functions, ``tanh`` among them, which would be mistaken for the whole.
    """
    kind = type(module)
    leaf = len(list(module.children())) == len(list(module.parameters())) == 0
    if kind.__module__.startswith("torch.") or not leaf:
        return None
    name = _OUTSIDE_TORCH.sub("", kind.__name__)
    if "gelu" in name.lower():
        return "gelu"
    known = {"ReLUSquared": "squared_relu", "SquaredReLU": "squared_relu", "Laplace": "custom", "XIELU": "custom"}
    return known.get(name) or field_name(name)


def _sequence_first(modules: Mapping[str, Any]) -> set[int]:
    """Linear layers within PyTorch's own transformers, where the sequence is the first axis and not the batch."""
    kinds = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    blocks = [module for module in modules.values() if isinstance(module, kinds) and not module.self_attn.batch_first]
    return {id(inner) for block in blocks for inner in block.modules()}


def _inside_parametrization(path: str) -> bool:
    return "parametrizations" in path.split(".")


def _nothing(model: Any, modules: Mapping[str, Any], chosen: Sequence[Any] | None) -> str:
    if chosen is not None:
        called = ", ".join(one if isinstance(one, str) else type(one).__name__ for one in chosen)
        return f"none of the layers to watch has units: {called}"
    kinds = sorted({type(module).__name__ for module in modules.values()})
    return (
        f"{type(model).__name__} has no layer that can be watched, only {', '.join(kinds[:10])}: deadunits_tb watches "
        "linear layers, convolutions, recurrent layers and attention; for others there is DeadUnitsWriter"
    )


def _chosen(modules: Mapping[str, Any], chosen: Iterable[str | Any]) -> set[int]:
    wanted: set[int] = set()
    for one in chosen:
        one = torch_private.own_path(one) if isinstance(one, str) else torch_private.unwrapped(one)[-1]
        found = [module for path, module in modules.items() if (path == one if isinstance(one, str) else module is one)]
        if not found and isinstance(one, str):
            parents = [modules[path] for path in (one.rpartition(".")[0],) if path in modules]
            found = [module for module in parents if _owns(module, one.rpartition(".")[2])]
        if not found:
            known = [path for path in modules if path]
            raise UnknownNameError.of("layer", one if isinstance(one, str) else type(one).__name__, known)
        wanted.update(id(inner) for module in found for inner in module.modules())
    return wanted


def _owns(module: Any, name: str) -> bool:
    return name in vars(module).get("_parameters", {})


def sizes(layer: UnitLayer) -> Iterator[int]:
    """How many numbers each of a layer's weights has."""
    for group in layer.incoming:
        for weights in group:
            yield math.prod(weights.parameter.shape)

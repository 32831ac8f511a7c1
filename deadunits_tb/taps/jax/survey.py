"""Find the layers of a function in JAX, and the activation function behind each, in what JAX has traced of it.

A *trail* begins where parameters of two axes or more are multiplied with something, and is handed on by normalisation,
dropout, pooling, additions, casts and reshapes to the first activation function. Where it is lost before, the layer
counts as linear. Nothing is run here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.extend import core

from deadunits_tb.certificate import PROVABLE
from deadunits_tb.taps.jax.feeds import Feed, feed_of
from deadunits_tb.taps.jax.operations import NO_FUNCTION, function_of, gate, moved_axes, moved_units
from deadunits_tb.taps.jax.plan import Layer
from deadunits_tb.taps.jax.way import COMPUTED, SAME, SEVERAL, Way, cast_to, is_zero, own_axis, vector_axis

Path = tuple[int, ...]
"""Of an operation: its number, after those of the compiled functions around it."""

_UNSEEN = "its weights are used in no product outside of scan, while_loop, cond and checkpoint: use observe() there"
_CLOSED = frozenset({"scan", "while", "cond", "checkpoint", "remat", "remat2", "shard_map"})
"""Operations that are not looked into."""
_WEIGHT_KEYS = frozenset({"kernel", "weight", "w"})


@dataclass(frozen=True, slots=True)
class Leaf:
    """Picks one array out of the parameters."""

    number: int

    def __call__(self, params: Any) -> Any:
        """The array."""
        return jax.tree.leaves(params)[self.number]


@dataclass(frozen=True, slots=True)
class Tap:
    """Where a layer is looked at.

    Attributes:
        layer: Its name.
        operand: Of the activation function that takes the layer in; None to look at what a linear layer gives out.
        length: Of how many operations the activation function consists.
    """

    layer: str
    operand: int | None = None
    length: int = 1


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        layers: By name, in the order of their calls.
        taps: Where to look.
        opened: Compiled functions that have taps within.
        skipped: Name of what is not watched to the reason.
        feeds: Products whose inputs are looked at.
        unproved: Name of a layer of whose dead units nothing can be proved to the reason.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    taps: dict[Path, Tap] = field(default_factory=dict)
    opened: set[Path] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    feeds: dict[Path, Feed] = field(default_factory=dict)
    unproved: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Weight:
    """A parameter, or what a cast or transposition has made of it: which, and which of its axes each axis is."""

    number: int
    axes: tuple[int, ...]
    own: bool = True
    """Whether its values are still those of the parameter."""
    eps: float = 0.0
    """The coarsest precision that it was cast to."""


@dataclass(frozen=True, slots=True)
class _Vector:
    """A parameter along one axis, constant along all others, as biases are brought to the shape of what they meet."""

    number: int
    axis: int
    eps: float


@dataclass(slots=True)
class _Trail:
    """One call of a layer on its way to an activation function."""

    name: str
    layer: Layer
    at: Path
    """Where to look."""
    axes: tuple[int, ...]
    """Of the units there."""
    product: Path
    feed: Feed | None
    """What it takes in, None where that cannot be told feature by feature."""
    function: str | None = None
    taken: Tap | None = None
    way: Way = field(default_factory=Way)

    def end(self, function: str, at: Path, tap: Tap, units: _Units) -> None:
        """An activation function takes the layer in."""
        self.function, self.at, self.taken, self.axes, self.way = function, at, tap, units.axes, units.way


@dataclass(frozen=True, slots=True)
class _Units:
    """A trail has come to here: axes of the units."""

    trail: _Trail
    axes: tuple[int, ...]
    way: Way


@dataclass(frozen=True, slots=True)
class _Known:
    """Of one value: parameters are there from the start, units on a trail, sources are the layers it depends on."""

    what: _Weight | _Vector | _Units | None = None
    param: bool = False
    sources: frozenset[str] = frozenset()
    zero: bool = False
    """Whether it is zero everywhere."""


_NOTHING, _ZERO = _Known(), _Known(zero=True)


def survey(jaxpr: Any, names: Sequence[str], numbers: Sequence[int]) -> Survey:
    """Find the layers of a traced function.

    Args:
        jaxpr: Of the function; its first inputs are the parameters.
        names: Of the parameters, in their order.
        numbers: Of the parameters among all leaves of their tree.
    """
    walk = _Walk(names, numbers)
    inputs = [
        _Known(_Weight(at, tuple(range(len(var.aval.shape)))), param=True) if at < len(names) else _NOTHING
        for at, var in enumerate(jaxpr.invars)
    ]
    walk.through(jaxpr, inputs, ())
    return walk.found(jaxpr)


class _Walk:
    def __init__(self, names: Sequence[str], numbers: Sequence[int]) -> None:
        self._names = names
        self._numbers = numbers
        self._trails: list[_Trail] = []
        self._consumed: set[str] = set()

    def through(self, jaxpr: Any, inputs: Sequence[_Known], path: Path) -> list[_Known]:
        known: dict[Any, _Known] = dict(zip(jaxpr.invars, inputs, strict=True))

        def of(atom: Any) -> _Known:
            if isinstance(atom, core.Literal):
                return _ZERO if is_zero(atom) else _NOTHING
            return known.get(atom, _NOTHING)

        behind = 0  # operations that belong to an activation function before them
        for number, eqn in enumerate(jaxpr.eqns):
            operands = [of(atom) for atom in eqn.invars]
            sources: frozenset[str] = frozenset().union(*(each.sources for each in operands))
            if behind := max(behind - 1, self._gate(jaxpr, number, operands, path)):
                known.update(dict.fromkeys(eqn.outvars, _Known(None, False, sources)))
            else:
                known.update(zip(eqn.outvars, self._after(eqn, operands, (*path, number)), strict=True))
        return [of(atom) for atom in jaxpr.outvars]

    def found(self, jaxpr: Any) -> Survey:
        survey, alike = Survey(), dict[str, list[_Trail]]()
        for trail in self._trails:
            first = survey.layers.get(trail.name)
            axes = trail.axes
            layer = Layer(
                units=trail.layer.units,
                activation_function=trail.function or "linear",
                unit_axis=axes[0] if len(axes) == 1 else axes,
                weights=trail.layer.weights,
                weight_unit_axis=trail.layer.weight_unit_axis,
                role="hidden" if trail.name in self._consumed else "output",
                kind=trail.layer.kind,
            )
            if first is not None and (first.activation_function, first.unit_axis) != (
                layer.activation_function,
                layer.unit_axis,
            ):
                continue  # the same weights in another role: only what is like the first call is looked at
            survey.layers[trail.name] = first or layer
            survey.taps[trail.at] = trail.taken or Tap(trail.name)
            survey.opened |= _around(trail.at)
            alike.setdefault(trail.name, []).append(trail)
        for name, trails in alike.items():
            if survey.layers[name].activation_function in PROVABLE:
                self._prove(survey, name, trails)
        for at, name in enumerate(self._names):
            known = {layer_name(name), name.rpartition("/")[0]} & set(survey.layers)
            if len(jaxpr.invars[at].aval.shape) > 1 and not known:
                survey.skipped[layer_name(name)] = _UNSEEN
        return survey

    def _prove(self, survey: Survey, name: str, trails: list[_Trail]) -> None:
        """Look at what a layer takes in, if a bound can be had by it."""
        reason = next((trail.way.reason for trail in trails if trail.way.reason), "")
        feeds = [trail.feed for trail in trails if trail.feed is not None]
        if not reason and len(feeds) < len(trails):
            reason = COMPUTED
        biases = {trail.way.bias for trail in trails}
        if not reason and (len(biases) > 1 or len({feed.inputs for feed in feeds}) > 1):
            reason = SEVERAL
        if reason:
            survey.unproved[name] = reason
            return
        bias = biases.pop()
        survey.layers[name] = replace(
            survey.layers[name],
            biases=None if bias is None else Leaf(self._numbers[bias]),
            inputs=feeds[0].inputs,
            weight_input_axis=feeds[0].weight_axis,
            padded=any(feed.padded for feed in feeds),
        )
        for trail, feed in zip(trails, feeds, strict=True):
            survey.feeds[trail.product] = replace(feed, eps=max(feed.eps, trail.way.eps))
            survey.opened |= _around(trail.product)

    def _after(self, eqn: Any, operands: list[_Known], path: Path) -> list[_Known]:
        """What is known of the results of an operation."""
        name = eqn.primitive.name
        sources: frozenset[str] = frozenset().union(*(each.sources for each in operands))
        param = bool(operands) and all(
            each.param or isinstance(atom, core.Literal) for each, atom in zip(operands, eqn.invars, strict=True)
        )
        plain = [_Known(None, param and any(each.param for each in operands), sources) for _ in eqn.outvars]
        if name in ("dot_general", "conv_general_dilated"):
            return [self._multiplied(eqn, operands, path, sources) or plain[0]]
        if name in _CLOSED and any(each.param for each in operands):
            self._consumed |= sources
            return plain
        if self._is_function(eqn, operands, path):
            return plain
        if name in ("jit", "pjit", "closed_call", "core_call"):
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            results = self.through(getattr(inner, "jaxpr", inner), operands, path)
            return [
                _Known(result.what, result.param or each.param, result.sources | sources, result.zero)
                for result, each in zip(results, plain, strict=True)
            ]
        if len(eqn.outvars) != 1:
            return plain
        shape = eqn.outvars[0].aval.shape
        if len(operands) == 1 and operands[0].zero and name in SAME:
            return [replace(plain[0], zero=True)]
        carried = [
            (at, each.what, atom.aval.shape)
            for at, (each, atom) in enumerate(zip(operands, eqn.invars, strict=True))
            if each.what is not None
        ]
        # Of two trails that meet the later one goes on: the earlier is that of a residual connection.
        carried.sort(key=lambda one: self._trails.index(one[1].trail) if isinstance(one[1], _Units) else -1)
        for at, what, before in reversed(carried):
            if not isinstance(what, _Units):
                made = _made_of(eqn, what, before, shape) if param else None
                if made is not None:
                    return [_Known(made, True, sources)]
                continue
            moved = moved_units(eqn, before, shape, what.axes)
            if moved is not None:
                if name in ("add", "add_any") and any(each.param for each in operands) and what.trail.taken is None:
                    self._with_bias(what.trail, path, moved)
                met = [each.what for other, each in enumerate(operands) if other != at]
                beside = [one for one in met if isinstance(one, _Vector) and (one.axis,) == moved]
                bias = (beside[0].number, beside[0].eps) if beside else None
                way = what.way.after(eqn, at, bias=bias, zeros=[each.zero for each in operands])
                return [_Known(_Units(what.trail, moved, way), False, sources)]
        return plain

    def _gate(self, jaxpr: Any, number: int, operands: list[_Known], path: Path) -> int:
        """Of how many operations a function like GELU consists that begins here; 0 if none does."""
        units = [(at, each.what) for at, each in enumerate(operands) if isinstance(each.what, _Units)]
        if len(units) != 1 or units[0][1].trail.taken is not None:
            return 0
        operand, what = units[0]
        function, length = gate(jaxpr.eqns, number, jaxpr.eqns[number].invars[operand])
        if function is not None:
            what.trail.end(function, (*path, number), Tap(what.trail.name, operand, length), what)
        return length

    def _multiplied(self, eqn: Any, operands: list[_Known], path: Path, sources: frozenset[str]) -> _Known | None:
        weighted = [at for at, each in enumerate(operands) if isinstance(each.what, _Weight)]
        if len(weighted) != 1 or operands[1 - weighted[0]].param:
            return None
        which = weighted[0]
        weight = operands[which].what
        assert isinstance(weight, _Weight)
        if len(weight.axes) < 2:
            return None
        shape = eqn.outvars[0].aval.shape
        axes: tuple[int, ...]
        own: tuple[int, ...]
        if eqn.primitive.name == "conv_general_dilated":
            numbers = eqn.params["dimension_numbers"]
            if which != 1 or eqn.params.get("batch_group_count", 1) != 1:
                return None
            axes, own, kind = (numbers.out_spec[1],), (numbers.rhs_spec[0],), "Conv"
        else:
            contracting, batch = eqn.params["dimension_numbers"]
            if batch[which]:
                return None
            ranks = [len(atom.aval.shape) for atom in eqn.invars]
            free = [[d for d in range(ranks[at]) if d not in (*contracting[at], *batch[at])] for at in range(2)]
            start = len(batch[0]) + (len(free[0]) if which == 1 else 0)
            axes, own, kind = tuple(range(start, start + len(free[which]))), tuple(free[which]), "Dense"
        if not axes or len(shape) == len(axes):
            return None
        weight_axes = tuple(weight.axes[axis] for axis in own)
        layer = Layer(
            units=math.prod(shape[axis] for axis in axes),
            weights=Leaf(self._numbers[weight.number]),
            weight_unit_axis=weight_axes[0] if len(weight_axes) == 1 else weight_axes,
            kind=kind,
        )
        name = layer_name(self._names[weight.number])
        feed = feed_of(eqn, which, weight.axes, name, weight.eps) if weight.own else None
        trail = _Trail(name, layer, path, axes, path, feed)
        self._trails.append(trail)
        self._consumed |= operands[1 - which].sources
        return _Known(_Units(trail, axes, Way()), False, frozenset({name}))

    def _is_function(self, eqn: Any, operands: list[_Known], path: Path) -> bool:
        """Whether an operation is an activation function on a trail; then the trail ends."""
        units = [(at, each.what) for at, each in enumerate(operands) if isinstance(each.what, _Units)]
        if len(units) != 1 or len(eqn.outvars) != 1:
            return False
        function = function_of(eqn)
        operand, what = units[0]
        if function is None or function in NO_FUNCTION or eqn.outvars[0].aval.shape != eqn.invars[operand].aval.shape:
            return False
        if what.trail.taken is None:
            what.trail.end(function, path, Tap(what.trail.name, operand), what)
        return True

    def _with_bias(self, trail: _Trail, path: Path, axes: tuple[int, ...]) -> None:
        """A linear layer gives out what it is after its bias, and no later."""
        if trail.at[:-1] == path[:-1]:
            trail.at, trail.axes = path, axes


def _made_of(eqn: Any, what: _Weight | _Vector, before: Path, shape: Path) -> _Weight | _Vector | None:
    """What a parameter is after an operation on parameters alone; None where that is lost."""
    name = eqn.primitive.name
    eps = cast_to(eqn) if name == "convert_element_type" else 0.0
    if isinstance(what, _Weight):
        axes = moved_axes(eqn, before, shape, what.axes)
        if axes is not None:
            own = what.own and name in SAME and eps is not None
            return _Weight(what.number, axes, own, max(what.eps, eps or 0.0))
        if not what.own:
            return None
    along = own_axis(before) if isinstance(what, _Weight) else what.axis
    moved = None if along is None or eps is None else vector_axis(eqn, before, shape, along)
    return None if moved is None else _Vector(what.number, moved, max(what.eps, eps or 0.0))


def _around(path: Path) -> set[Path]:
    """The compiled functions around an operation."""
    return {path[:length] for length in range(1, len(path))}


def layer_name(parameter: str) -> str:
    """Name of the layer that a parameter belongs to: ``mlp/hidden`` for ``mlp/hidden/kernel``."""
    layer, _, last = parameter.rpartition("/")
    return layer if layer and last in _WEIGHT_KEYS else parameter

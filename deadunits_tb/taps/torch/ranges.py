"""The ranges of what layers with silent units take in, and what can be proved of these units by them.

Nothing is done for a layer without silent units. For the others each call in an observed step gives the smallest and
the largest value of each input feature, and the statistics of a batch normalisation behind it; in steps that become
records the interval bound is summed up, before the optimizer's step and after it, for the silent units alone.

A certificate needs the whole way from the inputs to the activation function to be understood: a product with a
parameter, perhaps a batch normalisation, and what leaves values or their signs as they are. Of everything else it is
said that nothing can be proved, and why.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from deadunits_tb.capture.certificates import FLOAT32, Affine, Normalisation, Part, Terms, certificates
from deadunits_tb.certificate import PROVABLE, Certificates
from deadunits_tb.record import Int
from deadunits_tb.taps.torch import activation_calls as calls
from deadunits_tb.taps.torch.distributed import is_sharded
from deadunits_tb.taps.torch.layers import UnitLayer, Weights

T = torch.Tensor
_BLOCK = 1 << 20
"""Weights that are worked on at a time, in float64."""

RARER = 1.05
"""A layer is looked at again when training is by a twentieth further: about 200 times in 20,000 steps."""

_UNKNOWN_WEIGHTS = "its weights are not one parameter of a linear layer or a convolution"
_SHARDED = "each process holds only a part of its weights"
_NO_OPTIMIZER = "no optimizer was given, so what still moves its units is not known"
_OWN_BIAS = "its bias is no parameter"
_NOT_CALLED = "it was not called in an observed step since units of it fell silent"
_LOST = (
    "what stands between it and its activation function is more than a batch normalisation, or the function is not "
    "silent exactly where its input is not above zero"
)
_SEVERAL = "it is followed by different things in different calls"
_OTHER_NORM = "what normalises it is not followed"

_SAME_VALUES = frozenset(
    {
        *calls.RESHAPES,
        *calls.PERMUTATIONS,
        *calls._spellings("contiguous clone to float half bfloat16 double type type_as cpu cuda alias requires_grad"),
    }
)
_SAME_SIGNS = frozenset(
    calls._spellings(
        "dropout dropout1d dropout2d dropout3d feature_dropout max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d "
        "avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
        "adaptive_max_pool2d adaptive_max_pool3d"
    )
)
"""What is not above zero stays so; after a normalisation and before an activation function that is enough."""
_FIRST_MOMENTS = ("momentum_buffer", "exp_avg")


@dataclass(eq=False, slots=True)
class _Norm:
    """A batch normalisation behind a layer: its parameters, and the ranges of its statistics, ``[units]`` each."""

    scale: Any
    shift: Any
    ranges: list[Any]
    batch: bool


@dataclass(eq=False, slots=True)
class _Watched:
    """A layer with silent units.

    Attributes:
        layer: The layer.
        weights: Its only ones.
        units: Its silent units, ascending.
        since: Step since which its ranges are observed.
        low: ``[inputs]`` smallest values, None before the first call.
        high: The largest.
        bias: Parameter or None.
        spread: From numbers of each input and indices of units to those of what each of their weights takes in.
        norm: Behind it.
        rounding: Of its sums, relative to their size.
        last: Last step in which it was called.
        observations: Steps in which it was.
        calls: How often it was called.
        reached: How often its outputs were seen to go into an activation function that is exactly silent.
        ways: Whether there was a normalisation on the way.
        reason: Why nothing can be proved.
        before: What was summed up before the optimizer's step.
    """

    layer: UnitLayer
    weights: Weights
    units: Int
    since: int
    low: Any = None
    high: Any = None
    bias: Any = None
    spread: Callable[[Any, Any], Any] = lambda values, units: values
    norm: _Norm | None = None
    rounding: float = 0.0
    last: int = -1
    observations: int = 0
    calls: int = 0
    reached: int = 0
    ways: set[bool] = field(default_factory=set)
    reason: str = ""
    before: tuple[int, Any] | None = None

    def missing(self) -> str:
        """Why nothing can be proved, empty if something can."""
        if self.reason or self.low is None:
            return self.reason or _NOT_CALLED
        return _LOST if self.reached != self.calls else _SEVERAL if len(self.ways) > 1 else ""


@dataclass(frozen=True, eq=False, slots=True)
class _Tag:
    """A tensor on the way from a layer to its activation function.

    Attributes:
        tensor: The tensor.
        version: Of it: whatever works on it in place makes it another.
        watched: The layer.
        moved: Whether axes may have changed places.
        signs: Whether only its signs are those of the layer's outputs.
        normalised: Whether it was normalised.
    """

    tensor: weakref.ref[Any]
    version: int
    watched: _Watched
    moved: bool = False
    signs: bool = False
    normalised: bool = False


class Ranges:
    """Ranges of the inputs of layers with silent units, in one model.

    Call its methods with gradients disabled. A failure of ours ends certificates, and nothing else.
    """

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._refused: dict[str, str] = {}
        self._by_parameter: dict[int, _Watched] = {}
        self._tags: dict[int, _Tag] = {}
        self._step = 0
        self._known: Mapping[str, Int] = {}
        self._told: dict[str, tuple[int, Int]] = {}
        self._failed = False

    def of_pass(self) -> Ranges | None:
        """What a forward pass has to tell its calls to, None if no layer has silent units."""
        return self if self._by_parameter and not self._failed else None

    def begin(self, step: int, silent: Mapping[str, Int], layers: Mapping[str, UnitLayer]) -> None:
        """An observed step begins.

        Args:
            step: Its number.
            silent: Layer to its silent units at the last record.
            layers: By name.
        """
        self._step = step
        self._tags.clear()
        if silent is self._known or self._failed:
            return
        self._known, before = silent, self._watched
        self._watched, self._refused = {}, {}
        for name, units in silent.items():
            layer = layers.get(name)
            weights = [weights for group in layer.incoming for weights in group] if layer is not None else []
            if layer is None or len(weights) != 1 or layer.at_output or layer.rows or not weights[0].ready:
                self._refused[name] = _UNKNOWN_WEIGHTS
                continue
            if is_sharded(weights[0].parameter):
                self._refused[name] = _SHARDED
                continue
            known = before.get(name)
            if known is None or known.weights.parameter is not weights[0].parameter:
                known = _Watched(layer, weights[0], units, step)
            known.units = units
            self._watched[name] = known
        self._by_parameter = {id(one.weights.parameter): one for one in self._watched.values()}

    def see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """A call was made in a forward pass."""
        if self._failed:
            return
        try:
            with torch.no_grad():
                self._see(func, args, kwargs, out)
        except Exception as error:
            self._give_up(error)

    def before_step(self) -> None:
        """The optimizer is about to change the weights, in a step that becomes a record."""
        try:
            for name, one in self._watched.items():
                ready = not self._failed and self._due(name) and not one.missing()
                one.before = (one.calls, _sums(one)) if ready else None
        except Exception as error:
            self._give_up(error)

    def _due(self, name: str) -> bool:
        """Whether a layer is looked at: when other units are silent, and otherwise ever more seldom."""
        step, units = self._told.get(name, (-1, None))
        return units is None or self._step >= RARER * step or not np.array_equal(units, self._known[name])

    def after_step(self, optimizer: Any) -> Callable[[], Mapping[str, Certificates]] | None:
        """It has.

        Returns:
            Fetches what can be proved of each layer with silent units that is due; None if there are none.
        """
        due = {name for name in (*self._watched, *self._refused) if self._due(name)}
        if not due:
            return None
        step = self._step
        refused = {name: Certificates.none(step, reason) for name, reason in self._refused.items() if name in due}
        found: dict[str, Callable[[], Certificates]] = {}
        self._told |= {name: (step, self._known[name]) for name in due}
        try:
            for name, one in self._watched.items():
                if name not in due:
                    continue
                reason = _NO_OPTIMIZER if optimizer is None else one.missing()
                if reason:
                    refused[name] = Certificates.none(step, reason)
                else:
                    found[name] = _pending(one, optimizer, step)
                one.before = None
        except Exception as error:
            self._give_up(error)
            return None

        def fetch() -> Mapping[str, Certificates]:
            try:
                return refused | {name: fetched() for name, fetched in found.items()}
            except Exception as error:
                self._give_up(error)
                return {}

        return fetch

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        self._watched.clear()
        self._by_parameter.clear()
        self._tags.clear()
        self._told.clear()
        self._refused = {name: f"the monitor could not: {type(error).__name__}: {error}" for name in self._known}

    # One call

    def _see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        if func is calls.LINEAR or func in calls.CONVOLUTIONS:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            watched = self._by_parameter.get(id(weight))
            if watched is not None and isinstance(out, T):
                self._take_in(watched, func, args, kwargs, out)
            return
        source: Any = args[0] if args else kwargs.get("input")
        tag = self._at(source)
        if tag is None or not isinstance(out, T):
            return
        if source._version != tag.version + (out is source):  # something else has worked on it in place
            return
        if (calls.activation(func, args, kwargs, source.dim(), 1) or "") in PROVABLE:
            tag.watched.reached += 1
            tag.watched.ways.add(tag.normalised)
        elif func in _SAME_VALUES:
            self._tag(out, tag, moved=True)
        elif func in _SAME_SIGNS:
            self._tag(out, tag, signs=True)
        elif func is F.batch_norm and not (tag.moved or tag.signs or tag.normalised):
            self._normalise(tag.watched, source, *_arguments_of_batch_norm(args, kwargs))
            self._tag(out, tag, normalised=True)

    def _at(self, tensor: Any) -> _Tag | None:
        tag = self._tags.get(id(tensor))
        return tag if tag is not None and tag.tensor() is tensor else None

    def _tag(self, out: Any, tag: _Tag, *, moved: bool = False, signs: bool = False, normalised: bool = False) -> None:
        self._tags[id(out)] = _Tag(
            weakref.ref(out),
            out._version,
            tag.watched,
            tag.moved or moved,
            tag.signs or signs,
            tag.normalised or normalised,
        )

    def _take_in(self, one: _Watched, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        given = dict(zip(_NAMES_OF_LINEAR if func is calls.LINEAR else _names(func), args, strict=False)) | kwargs
        source, bias = given["input"].detach(), given.get("bias")
        if not source.numel():
            return
        if bias is not None and not isinstance(bias, torch.nn.Parameter):
            one.reason = _OWN_BIAS
        one.bias = bias
        axis, zero, kernel, groups = source.dim() - 1, False, 1, 1
        if func is not calls.LINEAR:
            weight = one.weights.parameter
            axis = source.dim() - weight.dim() + 1
            kernel, groups = math.prod(weight.shape[2:]), given.get("groups", 1)
            zero = func in calls.TRANSPOSED or _pads(given.get("padding", 0))
        one.spread = _spreading(kernel, groups, out.shape[axis] // groups)
        dims = [dim for dim in range(source.dim()) if dim != axis]
        low, high = (source.amin(dims), source.amax(dims)) if dims else (source, source)
        if zero:
            low, high = low.clamp(max=0), high.clamp(min=0)
        low, high = low.double(), high.double()
        one.low = low if one.low is None else torch.minimum(one.low, low)
        one.high = high if one.high is None else torch.maximum(one.high, high)
        inputs = int(one.weights.parameter.numel()) // out.shape[axis]
        one.rounding = max(one.rounding, _rounding(inputs, out, convolution=func is not calls.LINEAR))
        one.observations += self._step != one.last
        one.last = self._step
        one.calls += 1
        flat = func is calls.LINEAR and source.dim() != 2  # a normalisation would have another axis than that of units
        self._tags[id(out)] = _Tag(weakref.ref(out), out._version, one, moved=flat)

    def _normalise(self, one: _Watched, source: Any, given: Mapping[str, Any]) -> None:
        scale, shift = given.get("weight"), given.get("bias")
        if any(value is not None and not isinstance(value, torch.nn.Parameter) for value in (scale, shift)):
            one.reason = _OTHER_NORM
            return
        mean, variance = given.get("running_mean"), given.get("running_var")
        batch = bool(given.get("training")) or mean is None or variance is None
        means, variances = ([], []) if mean is None or variance is None else ([mean], [variance])
        if batch:
            dims = [dim for dim in range(source.dim()) if dim != 1]
            own = torch.var_mean(source.detach().double(), dims, correction=0)
            means, variances = [*means, own[1]], [*variances, own[0]]
        inverses = [(value.double() + given.get("eps", 1e-5)).rsqrt() for value in variances]
        every = torch.stack([value.double() for value in means]), torch.stack(inverses)
        ranges = [every[0].amin(0), every[0].amax(0), every[1].amin(0), every[1].amax(0)]
        if one.norm is None:
            one.norm = _Norm(scale, shift, ranges, batch)
        elif one.norm.scale is not scale or one.norm.shift is not shift:
            one.reason = _SEVERAL
        else:
            pick = (torch.minimum, torch.maximum, torch.minimum, torch.maximum)
            one.norm.ranges = [of(old, new) for of, old, new in zip(pick, one.norm.ranges, ranges, strict=True)]
            one.norm.batch |= batch
        one.rounding = max(one.rounding, 4 * torch.finfo(source.dtype).eps)


# Sums


def _sums(one: _Watched) -> Any:
    """``[rows, units]`` in float64: upper, lower, size and bias, then scale and shift of a normalisation."""
    parameter = one.weights.parameter.detach()
    device = parameter.device if parameter.device.type in ("cpu", "cuda") else torch.device("cpu")
    rows, picked = one.weights.rows(parameter), torch.from_numpy(one.units).to(parameter.device)
    low, high = one.low.to(device), one.high.to(device)
    best = torch.stack([high, low, torch.maximum(low.abs(), high.abs())])  # for positive weights
    worst = torch.stack([low, high, -best[2]])  # for negative ones
    parts = []
    for some in picked.split(max(1, _BLOCK // max(1, int(rows.shape[1])))):
        weights = rows[some].to(device).double()
        up, down = weights.clamp(min=0), weights.clamp(max=0)
        own = some.to(device)
        parts.append(_product(up, one.spread(best, own)) + _product(down, one.spread(worst, own)))
    sums = torch.cat(parts, 1)
    vectors = [(one.bias, 0.0)]
    if one.norm is not None:
        vectors += [(one.norm.scale, 1.0), (one.norm.shift, 0.0)]
    added = [
        torch.full_like(sums[0], default) if value is None else value.detach()[picked].to(device).double()
        for value, default in vectors
    ]
    return torch.cat([sums, torch.stack(added)])


def _product(weights: Any, values: Any) -> Any:
    """``[3, k]``: weights ``[k, inputs]`` times values ``[3, inputs]``, or ``[3, k, inputs]``."""
    return values @ weights.t() if values.dim() == 2 else (values * weights).sum(2)


def _pending(one: _Watched, optimizer: Any, step: int) -> Callable[[], Certificates]:
    """What can be proved of a layer's silent units: summed up now, fetched from the device later."""
    now, norm = _sums(one), one.norm
    before = one.before[1] if one.before is not None and one.before[0] == one.calls else None
    picked = torch.from_numpy(one.units).to(one.weights.parameter.device)
    ranges = None if norm is None else [bound[picked.to(bound.device)] for bound in norm.ranges]
    parameters = [(one.weights.parameter, one.weights.rows), (one.bias, None)]
    if norm is not None:
        parameters += [(norm.scale, None), (norm.shift, None)]
    moments = [_momentum(optimizer, parameter, rows, picked) for parameter, rows in parameters]
    settings = [_settings(optimizer, parameter) for parameter, _ in parameters]
    units, since, observations, rounding = one.units, one.since, one.observations, one.rounding
    precision = float(torch.finfo(one.weights.parameter.dtype).eps) / 2
    batch = norm is not None and norm.batch

    def fetch() -> Certificates:
        held = None if ranges is None else [bound.cpu().numpy() for bound in ranges]
        after, was = _affine(now, held), None if before is None else _affine(before, held)
        parts = []
        if before is not None:
            rows = now.cpu().numpy() != before.cpu().numpy()
            changed = [rows[:3].any(axis=0), *rows[3:]]
            carried = [np.zeros(len(units), bool) if moment is None else moment.cpu().numpy() for moment in moments]
            for at, (decays, reach) in enumerate(settings):
                parts.append(Part(changed[at], decays, carried[at], reach, bias=at % 2 == 1))
        varying = None
        if batch and after.normalisation is not None:
            varying = after.normalisation.scale != 0
        return certificates(
            units,
            was,
            after,
            parts,
            rounding=rounding,
            precision=precision,
            varying=varying,
            step=step,
            since=since,
            observations=observations,
        )

    return fetch


def _affine(sums: Any, ranges: list[Any] | None) -> Affine:
    upper, lower, size, bias, *norm = sums.cpu().numpy()
    terms = Terms(upper, lower, size, bias)
    return Affine(terms, None if ranges is None else Normalisation(*norm, *ranges))


# The optimizer


def _settings(optimizer: Any, parameter: Any) -> tuple[bool, float]:
    """Whether a parameter decays, and how many times its last change momentum can still add up to."""
    for group in optimizer.param_groups:
        if parameter is not None and any(one is parameter for one in group["params"]):
            decays = bool(group.get("weight_decay")) and bool(group.get("lr", 1.0))
            kept = group.get("momentum") or 0.0
            if "betas" in group:
                first, second = (float(beta) for beta in group["betas"][:2])
                kept = first / math.sqrt(second) if second else 1.0
            return decays, float(kept) / (1 - float(kept)) if kept < 1 else math.inf
    return False, 0.0


def _momentum(optimizer: Any, parameter: Any, rows: Any, picked: Any) -> Any:
    """``bool [k]``: whether the optimizer carries on from earlier steps, None if it keeps nothing."""
    state = optimizer.state.get(parameter) if parameter is not None else None
    moments = [state[name] for name in _FIRST_MOMENTS if isinstance(state.get(name), T)] if state else []
    found = None
    for moment in moments:
        if moment.shape == parameter.shape:
            own = (moment if rows is None else rows(moment))[picked.to(moment.device)]
            moving = own != 0 if own.dim() == 1 else (own != 0).any(1)
            found = moving if found is None else found | moving
    return found


# Arguments

_NAMES_OF_LINEAR = ("input", "weight", "bias")
_NAMES_OF_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


def _names(convolution: Any) -> tuple[str, ...]:
    if convolution in calls.TRANSPOSED:
        return ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    return ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def _arguments_of_batch_norm(args: Iterable[Any], kwargs: Mapping[str, Any]) -> tuple[Mapping[str, Any]]:
    return (dict(zip(_NAMES_OF_BATCH_NORM, args, strict=False)) | dict(kwargs),)


def _pads(padding: Any) -> bool:
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (tuple, list)) else bool(padding)


def _spreading(kernel: int, groups: int, units_of_group: int) -> Callable[[Any, Any], Any]:
    """From numbers ``[..., channels]`` to ``[..., weights]``, for each of some units apart where there are groups."""

    def spread(values: Any, units: Any) -> Any:
        if groups > 1:
            values = values.unflatten(-1, (groups, -1))[..., units // units_of_group, :]
        return values.repeat_interleave(kernel, -1) if kernel > 1 else values

    return spread


def _rounding(inputs: int, out: Any, *, convolution: bool) -> float:
    """How far a sum may be from the exact one, relative to its size: of all orders of adding up, the worst."""
    steps = (inputs + 4) * (4 if convolution else 1)  # some algorithms for convolutions are less exact
    eps = float(torch.finfo(out.dtype).eps)
    coarse = 3 * eps if eps > 1e-6 else 0.0  # weights, inputs and outputs in half precision
    if out.device.type == "cuda":  # its matrix units may take float32 with ten bits
        coarse = max(coarse, 3 * 2.0**-10)
    return steps * FLOAT32 + coarse

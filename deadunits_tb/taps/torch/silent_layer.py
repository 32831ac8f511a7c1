"""A layer with silent units: what it takes in, and what is seen of the way to its activation function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from deadunits_tb.capture.silent_layers import NOT_CALLED, rounding
from deadunits_tb.record import Int
from deadunits_tb.taps.torch import calls
from deadunits_tb.taps.torch.layers import UnitLayer, Weights

_OWN_BIAS = "its bias is no parameter"
_LOST = (
    "what stands between it and its activation function is more than a batch normalisation, or the function is not "
    "silent exactly where its input is not above zero"
)
_SEVERAL = "it is followed by different things in different calls"
_OTHER_NORM = "what normalises it is not followed"
_NAMES_OF_LINEAR = ("input", "weight", "bias")
_NAMES_OF_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


@dataclass(eq=False, slots=True)
class Norm:
    """A batch normalisation behind a layer: its parameters, and the ranges of its statistics, ``[units]`` each."""

    scale: Any
    shift: Any
    ranges: list[Any]
    batch: bool


@dataclass(eq=False, slots=True)
class SilentLayer:
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
    norm: Norm | None = None
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
            return self.reason or NOT_CALLED
        return _LOST if self.reached != self.calls else _SEVERAL if len(self.ways) > 1 else ""

    def take_in(self, func: Any, args: Any, kwargs: Any, out: Any, step: int) -> bool | None:
        """Take in one call.

        Args:
            func: A linear map or a convolution with the layer's weights.
            args: Its arguments.
            kwargs: Others.
            out: What it gave.
            step: In which.

        Returns:
            Whether a batch normalisation of what it gave would be over its units; None for an empty batch.
        """
        given = dict(zip(_NAMES_OF_LINEAR if func is calls.LINEAR else _names(func), args, strict=False)) | kwargs
        source, bias = given["input"].detach(), given.get("bias")
        if not source.numel():
            return None
        if bias is not None and not isinstance(bias, torch.nn.Parameter):
            self.reason = _OWN_BIAS
        self.bias = bias
        axis, zero, kernel, groups = source.dim() - 1, False, 1, 1
        if func is not calls.LINEAR:
            weight = self.weights.parameter
            axis = source.dim() - weight.dim() + 1
            kernel, groups = math.prod(weight.shape[2:]), given.get("groups", 1)
            zero = func in calls.TRANSPOSED or _pads(given.get("padding", 0))
        self.spread = _spreading(kernel, groups, out.shape[axis] // groups)
        dims = [dim for dim in range(source.dim()) if dim != axis]
        low, high = (source.amin(dims), source.amax(dims)) if dims else (source.clone(), source.clone())
        if zero:
            low, high = low.clamp(max=0), high.clamp(min=0)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        inputs = int(self.weights.parameter.numel()) // out.shape[axis]
        eps, cuda = float(torch.finfo(out.dtype).eps), out.device.type == "cuda"
        own = rounding(inputs, eps, convolution=func is not calls.LINEAR, accelerated=cuda)
        self.rounding = max(self.rounding, own)
        self.observations += step != self.last
        self.last = step
        self.calls += 1
        return func is not calls.LINEAR or source.dim() == 2

    def normalise(self, source: Any, args: Any, kwargs: Any) -> None:
        """Take in the batch normalisation of what the layer gave.

        Args:
            source: What is normalised.
            args: Of ``batch_norm``.
            kwargs: Others.
        """
        given = dict(zip(_NAMES_OF_BATCH_NORM, args, strict=False)) | kwargs
        scale, shift = given.get("weight"), given.get("bias")
        if any(value is not None and not isinstance(value, torch.nn.Parameter) for value in (scale, shift)):
            self.reason = _OTHER_NORM
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
        if self.norm is None:
            self.norm = Norm(scale, shift, ranges, batch)
        elif self.norm.scale is not scale or self.norm.shift is not shift:
            self.reason = _SEVERAL
        else:
            pick = (torch.minimum, torch.maximum, torch.minimum, torch.maximum)
            self.norm.ranges = [of(old, new) for of, old, new in zip(pick, self.norm.ranges, ranges, strict=True)]
            self.norm.batch |= batch
        self.rounding = max(self.rounding, 4 * torch.finfo(source.dtype).eps)


def _names(convolution: Any) -> tuple[str, ...]:
    if convolution in calls.TRANSPOSED:
        return ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    return ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


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

"""Interval bounds of a layer's silent units around an optimizer step, and what that step did to them.

JAX tells of an optimizer what it carries on (momentum, in the state of Optax), but not its settings. So these are told
by what it did to units without an error signal: weights that all became the same share smaller have decayed, and
momentum that alone explains a change runs out at the rate at which it has become smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.certificates import FLOAT32, Affine, Flags, Part, Terms, certificates
from deadunits_tb.certificate import Certificates, round_up
from deadunits_tb.taps.jax.feeds import of_each_weight
from deadunits_tb.taps.jax.looks import Look, Matrix, Numbers
from deadunits_tb.taps.jax.plan import Layer

Vector = npt.NDArray[np.float64]

_BLOCK = 1 << 20
"""Weights that are worked on at a time, in float64."""
_ULPS = 4
"""Roundings in which the results of one optimizer step may differ from the exact ones."""
_EXPLAINED = 0.01
"""Share of a change that momentum need not explain."""


@dataclass(slots=True)
class Ranges:
    """Of what one layer takes in, since units of it fell silent.

    Attributes:
        low: ``[features]``.
        high: ``[features]``.
        since: Step since which they were observed.
        observations: Observed steps in which they were.
        eps: The coarsest precision among what is multiplied and what comes out.
    """

    low: Vector
    high: Vector
    since: int
    observations: int = 0
    eps: float = 0.0

    def add(self, low: Vector, high: Vector, eps: float) -> None:
        """Take in one observation."""
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.observations += 1
        self.eps = max(self.eps, eps)


def certified(layer: Layer, ranges: Ranges, before: Look, after: Look, *, step: int, steps: int) -> Certificates:
    """What can be proved of the units of a look. Waits for the device.

    Args:
        layer: What is known of their layer.
        ranges: Of its inputs.
        before: At the units before an optimizer step, or several.
        after: After it.
        step: Its number.
        steps: How many.
    """
    units, columns = after.units, after.columns
    low, high = ranges.low, ranges.high
    if layer.weight_input_axis is not None and layer.padded:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    ends = [of_each_weight(end, layer, columns, units) for end in (low, high)]
    was, now = list(before.numbers()), list(after.numbers())
    parts = [
        _part(one, two, after.precision, steps, bias=at == 1)
        for at, (one, two) in enumerate(zip(was, now, strict=True))
    ]
    found = certificates(
        units,
        _affine(was, ends[0], ends[1]),
        _affine(now, ends[0], ends[1]),
        _agreed(parts, was, now, after.precision * steps),
        rounding=_rounding(layer, ranges.eps, after),
        precision=after.precision * steps,
        step=step,
        since=ranges.since,
        observations=ranges.observations,
    )
    return found if steps == 1 else replace(found, rise=round_up(found.rise.astype(np.float64) / steps))


def _affine(numbers: list[Numbers], low: Vector, high: Vector) -> Affine:
    weights, bias = numbers[0].values, numbers[1].values[0]
    parts = []
    for at in np.array_split(np.arange(weights.shape[1]), math.ceil(weights.size / _BLOCK) or 1):
        if len(at):
            own = [end if end.ndim == 1 else end[:, at] for end in (low, high)]
            parts.append(Terms.of(weights[:, at], own[0], own[1], bias[at]))
    return Affine(
        Terms(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("upper", "lower", "size", "bias")))
    )


def _rounding(layer: Layer, eps: float, look: Look) -> float:
    """How far a sum may be from the exact one, relative to its size: of all orders of adding up, the worst."""
    convolution = layer.weight_input_axis is not None
    steps = (look.columns.rows + 4) * (4 if convolution else 1)  # some algorithms for convolutions are less exact
    coarse = 3 * eps if eps > 1e-6 else 0.0  # weights, inputs and outputs in half precision
    if look.platform != "cpu":  # matrix units may take float32 with ten bits, those of a TPU with seven
        coarse = max(coarse, 3 * 2.0 ** (-10 if look.platform in ("gpu", "cuda", "rocm") else -7))
    return steps * FLOAT32 + coarse


def _part(before: Numbers, after: Numbers, precision: float, steps: int, *, bias: bool) -> Part:
    """What the steps in between did to one parameter; of biases it is not yet known whether they decay."""
    moved = (before.values != after.values).any(axis=0)
    nothing = np.zeros(len(moved), bool)
    momentum = nothing if after.first is None else (after.first != 0).any(axis=0)
    reach = _reach(before, after, precision * steps) if (moved & momentum).any() else 0.0
    decays = _even(before.values, after.values, precision * steps)[0] if not bias else nothing
    return Part(moved, decays, momentum, reach, bias)


def _agreed(parts: list[Part], was: list[Numbers], now: list[Numbers], precision: float) -> list[Part]:
    """Whether biases decay: each is but one number, which may become smaller for other reasons.

    It does if the optimizer is known to carry nothing on for it, or if all that moved became smaller by the same share.
    """
    weights, biases = parts
    even, share = _even(was[1].values, now[1].values, precision)
    shares = np.concatenate([share[biases.moved], _even(was[0].values, now[0].values, precision)[1][weights.moved]])
    alike = len(shares) > 1 and float(np.ptp(shares)) <= 2 * _ULPS * precision and bool(even[biases.moved].all())
    known = now[1].known & ~biases.momentum
    return [weights, replace(biases, decays=even & (known | alike))]


def _even(before: Matrix, after: Matrix, precision: float) -> tuple[Flags, Vector]:
    """Of each unit, whether all its numbers became the same share smaller; and what is left of them, ``[k]``."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = (before * after).sum(axis=0) / (before * before).sum(axis=0)
        even = (np.abs(after - share * before) <= _ULPS * precision * np.abs(before)).all(axis=0)
        return even & (share >= 0) & (share < 1), share


def _reach(before: Numbers, after: Numbers, precision: float) -> float:
    """How many times the last change momentum can still add up to; infinite if something else has changed them, too."""
    direction, was = after.first, before.first
    if direction is None or was is None:
        return math.inf
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        kept = np.abs(direction / was)
        if after.second is not None and before.second is not None:
            direction = np.where(direction == 0, 0.0, direction / np.sqrt(after.second))
            kept = kept / np.sqrt(after.second / before.second)
        change = after.values - before.values
        rate = float((change * direction).sum() / (direction * direction).sum())
        left = np.abs(change - rate * direction)
        known = left <= _EXPLAINED * np.abs(change).max() + _ULPS * precision * np.abs(after.values)
        most = float(kept[was != 0].max(initial=0.0))
    return most / (1 - most) if known.all() and most < 1 else math.inf

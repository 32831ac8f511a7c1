"""The interval bound of dead units, and what still moves them. Knows no framework.

With ``z = bias + sum(weight * x)`` and each input ``x`` within ``[low, high]``, ``z`` is at most
``bias + sum(max(weight * low, weight * high))``: no input within these ranges makes it larger, and the corner where
each input is at its better end attains it. Where a normalisation stands between, it is taken as the affine function
that it is for given mean and variance, with these within the ranges that were observed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from deadunits_tb.certificate import Certificates, Mover, round_up
from deadunits_tb.record import Int, LayerRecord
from deadunits_tb.units import UnitState

Vector = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FLOAT32 = 2.0**-24
"""Rounding of one operation, relative to its result."""
_STEPS = 8
"""Roundings by which the relative size of a bound may change in a step that only shrinks its weights."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The weighted sums of ``k`` units over a box of inputs, without their biases. All ``float64 [k]``.

    Attributes:
        upper: Largest sum.
        lower: Smallest sum.
        size: Sum of the largest absolute products: rounding is relative to it, and it shrinks as the weights do.
        bias: Added to the sum.
    """

    upper: Vector
    lower: Vector
    size: Vector
    bias: Vector

    @classmethod
    def of(cls, weights: npt.NDArray[np.floating], low: Vector, high: Vector, bias: Vector | None = None) -> Terms:
        """Sum up.

        Args:
            weights: ``[inputs, k]``.
            low: ``[inputs]`` or ``[inputs, k]``: smallest value of what each weight takes in.
            high: The largest.
            bias: ``[k]``, None for none.
        """
        weights = weights.astype(np.float64)
        bias = np.zeros(weights.shape[1]) if bias is None else np.asarray(bias, np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            if low.ndim == 1:  # the same for all units: products of matrices, but without the threads of BLAS
                largest = np.maximum(np.abs(low), np.abs(high))
                summed = np.einsum("ij,jk->ik", np.stack([high, low, largest]), np.maximum(weights, 0))
                summed += np.einsum("ij,jk->ik", np.stack([low, high, -largest]), np.minimum(weights, 0))
                return cls(upper=summed[0], lower=summed[1], size=summed[2], bias=bias)
            one, other = weights * low, weights * high
            return cls(
                upper=np.maximum(one, other).sum(axis=0),
                lower=np.minimum(one, other).sum(axis=0),
                size=np.maximum(np.abs(one), np.abs(other)).sum(axis=0),
                bias=bias,
            )


@dataclass(frozen=True, slots=True)
class Normalisation:
    """``(z - mean) * inverse * scale + shift`` behind the sum, with mean and inverse deviation within ranges. ``[k]``.

    Attributes:
        scale: Of each unit.
        shift: Of each unit.
        mean_low: Smallest mean.
        mean_high: Largest.
        inverse_low: Smallest inverse of the standard deviation.
        inverse_high: Largest.
    """

    scale: Vector
    shift: Vector
    mean_low: Vector
    mean_high: Vector
    inverse_low: Vector
    inverse_high: Vector

    def highest(self, upper: Vector, lower: Vector) -> Vector:
        """The largest ``(z - mean) * inverse``, times the sign of the scale: what a scale multiplies. ``[k]``."""
        apart = np.where(self.scale >= 0, upper - self.mean_low, self.mean_high - lower)
        return apart * np.where(apart > 0, self.inverse_high, self.inverse_low)


@dataclass(frozen=True, slots=True)
class Affine:
    """Units at one moment: sums of weights, and perhaps a normalisation behind them."""

    terms: Terms
    normalisation: Normalisation | None = None

    def bound(self, rounding: float) -> Vector:
        """``[k]`` upper bound of the pre-activation.

        Args:
            rounding: Of the sum, relative to its size.
        """
        t, n = self.terms, self.normalisation
        with np.errstate(invalid="ignore", over="ignore"):
            slack = rounding * (t.size + np.abs(t.bias))
            upper, lower = t.upper + t.bias + slack, t.lower + t.bias - slack
            if n is None:
                return np.asarray(upper)
            scaled = np.abs(n.scale) * n.highest(upper, lower)
            largest = np.maximum(np.abs(upper), np.abs(lower)) + np.maximum(np.abs(n.mean_low), np.abs(n.mean_high))
            scaled_size = np.abs(n.scale) * n.inverse_high * largest
            return np.asarray(scaled + n.shift + 8 * FLOAT32 * (scaled_size + np.abs(n.shift)))

    def parts(self, before: Affine) -> tuple[Vector, Vector, Vector]:
        """What shrinks with its weights, what shrinks with its bias, and the size of both. ``[k]`` each.

        Behind a normalisation the sum is taken as it was before the step: its statistics follow the weights.
        """
        if self.normalisation is None:
            return self.terms.upper, self.terms.bias, self.terms.size + np.abs(self.terms.bias)
        t, n = before.terms, before.normalisation
        assert n is not None
        weighted = np.abs(self.normalisation.scale) * n.highest(t.upper + t.bias, t.lower + t.bias)
        return weighted, self.normalisation.shift, np.abs(weighted) + np.abs(self.normalisation.shift)


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of how an optimizer changes one parameter of ``k`` units.

    Attributes:
        moved: ``bool [k]``: whether it changed in the step.
        decays: Whether the optimizer lets it decay; ``bool [k]`` where that is told by what each unit did.
        momentum: ``bool [k]``: whether the optimizer carries on from earlier steps.
        reach: How many times the change of this step the momentum can still add up to.
        bias: Whether it is added, and not multiplied with inputs.
    """

    moved: Flags
    decays: bool | Flags
    momentum: Flags
    reach: float
    bias: bool


def movers(parts: Sequence[Part]) -> npt.NDArray[np.uint8]:
    """``[k]``: what changed the units in a step."""
    found = np.zeros(len(parts[0].moved), np.uint8)
    for part in parts:
        other = Mover.BIAS if part.bias else Mover.WEIGHTS
        found |= np.where(part.moved & part.decays, np.uint8(Mover.WEIGHT_DECAY), np.uint8(0))
        found |= np.where(part.moved & part.momentum, np.uint8(Mover.MOMENTUM), np.uint8(0))
        found |= np.where(part.moved & ~part.momentum & ~np.asarray(part.decays), np.uint8(other), np.uint8(0))
    return found


def rises(before: Affine, after: Affine, parts: Sequence[Part], bound: Vector, precision: float) -> Vector:
    """``[k]``: by how much one step raised the bounds, as far as that leads towards firing.

    Weights and bias that shrink alike bring a negative bound closer to zero, but never above: so bounds are compared in
    relation to the size of what they sum up. And what only decays ends at zero: where neither the weights alone nor the
    bias alone would let the unit fire, no decay will. Momentum runs out: what it can still add up to must be enough.

    Args:
        before: The units before the step.
        after: The same after it, over the same ranges.
        parts: Their parameters.
        bound: ``[k]`` after the step.
        precision: Rounding of the parameters.
    """
    least = _STEPS * precision
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        weighted, added, size = before.parts(before)
        weighted_now, added_now, size_now = after.parts(before)
        apart = (weighted_now + added_now) / size_now - (weighted + added) / size
        higher = (weighted_now + added_now) - (weighted + added)
        rise = np.where(apart > least, np.where(higher > 0, higher, apart * size_now), 0.0)
        changed = movers(parts)
        evenly = np.abs(after.terms.upper / after.terms.size - before.terms.upper / before.terms.size) <= least
        hopeless = (changed == Mover.WEIGHT_DECAY) & evenly & (weighted_now <= 0) & (added_now <= 0)
        reach = max(part.reach for part in parts)
        hopeless |= (changed == Mover.MOMENTUM) & (bound < 0) & (2 * reach * rise < -bound)
    return np.where(hopeless | ~np.isfinite(rise), 0.0, rise)


def certificates(
    units: Int,
    before: Affine | None,
    after: Affine,
    parts: Sequence[Part],
    *,
    rounding: float,
    precision: float,
    varying: Flags | None = None,
    step: int,
    since: int,
    observations: int,
) -> Certificates:
    """Certify some units of a layer.

    Args:
        units: ``[k]`` their indices, ascending.
        before: As they were before an optimizer step, None where that is not known.
        after: As they are.
        parts: Their parameters in that step; none where it is not known.
        rounding: Of the sum, relative to its size.
        precision: Rounding of the parameters.
        varying: ``[k]``: whether normalisation statistics change what comes out.
        step: Optimizer step after which this holds.
        since: Step since which the ranges were observed.
        observations: Training steps in which they were.
    """
    bound = after.bound(rounding)
    changed, rise = np.zeros(len(units), np.uint8), np.zeros(len(units))
    if before is not None and parts:
        changed, rise = movers(parts), rises(before, after, parts, bound, precision)
    if varying is not None:
        changed |= np.where(varying, np.uint8(Mover.STATISTICS), np.uint8(0))
    return Certificates(step, since, observations, units, round_up(bound), round_up(rise), changed)


class Proofs:
    """Certificates that wait for the records that they belong to.

    They are made more seldom than records. A record holds them where they are new, or speak of other dead units.
    """

    def __init__(self) -> None:
        self._waiting: Callable[[], Mapping[str, Certificates]] | None = None
        self._held: dict[str, Certificates] = {}
        self._written: dict[str, Int] = {}

    def wait(self, fetch: Callable[[], Mapping[str, Certificates]]) -> None:
        """Keep what gives the certificates of some layers, by name; the latest counts."""
        self._waiting = fetch

    def attach(self, records: Sequence[LayerRecord]) -> list[LayerRecord]:
        """The same records, those of layers with dead units with what can be proved of these."""
        fetch, self._waiting = self._waiting, None
        found = fetch() if fetch is not None else {}
        self._held |= found
        for name in found:
            self._written.pop(name, None)
        return [self._certified(record) for record in records] if self._held else list(records)

    def _certified(self, record: LayerRecord) -> LayerRecord:
        held = self._held.get(record.layer)
        if held is None:
            return record
        dead = record.states == UnitState.DEAD
        held, written = held.only(dead), self._written.get(record.layer)
        if not dead.any() or (written is not None and np.array_equal(written, held.units)):
            return record
        self._written[record.layer] = held.units
        return replace(record, certificates=held) if held.reason or len(held.units) else record


def silent_units(records: Mapping[str, LayerRecord]) -> dict[str, Int]:
    """Of each layer that has them, the units that are dead or dying and may be worth a certificate, ascending."""
    found = {}
    for name, record in records.items():
        silent = (record.states == UnitState.DEAD) | (record.states == UnitState.DYING)
        if silent.any():
            found[name] = np.flatnonzero(silent)
    return found

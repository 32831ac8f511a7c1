"""Layers with silent units: ranges of what they take in, gathered step by step, and what these prove.

A tap adds the ranges of each observed step to its vector of numbers (:data:`deadunits_tb.capture.packed.LOWEST`), and
in steps that become records it reads what the parameters of silent units are before the optimizer's step and after it.
Here both come together. Nothing is kept of a layer without silent units. Knows no framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.certificates import FLOAT32, Affine, Normalisation, Part, Terms, certificates
from deadunits_tb.capture.packed import HIGHEST, LOWEST, range_field
from deadunits_tb.certificate import Certificates, round_up
from deadunits_tb.record import Int

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.floating]

RARER = 1.05
"""A layer is looked at again when training is by a twentieth further: about 200 times in 20,000 steps."""
NOT_CALLED = "it was not called in an observed step since units of it fell silent"
_BLOCK = 1 << 20
"""Weights that are summed up at a time, in float64."""


@dataclass(frozen=True, slots=True)
class Summing:
    """How the weights of a layer sum up its inputs, of which each channel has its range.

    Attributes:
        kernel: Weights of a unit for each channel: the positions of a convolution's kernel.
        groups: Into which the channels are divided, each with units of its own.
        group_units: How many.
        zero: Whether zero is among what is summed up: where it is padded, or only parts of a kernel are.
        rounding: Of the sum, relative to its size.
        precision: Rounding of the weights.
    """

    kernel: int
    groups: int
    group_units: int
    zero: bool
    rounding: float
    precision: float

    def spread(self, ends: Vector, units: Int) -> Vector:
        """From numbers of each channel to those of what each weight takes in.

        Args:
            ends: ``[channels]``.
            units: ``[k]`` indices.

        Returns:
            ``[weights of a unit, k]``, or without the last axis where they are the same for all; the weights of one
            position after those of another.
        """
        if self.groups == 1:
            return np.tile(ends, self.kernel)
        return np.tile(ends.reshape(self.groups, -1)[units // self.group_units].T, (self.kernel, 1))


def rounding(inputs: int, eps: float, *, convolution: bool, accelerated: bool) -> float:
    """How far a sum may be from the exact one, relative to its size: of all orders of adding up, the worst.

    Args:
        inputs: Products in the sum.
        eps: Distance from 1 to the next number of the outputs' type.
        convolution: Some algorithms for these are less exact.
        accelerated: Whether matrix units may take float32 with ten bits.
    """
    coarse = 3 * eps if eps > 1e-6 else 0.0  # weights, inputs and outputs in half precision
    coarse = max(coarse, 3 * 2.0**-10) if accelerated else coarse
    return (inputs + 4) * (4 if convolution else 1) * FLOAT32 + coarse


@dataclass(frozen=True, slots=True)
class Parameters:
    """Those of ``k`` units at one moment; None for what there is not.

    Attributes:
        weights: ``[weights of a unit, k]``.
        bias: ``[k]``, as all others.
        scale: Of a normalisation behind.
        shift: Of it.
        mean: Its running mean, None without normalisation.
        variance: Its running variance.
    """

    weights: Matrix
    bias: Vector | None = None
    scale: Vector | None = None
    shift: Vector | None = None
    mean: Vector | None = None
    variance: Vector | None = None


@dataclass(frozen=True, slots=True)
class Treatment:
    """How an optimizer treats one parameter of ``k`` units: :class:`~deadunits_tb.capture.certificates.Part`."""

    decays: bool = False
    reach: float = 0.0
    momentum: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """Silent units of a layer around an optimizer's step.

    Attributes:
        units: ``[k]`` indices, ascending.
        summing: How they sum up.
        before: Their parameters before it.
        after: And after it.
        treatments: Of weights, bias, scale and shift.
        batch: Whether a normalisation behind them takes the statistics of batches.
        epsilon: Added to its variance.
        steps: How many steps of the optimizer lie between.
    """

    units: Int
    summing: Summing
    before: Parameters
    after: Parameters
    treatments: Sequence[Treatment]
    batch: bool = False
    epsilon: float = 0.0
    steps: int = 1


@dataclass(eq=False, slots=True)
class _Seen:
    """Since when, in how many steps, and kind of range to its ends ``[channels]`` or ``[units]``."""

    since: int
    observations: int = 0
    ends: dict[str, Vector] | None = None


class SilentLayers:
    """The layers with silent units of one run."""

    def __init__(self) -> None:
        self._silent: Mapping[str, Int] = {}
        self._seen: dict[str, _Seen] = {}
        self._told: dict[str, tuple[int, Int]] = {}

    @property
    def silent(self) -> Mapping[str, Int]:
        """Layer to its silent units."""
        return self._silent

    def begin(self, step: int, silent: Mapping[str, Int]) -> bool:
        """An observed step begins.

        Args:
            step: Its number.
            silent: As :attr:`~deadunits_tb.capture.monitor.Monitor.silent_units`: the same object until it changes.

        Returns:
            Whether ranges are wanted of it.
        """
        if silent is not self._silent:
            self._silent = silent
            self._seen = {name: self._seen.get(name) or _Seen(step) for name in silent}
        return bool(silent)

    def due(self, step: int) -> list[str]:
        """Layers to look at: when other units are silent, and otherwise ever more seldom."""
        found = []
        for name, units in self._silent.items():
            at, told = self._told.get(name, (-1, None))
            if told is None or step >= RARER * at or not np.array_equal(told, units):
                found.append(name)
        return found

    def take_in(self, fields: Mapping[str, npt.NDArray[np.floating]]) -> None:
        """Take in the ranges of one observed step, by :func:`~deadunits_tb.capture.packed.range_field`."""
        for name, seen in self._seen.items():
            low, high = (fields.get(range_field(name, end)) for end in ("input_low", "input_high"))
            if low is None or high is None or not (low <= high).any():  # nobody looked, or it saw no example
                continue
            before = seen.ends or {}
            seen.ends = dict(before)
            for kinds, pick in ((LOWEST, np.fmin), (HIGHEST, np.fmax)):
                for kind in kinds:
                    ends = fields.get(range_field(name, kind))
                    if ends is not None:
                        seen.ends[kind] = pick(before.get(kind, ends), ends).astype(np.float64)
            seen.observations += 1

    def prove(self, step: int, name: str, look: Look | str) -> Certificates | None:
        """What can be proved of the silent units of a layer, None where it has none any more.

        Args:
            step: Number of the step.
            name: Of the layer.
            look: At its parameters around the step; or why there is none.
        """
        seen, units = self._seen.get(name), self._silent.get(name)
        if seen is None or units is None:
            return None
        self._told[name] = (step, units)
        if isinstance(look, str):
            return Certificates.none(step, look)
        ends = seen.ends
        if ends is None or (look.batch and "mean_low" not in ends):
            return Certificates.none(step, NOT_CALLED)
        parts = _parts(look)
        same = np.array_equal(look.before.weights, look.after.weights)
        terms = _terms(look, look.after, ends)
        found = certificates(
            look.units,
            _affine(look, look.before, terms if same else _terms(look, look.before, ends), ends),
            _affine(look, look.after, terms, ends),
            parts,
            rounding=look.summing.rounding,
            precision=look.summing.precision,
            varying=None if not look.batch else _ones(look.after.scale, look.units) != 0,
            step=step,
            since=seen.since,
            observations=seen.observations,
        )
        return found if look.steps == 1 else replace(found, rise=round_up(found.rise / look.steps))


def _terms(look: Look, parameters: Parameters, ends: Mapping[str, Vector]) -> Terms:
    """The sums with some weights, over the ranges of the run, without biases."""
    low, high = ends["input_low"], ends["input_high"]
    if look.summing.zero:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    weights, parts = parameters.weights, []
    width = max(1, _BLOCK // max(1, len(weights)))
    for at in range(0, len(look.units), width):
        some = slice(at, at + width)
        lowest, highest = (look.summing.spread(bound, look.units[some]) for bound in (low, high))
        parts.append(Terms.of(weights[:, some], lowest, highest))
    return Terms(*(np.concatenate([getattr(part, name) for part in parts]) for name in Terms.__slots__))


def _affine(look: Look, parameters: Parameters, terms: Terms, ends: Mapping[str, Vector]) -> Affine:
    """The units as they are with some parameters, of which the sums are known."""
    if parameters.bias is not None:
        terms = replace(terms, bias=parameters.bias.astype(np.float64))
    if parameters.mean is None or parameters.variance is None:
        return Affine(terms)
    # Between the two moments only the parameters may differ: the statistics are those of both.
    means, variances = ([getattr(one, name) for one in (look.before, look.after)] for name in ("mean", "variance"))
    if look.batch:
        means += [ends["mean_low"][look.units], ends["mean_high"][look.units]]
        variances += [ends["variance_low"][look.units], ends["variance_high"][look.units]]
    inverses = 1 / np.sqrt(np.array(variances, np.float64) + look.epsilon)
    shift = np.zeros(len(look.units)) if parameters.shift is None else parameters.shift
    return Affine(
        terms,
        Normalisation(
            scale=_ones(parameters.scale, look.units),
            shift=shift.astype(np.float64),
            mean_low=np.min(means, axis=0).astype(np.float64),
            mean_high=np.max(means, axis=0).astype(np.float64),
            inverse_low=inverses.min(axis=0),
            inverse_high=inverses.max(axis=0),
        ),
    )


def _ones(scale: Vector | None, units: Int) -> Vector:
    return np.ones(len(units)) if scale is None else scale.astype(np.float64)


def _parts(look: Look) -> list[Part]:
    nothing = np.zeros(len(look.units), bool)
    found = []
    for name, treatment in zip(("weights", "bias", "scale", "shift"), look.treatments, strict=True):
        one, other = getattr(look.before, name), getattr(look.after, name)
        moved = nothing if one is None else (one != other if one.ndim == 1 else (one != other).any(axis=0))
        carried = nothing if treatment.momentum is None else treatment.momentum
        found.append(Part(moved, treatment.decays, carried, treatment.reach, bias=name in ("bias", "shift")))
    return found

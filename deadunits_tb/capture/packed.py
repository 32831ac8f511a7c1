"""One vector of numbers per observed step, as it leaves a compiled step, becomes an observation. Knows no framework."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.accumulators import merge
from deadunits_tb.capture.observation import (
    LayerSteps,
    Observation,
    StepObservation,
    StepObservations,
    WeightObservation,
)

Vector = npt.NDArray[np.float64]

SQUARE_SCALE = 2.0**24
"""Gradients are multiplied by this on the device before they are squared in float32, where the square of 1e-20 would be
zero; and it is undone here, in float64."""

LOWEST = ("input_low", "mean_low", "variance_low")
"""Ends of ranges: of what layers with silent units take in, ``[channels]``, and of the statistics of a normalisation
behind them, ``[units]``. Infinite, above the highest, where nobody looked."""
HIGHEST = ("input_high", "mean_high", "variance_high")


def range_field(layer: str, end: str) -> str:
    """The field of an end of a layer's ranges."""
    return f"range:{layer}:{end}"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer in the step.

    Attributes:
        layer: Name of the layer.
        tap: Where its units were looked at; several layers may share one.
        trainable: Whether the layer's weights are trained.
    """

    layer: str
    tap: int
    trainable: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """What the numbers of a vector mean.

    Attributes:
        sizes: Field to how many numbers, in their order.
        calls: Of the layers with units.
        relu_like: Taps whose activation function is.
    """

    sizes: Mapping[str, int]
    calls: tuple[Call, ...]
    relu_like: frozenset[int] = frozenset()

    def split(self, vector: npt.NDArray[np.floating]) -> dict[str, Vector]:
        """Field to its numbers."""
        if len(vector) != self.size:
            raise ValueError(f"a step gave {len(vector)} numbers, not {self.size}")
        return self.columns(vector.astype(np.float64))

    @property
    def size(self) -> int:
        """How many numbers a vector has."""
        return sum(self.sizes.values())

    def columns(self, vectors: Vector) -> dict[str, Vector]:
        """Field to its numbers ``[..., size]``, of vectors ``[..., numbers]``."""
        fields, at = {}, 0
        for name, size in self.sizes.items():
            fields[name] = vectors[..., at : at + size]
            at += size
        return fields


class PackedStep:
    """An observed step as a vector of numbers that is still to be fetched; :class:`Deferred`, and more.

    Several of them whose weights were not looked at can be taken in together, which costs little more than one.

    Args:
        fetch: Waits for the device; gives what the numbers mean, and the numbers.
        known: Gives what is known of the weights otherwise, by layer. Where a run ends, its last record comes
            unforeseen, and says of the weights what the last look at them has shown.
    """

    __slots__ = ("_fetch", "_fetched", "_known")

    def __init__(
        self,
        fetch: Callable[[], tuple[Layout, npt.NDArray[np.floating]]],
        known: Callable[[PackedStep], Mapping[str, WeightObservation]],
    ) -> None:
        self._fetch, self._known = fetch, known
        self._fetched: tuple[Layout, npt.NDArray[np.floating]] | None = None

    def fetch(self) -> tuple[Layout, npt.NDArray[np.floating]]:
        """Wait for the numbers, once."""
        if self._fetched is None:
            self._fetched = self._fetch()
        return self._fetched

    def __call__(self) -> StepObservation:
        """The observation."""
        return with_weights(unpack(*self.fetch()), self.weights)

    @property
    def weights(self) -> Mapping[str, WeightObservation]:
        """What is known of the weights although this step did not look at them."""
        return self._known(self)

    def learning_rate(self) -> float | None:
        """Of the step, None if unknown."""
        return learning_rate(*self.fetch())


def unpack_steps(steps: Sequence[PackedStep]) -> StepObservations | None:
    """Make one observation of several steps.

    Returns:
        None where they have to be unpacked one by one: weights or inputs were looked at, a loss scaler skipped one,
        they differ in their layers, a layer saw no example, or several calls of a layer are to be merged.
    """
    layout, first = steps[0].fetch()
    vectors = [first]
    for step in steps[1:]:
        other, vector = step.fetch()
        if other is not layout and (other != layout or tuple(other.sizes) != tuple(layout.sizes)):
            return None  # the order of the fields is that of the numbers
        vectors.append(vector)
    if len(first) != layout.size or len(layout.calls) != len({call.layer for call in layout.calls}):
        return None
    fields = layout.columns(np.stack(vectors).astype(np.float64))
    alone = {"skipped", "looked", "inputs"} & fields.keys()
    if any(name == "inputs" or fields[name].any() for name in alone):
        return None
    scale = SQUARE_SCALE * fields["scale"] if "scale" in fields else SQUARE_SCALE
    layers: dict[str, LayerSteps] = {}
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are data
        for call in layout.calls:
            of = of_tap(fields, call.tap)
            if f"{call.layer}:norm_in" in fields and "looked" not in fields:
                return None
            if not (of["examples"].all() and positions(of).all()):
                return None
            layers[call.layer] = _layer_steps(of, scale, call, relu_like=call.tap in layout.relu_like)
    losses = tuple(fields["loss"][:, 0].tolist()) if "loss" in fields else ()
    return StepObservations(layers, losses, steps[-1].weights)


def with_weights(observation: StepObservation, weights: Mapping[str, WeightObservation]) -> StepObservation:
    """The same, with what is known of some layers' weights."""
    if not weights:
        return observation
    layers = {name: replace(seen, weights=weights.get(name)) for name, seen in observation.layers.items()}
    return replace(observation, layers=layers)


def _layer_steps(of: Mapping[str, Vector], scale: Vector | float, call: Call, *, relu_like: bool) -> LayerSteps:
    count = positions(of)
    return LayerSteps(
        examples=np.rint(of["examples"])[:, 0].astype(np.int64),
        positions=count[:, 0].astype(np.int64),
        trainable=call.trainable,
        **_reductions(of, count, of.get("gradient"), scale, relu_like=relu_like),
    )


def _reductions(
    of: Mapping[str, Vector], count: Vector, gradient: Vector | None, scale: Vector | float, *, relu_like: bool
) -> dict[str, Any]:
    """What one step and several have in common."""
    return {
        "fired_examples": of["fired_examples"],
        "fired_positions": of["fired_positions"],
        "sum_abs": of.get("sum_abs", of["sum"]),
        "min": of["min"],
        "max": of["max"],
        "saturated": of.get("saturated"),
        "gradient_squares": None if gradient is None else gradient / (scale * scale),
        **_moments(of, count, relu_like=relu_like),
    }


def _moments(of: Mapping[str, Vector], count: Vector, *, relu_like: bool) -> dict[str, Vector]:
    """Mean, and sum of squared distances from it.

    ReLU-like sums are of the outputs themselves, which need one pass over them less. Where no output differs from the
    first, the mean is that output and not what rounding makes of it.
    """
    shift, squares = of["shift"], of["squares"]
    apart = of["sum"] - count * shift if relu_like else of["sum"]
    apart = np.where(squares == 0, 0.0, apart)
    return {"mean": shift + apart / count, "squares": np.maximum(squares - apart * apart / count, 0)}


def unpack(layout: Layout, vector: npt.NDArray[np.floating]) -> StepObservation:
    """Make an observation of a step's vector. A layer that saw no example is absent."""
    return observation(layout, layout.split(vector))


def observation(layout: Layout, fields: Mapping[str, Vector]) -> StepObservation:
    """Make an observation of a step's fields, as :meth:`Layout.split` or a merge of several gives them."""
    skipped = "skipped" in fields and bool(fields["skipped"][0])
    scale = SQUARE_SCALE * _scale(fields)
    layers: dict[str, Observation] = {}
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are data
        for call in layout.calls:
            weights = None if call.layer in layers else _weights(fields, call, skipped)
            seen = _observed(layout, fields, call, scale, skipped, weights)
            if seen is not None:
                before = layers.get(call.layer)
                layers[call.layer] = merge(before, seen) if before else seen
    loss = fields.get("loss")
    return StepObservation(layers, None if loss is None else float(loss[0]), _inputs(fields.get("inputs")))


def learning_rate(layout: Layout, vector: npt.NDArray[np.floating]) -> float | None:
    """Of the step, None if unknown."""
    rate = layout.split(vector).get("learning_rate")
    return None if rate is None else float(rate[0])


def of_tap(fields: Mapping[str, Vector], tap: int) -> dict[str, Vector]:
    """The fields of one tap, by their names without its number."""
    return {kind: fields[name] for name, kind in _by_tap(tuple(fields)).get(tap, ())}


@functools.lru_cache(maxsize=64)
def _by_tap(names: tuple[str, ...]) -> dict[int, list[tuple[str, str]]]:
    """Tap to the names of its fields, whole and without its number: the same in each step."""
    found: dict[int, list[tuple[str, str]]] = {}
    for name in names:
        tap, _, kind = name.partition(":")
        if kind and tap.isdecimal():
            found.setdefault(int(tap), []).append((name, kind))
    return found


def positions(of: Mapping[str, Vector]) -> Vector:
    """How many positions a tap saw, a whole number, ``[1]``."""
    return np.rint(of["positions"] if "positions" in of else of["examples"] * of["each"])


def _observed(
    layout: Layout,
    fields: Mapping[str, Vector],
    call: Call,
    scale: float,
    skipped: bool,
    weights: WeightObservation | None,
) -> Observation | None:
    of = of_tap(fields, call.tap)
    examples, count = round(float(of["examples"][0])), round(float(positions(of)[0]))
    if not examples or not count:
        return None
    return Observation(
        examples=examples,
        positions=count,
        weights=weights,
        trainable=call.trainable,
        **_reductions(
            of,
            np.float64(count),
            None if skipped else of.get("gradient"),
            scale,
            relu_like=call.tap in layout.relu_like,
        ),
    )


def _weights(fields: Mapping[str, Vector], call: Call, skipped: bool) -> WeightObservation | None:
    norm_in, change = fields.get(f"{call.layer}:norm_in"), fields.get(f"{call.layer}:change")
    gradient = fields.get(f"{call.layer}:weight_gradient")
    if norm_in is None or ("looked" in fields and not fields["looked"][0]):
        return None
    return WeightObservation(
        norm_in=norm_in,
        gradient=None if gradient is None or skipped else gradient / _scale(fields),
        change=None if skipped else change,
        change_since_first=fields.get(f"{call.layer}:since_first"),
        norm_first=fields.get(f"{call.layer}:norm_first"),
        norm_out=fields.get(f"{call.layer}:norm_out"),
    )


def _scale(fields: Mapping[str, Vector]) -> float:
    """By which the loss was multiplied."""
    return float(fields["scale"][0]) if "scale" in fields else 1.0


def _inputs(columns: Vector | None) -> tuple[int, float, float, float, float] | None:
    """Of all input tensors together."""
    if columns is None:
        return None
    merged: tuple[int, float, float, float, float] | None = None
    for count, shift, total, squares, low, high in columns.reshape(-1, 6).tolist():
        if not count:
            continue
        mean, squares = shift + total / count, max(squares - total * total / count, 0.0)
        if merged is None:
            merged = round(count), mean, squares, low, high
            continue
        both = merged[0] + round(count)
        apart = mean - merged[1]
        squares += merged[2] + apart * apart * merged[0] * count / both
        merged = (both, merged[1] + apart * count / both, squares, min(merged[3], low), max(merged[4], high))
    return merged

"""What the forward and backward passes of one observed step have shown, until it becomes one vector of numbers.

Several passes of a step, as when gradients are accumulated, and several calls of a layer add up here, on the device
and about one shift, so that memory does not grow with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from deadunits_tb.capture.activation_functions import output_limits
from deadunits_tb.capture.packed import Call
from deadunits_tb.taps.torch import private as torch_private
from deadunits_tb.taps.torch.layers import UnitLayer
from deadunits_tb.taps.torch.pack import Fields, rows_of
from deadunits_tb.taps.torch.reductions import Reductions
from deadunits_tb.taps.torch.sums import Sums
from deadunits_tb.taps.torch.trails import Consumer, Tap, Trail
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import BOUNDED, RELU_LIKE, Witness


@dataclass(eq=False, slots=True)
class LayerStep:
    """One layer in one step, or one of the activation functions that follow it.

    Attributes:
        layer: The layer.
        function: Behind it.
        sums: Of its outputs, as :class:`~deadunits_tb.taps.torch.reductions.Reductions` gives them.
        witness: Where gradients were taken.
        is_output: Whether the loss took in its units.
        positions: Whether its examples had several positions.
        escaped: Whether not all consumers are known.
        differentiable: Whether any output could have a gradient.
        without_gradients: Whether it ran with gradients disabled.
        consumers: Weights that took in its units.
        gradient: ``[units]`` sum of squares, in the scale of the loss only where that was not known.
        reached: Positions that a gradient reached.
        scale: Of the loss.
        taps: Whose gradients have not been added yet.
    """

    layer: UnitLayer
    function: str | None
    sums: Sums
    witness: Witness
    is_output: bool = False
    positions: bool = False
    escaped: bool = False
    differentiable: bool = False
    without_gradients: bool = False
    consumers: list[Consumer] = field(default_factory=list)
    gradient: Any = None
    reached: Any = 0
    scale: Any = None
    taps: list[tuple[Tap, int]] = field(default_factory=list)

    @property
    def signature(self) -> tuple[Any, ...]:
        """What tells of the layer, and not of its numbers."""
        consumers = tuple((id(one.parameter), one.axis, one.place) for one in self.consumers)
        told = self.witness, self.is_output, self.positions, self.escaped, self.differentiable, self.without_gradients
        return self.layer.name, self.function, self.sums.units, *told, consumers

    def settle(self) -> None:
        """Add the gradients that have arrived."""
        waiting = []
        for tap, positions in self.taps:
            if tap.gradient is None:
                waiting.append((tap, positions))
            elif tap.arrivals > 1:  # the loss came in parts, whose gradients' squares do not add up to the whole's
                self.witness = "none"
            else:
                self._add(tap.gradient, positions, tap.scale)
        self.taps = waiting

    def _add(self, gradient: Any, positions: int, scale: Any) -> None:
        if self.gradient is None:
            self.gradient, self.reached = gradient, positions
        elif scale is None or scale is self.scale:
            self.gradient, self.reached = self.gradient + gradient, self.reached + positions
        else:  # another scale: the scaler has skipped the step before, whose gradients were not finite
            same = scale == self.scale
            self.gradient = torch.where(same, self.gradient, 0) + gradient
            self.reached = torch.where(same, self.reached, 0) + positions
        self.scale = scale


class Seen(NamedTuple):
    """What the passes of one step have shown.

    Attributes:
        numbers: Known to the host.
        tensors: On the device.
        layer_calls: What they mean, for :class:`~deadunits_tb.capture.packed.Layout`.
        relu_like: Taps whose activation function is.
    """

    numbers: dict[str, float]
    tensors: Fields
    layer_calls: list[Call]
    relu_like: frozenset[int]


class StepSums:
    """Takes in the forward passes of one observed step.

    Args:
        reductions: To reduce with.
        thresholds: Those that act while writing are used.
        scale: Gives the root mean square of a layer at the previous record, None before.
        scaler: Gives the ``GradScaler``, None without.
    """

    def __init__(
        self,
        reductions: Reductions,
        thresholds: Thresholds,
        scale: Callable[[str], float | None],
        scaler: Callable[[], Any],
        clock: Callable[[], Any],
    ) -> None:
        self._reductions = reductions
        self._thresholds = thresholds
        self._scale = scale
        self._scaler = scaler
        self._clock = clock
        self._taps: list[Tap] = []
        self._loss_scale: tuple[Any, int, Any] | None = None
        self.layers: dict[tuple[str, str | None], LayerStep] = {}
        self.failure: Exception | None = None
        self.passes = 0
        """Forward passes so far."""
        self._unscaled_by: Any = None
        self._mixed = False

    def stage(self, tensor: Any, tap: Tap) -> None:
        """Have the gradient of a tensor reduced when it arrives."""
        if not tensor.requires_grad:
            return
        tap.differentiable = True
        self._taps.append(tap)

        def arrived(gradient: Any) -> None:
            if tap.closed or self.failure is not None or gradient is None:  # as of an output that nothing took in
                return
            try:
                with self._clock():
                    self.arrived(gradient, tap)
            except Exception as error:
                self.failure = error

        tensor.register_hook(arrived)

    def arrived(self, gradient: Any, tap: Tap) -> None:
        """Reduce a gradient, from a hook or from elsewhere."""
        tap.arrivals += 1
        if tap.arrivals == 1:
            tap.scale = self.loss_scale()
            tap.gradient = self._reductions.gradient_squares(gradient, tap.place, tap.scale)

    def reduce(self, output: Any, tap: Tap, function: str | None) -> None:
        """Reduce an output."""
        limits = (-math.inf, math.inf)
        if function in BOUNDED:
            limits = output_limits(function, self._thresholds.saturated_derivative)
        known = self.layers.get((tap.layer.name, function))
        with torch.no_grad():
            tap.sums = self._reductions.activation_sums(
                output,
                tap.place,
                relu_like=function in RELU_LIKE,
                limits=limits,
                scale=self._scale(tap.layer.name),
                fired_scale=self._thresholds.fired_scale,
                shift=known.sums.whole()["shift"] if known is not None else None,
            )

    def count_rows(self, indices: Any, tap: Tap) -> None:
        """Count which rows of a table were looked up: a row is 1 where it was and 0 elsewhere."""
        units = tap.place.units
        indices = indices.detach().long().reshape(len(indices) if indices.dim() else 1, -1)
        tap.sums = Sums(examples=len(indices), positions=indices.numel())
        if not indices.numel():
            return
        one = torch.ones((), device=indices.device, dtype=torch.float32)
        counts = torch.zeros(units, device=indices.device, dtype=torch.float32)
        counts.index_put_((indices.flatten(),), one, accumulate=True)
        in_examples = torch.zeros((len(indices), units), device=indices.device, dtype=torch.float32)
        tap.sums |= {
            "shift": torch.zeros_like(counts),
            "max": (counts > 0).float(),
            "squares": counts,
            "sum": counts,
            "fired_positions": counts,
            "min": (counts == indices.numel()).float(),
            "fired_examples": in_examples.scatter_(1, indices, 1).sum(0),
        }

    def add(self, trail: Trail) -> None:
        """Take in a trail at the end of its pass."""
        tap = trail.tap
        if tap is None or tap.sums is None or not tap.sums["positions"]:
            return
        key = trail.layer.name, trail.function
        known = self.layers.get(key)
        if known is None:
            known = self.layers[key] = LayerStep(trail.layer, trail.function, tap.sums, trail.witness)
        else:
            shift, sums = known.sums.whole()["shift"], tap.sums.whole()
            if sums["shift"] is not shift:  # two calls of a layer in one pass, reduced before either was added
                sums = sums.about(shift, relu_like=trail.function in RELU_LIKE)
            known.sums = known.sums.merge(sums)
        known.is_output = known.is_output or trail.is_output
        known.escaped = known.escaped or trail.escaped or not trail.consumers
        known.differentiable = known.differentiable or tap.differentiable
        known.without_gradients = known.without_gradients or trail.disabled
        known.positions = known.positions or tap.sums["positions"] > tap.sums["examples"]
        if trail.witness != known.witness:
            known.witness = "none" if "none" in (trail.witness, known.witness) else "output"
        for consumer in trail.consumers:
            if not _among(consumer, known.consumers):
                known.consumers.append(consumer)
        if tap.differentiable:
            known.taps.append((tap, tap.sums["positions"]))

    def settle(self) -> None:
        """Add the gradients that have arrived since the last pass."""
        for layer in self.layers.values():
            layer.settle()
        self._taps = [tap for tap in self._taps if tap.gradient is None]

    def close(self) -> None:
        """The step is over: what arrives from now on belongs to none."""
        for tap in self._taps:
            tap.closed = True

    def scaled_by(self, scale: Any) -> None:
        """A scaler was found: gradients have arrived in its scale. Of several passes one may be of a step it skipped.

        Args:
            scale: A tensor, None if it does not scale.
        """
        if scale is not None:
            self._unscaled_by, self._mixed = scale.clone(), self.passes > 1

    def fields(self) -> Seen:
        """What was found so far."""
        self.settle()
        numbers: dict[str, float] = {}
        tensors: Fields = {}
        layer_calls: list[Call] = []
        relu_like = set()
        for at, step in enumerate(self.layers.values()):
            layer_calls.append(Call(step.layer.name, at, step.layer.trainable))
            if step.sums.matrix is not None:
                tensors[rows_of(at, step.sums.rows)] = step.sums.matrix
            for name, value in step.sums.items():
                if name in ("examples", "positions"):
                    numbers[f"{at}:{name}"] = value
                elif step.sums.matrix is None:
                    tensors[f"{at}:{name}"] = value
            if step.function in RELU_LIKE:
                relu_like.add(at)
            if step.gradient is not None and step.witness != "none" and not self._mixed:
                reached, positions = step.reached, step.sums["positions"]
                all_reached = isinstance(reached, int) and reached == positions
                gradient = step.gradient if all_reached else step.gradient * (positions / reached)
                scale = self._unscaled_by if step.scale is None else None  # else it was undone before the squares
                tensors[f"{at}:gradient"] = gradient if scale is None else _unscaled(gradient, scale)
        return Seen(numbers, tensors, layer_calls, frozenset(relu_like))

    def loss_scale(self) -> Any:
        """The scale of the loss; the same object as long as it stays."""
        scale = torch_private.scale_of(self._scaler())
        if scale is None:
            return None
        known = self._loss_scale
        if known is None or known[0] is not scale or known[1] != scale._version:
            known = self._loss_scale = scale, scale._version, scale.clone()
        return known[2]


def _among(consumer: Consumer, others: Sequence[Consumer]) -> bool:
    return any(consumer.parameter is other.parameter and consumer.place == other.place for other in others)


def known_consumers(layers: Iterable[LayerStep]) -> dict[str, list[Consumer]]:
    """Layer to the weights that take in its units, where all are known."""
    found: dict[str, list[Consumer]] = {}
    unknown = set()
    for step in layers:
        if step.escaped or not step.consumers:
            unknown.add(step.layer.name)
        mine = found.setdefault(step.layer.name, [])
        mine += [one for one in step.consumers if not _among(one, mine)]
    return {name: consumers for name, consumers in found.items() if name not in unknown}


def _unscaled(squares: Any, scale: Any) -> Any:
    scale = scale.to(squares.device)
    return squares / scale / scale

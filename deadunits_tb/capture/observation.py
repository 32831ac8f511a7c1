"""What one observed training step tells about one layer, reduced over examples and positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Int = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WeightObservation:
    """Of the incoming and outgoing weights, around one optimizer step. Arrays are ``[units]`` or None if not measured.

    Attributes:
        norm_in: Norm of the incoming weights before the step.
        norm_out: Norm of the outgoing weights, None unless every consumer is known.
        gradient: Norm of the loss gradient of the incoming weights.
        change: Norm of the change of the incoming weights in this step.
        norm_before: Norm of the incoming weights before that change, None where that is ``norm_in``.
        change_since_first: Norm of the change since the first observation.
        norm_first: Norm of the incoming weights at the first observation.
    """

    norm_in: Array | None = None
    norm_out: Array | None = None
    gradient: Array | None = None
    change: Array | None = None
    change_since_first: Array | None = None
    norm_first: Array | None = None
    norm_before: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reductions:
    """Mergeable reductions of one layer: what one step and several have in common.

    Attributes:
        fired_examples: Examples on which the unit fired at any position.
        fired_positions: Positions on which it fired.
        mean: Mean output.
        squares: Sum over positions of the squared distance from ``mean``; exactly zero for a constant output.
        sum_abs: Sum of absolute outputs.
        min: Smallest output.
        max: Largest output.
        saturated: Positions at a bound, None for functions without bounds.
        gradient_squares: Sum over positions of the squared loss gradient at the pre-activation (loss summed as the user
            reduces it, unscaled); None if not measured, as in a step that a loss scaler skips.
        trainable: Whether the layer's weights are trained at present.
    """

    fired_examples: Array
    fired_positions: Array
    mean: Array
    squares: Array
    sum_abs: Array
    min: Array
    max: Array
    saturated: Array | None = None
    gradient_squares: Array | None = None
    trainable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation(_Reductions):
    """What one observed step tells about one layer. Arrays are ``[units]``.

    Attributes:
        examples: Rows of axis 0.
        positions: Examples times all other axes but that of the units.
        weights: None if the weights were not looked at.
    """

    examples: int
    positions: int
    weights: WeightObservation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSteps(_Reductions):
    """What several observed steps tell about one layer, none of which looked at its weights. Arrays ``[steps, units]``.

    Attributes:
        examples: ``[steps]``, and so on as in :class:`Observation`.
        positions: ``[steps]``.
    """

    examples: Int
    positions: Int

    @classmethod
    def of(cls, one: Observation) -> LayerSteps:
        """A single step."""
        return cls(
            examples=np.array([one.examples]),
            positions=np.array([one.positions]),
            fired_examples=one.fired_examples[None],
            fired_positions=one.fired_positions[None],
            mean=one.mean[None],
            squares=one.squares[None],
            sum_abs=one.sum_abs[None],
            min=one.min[None],
            max=one.max[None],
            saturated=None if one.saturated is None else one.saturated[None],
            gradient_squares=None if one.gradient_squares is None else one.gradient_squares[None],
            trainable=one.trainable,
        )


@dataclass(frozen=True, slots=True)
class StepObservation:
    """Everything seen at one observed step.

    Attributes:
        layers: Layer name to its observation. A layer that was not called is absent.
        loss: None if unknown.
        inputs: ``(count, mean, sum of squared distances from it, min, max)`` of all values fed to the model, or None.
    """

    layers: Mapping[str, Observation] = field(default_factory=dict)
    loss: float | None = None
    inputs: tuple[int, float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class StepObservations:
    """Several observed steps, stacked; the model's inputs were not looked at.

    Attributes:
        layers: Layer name to what all of the steps tell of it.
        losses: Of those steps whose loss is known.
        weights: Layer name to what is known of its weights at the last of the steps.
    """

    layers: Mapping[str, LayerSteps]
    losses: tuple[float, ...] = ()
    weights: Mapping[str, WeightObservation] = field(default_factory=dict)


Deferred = Callable[[], StepObservation]
"""Fetches an observation from the device; called when a record is due, so that other steps never wait."""

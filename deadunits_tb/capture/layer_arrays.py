"""The arrays of one layer at one step: checked against each other and against what was said before, then reduced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.activation_functions import known_name
from deadunits_tb.capture.array_ranges import ArrayRanges, InputRanges
from deadunits_tb.capture.arrays import Matrix, as_numbers, check_axis, check_mask
from deadunits_tb.capture.observation import Observation, WeightObservation
from deadunits_tb.capture.reductions import observe_arrays, rows_by_unit, squared_sum
from deadunits_tb.capture.weight_history import WeightBudget, WeightHistory
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, Role

_NEVER_NEGATIVE = frozenset({"relu", "relu6", "squared_relu", "sigmoid", "hard_sigmoid"})


@dataclass(frozen=True, slots=True)
class LayerArrays:
    """What a caller handed over for one layer at one step, checked.

    Attributes:
        layer: Name of the layer.
        activation_function: Field name, None if unknown.
        role: Of the layer.
        trainable: Whether its weights are trained at present.
        activations: ``[examples, ..., units]``, the units along ``unit_axis``.
        unit_axis: Counted from the front.
        gradients: Shaped like ``activations``, or None.
        mask: ``[examples, ...]``, or None.
        weights: Incoming, ``[fan_in, units]``, or None.
        weight_gradients: The same, or None.
        outgoing: ``[fan_out, units]``, or None.
        ranges: Of what the weights take in, or None.
    """

    layer: str
    activation_function: str | None
    role: Role
    trainable: bool
    activations: Matrix
    unit_axis: int
    gradients: Matrix | None
    mask: npt.NDArray[np.bool_] | None
    weights: Matrix | None
    weight_gradients: Matrix | None
    outgoing: Matrix | None
    ranges: InputRanges | None

    @classmethod
    def of(
        cls,
        layer: str,
        activations: object,
        *,
        activation_function: str | None,
        gradients: object,
        weights: object,
        weight_gradients: object,
        outgoing: object,
        inputs_low: object,
        inputs_high: object,
        biases: object,
        unit_axis: int,
        weight_unit_axis: int,
        mask: object,
        trainable: bool,
        role: Role,
    ) -> LayerArrays:
        """Take in what a caller gave.

        Raises:
            InvalidArgumentError: Something has the wrong type, value or shape.
        """
        if not isinstance(layer, str) or not layer:
            raise InvalidArgumentError(f"layer must be the name of a layer, not {layer!r}")
        if activation_function is not None and not isinstance(activation_function, str):
            raise InvalidArgumentError(
                f"activation_function must be a name such as 'relu', not {activation_function!r}"
            )
        if role not in get_args(Role):
            raise InvalidArgumentError(f"role must be 'hidden' or 'output', not {role!r}")
        if not isinstance(trainable, (bool, np.bool_)):
            raise InvalidArgumentError(f"trainable must be True or False, not {trainable!r}")
        values = as_numbers("activations", activations)
        if values.ndim < 2:
            raise InvalidArgumentError(f"activations must be [examples, ..., units], not of shape {values.shape}")
        axis = check_axis("unit_axis", unit_axis, values.ndim, low=1)
        units = values.shape[axis]
        if not units:
            raise InvalidArgumentError(f"activations of shape {values.shape} have no units along axis {unit_axis}")
        shape = values.shape[:axis] + values.shape[axis + 1 :]
        incoming = _by_unit("weights", weights, weight_unit_axis, units)
        steepness = _by_unit("weight_gradients", weight_gradients, weight_unit_axis, units)
        if incoming is not None and steepness is not None and incoming.shape != steepness.shape:
            raise InvalidArgumentError(
                f"weight_gradients are {len(steepness)} per unit and weights {len(incoming)}: their shapes must agree"
            )
        return cls(
            layer=layer,
            activation_function=None if activation_function is None else known_name(activation_function),
            role=role,
            trainable=bool(trainable),
            activations=values,
            unit_axis=axis,
            gradients=None if gradients is None else _like(values, "gradients", gradients),
            mask=None if mask is None else check_mask(mask, shape),
            weights=incoming,
            weight_gradients=steepness,
            outgoing=_by_unit("outgoing", outgoing, 0, units),
            ranges=InputRanges.of(
                inputs_low,
                inputs_high,
                biases,
                None if weights is None else as_numbers("weights", weights).shape,
                weight_unit_axis,
                units,
            ),
        )

    @property
    def units(self) -> int:
        """How many units the layer has."""
        return int(self.activations.shape[self.unit_axis])


class ObservedLayer:
    """One layer across steps: what was said of it first, and how its weights moved since.

    Args:
        arrays: Of the first step.
        order: Place among the layers.
        budget: Decides how the change of weights is measured.
    """

    def __init__(self, arrays: LayerArrays, order: int, budget: WeightBudget) -> None:
        self._budget = budget
        self.ranges = ArrayRanges()
        """Of its inputs, where the caller tells them."""
        self._history: WeightHistory | None = None
        self._shape: tuple[int, ...] | None = None
        self._norm: npt.NDArray[np.float64] | None = None
        self.info = LayerInfo(
            name=arrays.layer,
            kind="Array",
            order=order,
            units=arrays.units,
            activation_function=arrays.activation_function,
            fan_out=None if arrays.outgoing is None else len(arrays.outgoing),
            role=arrays.role,
            framework="numpy",
            witness="pre_activation",
        )
        self._begin_weights(arrays)

    def check(self, arrays: LayerArrays) -> None:
        """Check that later arrays do not contradict what was said before.

        Raises:
            InvalidArgumentError: They do.
        """
        before = self.info
        for name, was, now in (
            ("units", before.units, arrays.units),
            ("activation_function", before.activation_function, arrays.activation_function),
            ("role", before.role, arrays.role),
        ):
            if was != now:
                raise InvalidArgumentError(f"layer {before.name!r} had {name} {was!r} before, not {now!r}")
        if self._shape is not None and arrays.weights is not None and arrays.weights.shape != self._shape:
            raise InvalidArgumentError(
                f"layer {before.name!r} had {self._shape[0]} weights per unit before, not {len(arrays.weights)}"
            )

    def observe(self, arrays: LayerArrays, *, scale: float | None, thresholds: Thresholds) -> Observation | None:
        """Reduce the arrays of one step; None for an empty batch.

        Args:
            arrays: Of the step.
            scale: Root mean square of the layer at the previous record, None before.
            thresholds: For what counts as fired and as saturated.
        """
        seen = observe_arrays(
            arrays.activations,
            activation_function=arrays.activation_function,
            unit_axis=arrays.unit_axis,
            gradients=arrays.gradients,
            mask=arrays.mask,
            scale=scale,
            thresholds=thresholds,
        )
        if seen is None:
            return None
        self._begin_weights(arrays)
        return replace(seen, trainable=arrays.trainable, weights=self._look(arrays))

    def _begin_weights(self, arrays: LayerArrays) -> None:
        if self._history is None and arrays.weights is not None:
            method = self._budget.method(arrays.weights)
            self._history, self._shape = WeightHistory(method), arrays.weights.shape
            self.info = replace(self.info, fan_in=len(arrays.weights), weight_delta=method)

    def _look(self, arrays: LayerArrays) -> WeightObservation:
        weights, norm_in, norm_before, moved = arrays.weights, None, None, None
        if weights is not None and self._history is not None:
            norm_in, moved = _norm(weights), self._history.look(weights)
            norm_before, self._norm = self._norm, norm_in
        return WeightObservation(
            norm_in=norm_in,
            norm_out=None if arrays.outgoing is None else _norm(arrays.outgoing),
            gradient=None if arrays.weight_gradients is None else _norm(arrays.weight_gradients),
            change=moved.change if moved else None,
            change_since_first=moved.change_since_first if moved else None,
            norm_first=moved.norm_first if moved else None,
            norm_before=norm_before,  # the change is that up to now
        )


def check_range(arrays: LayerArrays, seen: Observation) -> None:
    """Check, once per layer, that activations can be outputs of the function that they are said to come from.

    Raises:
        InvalidArgumentError: They cannot: probably they are pre-activations.
    """
    if arrays.activation_function in _NEVER_NEGATIVE and (seen.min < 0).any():
        lowest = float(np.min(seen.min[seen.min < 0]))
        raise InvalidArgumentError(
            f"activations of layer {arrays.layer!r} are as low as {lowest:g}, which {arrays.activation_function!r} "
            "never gives: hand over its outputs, or say which activation_function it is"
        )


def _like(values: Matrix, name: str, given: object) -> Matrix:
    array = as_numbers(name, given)
    if array.shape != values.shape:
        raise InvalidArgumentError(f"{name} have shape {array.shape}, activations {values.shape}: they must agree")
    return array


def _by_unit(name: str, given: object, axis: int, units: int) -> Matrix | None:
    if given is None:
        return None
    array = as_numbers(name, given)
    if not array.ndim:
        raise InvalidArgumentError(f"{name} must have an axis of units, not be a single number")
    at = check_axis("weight_unit_axis", axis, array.ndim)
    if array.shape[at] != units:
        raise InvalidArgumentError(
            f"{name} of shape {array.shape} have {array.shape[at]} units along axis {axis}, the activations {units}"
        )
    return rows_by_unit(array, at)[0]


def _norm(weights: Matrix) -> npt.NDArray[np.float64]:
    return np.sqrt(squared_sum(weights))

"""What the observed steps of all backends have in common."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.activation_functions import output_limits
from deadunits_tb.capture.observation import WeightObservation
from deadunits_tb.capture.packed import Layout
from deadunits_tb.record import Int
from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.keras.follow import Backend, Follower
from deadunits_tb.taps.keras.layers import Survey, UnitLayer
from deadunits_tb.taps.keras.proving import Proving
from deadunits_tb.taps.keras.replacing import replaced
from deadunits_tb.taps.keras.sums import input_axes
from deadunits_tb.taps.keras.trails import StepTrace, Tap
from deadunits_tb.taps.keras.weights import Device
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import BOUNDED


class KerasStep(Backend):
    """Runs a model's training steps with taps.

    Made for one model; :meth:`make` for each train function of it. A backend adds how a step is run and what tensors
    are reduced with, and :attr:`weights`.

    Args:
        model: Built and compiled.
        survey: Its layers.
        thresholds: Those that act while writing are used.
    """

    weights: Any
    """What is remembered of weights."""
    around: Proving | None = None
    """What looks at parameters before the next observed step and after it."""

    def __init__(self, model: keras.Model, survey: Survey, thresholds: Thresholds) -> None:
        self._model = model
        self._survey = survey
        self._thresholds = thresholds
        self._follower = Follower(model, survey, self)
        self._order = {unit_layer.name: at for at, unit_layer in enumerate(survey.watched)}
        self._looks = True
        self._ranges = False
        self._plain: Callable[..., Any] | None = None
        self._function: Callable[..., Any] | None = None
        self._layouts: list[Layout] = []
        self.traces: list[StepTrace] = []
        """What was found when the step was traced, once per trace; eagerly, of the latest step."""
        self.failure: Exception | None = None
        """Why an observation failed; the step itself has gone its way."""

    @property
    def weight_methods(self) -> Mapping[str, Literal["exact", "projection"]]:
        """Layer to how changes of its weights are measured."""
        methods: Mapping[str, Literal["exact", "projection"]] = self.weights.methods
        return methods

    def make(self) -> None:
        """Build the second train function; the model keeps the one that it has."""
        self._plain = self._model.train_function
        try:
            with replaced([(self._model, "train_step", self._wrap(self._model.train_step))]):
                self._model.make_train_function(force=True)
                self._function = self._model.train_function
        finally:
            vars(self._model)["train_function"] = self._plain

    def look_at_weights(self, look: bool) -> None:
        """Whether the next observed step looks at the weights."""
        self._looks = look

    def look_at_ranges(self, look: bool) -> None:
        """Whether the next observed step looks at the ranges of what layers take in."""
        self._ranges = look

    def input_to_keep(self, tensor: Any, layer: UnitLayer) -> Any:
        """What a layer takes in, to be looked at when the step is over; None where that is not wanted."""
        return tensor if self._ranges and input_axes(layer) else None

    def since_first(self) -> dict[str, WeightObservation]:
        """Change of the weights since the first observed step, and outgoing norms."""
        found: dict[str, WeightObservation] = self.weights.since_first()
        return found

    @abc.abstractmethod
    def _wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The model's ``train_step`` with taps."""

    def _limits(self, tap: Tap) -> tuple[float, float]:
        """Outputs at which the units of a tap are saturated, infinite without."""
        if tap.function in BOUNDED:
            return output_limits(tap.function, self._thresholds.saturated_derivative)
        return -math.inf, math.inf

    def _in_order(self, scales: Mapping[str, float | None]) -> npt.NDArray[np.float32]:
        """``[layers]``: the scale of each, -1 where there is none."""
        values = np.full(len(self._order), -1, np.float32)
        for name, scale in scales.items():
            if name in self._order and scale is not None:
                values[self._order[name]] = scale
        return values

    def _number_of(self, layout: Layout) -> int:
        """Under which a layout is known, from now on."""
        if layout not in self._layouts:
            self._layouts.append(layout)
        return self._layouts.index(layout)

    @property
    @abc.abstractmethod
    def accelerated(self) -> bool:
        """Whether matrix units may take float32 with ten bits."""

    def pick(self, value: Any, columns: Columns, units: Int) -> npt.NDArray[np.floating]:
        """``[rows, k]``: some units of the value of a variable, on the host."""
        device: Device = self.weights.device
        return device.numpy(device.matrix(columns, value))[:, units]

    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The model's own optimizer, and others that a GAN may have."""
        held = [self._model.optimizer, *vars(self._model).values()]
        return list({id(one): one for one in held if isinstance(one, keras.optimizers.Optimizer)}.values())

    def _numeric_inputs(self, data: Any) -> list[Any]:
        """What of a batch can be summarized as numbers."""
        inputs = data[0] if isinstance(data, (list, tuple)) and data else data
        return [tensor for tensor in keras.tree.flatten(inputs) if self._is_numeric(tensor)]

    @abc.abstractmethod
    def _is_numeric(self, tensor: Any) -> bool:
        """Whether these are numbers, and not names of tokens."""

"""What a training step with taps is, whatever backend Keras runs on, and which backends have one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import keras
import numpy as np
import numpy.typing as npt

from deadunits_tb.capture import packed
from deadunits_tb.capture.observation import WeightObservation
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.record import Int
from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.keras.consumers import Outgoing
from deadunits_tb.taps.keras.layers import Survey
from deadunits_tb.taps.keras.proving import Proving
from deadunits_tb.taps.keras.trails import StepTrace
from deadunits_tb.thresholds import Thresholds


class ObservedStep(Protocol):
    """A backend's training step with taps."""

    traces: list[StepTrace]
    failure: Exception | None
    only: bool
    around: Proving | None

    @property
    def framework(self) -> str:
        """Such as ``"keras/tensorflow"``."""

    @property
    def weight_methods(self) -> Mapping[str, Literal["exact", "projection"]]:
        """Layer to how changes of its weights are measured."""

    def make(self) -> None:
        """Build the second train function."""

    def begin(self) -> None:
        """Remember the weights before the first observed step."""

    def __call__(self, *args: Any) -> tuple[Any, Any]:
        """Run a step: what the train function returns, and numbers on the device, or None where that failed."""

    def fetch(self, numbers: Any) -> tuple[packed.Layout, npt.NDArray[np.floating]]:
        """Wait for the numbers of a step."""

    def since_first(self) -> dict[str, WeightObservation]:
        """Of the weights as they are now."""

    def look_at_weights(self, look: bool) -> None:
        """Whether the next observed step looks at the weights."""

    def look_at_ranges(self, look: bool) -> None:
        """Whether the next observed step looks at the ranges of what layers take in."""

    @property
    def accelerated(self) -> bool:
        """Whether matrix units may take float32 with ten bits."""

    def pick(self, value: Any, columns: Columns, units: Int) -> npt.NDArray[np.floating]:
        """``[rows, k]``: some units of the value of a variable, on the host."""

    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """All that may train the model."""

    def set_scales(self, scales: Mapping[str, float | None]) -> None:
        """Root mean square of each layer's activations at the previous record."""


def observed_step(
    model: keras.Model,
    survey: Survey,
    outgoing: Mapping[str, Outgoing],
    thresholds: Thresholds,
    *,
    compiled: bool,
) -> ObservedStep:
    """The observed step of the backend that Keras runs on.

    Args:
        model: Built and compiled.
        survey: Its layers.
        outgoing: Layer to the weights that take in its units.
        thresholds: In force.
        compiled: Whether big reductions are worth compiling.

    Raises:
        InvalidArgumentError: There is none for it.
    """
    made: ObservedStep = step_class()(model, survey, outgoing, thresholds, compiled=compiled)
    return made


def check_backend() -> None:
    """Find out whether there are taps for the backend that Keras runs on.

    Raises:
        InvalidArgumentError: There are none.
        MissingDependencyError: This version of the backend cannot be watched.
    """
    step_class()
    if keras.backend.backend() == "jax":
        from deadunits_tb.taps.jax.private import check_version

        check_version()


def backend_facts() -> tuple[str, dict[str, str]]:
    """Name of the framework, and the versions of its packages."""
    step = step_class()
    return step.framework, {"keras": keras.__version__, **step.versions}


def step_class() -> Any:
    """The class of observed steps of the backend that Keras runs on.

    Raises:
        InvalidArgumentError: There is none for it.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from deadunits_tb.taps.keras.tensorflow import TensorFlowStep

        return TensorFlowStep
    if backend == "jax":
        from deadunits_tb.taps.keras.jax import JaxStep

        return JaxStep
    if backend == "torch":
        from deadunits_tb.taps.keras.torch import TorchStep

        return TorchStep
    raise InvalidArgumentError(
        f"DeadUnitsCallback works with Keras on TensorFlow, JAX and PyTorch, and Keras runs on {backend!r}: set the "
        "environment variable KERAS_BACKEND to one of them, or write arrays with DeadUnitsWriter"
    )

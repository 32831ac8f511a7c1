"""The ways that units take through a forward pass, from their layer to where they are looked at and taken in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from deadunits_tb.taps.torch.layers import UnitLayer
from deadunits_tb.taps.torch.rows import Place
from deadunits_tb.taps.torch.sums import Sums
from deadunits_tb.units import Witness


@dataclass(eq=False, slots=True)
class Tap:
    """One place where units are looked at.

    Attributes:
        layer: Whose scale decides what firing is.
        place: Of the units.
        sums: Of the output, once it was reduced.
        gradient: ``[units]`` sum of squares, None if none has arrived.
        arrivals: How often a gradient has arrived.
        scale: Of the loss when it arrived, a tensor; None if unknown or 1.
        differentiable: Whether a gradient can arrive.
        closed: Whether what arrives now is no longer of this step.
    """

    layer: UnitLayer
    place: Place
    sums: Sums | None = None
    gradient: Any = None
    arrivals: int = 0
    scale: Any = None
    differentiable: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Consumer:
    """Weights that take in units.

    Attributes:
        parameter: The weights.
        axis: Of the inputs.
        place: How the units lie along it.
    """

    parameter: Any
    axis: int
    place: Place

    @property
    def weights(self) -> int:
        """How many take in one unit."""
        each = int(self.parameter.numel()) // int(self.parameter.shape[self.axis])
        return each * self.place.outer * self.place.inner


@dataclass(eq=False, slots=True)
class Trail:
    """The way of one layer's output, of one call, to its activation function.

    Attributes:
        layer: Where it began.
        output: The layer's own output, as long as no activation function was found.
        place: Of the units there.
        tap: Where the units are looked at.
        function: Name of the activation function.
        ended: At an activation function, or seen at the output only.
        met: Whether it was taken in by a linear map or a loss.
        lost: Whether something that is not understood took it in before its activation function.
        escaped: Whether something that is not understood took in its units anywhere: then not all consumers are known.
        is_output: Whether the loss takes in the units.
        witness: Where the gradient was taken.
        disabled: Whether gradients were disabled when it began.
        consumers: Weights that take in the units, and how the units lie along their inputs.
    """

    layer: UnitLayer
    output: Any
    place: Place
    tap: Tap | None = None
    function: str | None = None
    ended: bool = False
    met: bool = False
    lost: bool = False
    escaped: bool = False
    is_output: bool = False
    witness: Witness = "pre_activation"
    disabled: bool = False
    consumers: list[Consumer] = field(default_factory=list)


@dataclass(frozen=True, eq=False, slots=True)
class Passage:
    """A trail at one tensor: where its units are there, and whether that is behind the activation function."""

    trail: Trail
    place: Place
    behind: bool = False


class Sink(Protocol):
    """What following needs of the step that it serves."""

    def stage(self, tensor: Any, tap: Tap) -> None:
        """Have the gradient of a tensor reduced when it arrives. The one place where that is arranged."""

    def reduce(self, output: Any, tap: Tap, function: str | None) -> None:
        """Reduce an output."""

    def count_rows(self, indices: Any, tap: Tap) -> None:
        """Count which rows of a table were looked up."""

    def add(self, trail: Trail) -> None:
        """Take in a trail at the end of its pass."""

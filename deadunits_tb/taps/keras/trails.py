"""What is known of an observed step while it runs: which tensor holds the units of which layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from deadunits_tb.taps.keras.layers import UnitLayer
from deadunits_tb.taps.keras.ways import UNCHANGED, UNFINISHED, Way


@dataclass(eq=False, slots=True)
class Tap:
    """One place where units are looked at.

    Attributes:
        layer: Whose scale decides what firing is.
        axes: Of the units, counted from the front.
        mask: What is real of the leading axes, None for all.
        function: Name of the activation function, None if it was not found.
        activation: What the backend made of the output.
        gradient: What it made of the gradient, None if no gradient arrived.
    """

    layer: UnitLayer
    axes: tuple[int, ...]
    mask: Any
    function: str | None = None
    activation: Any = None
    gradient: Any = None


@dataclass(eq=False, slots=True)
class Trail:
    """The way of one layer's output, of one call, to its activation function.

    Attributes:
        layer: Where it began.
        tap: Where the units are looked at: at the layer's own output, until an activation function was found.
        output: The layer's own output, until then.
        ended: At an activation function.
        lost: Something mixed the units with positions.
        met: Whether anything known took in what the units last gave.
        is_output: Whether the loss takes in the units.
        given: What the layer took in, None where nobody wants to know.
        way: To the activation function.
    """

    layer: UnitLayer
    tap: Tap
    output: Any
    ended: bool = False
    lost: bool = False
    met: bool = False
    is_output: bool = False
    given: Any = None
    way: Way = UNFINISHED


@dataclass(frozen=True, eq=False, slots=True)
class Passage:
    """A trail at one tensor: where its units are there, what is real, and how it came there."""

    trail: Trail
    axes: tuple[int, ...]
    mask: Any
    way: Way = UNCHANGED


@dataclass(eq=False)
class StepTrace:
    """One observed step, while it is traced or run.

    Attributes:
        graph: Identifies the computation, as the backend sees it.
        trails: In the order of the calls.
        elsewhere: Names of layers called where their values cannot be carried out of.
        masks: Of the input of layers that are being called, by layer.
        given: Their inputs, likewise.
        outputs_known: Whether it was seen what the loss takes in.
        loss: As the model computed it.
        failure: What went wrong in our own work.
        inside: Depth of calls that are not looked into.
    """

    graph: object
    trails: list[Trail] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    masks: dict[int, Any] = field(default_factory=dict)
    given: dict[int, Any] = field(default_factory=dict)
    outputs_known: bool = False
    loss: Any = None
    failure: Exception | None = None
    inside: int = 0
    _tags: dict[int, tuple[Any, list[Passage]]] = field(default_factory=dict)

    def tag(self, tensor: Any, passages: list[Passage]) -> None:
        """Note which trails have come to a tensor. The tensor is kept: an id is used again when one dies."""
        self._tags[id(tensor)] = (tensor, passages)

    def at(self, tensor: Any) -> list[Passage]:
        """The trails that have come to a tensor."""
        known = self._tags.get(id(tensor))
        return known[1] if known is not None and known[0] is tensor else []

    def forget_tensors(self) -> None:
        """Let go of what was only needed while the step ran."""
        self._tags.clear()
        self.masks.clear()
        self.given.clear()
        for trail in self.trails:
            trail.tap.mask = None

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Run our own work: what fails there fails the observation, never the step."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error

    @contextlib.contextmanager
    def nested(self) -> Iterator[None]:
        """Run what is the user's, and is not looked into."""
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

"""Tensors of any layout as rows of units, in blocks that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BLOCK = 1 << 17
"""Numbers in a block: with the scratch one MiB, about half of what a core's own cache holds."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the units are in a tensor.

    Attributes:
        axis: That holds them, counted from the front.
        units: How many.
        outer: How often all units are repeated along this axis.
        inner: How often each is repeated there before the next: the positions of an image that was flattened.
        examples: Axis of the examples.
        positions: How many entries of that axis, one after the other, belong to one example: the tokens of a sequence
            where ``[examples, tokens, units]`` was reshaped to ``[examples * tokens, units]``.
        start: Where all that begins along the axis, if it is a part of it, as after a concatenation.
        whole: Whether it is all of it.
    """

    axis: int
    units: int
    outer: int = 1
    inner: int = 1
    examples: int = 0
    positions: int = 1
    start: int = 0
    whole: bool = True

    @property
    def length(self) -> int:
        """Of the part of the axis."""
        return self.outer * self.units * self.inner

    @property
    def alone(self) -> bool:
        """Whether the axis holds nothing but the units."""
        return self.outer == self.inner == 1


@dataclass(frozen=True, slots=True)
class Rows:
    """Values in a layout that can be reduced: ``[examples, units]``, or with positions before or after the units.

    Attributes:
        values: Of any type.
        positions: Axis of the positions, None if each example has one.
    """

    values: Any
    positions: int | None

    @classmethod
    def of(cls, tensor: Any, place: Place) -> Rows:
        """Bring a tensor of any layout there, as a view wherever that is possible."""
        axis, examples = place.axis, place.examples
        if not place.whole:
            tensor = tensor.narrow(axis, place.start, place.length)
        if place.positions > 1:
            tensor, axis = tensor.unflatten(examples, (-1, place.positions)), axis + (axis > examples)
        if not place.alone:
            tensor = tensor.unflatten(axis, (place.outer, place.units, place.inner))
            axis, examples = axis + 1, examples + 2 * (examples > axis)
        if tensor.dim() == 1 or axis == examples:  # one example, without an axis of its own
            tensor, axis, examples = tensor[None], axis + 1, 0
        if examples:
            order = [examples, *(at for at in range(tensor.dim()) if at != examples)]
            tensor, axis = tensor.permute(order), axis + (axis < examples)
        if tensor.dim() == 2:
            return cls(tensor, None)
        others = [at for at in range(1, tensor.dim()) if at != axis]
        last = tensor.stride(axis) == 1 or axis == tensor.dim() - 1
        order = [0, *others, axis] if last else [0, axis, *others]
        tensor = tensor.permute(order)
        return cls(tensor.flatten(1, -2) if last else tensor.flatten(2), 1 if last else 2)

    @property
    def examples(self) -> int:
        """How many."""
        return int(self.values.shape[0])

    @property
    def count(self) -> int:
        """Positions of all examples."""
        return self.examples * (1 if self.positions is None else int(self.values.shape[self.positions]))

    @property
    def units(self) -> int:
        """How many."""
        return int(self.values.shape[1 if self.positions == 2 else -1])

    @property
    def small(self) -> bool:
        """Whether all can be reduced at once: on other devices than the CPU calls cost more than memory does."""
        return bool(self.values.device.type != "cpu" or self.values.numel() <= BLOCK)

    def first(self) -> Any:
        """``[units]``: at the first position."""
        return self.values[0] if self.positions is None else self.values.select(self.positions, 0)[0]

    def parts(self) -> Iterator[tuple[slice, list[Any]]]:
        """Units, and the blocks of all that is theirs, each ``[examples, ...]``."""
        values = self.values
        axis = 1 if self.positions == 2 else values.dim() - 1
        units = values.shape[axis]
        each = values[0].numel()
        together = units if each <= 2 * BLOCK else max(1, units * BLOCK // each)
        for start in range(0, units, together):
            some = slice(start, start + together)
            part = values if together == units else values.narrow(axis, start, min(together, units - start))
            length = max(1, BLOCK * units // (each * together))
            yield some, list(part.split(length)) if length < len(part) else [part]

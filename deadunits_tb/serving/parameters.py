"""Reading a URL's parameters, strictly: what is wrong is answered with one sentence, never guessed at."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.thresholds import SPECS, Thresholds
from deadunits_tb.units import STATE_BY_LABEL, UnitState


@dataclass(frozen=True, slots=True)
class Query:
    """One request: its parameters, and what TensorBoard's ``DataProvider`` wants to know of it.

    Parameters that no route knows are ignored. All methods raise :class:`InvalidArgumentError` where a value is absent
    that must be there, or is not what it must be.

    Attributes:
        arguments: Parameter to value.
        context: TensorBoard's ``RequestContext``.
        experiment_id: May be empty.
    """

    arguments: Mapping[str, str]
    context: Any = None
    experiment_id: str = ""

    def replace(self, **arguments: str) -> Query:
        """The same request with other values of some parameters."""
        return dataclasses.replace(self, arguments={**self.arguments, **arguments})

    def text(self, name: str) -> str:
        """A parameter that must be there."""
        value = self.arguments.get(name)
        if value is None:
            raise InvalidArgumentError(f"the parameter {name!r} is missing")
        return value

    def optional(self, name: str) -> str | None:
        """A parameter that may be absent or empty."""
        return self.arguments.get(name) or None

    def choice(self, name: str, known: Collection[str], default: str) -> str:
        """One of some words."""
        value = self.optional(name) or default
        if value not in known:
            raise InvalidArgumentError(str(UnknownNameError.of(name, value, known)))
        return value

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``; without a default it must be there."""
        if self.optional(name) is None and default is not None:
            return default
        given = self.text(name)
        try:
            value = int(given)
        except ValueError as error:
            raise InvalidArgumentError(f"the parameter {name!r} must be a whole number, not {_shown(given)}") from error
        if not low <= value <= high:
            raise InvalidArgumentError(f"the parameter {name!r} must be from {low} to {high}, not {_shown(given)}")
        return value

    def states(self) -> frozenset[UnitState]:
        """The states that ``state`` lists; all where it is absent."""
        given = self.optional("state")
        if given is None:
            return frozenset(UnitState)
        unknown = [label for label in given.split(",") if label not in STATE_BY_LABEL]
        if unknown:
            raise InvalidArgumentError(str(UnknownNameError.of("state", unknown[0], STATE_BY_LABEL)))
        return frozenset(STATE_BY_LABEL[label] for label in given.split(","))

    def thresholds(self, written: Thresholds) -> Thresholds:
        """The writer's thresholds with the changes that the request asks for."""
        changes: dict[str, float] = {}
        given = self.optional("thresholds")
        for item in given.split(",") if given else []:
            name, _, value = item.partition(":")
            if name in changes:
                raise InvalidArgumentError(f"threshold {_shown(name)} is given twice")
            if name not in SPECS:
                raise InvalidArgumentError(str(UnknownNameError.of("threshold", name[:80], SPECS)))
            try:
                changes[name] = float(value)
            except ValueError as error:
                raise InvalidArgumentError(f"threshold {name} must be a number, not {_shown(value)}") from error
        return written.replace(**changes)


def _shown(text: str) -> str:
    """What the client sent, cut where it is long."""
    return repr(text if len(text) <= 80 else text[:80] + "…")

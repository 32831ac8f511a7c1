"""What a run must keep to: limits on the share of units in a state, as a command line gives them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.units import ALARM, FLAGGED, STATE_BY_LABEL, UnitState

Scope = Literal["layer", "run"]
At = Literal["last", "any"]

GROUPS: Mapping[str, npt.NDArray[np.bool_]] = {"alarm": ALARM, "flagged": FLAGGED}
"""Words for several states at once: ``bool [states]``."""
NEEDS: Mapping[str, str] = {
    "stagnant": "update_ratio",
    "disconnected": "norm_out",
    "dead": "active_fraction",
    "dying": "active_fraction",
    "dormant": "mean_abs",
}
"""State to the statistic without which no unit can be in it."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most this share of units may be in a state.

    Attributes:
        state: Label of a state, or a word of :data:`GROUPS`.
        share: 0 to 1.
    """

    state: str
    share: float

    @property
    def codes(self) -> npt.NDArray[np.bool_]:
        """``bool [states]``: the states it counts."""
        if self.state in GROUPS:
            return GROUPS[self.state]
        wanted = np.zeros(len(UnitState), bool)
        wanted[STATE_BY_LABEL[self.state]] = True
        return wanted


def check_state(state: str) -> str:
    """A name of a state or group as a limit may have it.

    Raises:
        UnknownNameError: There is no such state.
        InvalidArgumentError: It is ``active`` or ``unknown``: to be so is no fault.
    """
    known = [*GROUPS, *(s.label for s in UnitState if s not in (UnitState.ACTIVE, UnitState.UNKNOWN))]
    if state in known:
        return state
    if state in STATE_BY_LABEL:
        raise InvalidArgumentError(f"a limit on {state!r} units makes no sense. Known: {', '.join(known)}")
    raise UnknownNameError.of("state", state, known)


def parse_share(text: str) -> float:
    """A share such as ``5%`` or ``0.05``.

    Raises:
        InvalidArgumentError: It is neither, or not between 0 and 1.
    """
    stripped = text.strip()
    percent = stripped.endswith("%")
    try:
        share = float(stripped[:-1] if percent else stripped) / (100 if percent else 1)
    except ValueError:
        share = math.nan
    if not math.isfinite(share):
        raise InvalidArgumentError(f"{text!r} is no share of units: write 5% or 0.05")
    if not 0 <= share <= 1:
        hint = f": for {share:g} percent write {share:g}%" if 1 < share <= 100 and not percent else ""
        raise InvalidArgumentError(f"{text!r} is not between 0% and 100%{hint}")
    return share


def parse_limits(max_dead: str | None, max_dying: str | None, others: Iterable[str]) -> tuple[Limit, ...]:
    """The limits of a command line.

    Args:
        max_dead: Share of dead units, None for no limit.
        max_dying: Share of dying units.
        others: ``STATE=SHARE`` each.

    Raises:
        InvalidArgumentError: A limit cannot be parsed, or two of one state contradict each other.
    """
    given = [(state, share) for state, share in (("dead", max_dead), ("dying", max_dying)) if share is not None]
    for text in others:
        state, equals, share = text.partition("=")
        if not equals:
            raise InvalidArgumentError(f"{text!r} is no limit: write STATE=SHARE, such as saturated=10%")
        given.append((check_state(state.strip()), share))
    limits: dict[str, float] = {}
    for state, text in given:
        allowed = parse_share(text)
        if limits.setdefault(state, allowed) != allowed:
            raise InvalidArgumentError(
                f"two limits on {state} units contradict each other: {limits[state]:g} and {allowed:g}"
            )
    return tuple(Limit(state, share) for state, share in limits.items())


def compiled(pattern: str | None) -> re.Pattern[str]:
    """A regular expression; without one, what every name matches.

    Raises:
        InvalidArgumentError: It is none.
    """
    try:
        return re.compile(pattern or "")
    except re.error as error:
        raise InvalidArgumentError(f"{pattern!r} is no regular expression: {error}") from None

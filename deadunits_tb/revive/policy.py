"""Which units are revived, and when. Knows no framework."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from deadunits_tb.capture.arguments import check_share, check_whole
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.record import NEVER, Byte, Int, LayerRecord
from deadunits_tb.units import ALARM, STATE_BY_LABEL, UnitState

REVIVABLE = (UnitState.DEAD, UnitState.SATURATED, UnitState.CONSTANT, UnitState.DORMANT)
"""States that new weights can help. What is not finite spoils the whole network, and what is frozen is meant to be."""
MAX_SHARE, COOL_DOWN = 0.25, 500


@dataclass(frozen=True, slots=True)
class RevivePolicy:
    """Which units, how many at once, how often.

    Attributes:
        states: Units in these states are revived.
        max_share: Share of a layer's units that one event revives at most; at least one unit.
        cool_down: Steps between two events of one layer.
    """

    states: tuple[UnitState, ...] = (UnitState.DEAD,)
    max_share: float = MAX_SHARE
    cool_down: int = COOL_DOWN

    @classmethod
    def of(cls, states: Iterable[str | UnitState], max_share: float, cool_down: int) -> RevivePolicy:
        """Check what a user gave.

        Raises:
            InvalidArgumentError: A state cannot be revived, a share is none, or the steps are no whole number.
        """
        known = {state.label: state for state in REVIVABLE}
        named = [states] if isinstance(states, (str, UnitState)) else list(states)
        labels = [state.label if isinstance(state, UnitState) else state for state in named]
        for label in labels:
            if label not in known:
                hint = "cannot be revived" if label in STATE_BY_LABEL else "is no state"
                raise InvalidArgumentError(f"states: {label!r} {hint}; choose of {', '.join(known)}")
        if not labels:
            raise InvalidArgumentError(f"states is empty: name some of {', '.join(known)}")
        check_share("max_share", max_share)
        check_whole("cool_down", cool_down, 0)
        return cls(tuple(known[label] for label in dict.fromkeys(labels)), float(max_share), int(cool_down))

    @property
    def words(self) -> str:
        """Such as ``"dead units, at most 25 % of a layer"``."""
        states = " and ".join(state.label for state in self.states)
        share = "" if self.max_share >= 1 else f", at most {100 * self.max_share:g} % of a layer"
        return f"{states} units{share}"

    def choose(self, states: Byte, since: Int) -> tuple[Int, int]:
        """Choose units of a layer, those first that have been so for longest.

        Args:
            states: ``uint8 [units]`` state codes.
            since: ``int64 [units]`` step since which each holds.

        Returns:
            Their indices, ascending, and how many are in the states.
        """
        found = np.flatnonzero(np.isin(states, [int(state) for state in self.states]))
        most = max(1, int(self.max_share * len(states)))
        longest = found[np.argsort(since[found], kind="stable")][:most]
        return np.sort(longest), len(found)


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What one event does to one layer.

    Attributes:
        layer: Its name.
        units: Indices of the units that are revived.
        found: How many are in the states asked for; those beyond ``units`` wait for a later event.
        total: How many units the layer has.
    """

    layer: str
    units: tuple[int, ...]
    found: int
    total: int


@dataclass(frozen=True, slots=True)
class RevivalPlan:
    """What one event does, or with ``dry_run`` would do. False where that is nothing.

    Attributes:
        step: The last training step before it; -1 if unknown.
        layers: The layers with units to revive.
        refused: Layer that has such units, but cannot be revived, to the reason.
        policy: What decided, in words.
        done: Whether it was done.
    """

    step: int
    layers: tuple[LayerPlan, ...]
    refused: Mapping[str, str]
    policy: str
    done: bool

    def __bool__(self) -> bool:
        return bool(self.layers)

    def __str__(self) -> str:
        verb = "revived" if self.done else "would revive"
        told = [
            f"{verb} {len(one.units)} of {one.found} found in {one.layer} ({one.total} units)" for one in self.layers
        ]
        told += [f"left {layer}: {reason}" for layer, reason in self.refused.items()]
        return f"step {self.step}, {self.policy}: " + ("; ".join(told) or "nothing to revive")


class ReviveHistory:
    """When each layer of a monitored run was last revived."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def eligible(self, policy: RevivePolicy, record: LayerRecord, step: int) -> tuple[Int, int]:
        """Units of a layer to revive now; none while it cools down, or before there is a record since the last time."""
        last = self._last.get(record.layer, NEVER)
        cooling = last != NEVER and (step - last < policy.cool_down or record.window.step <= last)
        return (np.empty(0, np.int64), 0) if cooling else policy.choose(record.states, record.since)

    def revived(self, plan: RevivalPlan) -> None:
        """Note what was done."""
        for one in plan.layers:
            self._last[one.layer] = plan.step


_HISTORIES: WeakKeyDictionary[Monitor, ReviveHistory] = WeakKeyDictionary()


def history_of(monitor: Monitor) -> ReviveHistory:
    """The history of a monitor's run; the same one whoever asks."""
    return _HISTORIES.setdefault(monitor, ReviveHistory())


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """Units of one layer that may be revived, as its last record has them.

    Attributes:
        plan: The same in short.
        units: ``int64 [n]`` indices.
        peers: ``int64 [m]`` indices of units that work, to which the new ones are likened.
        silent: Whether all of them are dead: they send what a silent unit sends.
        function: The layer's activation function.
    """

    plan: LayerPlan
    units: Int
    peers: Int
    silent: bool
    function: str | None


def candidates(
    monitor: Monitor, policy: RevivePolicy, step: int, named: Container[str] | None
) -> tuple[list[Candidate], dict[str, str]]:
    """Choose the units to revive by a monitor's last records.

    Args:
        monitor: Of the run.
        policy: Decides.
        step: The last training step.
        named: Layers that may be revived, None for all.

    Returns:
        What may be revived, and layers that may not be to the reason.
    """
    found, refused = [], {}
    for name, record in monitor.last_records.items():
        units, count = history_of(monitor).eligible(policy, record, step)
        if not len(units) or (named is not None and name not in named):
            continue
        info = monitor.infos[name]
        if info.role == "output":  # it may be silent, and the loss needs each of its units
            refused[name] = "it is an output layer"
            continue
        plan = LayerPlan(name, tuple(units.tolist()), count, record.units)
        peers = np.setdiff1d(np.flatnonzero(~ALARM[record.states]), units)
        silent = bool((record.states[units] == UnitState.DEAD).all())
        found.append(Candidate(plan, units, peers, silent, info.activation_function))
    return found, refused


def by_hand(layer: str, units: Any, total: int) -> Candidate:
    """Units of a layer that a user chose; all others work, and nothing is known of what these send.

    Raises:
        InvalidArgumentError: There are no such units.
    """
    indices = unit_indices(layer, units, total)
    plan = LayerPlan(layer, tuple(indices.tolist()), len(indices), total)
    return Candidate(plan, indices, np.setdiff1d(np.arange(total), indices), False, None)


def tell(monitor: Monitor, plan: RevivalPlan) -> None:
    """After a revival: the monitor begins anew with these units, and the log has an event for each layer."""
    history_of(monitor).revived(plan)
    for one in plan.layers:
        monitor.revived(one.layer, one.units, step=plan.step, policy=plan.policy)


def unit_indices(layer: str, units: Any, total: int) -> Int:
    """Indices from what a user gave: indices, or a boolean for each unit.

    Raises:
        InvalidArgumentError: It is neither, or beyond the layer.
    """
    given = np.asarray(units)
    if given.dtype == bool and given.shape == (total,):
        return np.flatnonzero(given)
    if given.size == 0:
        return np.empty(0, np.int64)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        raise InvalidArgumentError(
            f"units of layer {layer!r} must be a list of indices, or {total} booleans, "
            f"not an array of {given.dtype} {given.shape}"
        )
    if given.min() < 0 or given.max() >= total:
        raise InvalidArgumentError(
            f"layer {layer!r} has units 0 to {total - 1}, not {given.min() if given.min() < 0 else given.max()}"
        )
    return np.unique(given).astype(np.int64)

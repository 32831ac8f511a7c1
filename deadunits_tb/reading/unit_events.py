"""What happened to units, and when: born dead, died, fired again, were revived."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.phrases import count
from deadunits_tb.reading.revivals import REVIVED
from deadunits_tb.record import Byte, Int
from deadunits_tb.run_record import RunEvent
from deadunits_tb.units import UnitState

EventKind = Literal["born_dead", "found_dead", "died", "recovered", "revived"]
"""Born dead: never fired since the first step of training. Found dead: silent since records begin, as in a run that was
resumed. Died: at the step after its last firing. Recovered: fired again by itself. Revived: was given new weights."""
KINDS: tuple[EventKind, ...] = get_args(EventKind)
_BORN, _FOUND, _DIED, _RECOVERED, _REVIVED = range(len(KINDS))
_SAID: dict[EventKind, str] = {
    "born_dead": "born dead",
    "found_dead": "dead since records begin",
    "died": "died",
    "recovered": "fired again by themselves",
    "revived": "were given new weights",
}


@dataclass(frozen=True, slots=True)
class UnitEvents:
    """Events of a layer's units, ordered by step, then by unit.

    Attributes:
        unit: ``int64 [events]``.
        step: ``int64 [events]``. Of a death, the step after the last firing; of a recovery, the last step at which the
            unit fired in the record that saw it; of a revival, the last training step before it.
        kind: ``uint8 [events]`` places in :data:`KINDS`.
    """

    unit: Int
    step: Int
    kind: Byte

    def __len__(self) -> int:
        """How many there are."""
        return len(self.unit)

    def of(self, unit: int) -> list[tuple[EventKind, int]]:
        """Kind and step of each event of one unit, in order."""
        mine = self.unit == unit
        return [
            (KINDS[kind], step) for kind, step in zip(self.kind[mine].tolist(), self.step[mine].tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class EventGroup:
    """All events of one kind in a layer.

    Attributes:
        kind: The kind.
        count: How many events.
        units: How many units: some die more than once.
        first_step: Of the first of them.
        middle_step: By which half of them had happened.
        last_step: Of the last of them.
    """

    kind: EventKind
    count: int
    units: int
    first_step: int
    middle_step: int
    last_step: int

    @property
    def sentence(self) -> str:
        """Such as ``"80 units died from step 230 to 410, half of them by step 260"``."""
        said = _SAID[self.kind]
        if self.units == 1:
            said = said.replace("were given", "was given").replace("themselves", "itself")
        told = f"{count(self.units, 'unit')} {said}"
        if self.kind in ("born_dead", "found_dead"):
            return told
        if self.first_step == self.last_step:
            return f"{told} at step {self.first_step:,}"
        again = f", {self.count:,} times in all," if self.count > self.units else ""
        half = f", half of them by step {self.middle_step:,}" if self.count > 2 else ""
        return f"{told}{again} from step {self.first_step:,} to {self.last_step:,}{half}"


def groups(events: UnitEvents) -> list[EventGroup]:
    """The events of a layer by kind, kinds without any left out."""
    found = []
    for code, kind in enumerate(KINDS):
        mine = events.kind == code
        steps, units = events.step[mine], len(np.unique(events.unit[mine]))
        if len(steps):
            middle = int(steps[(len(steps) - 1) // 2])  # they are in order
            found.append(EventGroup(kind, len(steps), units, int(steps[0]), middle, int(steps[-1])))
    return found


def groups_json(events: UnitEvents) -> list[dict[str, Any]]:
    """:func:`groups`, as the report and the HTTP API give them."""
    return [{**asdict(group), "sentence": group.sentence} for group in groups(events)]


def written_events(run: RunHistory, layer: LayerHistory) -> UnitEvents:
    """What happened to the units of a layer, as the writer judged them."""
    return unit_events(run, layer, layer.states(), layer.since())


def unit_events(run: RunHistory, layer: LayerHistory, states: Byte, since: Int) -> UnitEvents:
    """Find what happened to the units of a layer.

    A unit is dead from its death until it fires again or is given new weights, also where it is judged anew in
    between, as when a run is resumed: so no death is told twice.

    Args:
        run: The run, for the revivals in its log.
        layer: One of its layers.
        states: ``uint8 [R, U]`` state codes, as judged now.
        since: ``int64 [R, U]`` step since which each holds.
    """
    revivals = _revivals(run, layer)
    ever = (states == UnitState.DEAD).any(axis=0)
    units = np.flatnonzero(ever)
    found: list[tuple[Int, Int, int]] = [(e.named, np.full(len(e.named), e.step), _REVIVED) for e in revivals]
    dead, since_step = np.zeros(len(units), bool), np.zeros(len(units), np.int64)
    waiting = list(revivals)
    for record, step in enumerate(layer.steps.tolist()):
        nameless: _Revival | None = None
        while waiting and waiting[0].step < step:
            revival = waiting.pop(0)
            dead &= ~np.isin(units, revival.named)
            nameless = revival if revival.truncated else nameless
        now, began = states[record, units] == UnitState.DEAD, since[record, units]
        window = layer.window(record)
        again = dead & now & (began > since_step) & (began != window.first_step)  # fired and died within one record
        found.append((units[again], began[again] - 1, _RECOVERED))
        left = dead & ~now
        if left.any():
            last_active = layer.evidence(record).last_active_step[units]
            fired = left & (last_active >= since_step)
            if nameless is not None:  # an event names so many units and no more: these were among the others
                found.append((units[fired], np.full(int(fired.sum()), nameless.step), _REVIVED))
            else:
                found.append((units[fired], last_active[fired], _RECOVERED))
            dead &= ~fired
        entered = (now & ~dead) | again
        never = entered & (began == window.first_step)
        found.append((units[never], began[never], _BORN if window.from_start else _FOUND))
        died = entered & ~never
        found.append((units[died], began[died], _DIED))
        since_step = np.where(entered, began, since_step)
        dead |= entered
    return _sorted(found)


@dataclass(frozen=True, slots=True)
class _Revival:
    step: int
    named: Int
    truncated: bool


def _revivals(run: RunHistory, layer: LayerHistory) -> list[_Revival]:
    """Revivals of the layer in order of steps."""
    events: Iterable[RunEvent] = {event for record in run.records for event in record.events}
    mine = sorted((e for e in events if e.kind == REVIVED and e.layer == layer.info.name), key=lambda e: e.step)
    return [
        _Revival(
            event.step, np.array([u for u in event.units if u < layer.units], np.int64), event.count > len(event.units)
        )
        for event in mine
    ]


def _sorted(found: Sequence[tuple[Int, Int, int]]) -> UnitEvents:
    def joined(parts: Iterator[Int]) -> Int:
        return np.concatenate([np.empty(0, np.int64), *parts])

    unit, step = joined(u for u, _, _ in found), joined(s for _, s, _ in found)
    kind = joined(np.full(len(u), k) for u, _, k in found)
    order = np.lexsort((kind, unit, step))
    return UnitEvents(unit[order], step[order], kind[order].astype(np.uint8))

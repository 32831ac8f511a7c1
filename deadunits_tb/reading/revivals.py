"""What became of units that were revived: how many of them live at later records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.phrases import count
from deadunits_tb.run_record import RunEvent
from deadunits_tb.units import ALARM

REVIVED = "revived"
"""Kind of the event."""
_LOOKS = 8


@dataclass(frozen=True, slots=True)
class FollowUp:
    """One look at revived units.

    Attributes:
        step: Of the record.
        alive: How many have fired since the revival, are in no alarm state, and were not revived again.
        of: How many were looked at: those that the event names.
    """

    step: int
    alive: int
    of: int


@dataclass(frozen=True, slots=True)
class Revival:
    """Units of a layer that were given new weights, and what became of them.

    Attributes:
        event: What the log holds of it.
        later: Looks at records after it, at most 8: the first, about twice as far each time, and the last.
    """

    event: RunEvent
    later: tuple[FollowUp, ...]

    @property
    def sentence(self) -> str:
        """Such as ``"40 units of hidden revived at step 900 (dead units); 31 of 40 alive 500 steps later"``."""
        event = self.event
        policy = f" ({event.policy})" if event.policy else ""
        told = f"{count(event.count, 'unit')} of {event.layer} revived at step {event.step:,}{policy}"
        if not self.later:
            return f"{told}; no record since then"
        last = self.later[-1]
        return f"{told}; {last.alive:,} of {last.of:,} alive {count(last.step - event.step, 'step')} later"


def revivals_json(run: RunHistory) -> list[dict[str, Any]]:
    """:func:`revivals`, as the report and the HTTP API give them."""
    return [
        {
            "step": revival.event.step,
            "layer": revival.event.layer,
            "count": revival.event.count,
            "units": list(revival.event.units),
            "policy": revival.event.policy,
            "later": [asdict(look) for look in revival.later],
        }
        for revival in revivals(run)
    ]


def revivals(run: RunHistory) -> list[Revival]:
    """Every revival of a run, in order of steps, followed up as the writer judged the units later."""
    events = sorted(
        {e for record in run.records for e in record.events if e.kind == REVIVED}, key=lambda e: (e.step, e.layer)
    )
    return [Revival(event, tuple(_follow(run.layers.get(event.layer), event, events))) for event in events]


def _follow(layer: LayerHistory | None, event: RunEvent, events: Sequence[RunEvent]) -> Iterator[FollowUp]:
    if layer is None:
        return
    units = np.array([unit for unit in event.units if unit < layer.units], np.int64)
    lost_at = np.full(len(units), 2**63 - 1)  # a unit that had to be revived again had died
    for again in events:
        if again.layer == event.layer and again.step > event.step:
            lost_at = np.where(np.isin(units, again.units), np.minimum(lost_at, again.step), lost_at)
    for record in _looks(layer, event.step):
        step = int(layer.steps[record])
        fired = layer.evidence(record).last_active_step[units] > event.step
        well = ~ALARM[layer.states()[record, units]]
        yield FollowUp(step, int((fired & well & (step <= lost_at)).sum()), len(units))


def _looks(layer: LayerHistory, step: int) -> list[int]:
    """Records at doubling distances behind a step; the first and the last among them."""
    first, end = int(np.searchsorted(layer.steps, step, side="right")), len(layer)
    if first >= end:
        return []
    near, far = int(layer.steps[first]) - step, int(layer.steps[-1]) - step
    distances = np.rint(np.geomspace(near, far, min(_LOOKS, end - first)))  # its ends are exact
    return [int(record) for record in np.unique(np.searchsorted(layer.steps, step + distances))]

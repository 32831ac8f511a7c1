"""Tell the user when units enter an alarm state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from deadunits_tb.record import LayerRecord
from deadunits_tb.units import Level, UnitState


@dataclass(frozen=True, slots=True)
class Alarm:
    """Units of one layer that are in an alarm state.

    Attributes:
        step: Of the record that says so.
        layer: Name of the layer.
        state: The alarm state.
        units: Units in it now.
        total: Units of the layer.
    """

    step: int
    layer: str
    state: UnitState
    units: int
    total: int


AlarmCallback = Callable[[Alarm], object]


class AlarmWatch:
    """Finds what is worth an alarm and was not said yet.

    An alarm is raised per layer and alarm state when its units rise from none, and again each time they have doubled
    since the last alarm. Once none are left it starts anew. So a layer of 512 units that dies one by one raises ten.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[str, UnitState], int] = {}

    def news(self, records: Iterable[LayerRecord]) -> list[Alarm]:
        """The alarms that these records, all of one step, raise."""
        alarms = []
        for record in records:
            counts = np.bincount(record.states, minlength=len(UnitState))
            for state in _ALARM_STATES:
                units, key = int(counts[state]), (record.layer, state)
                said = self._said.get(key, 0)
                if units and units >= 2 * said:
                    alarms.append(Alarm(record.window.step, record.layer, state, units, record.units))
                    self._said[key] = units
                elif not units:
                    self._said.pop(key, None)
        return alarms


def stopping(stop: Callable[[], Callable[[], None] | None], on_alarm: AlarmCallback | None) -> AlarmCallback:
    """What to call at an alarm that is to end training.

    Args:
        stop: A weak reference to what ends it, so that who raises alarms keeps nothing alive.
        on_alarm: Of the user, called then.
    """

    def alarm(alarm: Alarm) -> None:
        end = stop()
        if end is not None:
            end()
        if on_alarm is not None:
            on_alarm(alarm)

    return alarm


_ALARM_STATES = tuple(state for state in UnitState if state.level == Level.ALARM)

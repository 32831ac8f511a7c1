"""What is printed after an epoch: one line per layer."""

from __future__ import annotations

from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.units import Level, UnitState

_ALARMS = [state.label for state in reversed(UnitState) if state.level == Level.ALARM]
_WARNINGS = [state.label for state in reversed(UnitState) if state.level == Level.WARNING]


def epoch_table(monitor: Monitor, title: str) -> str:
    """Mean absolute activation of each layer, its units in each alarm state, and in warning states if there are any.

    Args:
        monitor: Of the run.
        title: First words of the first line.
    """
    counts = monitor.counts
    if not counts:
        return f"{title}: no units observed yet"
    warnings = [label for label in _WARNINGS if any(label in of_layer for of_layer in counts.values())]
    step = max(record.window.step for record in monitor.last_records.values())
    rows = [[f"{title}, step {step:,}", "units", "mean |a|", *_ALARMS, *warnings]]
    for layer, of_layer in counts.items():
        states = [str(of_layer.get(label, 0)) for label in (*_ALARMS, *warnings)]
        rows.append([f"  {layer}", str(sum(of_layer.values())), f"{monitor.mean_abs(layer):.4g}", *states])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)

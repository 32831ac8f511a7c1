"""Judging a recorded layer anew, with other thresholds than the writer's."""

from __future__ import annotations

from deadunits_tb.reading.history import LayerHistory
from deadunits_tb.record import Byte, Int
from deadunits_tb.thresholds import Thresholds


def rejudge(history: LayerHistory, thresholds: Thresholds) -> tuple[Byte, Int]:
    """Judge all records of a layer with other thresholds.

    Args:
        history: The layer.
        thresholds: The numbers that decide now.

    Returns:
        ``uint8 [R, U]`` states and ``int64 [R, U]`` steps since which they hold.

    Raises:
        InvalidArgumentError: A threshold that acts while writing was changed: it decides what is recorded.
    """
    raise NotImplementedError

"""Runs in which the interval between observations is chosen by what these cost, without minutes of training."""

from __future__ import annotations

import pytest

from deadunits_tb.capture import schedule
from deadunits_tb.reading.run_api import Run


def without_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first steps on only the share of the training time may be spent."""
    for allowance in ("OPENING_SECONDS", "LATER_SECONDS", "OPENING_EXAMPLES"):
        monkeypatch.setattr(schedule, allowance, 0)


def assert_chosen_by_cost(run: Run, steps: int) -> None:
    """What observing cost was told to the schedule, and what the other steps took: so it has observed seldom."""
    first, last = run.records[0], run.records[-1]
    assert first.step == 0
    assert last.errors == ()
    assert last.interval > 1
    assert sum(record.observations for record in run.records) <= steps / 2
    assert last.overhead is not None
    assert last.overhead_seconds > 0

"""The monitor of a process that is not the first: it is asked and told the same, and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from deadunits_tb.capture.messages import one_line, say
from deadunits_tb.record import Int, LayerRecord
from deadunits_tb.run_record import Skipped

_NONE: Mapping[str, Int] = {}


class SilentMonitor:
    """What is asked of a :class:`~deadunits_tb.capture.monitor.Monitor`, where another process has it."""

    interval = 1
    dead_fraction = math.nan
    skipped: tuple[Skipped, ...] = ()

    def __init__(self) -> None:
        self.stopped = False
        self.errors: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """None: they are the first one's."""
        return {}

    @property
    def silent_units(self) -> Mapping[str, Int]:
        """None: they are the first one's."""
        return _NONE

    @property
    def last_records(self) -> Mapping[str, LayerRecord]:
        """None: they are the first one's."""
        return {}

    def report(self, where: str, error: BaseException | str) -> None:
        """Say once what failed, and step aside."""
        if not self.stopped:
            self.stopped = True
            self.errors = (one_line(where, error),)
            say(f"deadunits_tb stopped monitoring and training goes on. {self.errors[0]}")

    def wants(self, step: int) -> bool:
        """Whether this process decides to observe a step: no, the first does."""
        return False

    def will_record(self, step: int) -> bool:
        """Whether this process looks at weights by itself: no, the first tells."""
        return False

    def scale(self, layer: str) -> float | None:
        """The first tells."""
        return None

    def ignore(self, *args: Any, **kwargs: Any) -> None:
        """What only the first takes in."""

    add_layer = skip = expect = observe = time = flush = settle = close = ignore

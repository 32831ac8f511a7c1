"""The monitor of a worker that is not the chief: it takes part, and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from deadunits_tb.capture.messages import one_line, say
from deadunits_tb.record import Int, LayerRecord
from deadunits_tb.run_record import Skipped

_NONE: Mapping[str, Int] = {}


class SilentMonitor:
    """What a tap asks of a :class:`~deadunits_tb.capture.monitor.Monitor`, where another process has it."""

    interval = 1
    dead_fraction = math.nan
    skipped: tuple[Skipped, ...] = ()

    def __init__(self) -> None:
        self.stopped = False
        self.errors: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """None: they are the chief's."""
        return {}

    @property
    def silent_units(self) -> Mapping[str, Int]:
        """None: they are the chief's."""
        return _NONE

    @property
    def last_records(self) -> Mapping[str, LayerRecord]:
        """None: they are the chief's."""
        return {}

    def report(self, where: str, error: BaseException | str) -> None:
        """Say once what failed, and step aside."""
        if not self.stopped:
            self.stopped = True
            self.errors = (one_line(where, error),)
            say(f"deadunits_tb stopped monitoring and training goes on. {self.errors[0]}")

    def will_record(self, step: int) -> bool:
        """Whether this process looks at weights: no, the chief does."""
        return False

    def skip(self, layer: str, reason: str) -> None:
        """The chief notes it."""

    def time(self, observed: bool, seconds: float) -> None:
        """The chief's clock counts."""

    def flush(self) -> None:
        """There is no file."""

    def close(self) -> None:
        """There is no file."""

    def scale(self, layer: str) -> Any:
        """The chief tells."""
        return None

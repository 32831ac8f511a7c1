"""From a TensorBoard ``DataProvider`` to the histories of runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deadunits_tb.reading.history import RunHistory


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a listing tells of a run, without reading its history.

    Attributes:
        run: The directory that the user named; ``"."`` for the log directory itself.
        first_step: Step of the first record; None until the run's history was read once.
        last_step: Step of the last record.
        last_wall_time: Seconds since the epoch at the last record.
        records: How many records the writer says it wrote.
        layers: How many layers have records.
        version: Changes whenever the run has grown; equals :attr:`RunHistory.version` of a history read now.
    """

    run: str
    first_step: int | None
    last_step: int
    last_wall_time: float
    records: int
    layers: int
    version: str


class RunReader:
    """Reads runs through a TensorBoard ``DataProvider``. Safe to share between threads.

    Args:
        provider: Any ``tensorboard.data.provider.DataProvider``.
        cache_bytes: Limit on the statistics kept in memory; states are always kept.
    """

    def __init__(self, provider: Any, *, cache_bytes: int = 2**28) -> None: ...

    def runs(self, ctx: Any = None, *, experiment_id: str = "") -> list[RunSummary]:
        """List the runs that hold records of ours, in natural order. Cheap: reads no history."""
        raise NotImplementedError

    def history(self, run: str, ctx: Any = None, *, experiment_id: str = "") -> RunHistory:
        """Read a run; what was read before and has not changed is not read again.

        Raises:
            UnknownNameError: There is no such run.
        """
        raise NotImplementedError

    def notes(self, ctx: Any = None, *, experiment_id: str = "") -> list[str]:
        """What was left out of the listing, one sentence each: tags of strangers, later format versions, damage."""
        raise NotImplementedError

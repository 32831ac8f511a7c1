"""Histories, verdicts and orders of rows, each worked out once and kept within bounds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from deadunits_tb.reading.cache import Cache
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.judging import rejudge
from deadunits_tb.reading.ordering import Order, row_order
from deadunits_tb.reading.provider import RunReader, RunSummary
from deadunits_tb.reading.unit_events import UnitEvents, unit_events
from deadunits_tb.record import Byte, Float, Int
from deadunits_tb.serving.parameters import Query
from deadunits_tb.serving.responses import Reply
from deadunits_tb.thresholds import Thresholds

VERSIONS = 16
"""Versions of runs that are kept, so that requests under way when a run grows are answered in the version they name."""
VERDICT_BYTES = 2**28
ORDER_BYTES = 2**25
EVENT_BYTES = 2**25
REPLY_BYTES = 2**25
MEDIAN_BYTES = 2**23
CARRIED_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts on a layer's units.

    Attributes:
        states: ``uint8 [records, units]`` state codes.
        since: ``int64 [records, units]`` step since which each holds.
        thresholds: In force.
        recomputed: Whether other thresholds than the writer's are.
    """

    states: Byte
    since: Int
    thresholds: Thresholds
    recomputed: bool

    @property
    def verdicts(self) -> str:
        """The same in the API's words."""
        return "recomputed" if self.recomputed else "written"


class Histories:
    """What the handlers look at. Safe to share between threads.

    Args:
        provider: TensorBoard's ``DataProvider``: the only way to the data.
    """

    def __init__(self, provider: Any) -> None:
        self._reader = RunReader(provider)
        self._lock = threading.Lock()
        self._versions: OrderedDict[tuple[str, str, str], RunHistory] = OrderedDict()
        self._verdicts: Cache[Judged] = Cache(VERDICT_BYTES, lambda j: j.states.nbytes + j.since.nbytes)
        self._orders: Cache[Int] = Cache(ORDER_BYTES, lambda order: order.nbytes)
        self._events: Cache[UnitEvents] = Cache(EVENT_BYTES, lambda events: events.unit.nbytes * 3)
        self.replies: Cache[Reply] = Cache(REPLY_BYTES, lambda reply: len(reply.body))
        self.medians: Cache[dict[str, Float]] = Cache(MEDIAN_BYTES, lambda rows: sum(r.nbytes for r in rows.values()))
        self.carried: Cache[Int] = Cache(CARRIED_BYTES, lambda counters: counters.nbytes)

    def runs(self, query: Query) -> list[RunSummary]:
        """All runs of ours."""
        return self._reader.runs(query.context, experiment_id=query.experiment_id)

    def notes(self, query: Query) -> list[str]:
        """What was left out of the listing."""
        return self._reader.notes(query.context, experiment_id=query.experiment_id)

    def run(self, query: Query) -> RunHistory:
        """The run that the request names: in the version that it asks for while that is kept, otherwise as it is now.

        So the tiles of a heatmap fit together while the run grows, and asking for one does not list all tags again,
        which takes 40 ms of waiting with TensorBoard's Rust server.

        Raises:
            UnknownNameError: There is no such run.
        """
        name = query.text("run")
        with self._lock:
            kept = self._versions.get((query.experiment_id, name, query.optional("version") or ""))
        if kept is not None:
            return kept
        run = self._reader.history(name, query.context, experiment_id=query.experiment_id)
        with self._lock:
            self._versions[query.experiment_id, name, run.version] = run
            while len(self._versions) > VERSIONS:
                self._versions.popitem(last=False)
        return run

    def judged(self, query: Query, run: RunHistory, layer: LayerHistory) -> Judged:
        """The verdicts on a layer, under the thresholds that the request asks for."""
        thresholds = query.thresholds(layer.thresholds)

        def judge() -> Judged:
            if thresholds == layer.thresholds:
                return Judged(layer.states(), layer.since(), thresholds, False)
            return Judged(*rejudge(layer, thresholds), thresholds, True)

        return self._verdicts.get((self.key(query, run), layer.info.name, thresholds), judge)

    def order(self, query: Query, run: RunHistory, layer: LayerHistory, order: str) -> Int:
        """``int64 [units]``: the unit in each row."""

        def arrange() -> Int:
            judged = self.judged(query, run, layer)
            fires = order == "similarity" and "active_fraction" in layer.statistics
            fraction = layer.statistic("active_fraction") if fires else None
            return row_order(cast(Order, order), judged.states, judged.since[-1], fraction)

        if order == "index":
            return np.arange(layer.units)
        thresholds = query.thresholds(layer.thresholds)
        return self._orders.get((self.key(query, run), layer.info.name, thresholds, order), arrange)

    def events(self, query: Query, run: RunHistory, layer: LayerHistory) -> UnitEvents:
        """What happened to a layer's units, as they are judged under the thresholds that the request asks for."""
        judged = self.judged(query, run, layer)
        key = (self.key(query, run), layer.info.name, judged.thresholds)
        return self._events.get(key, lambda: unit_events(run, layer, judged.states, judged.since))

    @staticmethod
    def key(query: Query, run: RunHistory) -> tuple[str, str, str]:
        """What names a state of a run: another user's experiment never answers for this one."""
        return query.experiment_id, run.run, run.version

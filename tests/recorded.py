"""A layer's history straight from encoded records, without files: as a reader has it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deadunits_tb import codec
from deadunits_tb.metadata import TagInfo
from deadunits_tb.reading.assembly import layer_histories, limits_of
from deadunits_tb.reading.history import LayerHistory
from deadunits_tb.reading.series import Point, StatesSeries, StatisticsSeries, array_cache
from deadunits_tb.record import LayerRecord
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo


def history_of(
    info: LayerInfo,
    records: Sequence[LayerRecord],
    thresholds: Thresholds | None = None,
    *,
    sessions: Sequence[int] = (),
) -> LayerHistory:
    """Encode records and decode them again.

    Args:
        info: The layer.
        records: In order; those without statistics have none to read either.
        thresholds: In force while they were written.
        sessions: Of each record; one and the same if empty.
    """
    arrays = array_cache(2**26)
    of = list(sessions) or [1] * len(records)
    states, statistics = [], []
    for session in sorted(set(of)):
        mine = [record for record, its in zip(records, of, strict=True) if its == session]
        tag = TagInfo("states", info, 0, info.units, session=session)
        points = [
            Point(record.window.step, 0.0, np.array(codec.encode_states(record, 0, info.units), dtype=object))
            for record in mine
        ]
        states.append(StatesSeries(tag, points, arrays))
        for names in {record.statistics.names for record in mine if record.statistics}:
            tag = TagInfo("statistics", info, 0, info.units, statistics=names, session=session)
            points = [
                Point(record.window.step, 0.0, codec.encode_statistics(record.statistics, 0, info.units))
                for record in mine
                if record.statistics and record.statistics.names == names
            ]
            statistics.append(StatisticsSeries(tag, points[-1].step, lambda points=points: points, arrays))  # type: ignore[misc]
    notes: list[str] = []
    limits = limits_of(states)
    found = layer_histories(states, statistics, limits, thresholds or Thresholds(), arrays, notes.append)
    assert not notes
    return found[info.name]

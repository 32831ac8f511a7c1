"""What the routes on runs and layers answer. ``docs/http_api.md`` is the contract."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from deadunits_tb import glossary as words
from deadunits_tb.errors import UnknownNameError
from deadunits_tb.reading.certainty import certainties
from deadunits_tb.reading.columns import evenly_spaced
from deadunits_tb.reading.distribution import distribution as spread
from deadunits_tb.reading.findings import Finding, find
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.ordering import ORDERS
from deadunits_tb.reading.overview import (
    LayerLevel,
    by_label,
    count_by_record,
    layer_level,
    onset_step,
    run_steps,
    strips,
)
from deadunits_tb.reading.report import headline
from deadunits_tb.reading.revivals import revivals_json
from deadunits_tb.reading.tiles import TILE_ROWS, levels_of, state_tile, statistic_tile, tiles_of
from deadunits_tb.reading.unit_events import groups_json
from deadunits_tb.record import Byte
from deadunits_tb.serving.histories import Histories
from deadunits_tb.serving.parameters import Query
from deadunits_tb.serving.responses import Reply, array_reply, json_reply, significant
from deadunits_tb.serving.subjects import rows_of, run_and_layer
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import STATISTIC_BY_NAME, Level, count_states

STATES = "states"
"""What a tile shows unless it shows a statistic."""
BINS = (8, 200, 48)
"""Fewest, most and usual bins of a distribution."""


def runs(histories: Histories, query: Query) -> Reply:
    """``/runs``."""
    found = [
        {
            "run": run.run,
            "first_step": run.first_step,
            "last_step": run.last_step,
            "records": run.records,
            "layers": run.layers,
            "version": run.version,
        }
        for run in histories.runs(query)
    ]
    return json_reply({"runs": found, "notes": histories.notes(query)})


def overview(histories: Histories, query: Query) -> Reply:
    """``/overview``."""
    run = histories.run(query)
    thresholds = query.thresholds(run.info.thresholds)
    key = ("overview", histories.key(query, run), thresholds, len(run.notes))  # notes grow while more is read
    return histories.replies.get(key, lambda: json_reply(_overview(histories, query, run, thresholds)))


def _overview(histories: Histories, query: Query, run: RunHistory, thresholds: Thresholds) -> dict[str, Any]:
    judged = {name: histories.judged(query, run, layer) for name, layer in run.layers.items()}
    last = {name: (j.states[-1], j.since[-1]) for name, j in judged.items()}
    findings = find(run, lambda name: (judged[name].states, judged[name].since), thresholds)
    drawn = strips(run, lambda name: judged[name].states, written=not any(j.recomputed for j in judged.values()))
    records = {record.step: record for record in run.records}
    shown = [records.get(step) for step in drawn.steps.tolist()]
    latest = run.records[-1] if run.records else None
    return {
        "run": run.run,
        "version": run.version,
        "verdicts": "written" if thresholds == run.info.thresholds else "recomputed",
        "thresholds": thresholds.to_dict(),
        "writer_thresholds": run.info.thresholds.to_dict(),
        "framework": run.info.framework,
        "versions": run.info.versions,
        "optimizer": run.info.optimizer,
        "every": run.info.every,
        "first_step": run.first_step,
        "last_step": run.last_step,
        "records": len(run_steps(run)),
        "records_written": run.records_written,
        "dropped": latest and latest.dropped,
        "statistics_interval": latest and latest.statistics_interval,
        "overhead": latest and latest.overhead,
        "overhead_seconds": latest and latest.overhead_seconds,
        "steady_overhead": latest and latest.steady_overhead,
        "opening_seconds": latest and latest.opening_seconds,
        "interval": latest and latest.interval,
        "errors": list(latest.errors) if latest else [],
        "skipped": [dataclasses.asdict(skipped) for skipped in latest.skipped] if latest else [],
        "notes": list(run.notes),
        "headline": headline(run, last, findings, thresholds),
        "totals": count_states(np.concatenate([np.empty(0, np.uint8), *(states for states, _ in last.values())])),
        "steps": drawn.steps,
        "loss": [record and record.loss for record in shown],
        "learning_rate": [record and record.learning_rate for record in shown],
        "layers": [
            {
                "layer": name,
                "order": layer.info.order,
                "kind": layer.info.kind,
                "role": layer.info.role,
                "units": layer.units,
                "activation_function": layer.info.activation_function,
                "states": count_states(last[name][0]),
                "level": _level(name, last[name][0], judged[name].thresholds, findings),
                "onset_step": onset_step(*last[name]),
                "cause": next((f.cause for f in findings if name in f.layers), None),
                "strip": by_label(drawn.layers[name]),
                "events": groups_json(histories.events(query, run, layer)),
            }
            for name, layer in run.layers.items()
        ],
        "findings": [{**dataclasses.asdict(f), "level": f.level.label} for f in findings],
        "revivals": revivals_json(run),
    }


def layer(histories: Histories, query: Query) -> Reply:
    """``/layer``."""
    run, history = run_and_layer(histories, query)
    judged = histories.judged(query, run, history)
    return json_reply(
        {
            "run": run.run,
            "layer": history.info.name,
            "version": run.version,
            "verdicts": judged.verdicts,
            "info": dataclasses.asdict(history.info),
            "thresholds": judged.thresholds.to_dict(),
            "units": history.units,
            "records": len(history),
            "steps": history.steps,
            "counts": by_label(count_by_record(judged.states)),
            "states": count_states(judged.states[-1]),
            "certainty": certainties(history, judged.states[-1], judged.since[-1]),
            "level": layer_level(judged.states[-1], judged.thresholds),
            "statistics": list(history.statistics),
            "recorded": history.recorded,
            "orders": list(ORDERS),
            "tile_rows": TILE_ROWS,
            "levels": levels_of(history.units),
        }
    )


def tile(histories: Histories, query: Query) -> Reply:
    """``/tile``."""
    run, history = run_and_layer(histories, query)
    what = query.text("what")
    if what != STATES:
        _require_statistic(history, what)
    level = query.integer("level", 0, levels_of(history.units) - 1, 0)
    number = query.integer("tile", 0, tiles_of(history.units, level) - 1, 0)
    rows = rows_of(histories, query, run, history)
    if what == STATES:
        states = histories.judged(query, run, history).states
        reply = array_reply(state_tile(lambda units: states[:, units], rows.units, level, number))
    else:
        reply = array_reply(statistic_tile(lambda units: history.statistic(what, units), rows.units, level, number))
    return _versioned(reply, run, immutable=rows.exact)


def order(histories: Histories, query: Query) -> Reply:
    """``/order``."""
    run, history = run_and_layer(histories, query)
    rows = rows_of(histories, query, run, history)
    return _versioned(array_reply(rows.units.astype(np.uint32)), run, immutable=rows.exact)


def distribution(histories: Histories, query: Query) -> Reply:
    """``/distribution``."""
    run, history = run_and_layer(histories, query)
    statistic = query.text("statistic")
    _require_statistic(history, statistic)
    low, high, usual = BINS
    bins = query.integer("bins", low, high, usual)

    def answer() -> Reply:
        held = np.flatnonzero(history.recorded)
        measured = {int(i): history.statistic_at(int(i)) for i in held[evenly_spaced(len(held))]}
        rows = {i: row for i, s in measured.items() if s is not None and (row := s.get(statistic)) is not None}
        found = spread(statistic, np.array(list(rows.values()), np.float32).reshape(-1, history.units), bins)
        return json_reply(
            {
                "statistic": statistic,
                "scale": found.scale,
                "steps": history.steps[list(rows)],
                "edges": significant(found.edges, 6),
                "counts": found.counts,
                "zeros": found.zeros,
                "non_finite": found.non_finite,
                "below": found.below,
                "above": found.above,
                "quantiles": {name: significant(values) for name, values in found.quantiles.items()},
            },
        )

    key = ("distribution", histories.key(query, run), history.info.name, statistic, bins)
    reply = histories.replies.get(key, answer)
    return _versioned(reply, run, immutable=query.optional("version") == run.version)


def glossary(histories: Histories, query: Query) -> Reply:
    """``/glossary``."""
    return json_reply(words.glossary())


def _require_statistic(history: LayerHistory, name: str) -> None:
    if name not in history.statistics:
        absent = " (not recorded for this layer)" if name in STATISTIC_BY_NAME else ""
        raise UnknownNameError.of("statistic", name + absent, history.statistics)


def _level(name: str, states: Byte, thresholds: Thresholds, findings: list[Finding]) -> LayerLevel:
    """The worst of what the layer's own units and the findings say of it."""
    worst = max((finding.level for finding in findings if name in finding.layers), default=Level.OK)
    own = layer_level(states, thresholds)
    if worst == Level.ALARM or own == "alarm":
        return "alarm"
    return "warning" if worst == Level.WARNING else own


def _versioned(reply: Reply, run: RunHistory, *, immutable: bool) -> Reply:
    """A reply that says which version it shows, and may be kept for good if the client asked for that one."""
    return dataclasses.replace(reply, immutable=immutable, headers=(("Dead-Units-Version", run.version),))

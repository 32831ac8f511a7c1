"""What the routes on single units answer. ``docs/http_api.md`` is the contract."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.lines import threshold_lines
from deadunits_tb.reading.transitions import unit_transitions
from deadunits_tb.reading.unit_events import KINDS
from deadunits_tb.reading.unit_verdicts import UnitVerdict, last_statistics, unit_verdicts
from deadunits_tb.record import Float, Int
from deadunits_tb.serving.histories import CARRIED_BYTES, Histories, Judged
from deadunits_tb.serving.parameters import Query
from deadunits_tb.serving.responses import Reply, csv_reply, json_reply, significant
from deadunits_tb.serving.subjects import rows_of, run_and_layer
from deadunits_tb.units import FLAGGED, STATISTICS

LIMIT = (1, 10_000, 500)
"""Fewest, most and usual units of one answer."""
EVENTS = (1, 200_000, 50_000)
"""Fewest, most and usual events of one answer."""


def unit(histories: Histories, query: Query) -> Reply:
    """``/unit``."""
    run, layer = run_and_layer(histories, query)
    number = query.integer("unit", 0, layer.units - 1)
    judged = histories.judged(query, run, layer)
    verdict = next(_verdicts(layer, judged, [number]))
    states = judged.states[:, number]
    flagged = np.flatnonzero(FLAGGED[judged.states[-1]])
    before, after = flagged[flagged < number], flagged[flagged > number]
    lines = threshold_lines(layer.info, last_statistics(layer), judged.thresholds)
    silent, last_active = _carried(histories, query, run, layer, number)
    return json_reply(
        {
            "run": run.run,
            "layer": layer.info.name,
            "unit": number,
            "version": run.version,
            "verdicts": judged.verdicts,
            **_evidence(verdict),
            "certificate": _certificate(verdict),
            "level": verdict.state.level.label,
            "rule": verdict.explanation.rule,
            "numbers": [
                {
                    "name": n.name,
                    "value": n.value,
                    "comparison": n.comparison,
                    "threshold": n.threshold,
                    "threshold_name": n.threshold_name,
                }
                for n in verdict.explanation.numbers
            ],
            "steps": layer.steps,
            "states": states,
            "examples_since_active": silent,
            "last_active_step": last_active,
            "statistics": {
                name: significant(layer.statistic(name, np.array([number]))[:, 0]) for name in layer.statistics
            },
            "layer_median": {
                name: significant(values) for name, values in _medians(histories, query, run, layer).items()
            },
            "lines": {
                statistic: [{"threshold": name, "value": value} for name, value in found]
                for statistic, found in lines.items()
            },
            "transitions": [
                {"step": t.step, "from": t.before.label, "to": t.after.label}
                for t in unit_transitions(layer.steps, states)
            ],
            "events": [{"kind": kind, "step": step} for kind, step in histories.events(query, run, layer).of(number)],
            "previous_flagged": before[-1] if len(before) else None,
            "next_flagged": after[0] if len(after) else None,
        }
    )


def units(histories: Histories, query: Query) -> Reply:
    """``/units``."""
    run, layer = run_and_layer(histories, query)
    first = query.integer("first", 0, layer.units - 1, 0)
    last = query.integer("last", first, layer.units - 1, layer.units - 1)
    limit = query.integer("limit", *LIMIT)
    wanted = np.array(sorted(query.states()))
    judged = histories.judged(query, run, layer)
    rows = np.arange(first, last + 1)
    members = rows_of(histories, query, run, layer).units[first : last + 1]
    matching = np.isin(judged.states[-1][members], wanted)
    shown, places = members[matching][:limit], rows[matching][:limit]
    listed = [
        {
            "unit": verdict.unit,
            "row": int(row),
            **_evidence(verdict),
            "certificate": _certificate(verdict),
            "statistics": verdict.statistics,
        }
        for verdict, row in zip(_verdicts(layer, judged, shown.tolist()), places, strict=True)
    ]
    return json_reply({"total": layer.units, "matching": int(matching.sum()), "units": listed})


def events(histories: Histories, query: Query) -> Reply:
    """``/events``."""
    run, layer = run_and_layer(histories, query)
    limit = query.integer("limit", *EVENTS)
    found = histories.events(query, run, layer)
    return json_reply(
        {
            "total": len(found),
            "kinds": list(KINDS),
            "unit": found.unit[:limit],
            "step": found.step[:limit],
            "kind": found.kind[:limit],
        }
    )


def export(histories: Histories, query: Query) -> Reply:
    """``/export``."""
    run = histories.run(query)
    name = query.optional("layer")
    layers = [run.layer(name)] if name else list(run.layers.values())
    judged = {layer.info.name: histories.judged(query, run, layer) for layer in layers}
    text = io.StringIO()
    measured = [s.name for s in STATISTICS if any(s.name in layer.statistics for layer in layers)]
    columns = [
        "layer",
        "unit",
        "state",
        "level",
        "since_step",
        "examples",
        "rate_upper_bound",
        "born",
        "why",
        "certainty",
        *measured,
    ]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    for layer in layers:
        for verdict in _verdicts(layer, judged[layer.info.name], range(layer.units)):
            known = {"layer": layer.info.name, "unit": verdict.unit, "level": verdict.state.level.label}
            if verdict.certificate is not None:
                known["certainty"] = verdict.certificate.certainty.value
            writer.writerow({**known, **_evidence(verdict), **verdict.statistics})
    return csv_reply(text.getvalue(), "dead_units.csv")


def _verdicts(layer: LayerHistory, judged: Judged, numbers: Iterable[int]) -> Iterator[UnitVerdict]:
    states, since = judged.states[-1], judged.since[-1]
    return unit_verdicts(layer, states, since, judged.thresholds, numbers, written=not judged.recomputed)


def _evidence(verdict: UnitVerdict) -> dict[str, Any]:
    why = verdict.explanation
    return {
        "state": verdict.state.label,
        "since_step": verdict.since_step,
        "examples": why.examples,
        "rate_upper_bound": why.rate_upper_bound,
        "born": why.born,
        "why": why.why,
    }


def _certificate(verdict: UnitVerdict) -> dict[str, Any] | None:
    return None if verdict.certificate is None else verdict.certificate.to_dict()


def _medians(histories: Histories, query: Query, run: RunHistory, layer: LayerHistory) -> dict[str, Float]:
    """Statistic to ``float32 [records]``, the median over the layer's units; NaN where not recorded."""

    def compute() -> dict[str, Float]:
        return {name: _median(layer.statistic(name)) for name in layer.statistics}

    return histories.medians.get((histories.key(query, run), layer.info.name), compute)


def _median(values: Float) -> Float:
    """``float32 [records]`` over the units that have a number. Sorting is three times faster than NumPy's median."""
    known = values.shape[1] - np.isnan(values).sum(axis=1)
    middle = np.stack([np.maximum(known - 1, 0) // 2, np.minimum(known // 2, values.shape[1] - 1)], axis=1)
    with np.errstate(invalid="ignore"):  # between minus infinity and infinity
        pair = np.take_along_axis(np.sort(values, axis=1), middle, axis=1).astype(np.float64)
        return np.asarray(pair.mean(axis=1), np.float32)


def _carried(histories: Histories, query: Query, run: RunHistory, layer: LayerHistory, unit: int) -> tuple[Int, Int]:
    """``int64 [records]`` examples since a unit fired, and the last step at which it did.

    Every record must be unpacked for that, so it is done for many neighbouring units at once.
    """
    block = max(1, CARRIED_BYTES // 4 // (16 * len(layer)))
    first = unit - unit % block

    def compute() -> Int:
        units = slice(first, first + block)
        evidence = (layer.evidence(record) for record in range(len(layer)))
        return np.array([(e.examples_since_active[units], e.last_active_step[units]) for e in evidence])

    found = histories.carried.get((histories.key(query, run), layer.info.name, first), compute)
    return found[:, 0, unit - first], found[:, 1, unit - first]

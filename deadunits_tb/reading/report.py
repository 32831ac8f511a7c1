"""What is to be said of a run: one sentence, and the object that ``deadunits report --json`` prints."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deadunits_tb.reading.findings import Finding, find
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.overview import layer_level, run_steps
from deadunits_tb.reading.phrases import count, percent
from deadunits_tb.reading.revivals import revivals_json
from deadunits_tb.reading.unit_events import groups_json, written_events
from deadunits_tb.reading.unit_verdicts import UnitVerdict, unit_verdicts
from deadunits_tb.record import Byte, Int
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import ALARM, FLAGGED, Level, UnitState, count_states

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
"""Version of the JSON object. Later versions of it only add keys."""

Last = Mapping[str, tuple[Byte, Int]]
"""Layer name to its states ``uint8 [units]`` and since-steps ``int64 [units]`` at the last record."""


def headline(run: RunHistory, last: Last, findings: Sequence[Finding], thresholds: Thresholds | None = None) -> str:
    """Sum up a run in one sentence.

    Args:
        run: The run.
        last: The states of its layers, as judged now.
        findings: What they add up to, the most severe first.
        thresholds: In force; the writer's own if None.
    """
    states = np.concatenate([np.empty(0, np.uint8), *(layer_states for layer_states, _ in last.values())])
    if not len(states):
        return "No records yet."
    if (states == UnitState.UNKNOWN).all():
        return f"{count(len(states), 'unit')} at step {run.last_step:,}: too few examples seen so far to judge them."
    counts = count_states(states)
    dead = counts.pop(UnitState.DEAD.label, 0)
    told = [f"{dead:,} of {count(len(states), 'unit')} dead" + (f" ({percent(dead / len(states))})" if dead else "")]
    others = [state for state in UnitState if ALARM[state] and state.label in counts]
    told += [f"{counts[state.label]:,} {state.label.replace('_', '-')}" for state in reversed(others)]
    in_force = thresholds or run.info.thresholds
    suspects = [finding for finding in findings if finding.level >= Level.WARNING]
    needy = {name for name, (layer_states, _) in last.items() if layer_level(layer_states, in_force) != "ok"}
    needy |= {layer for finding in suspects for layer in finding.layers if layer in last}
    attention = f"{count(len(needy), 'layer')} need{'s' if len(needy) == 1 else ''}" if needy else "no layer needs"
    sentence = f"{', '.join(told)} at step {run.last_step:,}; {attention} attention"
    if suspects:
        since = f" at step {suspects[0].step:,}" if suspects[0].step is not None else ""
        cause = suspects[0].cause.replace("_", " ")
        sentence += "; cause unclear" if cause == "unclear" else f"; most likely cause: {cause}{since}"
    return f"{sentence}."


def written_findings(run: RunHistory) -> list[Finding]:
    """What the states add up to, as the writer judged them."""
    return find(run, lambda name: (run.layers[name].states(), run.layers[name].since()))


def last_states(run: RunHistory) -> Last:
    """The states of each layer at its last record, as the writer judged them."""
    return {name: (layer.states()[-1], layer.since()[-1]) for name, layer in run.layers.items()}


def flagged(layer: LayerHistory) -> list[UnitVerdict]:
    """The verdicts on all units of a layer that are in an alarm or warning state, by index."""
    states, since = layer.states()[-1], layer.since()[-1]
    units = np.flatnonzero(FLAGGED[states]).tolist()
    return list(unit_verdicts(layer, states, since, layer.thresholds, units, written=True))


def report(runs: Iterable[RunHistory]) -> dict[str, Any]:
    """The object that ``deadunits report --json`` prints: strict JSON, NaN and infinity are None."""
    return {"schema": SCHEMA, "runs": [_run(run) for run in runs]}


def print_report(logdir: str | os.PathLike[str], console: Console | None = None, pattern: str | None = None) -> None:
    """Print what is to be said of the runs in a log directory, for people.

    Args:
        logdir: The log directory.
        console: Where to print; None for standard output.
        pattern: A regular expression for the names of runs; None for all.

    Raises:
        LogDirectoryError: The directory cannot be read, or holds no records.
        InvalidArgumentError: The pattern is no regular expression, or matches no run.
    """
    from deadunits_tb.reading.log_directory import LogDirectory
    from deadunits_tb.reading.report_table import print_notes, print_run

    directory = LogDirectory(logdir)
    for run in directory.matching(pattern):
        print_run(directory.history(run), console)
    print_notes(directory.notes, console)


def _run(run: RunHistory) -> dict[str, Any]:
    latest = run.records[-1] if run.records else None
    records = len(run_steps(run))
    return {
        "run": run.run,
        "first_step": run.first_step,
        "last_step": run.last_step,
        "records": records,
        "records_written": run.records_written or records,
        "framework": run.info.framework,
        "thresholds": run.info.thresholds.to_dict(),
        "overhead": _finite(latest.overhead) if latest else None,
        "errors": list(latest.errors) if latest else [],
        "skipped": [{"layer": one.layer, "reason": one.reason} for one in latest.skipped] if latest else [],
        "layers": [_layer(run, layer) for layer in run.layers.values()],
        "findings": [_finding(finding) for finding in written_findings(run)],
        "revivals": revivals_json(run),
        "notes": list(run.notes),
    }


def _layer(run: RunHistory, layer: LayerHistory) -> dict[str, Any]:
    return {
        "layer": layer.info.name,
        "kind": layer.info.kind,
        "role": layer.info.role,
        "units": layer.units,
        "activation_function": layer.info.activation_function,
        "states": count_states(layer.states()[-1]),
        "flagged": [_unit(verdict) for verdict in flagged(layer)],
        "events": groups_json(written_events(run, layer)),
    }


def _unit(verdict: UnitVerdict) -> dict[str, Any]:
    why = verdict.explanation
    return {
        "unit": verdict.unit,
        "state": verdict.state.label,
        "since_step": verdict.since_step,
        "examples": why.examples,
        "rate_upper_bound": _finite(why.rate_upper_bound),
        "born": why.born,
        "why": why.why,
        "certificate": None if verdict.certificate is None else verdict.certificate.to_dict(),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "cause": finding.cause,
        "level": finding.level.label,
        "layers": list(finding.layers),
        "step": finding.step,
        "confidence": _finite(finding.confidence),
        "evidence": list(finding.evidence),
        "ruled_out": list(finding.ruled_out),
        "remedies": list(finding.remedies),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

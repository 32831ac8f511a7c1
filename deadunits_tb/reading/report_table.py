"""The report for people: a sentence, the layers worst first, the findings, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deadunits_tb.certificate import Certainty
from deadunits_tb.reading.certainty import certainties
from deadunits_tb.reading.findings import Finding
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.overview import onset_step, run_steps
from deadunits_tb.reading.phrases import count, listing, percent, printable
from deadunits_tb.reading.report import flagged, headline, last_states, written_findings
from deadunits_tb.reading.revivals import revivals
from deadunits_tb.run_record import RunRecord, Skipped
from deadunits_tb.units import FLAGGED, SEVERITY, Level, UnitState

_STYLES = {Level.ALARM: "bold red", Level.WARNING: "yellow", Level.INFORMATION: "cyan", Level.OK: "green"}
_INDENT = 2
_NAMED_AT_ONCE = 60
"""Layers skipped for one reason whose names are printed; all are in the JSON."""


def print_run(run: RunHistory, console: Console | None = None) -> None:
    """Print what is to be said of a run.

    Args:
        run: The run.
        console: Where to print; None for standard output.
    """
    console = console or Console()
    findings = written_findings(run)
    console.print(_text(run.run, "bold"), _text(headline(run, last_states(run), findings)), sep="  ", soft_wrap=True)
    _print_line("", "", _facts(run), console)
    if run.layers:
        console.print(Padding(_table(run), (0, 0, 0, _INDENT)))
    for layer in _worst_first(run):
        worst = max(flagged(layer), key=lambda verdict: (SEVERITY[verdict.state], -verdict.since_step), default=None)
        if worst is not None and worst.state.level == Level.ALARM:
            said = f"{layer.info.name}, unit {worst.unit}: {worst.explanation.why}"
            _print_line(_words(worst.state), _STYLES[worst.state.level], said, console)
            if worst.certificate is not None:
                _print_line(
                    "", "", f"{worst.certificate.certainty.value}: {worst.certificate.why}", console, 3 * _INDENT
                )
    for finding in findings:
        _print_finding(finding, console)
    for revival in revivals(run):
        _print_line("revived", "cyan", revival.sentence, console)
    for sentence in _quality(run):
        _print_line("note", "dim", sentence, console)
    console.print()


def print_notes(notes: Sequence[str], console: Console | None = None) -> None:
    """Print what of a log directory was left out."""
    for note in notes:
        _print_line("left out", "yellow", note, console or Console())


def _facts(run: RunHistory) -> str:
    seen, written = len(run_steps(run)), run.records_written
    records = f"{count(seen)} of {count(written, 'record')}" if seen < written else count(seen, "record")
    latest = run.records[-1] if run.records else None
    overhead = latest.overhead if latest else None
    cost = ""
    if latest is not None and overhead is not None:
        watched = "" if run.info.every is None else f", watched every {_ordinal(run.info.every)}step as asked"
        cost = f"{watched}, {latest.overhead_seconds:.1f} s spent watching ({_share(latest)})"
    return f"{records} from step {run.first_step:,} to {run.last_step:,}, {run.info.framework}{cost}"


def _share(latest: RunRecord) -> str:
    """What watching took: compiling what watches is said apart, as it is a matter of seconds however long a run is."""
    steady, opening = latest.steady_overhead, latest.opening_seconds
    if steady is None:
        return "all of it at the start"
    at_start = "" if opening is None else f", and {opening:.1f} s at the start"
    return f"{percent(steady)} of the training time{at_start}"


def _ordinal(every: int) -> str:
    return {1: "", 2: "2nd ", 3: "3rd "}.get(every, f"{every}th ")


def _table(run: RunHistory) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("layer", overflow="fold")
    table.add_column("kind", overflow="fold")
    table.add_column("units", justify="right", no_wrap=True)
    table.add_column("since step", justify="right", no_wrap=True)
    table.add_column("states", overflow="fold")
    for layer in _worst_first(run):
        onset = onset_step(layer.states()[-1], layer.since()[-1])
        table.add_row(
            _text(layer.info.name),
            _text(layer.info.kind + (", output" if layer.info.role == "output" else "")),
            f"{layer.units:,}",
            "" if onset is None else f"{onset:,}",
            _states(layer),
        )
    return table


def _worst_first(run: RunHistory) -> list[LayerHistory]:
    """The layer with the largest flagged share first, then the most severe state, then by the model's order."""

    def badness(layer: LayerHistory) -> tuple[float, int, int]:
        states = layer.states()[-1]
        return -float(np.mean(FLAGGED[states])), -int(SEVERITY[states].max()), layer.info.order

    return sorted(run.layers.values(), key=badness)


def _states(layer: LayerHistory) -> Text:
    counts = np.bincount(layer.states()[-1], minlength=len(UnitState)).tolist()
    parts = []
    for state in sorted((state for state in UnitState if counts[state]), key=lambda state: -int(SEVERITY[state])):
        share = f" ({percent(counts[state] / layer.units)})" if state.flagged else ""
        parts.append(_text(f"{counts[state]:,} {_words(state)}{share}", _STYLES[state.level]))
        if state == UnitState.DEAD:
            parts += [_text(f"{number:,} of them {word}") for word, number in _certain(layer).items()]
    return Text(", ").join(parts)


def _certain(layer: LayerHistory) -> dict[str, int]:
    """Dead units by how certain that is; nothing where nothing was proved of any."""
    found = certainties(layer, layer.states()[-1], layer.since()[-1])
    return {} if set(found) == {Certainty.SILENT.value} and layer.certificates(-1) is None else found


def _print_finding(finding: Finding, console: Console) -> None:
    where = f" in {listing(finding.layers)}" if finding.layers else ""
    since = f" at step {finding.step:,}" if finding.step is not None else ""
    title = f"{finding.cause.replace('_', ' ')}{where}{since} (confidence {percent(finding.confidence)})"
    _print_line(finding.level.label, _STYLES[finding.level], title, console)
    groups = (("", finding.evidence), ("ruled out: ", finding.ruled_out), ("what to do: ", finding.remedies))
    for said, sentences in groups:
        for sentence in sentences:
            _print_line("", "", said + sentence, console, indent=3 * _INDENT)


def _quality(run: RunHistory) -> list[str]:
    """How far the figures can be trusted: what was lost or thinned out, what was not observed, what went wrong."""
    ended = [layer for layer in run.layers.values() if layer.steps[-1] < run.last_step]
    sentences = [f"layer {layer.info.name} has no record after step {layer.steps[-1]:,}" for layer in ended]
    if run.records:
        latest = run.records[-1]
        if latest.dropped:
            sentences.append(f"{count(latest.dropped, 'record')} lost because writing could not keep up")
        if latest.statistics_interval > 1:
            one_in = f"one record in {latest.statistics_interval}"
            sentences.append(f"only {one_in} holds statistics at present, to keep within the byte budget")
        sentences += _skipped(latest.skipped)
        sentences += [f"the monitor said: {error}" for error in latest.errors]
    return [*sentences, *(f"left out: {note}" for note in run.notes)]


def _skipped(skipped: Sequence[Skipped]) -> Iterator[str]:
    """A sentence for each reason: often it is one for many layers."""
    by_reason: dict[str, list[str]] = {}
    for one in skipped:
        by_reason.setdefault(one.reason, []).append(one.layer)
    for reason, layers in by_reason.items():
        if len(layers) == 1:
            yield f"layer {layers[0]} was not observed: {reason}"
        else:
            named = listing(layers, limit=_NAMED_AT_ONCE)
            yield f"{count(len(layers), 'layer')} were not observed: {reason}: {named}"


def _print_line(label: str, style: str, sentence: str, console: Console, indent: int = _INDENT) -> None:
    line = Text.assemble((label, style), "  ", _text(sentence)) if label else _text(sentence)
    console.print(Padding(line, (0, 0, 0, indent)))


def _words(state: UnitState) -> str:
    return state.label.replace("_", "-")


def _text(words: str, style: str = "") -> Text:
    """Names come from strangers: no markup is read in them, and control characters are shown, not sent."""
    return Text(printable(words), style)

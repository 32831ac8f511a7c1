"""From the tags of a run to the history of each layer: sessions, blocks and ranges of units put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from deadunits_tb.reading.history import LayerHistory, Place
from deadunits_tb.reading.notes import hidden_run
from deadunits_tb.reading.phrases import count
from deadunits_tb.reading.series import Arrays, CertificatesSeries, StatesSeries, StatisticsSeries, SummarySeries
from deadunits_tb.run_record import RunInfo, RunRecord
from deadunits_tb.thresholds import Thresholds

MAX_CELLS = 2**27
"""Records times units of one layer: beyond, records are left out evenly, so that dense arrays fit into memory."""

Limits = Mapping[int, int]
"""Session to the step at which a later session went on: its records from there on are void."""
Note = Callable[[str], None]


def limits_of(series: Iterable[StatesSeries | SummarySeries]) -> Limits:
    """Find the first step of each session, and from that which records of earlier ones it made void by rewinding."""
    begins: dict[int, int] = {}
    for one in series:
        if len(one.steps):
            begins[one.info.session] = min(begins.get(one.info.session, int(one.steps[0])), int(one.steps[0]))
    limits, limit = {}, 2**63 - 1
    for session in sorted(begins, reverse=True):
        limits[session] = limit
        limit = min(limit, begins[session])
    return limits


def note_hidden_runs(series: Sequence[StatesSeries | SummarySeries], limits: Limits, note: Note) -> None:
    """Say of each session without a record that counts that a later run in the same directory hides it."""
    for session, limit in sorted(limits.items()):
        steps = {step for one in series if one.info.session == session for step in one.steps.tolist()}
        if steps and min(steps) >= limit:
            held = f"{count(len(steps), 'record')} of steps {min(steps):,} to {max(steps):,}"
            note(hidden_run(session, held, f"a later run began again at step {limit:,}"))


def run_records(summaries: Iterable[SummarySeries], limits: Limits) -> tuple[RunRecord, ...]:
    """The facts of all records that count, in order of steps."""
    latest: dict[int, RunRecord] = {}
    for series in sorted(summaries, key=_age):
        limit = limits.get(series.info.session, 0)
        latest |= {record.step: record for record in series.records if record.step < limit}
    return tuple(latest[step] for step in sorted(latest))


def run_info(summaries: Sequence[SummarySeries]) -> RunInfo | None:
    """The facts of the run, as its latest session has them; None without a summary."""
    return max(summaries, key=_age).info.run if summaries else None


def layer_histories(
    states: Iterable[StatesSeries],
    statistics: Iterable[StatisticsSeries],
    limits: Limits,
    thresholds: Thresholds,
    arrays: Arrays,
    note: Note,
    certificates: Sequence[CertificatesSeries] = (),
) -> dict[str, LayerHistory]:
    """One history for each layer that has records, in the model's order."""
    by_layer: dict[str, list[StatesSeries]] = defaultdict(list)
    measured: dict[str, list[StatisticsSeries]] = defaultdict(list)
    for one in states:
        if one.info.layer is not None:
            by_layer[one.info.layer.name].append(one)
    for other in statistics:
        if other.info.layer is not None:
            measured[other.info.layer.name].append(other)
    found = []
    for name, group in by_layer.items():
        info = max(group, key=_age).info.layer
        assert info is not None
        same = [one for one in group if one.info.layer is not None and one.info.layer.units == info.units]
        if len(same) < len(group):
            note(f"layer {name!r}: records left out from when it did not have {count(info.units, 'unit')}")
        places = _places(same, info.units, limits, partial(_note_of, note, name))
        fitting = [one for one in measured[name] if one.info.layer is not None and one.info.layer.units == info.units]
        proofs = [one for one in certificates if one.info.layer is not None and one.info.layer.name == name]
        if places:
            found.append(LayerHistory(info, thresholds, places, fitting, arrays, proofs))
    return {layer.info.name: layer for layer in sorted(found, key=lambda layer: (layer.info.order, layer.info.name))}


def _note_of(note: Note, layer: str, sentence: str) -> None:
    note(f"layer {layer!r}: {sentence}")


def _places(group: Sequence[StatesSeries], units: int, limits: Limits, note: Note) -> list[Place]:
    """Where the records of one layer lie that count and are whole, in order of steps."""
    by_session: dict[int, list[StatesSeries]] = defaultdict(list)
    for series in sorted(group, key=_age):
        by_session[series.info.session].append(series)
    places: dict[int, Place] = {}
    for session, members in by_session.items():
        ranges = {_range(series) for series in members}
        pieces: dict[int, dict[tuple[int, int], tuple[StatesSeries, int]]] = defaultdict(dict)
        for series in members:
            for row, step in enumerate(series.steps.tolist()):
                if step < limits[session]:
                    pieces[step][_range(series)] = series, row
        whole = {step: found for step, found in pieces.items() if len(found) == len(ranges)}
        torn = pieces.keys() - whole.keys() - {max(pieces, default=0)}  # the last may still be on its way to the disk
        if torn:
            note(f"{count(len(torn), 'record')} left out, because a part of the units is missing")
        for step, found in whole.items():
            places[step] = Place(session, step, tuple(found[place] for place in sorted(found)))
    _note_gaps({_range(series) for series in group}, units, note)
    every = max(-(-len(places) * units // MAX_CELLS), 1)
    if every > 1:
        sizes = f"{count(len(places), 'record')} of {count(units, 'unit')}"
        note(f"only one in {every:,} of its {sizes} is shown, to save memory")
    return [places[step] for step in sorted(places)][::-1][::every][::-1]


def _note_gaps(ranges: Iterable[tuple[int, int]], units: int, note: Note) -> None:
    held = 0
    for start, stop in [*sorted(ranges), (units, units)]:
        if start > held:
            note(f"nothing is known of units {held:,} to {start - 1:,}")
        held = max(held, stop)


def _age(series: StatesSeries | SummarySeries) -> tuple[int, int]:
    return series.info.session, series.info.block


def _range(series: StatesSeries) -> tuple[int, int]:
    return series.info.unit_start, series.info.unit_stop

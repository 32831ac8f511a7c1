"""From a TensorBoard ``DataProvider`` to the histories of runs."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from deadunits_tb.errors import FormatError, UnknownNameError
from deadunits_tb.reading.assembly import layer_histories, limits_of, note_hidden_runs, run_info, run_records
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.listing import RunTags, Source, Tag
from deadunits_tb.reading.notes import Notes
from deadunits_tb.reading.phrases import count
from deadunits_tb.reading.series import (
    Arrays,
    CertificatesSeries,
    StatesSeries,
    StatisticsSeries,
    SummarySeries,
    array_cache,
    of_tag,
)
from deadunits_tb.run_record import RunInfo

Series = StatesSeries | StatisticsSeries | CertificatesSeries | SummarySeries


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


@dataclass(slots=True)
class _Kept:
    """What was read of a run so far: tags with their data, and the last record of its newest summary."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    series: dict[tuple[str, str], tuple[Tag, Series]] = field(default_factory=dict)
    history: RunHistory | None = None
    summary: tuple[Tag, int] | None = None


class RunReader:
    """Reads runs through a TensorBoard ``DataProvider``. Safe to share between threads.

    A tag that has not changed is never read again: closed blocks are read once, of a growing run only the open ones.

    Args:
        provider: Any ``tensorboard.data.provider.DataProvider``.
        cache_bytes: Limit on the decoded arrays kept in memory; beyond it the ones used least recently go.
    """

    def __init__(self, provider: Any, *, cache_bytes: int = 2**28) -> None:
        self._source = Source(provider)
        self._arrays: Arrays = array_cache(cache_bytes)
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._notes: dict[str, dict[str, Notes]] = {}

    def runs(self, ctx: Any = None, *, experiment_id: str = "") -> list[RunSummary]:
        """List the runs that hold records of ours, in natural order. Cheap: reads no history.

        Args:
            ctx: TensorBoard's ``RequestContext``.
            experiment_id: Of the experiment.
        """
        notes: dict[str, Notes] = defaultdict(Notes)
        listed = self._source.list(ctx, experiment_id, lambda run, sentence: notes[run].add(sentence))
        with self._lock:
            self._notes[experiment_id] = notes
            for experiment, run in list(self._kept):
                if experiment == experiment_id and run not in listed:
                    del self._kept[experiment, run]
        return [self._summary(tags, ctx, experiment_id) for tags in listed.values()]

    def notes(self, ctx: Any = None, *, experiment_id: str = "", but_of: Container[str] = ()) -> list[str]:
        """What was left out of the last listing, one sentence each: tags of strangers, later format versions, damage.

        Args:
            ctx: TensorBoard's ``RequestContext``.
            experiment_id: Of the experiment.
            but_of: Runs that are passed over, because their own notes say it.
        """
        if experiment_id not in self._notes:
            self.runs(ctx, experiment_id=experiment_id)
        found = Notes()
        for run, sentences in self._notes[experiment_id].items():
            if run not in but_of:
                for sentence in sentences:
                    found.add(f"run {run!r}: {sentence}")
        return list(found)

    def history(self, run: str, ctx: Any = None, *, experiment_id: str = "") -> RunHistory:
        """Read a run; what was read before and has not changed is not read again.

        Args:
            run: As :meth:`runs` calls it.
            ctx: TensorBoard's ``RequestContext``.
            experiment_id: Of the experiment.

        Raises:
            UnknownNameError: There is no such run.
        """
        notes = Notes()
        tags = self._source.list(ctx, experiment_id, lambda _, sentence: notes.add(sentence), run).get(run)
        if tags is None:
            known = self._source.list(ctx, experiment_id, lambda _, sentence: None)
            raise UnknownNameError.of("run", run, known)
        kept = self._kept_of(experiment_id, run)
        with kept.lock:
            if kept.history is None or kept.history.version != tags.version:
                kept.history, history = None, self._read(kept, tags, notes, ctx, experiment_id)
                if len(kept.series) == len(tags.tags):  # otherwise something could not be read, and is tried again
                    kept.history = history
                return history
            return kept.history

    def _kept_of(self, experiment_id: str, run: str) -> _Kept:
        with self._lock:
            return self._kept.setdefault((experiment_id, run), _Kept())

    def _summary(self, tags: RunTags, ctx: Any, experiment_id: str) -> RunSummary:
        kept = self._kept_of(experiment_id, tags.run)
        history = kept.history
        current = history if history is not None and history.version == tags.version else None
        return RunSummary(
            run=tags.run,
            first_step=history.first_step if history else None,
            last_step=tags.last_step,
            last_wall_time=tags.last_wall_time,
            records=current.records_written if current else self._last_number(kept, tags, ctx, experiment_id),
            layers=len({tag.info.layer.name for tag in tags.tags if tag.info.layer}),
            version=tags.version,
        )

    def _last_number(self, kept: _Kept, tags: RunTags, ctx: Any, experiment_id: str) -> int:
        """Number of the last record, 0 if that cannot be told: of the newest summary only the last point is read."""
        summaries = [tag for tag in tags.tags if tag.info.kind == "summary"]
        if not summaries:
            return 0
        newest = max(summaries, key=lambda tag: (tag.info.session, tag.info.block))
        if kept.summary is None or kept.summary[0] != newest:
            try:
                records = SummarySeries(newest.info, self._source.read(ctx, experiment_id, newest, 1)).records
            except FormatError:
                return 0
            kept.summary = newest, records[-1].records_written if records else 0
        return kept.summary[1]

    def _read(self, kept: _Kept, tags: RunTags, notes: Notes, ctx: Any, experiment_id: str) -> RunHistory:
        series: dict[tuple[str, str], tuple[Tag, Series]] = {}
        for tag in tags.tags:
            known, before = kept.series.get(tag.key, (None, None))
            try:
                if before is None or known != tag:
                    before = self._open(tag, before, ctx, experiment_id)
                series[tag.key] = tag, before
            except FormatError as error:
                notes.add(f"{of_tag(tag.info)}: left out: {error}")
        kept.series = series
        opened = [one for _, one in series.values()]
        states = [one for one in opened if isinstance(one, StatesSeries)]
        summaries = [one for one in opened if isinstance(one, SummarySeries)]
        statistics = [one for one in opened if isinstance(one, StatisticsSeries)]
        certificates = [one for one in opened if isinstance(one, CertificatesSeries)]
        damaged: list[StatesSeries | SummarySeries] = [*states, *summaries]
        for info, damage in [(one.info, one.damage) for one in damaged]:
            if damage:
                notes.add(f"{of_tag(info)}: {count(len(damage), 'record')} left out: {damage[0]}")
        facts = run_info(summaries)
        if facts is None:
            notes.add("the run's summary is missing: its thresholds are taken to be the defaults")
            facts = RunInfo()
        limits = limits_of([*states, *summaries])
        note_hidden_runs([*states, *summaries], limits, notes.add)
        return RunHistory(
            run=tags.run,
            version=tags.version,
            info=facts,
            records=run_records(summaries, limits),
            layers=layer_histories(states, statistics, limits, facts.thresholds, self._arrays, notes.add, certificates),
            notes=Notes(notes, *(one.notes for one in statistics), *(one.notes for one in certificates)),
        )

    def _open(self, tag: Tag, before: Series | None, ctx: Any, experiment_id: str) -> Series:
        read = partial(self._source.read, ctx, experiment_id, tag)
        if tag.info.kind == "statistics":
            return StatisticsSeries(tag.info, tag.last_step, read, self._arrays)
        if tag.info.kind == "certificates":
            return CertificatesSeries(tag.info, read)
        if tag.info.kind == "summary":
            return SummarySeries(tag.info, read())
        return StatesSeries(tag.info, read(), self._arrays, before if isinstance(before, StatesSeries) else None)

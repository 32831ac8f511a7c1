"""Whether runs keep to limits: within, beyond, or it cannot be told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.gate.limits import NEEDS, At, Limit, Scope, compiled
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.reading.phrases import count, listing, percent
from deadunits_tb.reading.report import written_findings
from deadunits_tb.record import Int
from deadunits_tb.units import Level, UnitState

Status = Literal["within", "beyond", "unknown"]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question to one run or layer, and its answer.

    Attributes:
        run: Name of the run.
        layer: None for the run as a whole.
        check: What was asked, such as ``"dead at most 5 %"``.
        status: The answer; ``"unknown"`` where the log holds too little.
        step: At which the answer was found, None where there is no record.
        value: Share of units, None where it is no question of a share.
        limit: The share that is allowed, None where it is no question of a share.
        sentence: The answer in words, with the numbers.
    """

    run: str
    layer: str | None
    check: str
    status: Status
    step: int | None
    value: float | None
    limit: float | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What to ask.

    Attributes:
        limits: Without any, and without a baseline, runs must have no finding on the level of an alarm.
        scope: Whether limits hold for each layer, or for all units of a run together.
        at: Whether at the last record, or at every record.
        layers: Regular expression for the names of layers, None for all.
        baseline: A log directory whose runs must not be surpassed.
        tolerance: Share by which they may be.
    """

    limits: tuple[Limit, ...] = ()
    scope: Scope = "layer"
    at: At = "last"
    layers: str | None = None
    baseline: str | os.PathLike[str] | None = None
    tolerance: float = 0.0


def check(logdir: str | os.PathLike[str], terms: Terms, *, pattern: str | None = None) -> list[Outcome]:
    """Ask every run.

    Args:
        logdir: A log directory.
        terms: What to ask.
        pattern: A regular expression for the names of runs, None for all.

    Returns:
        The answers, in the order of runs and layers.

    Raises:
        LogDirectoryError: A directory cannot be read, or holds no records.
        InvalidArgumentError: A pattern is wrong, or the baseline has no such run or layer.
    """
    directory = LogDirectory(logdir)
    names = directory.matching(pattern)
    before = None if terms.baseline is None else _Baseline(terms.baseline, logdir, len(names) == 1)
    asked: list[Outcome] = []
    for name in names:
        run = directory.history(name)
        layers = _chosen(run, terms.layers)
        if not layers:
            reason = "no layer was recorded" if not run.layers else _no_layer(run, terms.layers)
            asked.append(Outcome(name, None, "records", "unknown", None, None, None, reason))
            continue
        for limit in terms.limits:
            asked += _limit(run, layers, limit, terms)
        if before is not None:
            asked += before.compare(run, layers, terms)
        if not terms.limits and before is None:
            asked.append(_findings(run, layers))
    return asked


def exit_code(outcomes: Sequence[Outcome], *, allow_unknown: bool) -> int:
    """0 within limits, 1 beyond them, 2 where it cannot be told."""
    if any(outcome.status == "beyond" for outcome in outcomes):
        return 1
    unknown = any(outcome.status == "unknown" for outcome in outcomes)
    return 2 if unknown and not allow_unknown else 0


def _chosen(run: RunHistory, pattern: str | None) -> dict[str, LayerHistory]:
    wanted = compiled(pattern)
    return {name: layer for name, layer in run.layers.items() if len(layer) and wanted.search(name)}


def _no_layer(run: RunHistory, pattern: str | None) -> str:
    return f"no layer matches {pattern!r}. Known: {listing([repr(name) for name in run.layers], limit=10)}"


def _limit(run: RunHistory, layers: Mapping[str, LayerHistory], limit: Limit, terms: Terms) -> Iterator[Outcome]:
    groups = {name: {name: layer} for name, layer in layers.items()} if terms.scope == "layer" else {None: layers}
    for layer, members in groups.items():
        yield _share(run.run, layer, members, limit, terms.at)


def _share(
    run: str, layer: str | None, layers: Mapping[str, LayerHistory], limit: Limit, at: At, allowed: str = "allowed"
) -> Outcome:
    steps, counts = _counts(layers)
    units = sum(member.units for member in layers.values())
    found = counts @ limit.codes
    row = int(np.argmax(found)) if at == "any" else len(steps) - 1
    step, units_found, unknown = int(steps[row]), int(found[row]), int(counts[-1, UnitState.UNKNOWN])
    share = units_found / units
    asked = f"{limit.state} at most {percent(limit.share)}" + (" at every record" if at == "any" else "")
    state = "in an alarm state" if limit.state == "alarm" else limit.state.replace("_", "-")
    where = f"{units_found:,} of {count(units, 'unit')} {state} at step {step:,}"
    status: Status = "within"
    sentence = f"{where}: {percent(share)}, at most {percent(limit.share)} {allowed}"
    if share > limit.share:
        status = "beyond"
    elif (reason := _unmeasured(layers, limit)) is not None:
        status, sentence = "unknown", reason
    elif (int(found[-1]) + unknown) / units > limit.share:
        seen = max(member.window(-1).examples_seen for member in layers.values())
        status = "unknown"
        sentence = (
            f"{where}, but {count(unknown, 'unit')} cannot be judged yet, after {count(seen, 'example')}: "
            "train longer, observe more often, or allow it with --allow-unknown"
        )
    return Outcome(run, layer, asked, status, step, share, limit.share, sentence)


def _unmeasured(layers: Mapping[str, LayerHistory], limit: Limit) -> str | None:
    """Why units of some layer could not be in that state even if they deserved it, None if they could."""
    needed = NEEDS.get(limit.state)
    trained = {name: layer for name, layer in layers.items() if layer.window(-1).trainable}
    without = [name for name, layer in trained.items() if needed is not None and needed not in layer.statistics]
    if not without:
        return None
    return f"{limit.state} cannot be told of {listing(without)}: no {needed} was recorded there"


def _counts(layers: Mapping[str, LayerHistory]) -> tuple[Int, Counts]:
    """Steps ``[R]`` of all records, and units in each state ``[R, states]``; a layer keeps its last states."""
    steps = np.unique(np.concatenate([layer.steps for layer in layers.values()]))
    total = np.zeros((len(steps), len(UnitState)), np.int64)
    for layer in layers.values():
        states = layer.states()
        own = np.stack([(states == code).sum(axis=1) for code in range(len(UnitState))], axis=1)
        rows = np.searchsorted(layer.steps, steps, side="right") - 1
        total[rows >= 0] += own[rows[rows >= 0]]
    return steps, total


def _findings(run: RunHistory, layers: Mapping[str, LayerHistory]) -> Outcome:
    """Without limits: no finding of the chosen layers may be an alarm."""
    asked = "no finding is an alarm"
    alarms = [f for f in written_findings(run) if f.level == Level.ALARM and any(name in layers for name in f.layers)]
    if alarms:
        words = [f"{f.cause.replace('_', ' ')} in {listing(f.layers)}" for f in alarms]
        said = f"{listing(words)}: {alarms[0].evidence[0]}" if alarms[0].evidence else listing(words)
        return Outcome(run.run, None, asked, "beyond", alarms[0].step, None, None, said)
    _, counts = _counts(layers)
    if counts[-1, UnitState.UNKNOWN] == counts[-1].sum():
        seen = max(layer.window(-1).examples_seen for layer in layers.values())
        said = f"no unit can be judged yet, after {count(seen, 'example')}: train longer or observe more often"
        return Outcome(run.run, None, asked, "unknown", run.last_step, None, None, said)
    flagged = int(counts[-1] @ Limit("flagged", 0.0).codes)
    said = f"{flagged:,} of {count(int(counts[-1].sum()), 'unit')} flagged, and no finding is an alarm"
    return Outcome(run.run, None, asked, "within", run.last_step, None, None, said)


class _Baseline:
    """Runs that must not be surpassed."""

    def __init__(self, logdir: str | os.PathLike[str], judged: str | os.PathLike[str], single: bool) -> None:
        self._directory = LogDirectory(logdir)
        self._paths = os.fspath(logdir), os.fspath(judged)
        self._names = self._directory.matching(None)
        self._single = single and len(self._names) == 1

    def compare(self, run: RunHistory, layers: Mapping[str, LayerHistory], terms: Terms) -> Iterator[Outcome]:
        """No larger share of flagged units than there, layer by layer or in all."""
        if run.run not in self._names and not self._single:
            known = listing([repr(name) for name in self._names], limit=10)
            raise InvalidArgumentError(
                f"the baseline has no run {run.run!r}, so there is no comparing: call the runs alike on both sides, or "
                f"choose one run here with --run and name one run's directory as the baseline. Known: {known}"
            )
        name = run.run if run.run in self._names else self._names[0]
        theirs_at, ours_at = (Path(path) / one for path, one in zip(self._paths, (name, run.run), strict=True))
        if theirs_at.resolve() == ours_at.resolve():
            raise InvalidArgumentError(
                f"the baseline of {run.run!r} is that run itself, so the check could not fail: name the directory of "
                "an earlier run"
            )
        other = self._directory.history(name)
        absent = [name for name in layers if name not in other.layers or not len(other.layers[name])]
        sizes = [name for name in layers if name not in absent and other.layers[name].units != layers[name].units]
        if absent or sizes:
            there = listing(list(other.layers), limit=10)
            which = f"has no layer {listing(absent)} (but {there})" if absent else ""
            which = which or f"has other numbers of units in {listing(sizes)}"
            raise InvalidArgumentError(
                f"the baseline {which}, so there is no comparing: choose the layers that both have with --layer, "
                "or another baseline"
            )
        states = [limit.state for limit in terms.limits] or ["alarm", "flagged"]
        per_layer = terms.scope == "layer"
        for names in [[name] for name in layers] if per_layer else [list(layers)]:
            theirs = {name: other.layers[name] for name in names}
            units = sum(layer.units for layer in theirs.values())
            _, counts = _counts(theirs)
            for state in states:
                share = float(counts[-1] @ Limit(state, 0.0).codes) / units
                allowed = Limit(state, min(1.0, share + terms.tolerance))
                mine = {name: layers[name] for name in names}
                more = f" and {percent(terms.tolerance)} more" if terms.tolerance else ""
                words = f"as in the baseline{more}"
                found = _share(run.run, names[0] if per_layer else None, mine, allowed, "last", words)
                asked = f"{state} no more than in the baseline"
                yield Outcome(
                    found.run, found.layer, asked, found.status, found.step, found.value, found.limit, found.sentence
                )

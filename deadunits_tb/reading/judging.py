"""Judging a recorded layer anew, with other thresholds than the writer's."""

from __future__ import annotations

import dataclasses

import numpy as np

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.reading.history import LayerHistory
from deadunits_tb.record import Byte, Evidence, Int, Memory, Statistics
from deadunits_tb.thresholds import SPECS, Thresholds
from deadunits_tb.units import UnitState
from deadunits_tb.verdicts import judge, no_signal


def rejudge(history: LayerHistory, thresholds: Thresholds) -> tuple[Byte, Int]:
    """Judge all records of a layer again, from its first record on.

    Only records that hold statistics can be judged; between them the states stay as they are. With the writer's own
    thresholds and nothing thinned out this gives what the writer stored.

    Args:
        history: The layer.
        thresholds: The numbers that decide now.

    Returns:
        ``uint8 [R, U]`` states and ``int64 [R, U]`` steps since which they hold.

    Raises:
        InvalidArgumentError: A threshold that acts while writing was changed: it decides what is recorded.
    """
    _check(history.thresholds, thresholds)
    states = np.full((len(history), history.units), UnitState.UNKNOWN, np.uint8)
    since = np.empty(states.shape, np.int64)
    session = None
    for record in range(len(history)):
        window = history.window(record)
        if session != window.first_step:  # the first record, or one of a resumed run, which judges anew
            session = window.first_step
            memory, signal = Memory.none(history.units, session), _Signal(history, thresholds)
            states[record], since[record] = UnitState.UNKNOWN, session
        else:
            states[record], since[record] = states[record - 1], since[record - 1]
            memory = _begun_anew(memory, history, record)
        statistics = history.statistic_at(record)
        if statistics is not None:
            evidence = signal.recount(history.evidence(record), statistics, window.examples)
            with np.errstate(all="ignore"):  # what a stranger recorded may be any number
                verdict = judge(history.info, window, statistics, evidence, memory, thresholds)
            states[record], since[record], memory = verdict.states, verdict.since, verdict.memory
    return states, since


def _begun_anew(memory: Memory, history: LayerHistory, record: int) -> Memory:
    """Units that were revived before a record are judged as if it were their first: the writer remembered so."""
    written = history.memory(record)
    again = (written.state == UnitState.UNKNOWN) & (history.states()[record - 1] != UnitState.UNKNOWN)
    if not again.any():
        return memory
    columns = (field.name for field in dataclasses.fields(Memory))
    return Memory(**{name: np.where(again, getattr(written, name), getattr(memory, name)) for name in columns})


class _Signal:
    """Examples since a unit last had an error signal: the one carried counter that depends on a threshold.

    With another ``dead_gradient`` than the writer's it is counted again, from the gradient of each record.
    """

    def __init__(self, history: LayerHistory, thresholds: Thresholds) -> None:
        changed = thresholds.dead_gradient != history.thresholds.dead_gradient
        self._again = changed and not history.info.relu_like
        self._info, self._thresholds = history.info, thresholds
        self._examples = np.zeros(history.units, np.int64)

    def recount(self, evidence: Evidence, statistics: Statistics, examples: int) -> Evidence:
        """The evidence of a record with the counter as these thresholds have it."""
        gradient = statistics.get("gradient")
        if not self._again or gradient is None:
            return evidence
        none = no_signal(self._info, gradient, self._thresholds)
        self._examples = np.where(none, self._examples + examples, 0)
        return dataclasses.replace(evidence, examples_without_signal=self._examples)


def _check(written: Thresholds, thresholds: Thresholds) -> None:
    for name, spec in SPECS.items():
        before, now = getattr(written, name), getattr(thresholds, name)
        if spec["acts"] == "writing" and before != now:
            raise InvalidArgumentError(
                f"threshold {name} acts while writing: this run was recorded with {before:g}; {now:g} needs a new one"
            )

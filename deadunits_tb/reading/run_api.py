"""Recorded runs as Python objects and arrays: what ``deadunits_tb.load`` gives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from deadunits_tb.errors import InvalidArgumentError, MissingDependencyError, UnknownNameError
from deadunits_tb.reading.comparison import Comparison, compare
from deadunits_tb.reading.findings import Finding
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.reading.report import flagged, written_findings
from deadunits_tb.reading.unit_events import UnitEvents, written_events
from deadunits_tb.reading.unit_verdicts import UnitVerdict, unit_verdicts
from deadunits_tb.record import Byte, Float, Int
from deadunits_tb.run_record import RunInfo, RunRecord
from deadunits_tb.units import LayerInfo, UnitState, count_states

if TYPE_CHECKING:
    import pandas as pd

Value = TypeVar("Value")


def load(logdir: str | os.PathLike[str]) -> Runs:
    """Read what was recorded below a log directory.

    ::

        runs = deadunits_tb.load("runs")
        layer = runs["mlp"].layers["dense_1"]
        layer.counts                               # {'active': 117, 'dead': 11}
        (layer.states == UnitState.DEAD).mean(1)   # share of dead units at each of layer.steps

    Args:
        logdir: A log directory; also a URL that TensorBoard's file layer knows, such as ``gs://bucket/runs``.

    Returns:
        Run name to run; empty if the directory holds no records. A run is read when it is first asked for.

    Raises:
        InvalidArgumentError: It is no path.
        LogDirectoryError: There is no such directory, or it cannot be read.
    """
    if not isinstance(logdir, (str, os.PathLike)):
        raise InvalidArgumentError(f"logdir must be a path, not {logdir!r}")
    return Runs(LogDirectory(logdir))


class _NoSuchKeyError(UnknownNameError, KeyError):
    """Also what every mapping raises, so that ``get`` works."""


class _Named(Mapping[str, Value]):
    """A mapping in a fixed order, whose missing keys say what exists."""

    _kind: str
    _names: Sequence[str]

    def _get(self, name: str) -> Value:
        raise NotImplementedError

    def __getitem__(self, name: str) -> Value:
        if name not in self._names:
            raise _NoSuchKeyError.of(self._kind, name, self._names)
        return self._get(name)

    def __contains__(self, name: object) -> bool:  # without reading what is there
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._names))})"


class Runs(_Named["Run"]):
    """Run name to run, in natural order. A run is called by its directory; ``"."`` is the log directory itself."""

    _kind = "run"

    def __init__(self, directory: LogDirectory) -> None:
        self._directory, self._names = directory, directory.runs
        self._runs: dict[str, Run] = {}

    def _get(self, name: str) -> Run:
        if name not in self._runs:
            self._runs[name] = Run(self._directory.history(name))
        return self._runs[name]

    def compare(self, first: str, second: str) -> Comparison:
        """Set two runs side by side: how they were made differently, where more units die, and whether that is chance.

        Raises:
            UnknownNameError: There is no such run.
            InvalidArgumentError: They are one and the same, or have no layer or step in common.
        """
        if first == second:
            raise InvalidArgumentError(f"a run does not differ from itself: {first!r}")
        return compare(self[first]._history, self[second]._history)

    @property
    def notes(self) -> list[str]:
        """What was left out of the event files, one sentence each; what a run left out is in its own notes."""
        return self._directory.notes

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each unit of each layer of each run, as :meth:`Layer.to_dataframe` with ``run`` and ``layer``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return _concat([run.to_dataframe() for run in self.values()])


class Run:
    """One run.

    Attributes:
        name: The directory that the user named.
        info: Framework, optimizer, thresholds: what does not change.
        records: Facts of each record: step, loss, learning rate, overhead.
        layers: Layer name to layer, in the model's order.
    """

    def __init__(self, history: RunHistory) -> None:
        self._history = history
        self.name: str = history.run
        self.info: RunInfo = history.info
        self.records: tuple[RunRecord, ...] = history.records
        self.layers: Layers = Layers(history)

    @cached_property
    def findings(self) -> list[Finding]:
        """What the states add up to, with causes and remedies, the most severe first."""
        return written_findings(self._history)

    @property
    def notes(self) -> list[str]:
        """What was left out of this run, one sentence each."""
        return list(self._history.notes)

    def flagged(self) -> dict[str, list[UnitVerdict]]:
        """Layer name to the verdicts on its units in an alarm or warning state; layers without any are left out."""
        found = {name: layer.flagged() for name, layer in self.layers.items()}
        return {name: verdicts for name, verdicts in found.items() if verdicts}

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each unit of each layer, as :meth:`Layer.to_dataframe` with ``run`` and ``layer``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return _concat([layer.to_dataframe() for layer in self.layers.values()])

    def __repr__(self) -> str:
        return f"Run({self.name!r}: {len(self.records)} records of {len(self.layers)} layers)"


class Layers(_Named["Layer"]):
    """Layer name to layer, in the model's order."""

    _kind = "layer"

    def __init__(self, history: RunHistory) -> None:
        self._names = list(history.layers)
        self._layers = {name: Layer(history, layer) for name, layer in history.layers.items()}

    def _get(self, name: str) -> Layer:
        return self._layers[name]


class Layer:
    """One layer of a run: ``R`` records of ``U`` units.

    Attributes:
        name: Unique within the run.
        info: Kind, activation function, units: what does not change.
        units: ``U``.
        steps: ``int64 [R]`` optimizer steps since the start of training.
    """

    def __init__(self, run: RunHistory, history: LayerHistory) -> None:
        self._of, self._run, self._history = run, run.run, history
        self.name: str = history.info.name
        self.info: LayerInfo = history.info
        self.units: int = history.units
        self.steps: Int = history.steps

    @property
    def states(self) -> Byte:
        """``uint8 [R, U]`` codes of :class:`~deadunits_tb.units.UnitState`, as judged while writing."""
        return self._history.states()

    @property
    def since(self) -> Int:
        """``int64 [R, U]`` step since which each state holds."""
        return self._history.since()

    @property
    def counts(self) -> dict[str, int]:
        """State to number of units at the last record, states without units left out."""
        return count_states(self.states[-1])

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of what was measured."""
        return self._history.statistics

    def statistic(self, name: str) -> Float:
        """One statistic of every unit at every record.

        Args:
            name: One of :attr:`statistics`.

        Returns:
            ``float32 [R, U]``, NaN where it was not recorded.

        Raises:
            UnknownNameError: It was not measured.
        """
        return self._history.statistic(name)

    def flagged(self) -> list[UnitVerdict]:
        """The verdicts on all units in an alarm or warning state at the last record, with why and since when."""
        return flagged(self._history)

    @cached_property
    def events(self) -> UnitEvents:
        """What happened to the units, and when: born dead, died, fired again, revived."""
        return written_events(self._of, self._history)

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each unit at the last record: its state, why, and every statistic.

        Columns: ``run``, ``layer``, ``unit``, ``state``, ``since_step``, ``examples``, ``rate_upper_bound``, ``born``,
        ``why``, ``certainty`` (of dead units), and one for each of :attr:`statistics`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        last = self._history
        verdicts = unit_verdicts(
            last, self.states[-1], self.since[-1], last.thresholds, range(self.units), written=True
        )
        return _pandas().DataFrame.from_records([self._row(verdict) for verdict in verdicts])

    def _row(self, verdict: UnitVerdict) -> dict[str, Any]:
        why = verdict.explanation
        return {
            "run": self._run,
            "layer": self.name,
            "unit": verdict.unit,
            "state": UnitState(verdict.state).label,
            "since_step": verdict.since_step,
            "examples": why.examples,
            "rate_upper_bound": why.rate_upper_bound,
            "born": why.born,
            "why": why.why,
            "certainty": None if verdict.certificate is None else verdict.certificate.certainty.value,
            **verdict.statistics,
        }

    def __repr__(self) -> str:
        return f"Layer({self.name!r}: {len(self.steps)} records of {self.units} units)"


def _concat(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    pandas = _pandas()
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError(
            "to_dataframe() needs pandas, which is not installed: pip install pandas"
        ) from error
    return pandas

"""Which two runs of which log directories to compare, and the comparison for people."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.reading.comparison import Comparison, compare
from deadunits_tb.reading.layer_comparison import LayerComparison, Side
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.reading.phrases import listing, measured, percent, printable

_STYLES = {"for": "bold green", "mixed": "yellow", "none": "cyan", "unknown": "yellow"}
_TITLES = {"for": "speaks for dying units", "mixed": "mixed", "none": "no difference", "unknown": "cannot be told"}
_INDENT = 2


def compare_directories(
    logdir: str | os.PathLike[str], other: str | os.PathLike[str] | None = None, runs: Sequence[str] = ()
) -> Comparison:
    """Compare two runs on disk.

    Args:
        logdir: A log directory.
        other: Another one for the second run; None where both are in the first.
        runs: Their names, or regular expressions that only one run matches. None are needed where there is no choice.

    Raises:
        LogDirectoryError: A directory cannot be read, or holds no records.
        InvalidArgumentError: It is not said which two runs, or there is no comparing them.
    """
    if len(runs) > 2:
        raise InvalidArgumentError(f"two runs are compared, not {len(runs)}: {listing([repr(run) for run in runs])}")
    first = LogDirectory(logdir)
    if other is None:
        if len(first.matching(None)) == 1:
            raise InvalidArgumentError(
                f"log directory {os.fspath(logdir)!r} holds one run, {first.runs[0]!r}, and a comparison takes two: "
                "name a directory above both, or a second one"
            )
        names = [_one(first, run, logdir) for run in runs] if runs else list(first.runs)
        if len(names) != 2:
            have = listing([repr(run) for run in first.runs], limit=10)
            what = "both with --run twice" if len(names) > 2 else "a second one with another --run"
            raise InvalidArgumentError(f"which runs are to be compared? Name {what}. Known: {have}")
        if names[0] == names[1]:
            raise InvalidArgumentError(f"{names[0]!r} is named twice: a run does not differ from itself")
        return compare(first.history(names[0]), first.history(names[1]))
    second = LogDirectory(other)
    if len(runs) == 1:
        runs = [runs[0], runs[0]]
    pair = [
        _one(directory, runs[at] if runs else None, path)
        for at, (directory, path) in enumerate(((first, logdir), (second, other)))
    ]
    one, two = first.history(pair[0]), second.history(pair[1])
    if _same_place(logdir, other) and pair[0] == pair[1]:
        raise InvalidArgumentError(f"{pair[0]!r} is named twice: a run does not differ from itself")
    called = (_called(logdir, pair[0]), _called(other, pair[1]))
    return compare(one, two, names=called)


def print_comparison(found: Comparison, console: Console | None = None) -> None:
    """Print a comparison: the verdict, what was made differently, the layers, and what does not match."""
    console = console or Console()
    title = f"{found.first} and {found.second}, at step {found.step:,}"
    console.print(_text(title, "bold"), soft_wrap=True)
    _print_line(_TITLES[found.verdict], _STYLES[found.verdict], found.sentence, console)
    for sentence in found.details:
        _print_line("", "", sentence, console, 2 * _INDENT)
    if found.differences:
        made = Table(box=None, pad_edge=False, padding=(0, 2))
        for heading in ("made differently", found.first, found.second):
            made.add_column(_text(heading), overflow="fold")
        for one in found.differences:
            made.add_row(_text(one.what), _text(one.first), _text(one.second))
        console.print(Padding(made, (1, 0, 0, _INDENT)))
    console.print(Padding(_layers(found), (1, 0, 0, _INDENT)))
    for name, alone in ((found.first, found.only_first), (found.second, found.only_second)):
        if alone:
            _print_line("not compared", "yellow", f"only in {name}: {listing(alone, limit=20)}", console)


def _layers(found: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("layer", "counted"):
        table.add_column(heading, overflow="fold")
    for heading in (found.first, found.second, "by chance"):
        table.add_column(_text(heading), justify="right", overflow="fold")
    for layer in sorted(found.layers, key=lambda layer: (not layer.differs, layer.chance)):
        name = layer.layer if layer.layer == layer.other else f"{layer.layer} ({layer.other})"
        style = "bold" if layer.differs else ""
        table.add_row(
            _text(name, style),
            _text(layer.trouble),
            _side(layer.first),
            _side(layer.second),
            _text(_chance(layer), style),
        )
    return table


def _side(side: Side) -> Text:
    if not side.judged:
        return _text("not judged yet", "dim")
    return _text(f"{side.troubled:,} of {side.judged:,}  {percent(side.share)}")


def _chance(layer: LayerComparison) -> str:
    if math.isnan(layer.chance):
        return "unknown"
    return "likely" if layer.chance >= 0.5 else f"p {measured(layer.chance)}"


def _one(directory: LogDirectory, wanted: str | None, logdir: str | os.PathLike[str]) -> str:
    """The run of that name, or the only one that matches."""
    if wanted is not None and wanted in directory.runs:
        return wanted
    names = directory.matching(wanted)
    if len(names) == 1:
        return names[0]
    have = listing([repr(name) for name in names], limit=10)
    if wanted is None:
        raise InvalidArgumentError(f"{os.fspath(logdir)!r} holds {len(names)} runs: choose with --run. Known: {have}")
    raise InvalidArgumentError(f"{wanted!r} matches {len(names)} runs, and one is wanted: {have}")


def _called(logdir: str | os.PathLike[str], run: str) -> str:
    """A run of one of two directories: by both, as names may be the same in both."""
    path = os.fspath(logdir).rstrip("/") or os.fspath(logdir)
    return path if run == "." else f"{path}/{run}"


def _same_place(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    return os.fspath(first) == os.fspath(second) or os.path.realpath(first) == os.path.realpath(second)


def _print_line(label: str, style: str, sentence: str, console: Console, indent: int = _INDENT) -> None:
    line = Text.assemble((label, style), "  ", _text(sentence)) if label else _text(sentence)
    console.print(Padding(line, (0, 0, 0, indent)))


def _text(words: str, style: str = "") -> Text:
    """Names come from strangers: no markup is read in them, and control characters are shown, not sent."""
    return Text(printable(words), style)

"""Verdicts and statistics as tables that other tools read: one row a unit and record."""

from __future__ import annotations

import csv
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TextIO

import numpy as np
import numpy.typing as npt

from deadunits_tb.errors import InvalidArgumentError, MissingDependencyError
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.record import NEVER
from deadunits_tb.units import STATISTICS, UnitState

Format = Literal["csv", "json", "parquet"]
Records = Literal["last", "all"]
Columns = dict[str, Any]
"""Column name to a list or array, all of one length; None in a list where there is no value."""

COLUMNS: tuple[str, ...] = (
    "run", "layer", "unit", "step", "state", "since_step", "examples_since_active", "last_active_step",
    *(statistic.name for statistic in STATISTICS),
)  # fmt: skip
"""Of every table, in this order, whatever was measured: what was not is empty."""
_LABELS = np.array([state.label for state in UnitState], dtype=object)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_BLOCK = 65_536


def export(
    logdir: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    format: Format,
    pattern: str | None = None,
    records: Records = "last",
) -> int:
    """Write a table of all units.

    The file appears when it is complete; what stood there before is replaced only then.

    Args:
        logdir: A log directory.
        path: Of the file.
        format: ``"csv"``, ``"json"`` (an array of objects) or ``"parquet"``.
        pattern: A regular expression for the names of runs, None for all.
        records: The last record of each layer, or all.

    Returns:
        How many rows were written.

    Raises:
        LogDirectoryError: The log directory cannot be read, or holds no records.
        InvalidArgumentError: There is no such format or run, or the file cannot be written.
        MissingDependencyError: Parquet was asked for, and pyarrow is not installed.
    """
    if format not in _WRITERS:
        raise InvalidArgumentError(f"there is no format {format!r}. Known: {', '.join(map(repr, _WRITERS))}")
    directory = LogDirectory(logdir)
    names = directory.matching(pattern)
    blocks = (block for name in names for block in _blocks(directory.history(name), records))
    target = pathlib.Path(path)
    if target.is_dir():
        raise InvalidArgumentError(f"cannot write {os.fspath(path)!r}: it is a directory. Name a file in it")
    try:
        handle, unfinished = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InvalidArgumentError(f"cannot write {os.fspath(path)!r}: {error.strerror}") from error
    os.close(handle)
    try:
        rows = _WRITERS[format](pathlib.Path(unfinished), blocks)
        pathlib.Path(unfinished).chmod(0o666 & ~_umask())
        os.replace(unfinished, target)  # noqa: PTH105
    except OSError as error:
        raise InvalidArgumentError(f"cannot write {os.fspath(path)!r}: {error.strerror}") from error
    finally:
        pathlib.Path(unfinished).unlink(missing_ok=True)
    return rows


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format that a file's name ends in.

    Raises:
        InvalidArgumentError: It ends in none that is known.
    """
    ending = pathlib.Path(path).suffix.lower().removeprefix(".")
    for known in _WRITERS:
        if ending == known:
            return known
    raise InvalidArgumentError(
        f"{os.fspath(path)!r} does not say which format it is to have: end it in .csv, .json or .parquet, or name one "
        "with --format"
    )


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _blocks(run: RunHistory, records: Records) -> Iterator[Columns]:
    for layer in run.layers.values():
        for index in range(len(layer)) if records == "all" else [len(layer) - 1]:
            yield from _record(run.run, layer, index)


def _record(run: str, layer: LayerHistory, index: int) -> Iterator[Columns]:
    """The columns of one record, at most a block of units at a time."""
    evidence, statistics = layer.evidence(index), layer.statistic_at(index)
    states, since = layer.record(index).states, layer.record(index).since
    for start in range(0, layer.units, _BLOCK):
        part = slice(start, min(start + _BLOCK, layer.units))
        units = part.stop - part.start
        measured = {} if statistics is None else dict(zip(statistics.names, statistics.values[:, part], strict=True))
        yield {
            "run": [run] * units,
            "layer": [layer.info.name] * units,
            "unit": np.arange(part.start, part.stop),
            "step": np.full(units, layer.steps[index]),
            "state": _LABELS[states[part]].tolist(),
            "since_step": since[part],
            "examples_since_active": evidence.examples_since_active[part],
            "last_active_step": [None if s == NEVER else s for s in evidence.last_active_step[part].tolist()],
            **{statistic.name: measured.get(statistic.name) for statistic in STATISTICS},
        }


def _rows(columns: Columns, number: Callable[[float], Any]) -> Iterator[tuple[Any, ...]]:
    units = len(columns["unit"])

    def values(column: list[Any] | npt.NDArray[Any] | None) -> list[Any]:
        if column is None:
            return [None] * units
        if isinstance(column, list):
            return column
        # The shortest decimal that float32 reads back, not the digits of its float64.
        texts = column.astype(str).tolist() if column.dtype == np.float32 else None
        return column.tolist() if texts is None else [number(float(text)) for text in texts]

    return zip(*(values(columns[name]) for name in COLUMNS), strict=True)


def _write_csv(path: pathlib.Path, blocks: Iterator[Columns]) -> int:
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for block in blocks:
            for row in _rows(block, lambda value: value):
                writer.writerow([_cell(value) for value in row])
                rows += 1
    return rows


def _cell(value: Any) -> Any:
    """Names come from strangers: a spreadsheet must not take one for a formula, nor a terminal for a command."""
    if not isinstance(value, str):
        return "" if value is None else value
    shown = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in value)
    return f"'{shown}" if value.startswith(_FORMULA) else shown


def _write_json(path: pathlib.Path, blocks: Iterator[Columns]) -> int:
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for block in blocks:
            for row in _rows(block, lambda value: value if math.isfinite(value) else None):
                _write_object(file, rows, dict(zip(COLUMNS, row, strict=True)))
                rows += 1
        file.write("\n]\n")
    return rows


def _write_object(file: TextIO, before: int, row: Mapping[str, Any]) -> None:
    file.write(",\n" if before else "\n")
    file.write(json.dumps(row, allow_nan=False))


def _write_parquet(path: pathlib.Path, blocks: Iterator[Columns]) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet needs pyarrow, which is not installed: pip install 'deadunits-tb[parquet]'"
        ) from error
    texts = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    kinds = {name: texts if name in ("run", "layer", "state") else pyarrow.int64() for name in COLUMNS}
    kinds |= {statistic.name: pyarrow.float32() for statistic in STATISTICS}
    schema = pyarrow.schema([(name, kinds[name]) for name in COLUMNS])
    rows = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for block in blocks:
            units = len(block["unit"])
            arrays = [
                pyarrow.nulls(units, kinds[name])
                if block[name] is None
                else pyarrow.array(block[name], pyarrow.string()).dictionary_encode()
                if kinds[name] == texts
                else pyarrow.array(block[name], kinds[name])
                for name in COLUMNS
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            rows += units
    return rows


_WRITERS: Mapping[Format, Callable[[pathlib.Path, Iterator[Columns]], int]] = {
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}

"""``deadunits export``: the same rows in each format, harmless to spreadsheets, complete or not there at all."""

from __future__ import annotations

import csv
import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import deadunits_tb
from deadunits_tb.cli import main
from deadunits_tb.gate.export import COLUMNS
from event_files import simulated, write_run

RECORDS = 12


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("runs")
    write_run(directory / "a", {**simulated(30, RECORDS, name="=cmd()|x"), **simulated(5, RECORDS, name="b", order=1)})
    write_run(directory / "b", simulated(7, RECORDS))
    return directory


def export(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def rows(path: pathlib.Path, format: str) -> list[dict[str, Any]]:
    if format == "csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    if format == "json":
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)  # type: ignore[no-any-return]
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_table(path).to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
@pytest.mark.parametrize("records", ["last", "all"])
def test_every_unit_has_its_row(format: str, records: str, log_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "table"
    result = export(log_dir, "--format", format, "-o", path, "--records", records)
    assert result.exit_code == 0, result.output
    found = rows(path, format)
    assert len(found) == 42 * (RECORDS if records == "all" else 1)
    assert tuple(found[0]) == COLUMNS
    run = deadunits_tb.load(log_dir)["b"]
    layer = run.layers["dense"]
    mine = [row for row in found if row["run"] == "b"]
    index = [RECORDS - 1] if records == "last" else range(RECORDS)
    expected = [(str(int(layer.steps[i])), str(unit)) for i in index for unit in range(7)]
    assert [(str(row["step"]), str(row["unit"])) for row in mine] == expected
    labels = [deadunits_tb.UnitState(int(layer.states[i, unit])).label for i in index for unit in range(7)]
    assert [row["state"] for row in mine] == labels
    measured = np.array([float(row["mean"]) for row in mine], np.float32)
    assert np.array_equal(measured, layer.statistic("mean")[list(index)].ravel())


def test_the_ending_says_the_format(log_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "table.JSON"
    assert export(log_dir, "-o", path).exit_code == 0
    assert len(json.loads(path.read_text(encoding="utf-8"))) > 5


def test_a_spreadsheet_takes_no_name_for_a_formula(log_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "table.csv"
    assert export(log_dir, "--format", "csv", "-o", path, "--run", "^a").exit_code == 0
    assert {row["layer"] for row in rows(path, "csv")} == {"'=cmd()|x", "b"}
    assert export(log_dir, "--format", "json", "-o", path, "--run", "^a").exit_code == 0
    assert {row["layer"] for row in rows(path, "json")} == {"=cmd()|x", "b"}  # not a spreadsheet's


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{log}", "--format", "csv", "-o", "{tmp}/absent/table.csv"], "cannot write"),
        (["{log}", "--format", "csv", "-o", "{tmp}"], "is a directory"),
        (["{log}", "--format", "xlsx", "-o", "{tmp}/table"], "'xlsx' is not one of 'csv', 'json', 'parquet'"),
        (["{log}", "--format", "csv", "-o", "{tmp}/table", "--run", "cnn"], "no run that matches 'cnn'"),
        (["{tmp}", "--format", "csv", "-o", "{tmp}/table"], "holds no event files"),
        (["{log}", "-o", "{tmp}/table.xlsx"], "end it in .csv, .json or .parquet, or name one with --format"),
        (["{log}", "--format", "csv", "-o", ""], "it is a directory. Name a file in it"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(
    arguments: list[str], said: str, log_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    result = export(*[argument.format(log=log_dir, tmp=tmp_path) for argument in arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_pyarrow_is_said(
    log_dir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    old = tmp_path / "table"
    old.write_text("kept")
    result = export(log_dir, "--format", "parquet", "-o", old)
    assert result.exit_code == 2
    assert "deadunits-tb[parquet]" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert old.read_text() == "kept"

"""The report: the JSON object that others parse, the sentence that people read first, and the table."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pathlib

import numpy as np
import pytest
from rich.console import Console

from deadunits_tb.capture.recorder import Recorder
from deadunits_tb.reading.findings import Finding
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.reading.report import headline, print_report, report
from deadunits_tb.run_record import RunInfo, RunRecord, Skipped
from deadunits_tb.units import LayerInfo, Level, UnitState
from event_files import simulated, write_run
from numpy_network import Recipe, train


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run in trouble, a healthy one, and one whose monitor had something to say."""
    directory = tmp_path_factory.mktemp("runs")
    train(Recipe(learning_rate=3.0, steps=150), directory / "too_fast")
    train(Recipe(steps=150), directory / "healthy")
    ((info, records),) = simulated(40, 60).items()
    recorder = Recorder(directory / "simulated", RunInfo("keras/tensorflow", layers=(info,)))
    for number, record in enumerate(records, start=1):
        said = RunRecord(record.window.step, record.window.wall_time, 512, 8, 80, loss=math.nan, overhead=0.008,
                         records_written=number + 9, errors=("tap failed: [bold]x",),
                         skipped=(Skipped("embedding", "its rows are not units"),))  # fmt: skip
        recorder.write(said, [record], {info.name: info})
        recorder.flush()
    recorder.close()
    return directory


def object_of(log_dir: pathlib.Path) -> dict:  # type: ignore[type-arg]
    directory = LogDirectory(log_dir)
    return report(directory.history(run) for run in directory.runs)


def test_the_object_has_the_keys_that_are_promised(log_dir: pathlib.Path) -> None:
    found = json.loads(json.dumps(object_of(log_dir), allow_nan=False))
    assert list(found) == ["schema", "runs"]
    assert found["schema"] == 1
    assert [run["run"] for run in found["runs"]] == ["healthy", "simulated", "too_fast"]
    for run in found["runs"]:
        assert list(run) == [
            "run", "first_step", "last_step", "records", "records_written", "framework", "thresholds", "overhead",
            "errors", "skipped", "layers", "findings", "revivals",
            "notes",
        ]  # fmt: skip
        for layer in run["layers"]:
            assert list(layer) == [
                "layer",
                "kind",
                "role",
                "units",
                "activation_function",
                "states",
                "flagged",
                "events",
            ]
            assert sum(layer["states"].values()) == layer["units"]
            for unit in layer["flagged"]:
                assert list(unit) == [
                    "unit", "state", "since_step", "examples", "rate_upper_bound", "born", "why", "certificate",
                ]  # fmt: skip
        for finding in run["findings"]:
            assert list(finding) == [
                "cause", "level", "layers", "step", "confidence", "evidence", "ruled_out", "remedies",
            ]  # fmt: skip


def test_the_object_says_what_was_recorded(log_dir: pathlib.Path) -> None:
    healthy, simulated_run, too_fast = object_of(log_dir)["runs"]
    assert [layer["layer"] for layer in healthy["layers"]] == ["first", "second"]
    assert (simulated_run["records"], simulated_run["records_written"]) == (60, 69)
    assert simulated_run["framework"] == "keras/tensorflow"
    assert simulated_run["overhead"] == 0.008
    assert simulated_run["errors"] == ["tap failed: [bold]x"]
    assert simulated_run["skipped"] == [{"layer": "embedding", "reason": "its rows are not units"}]
    assert simulated_run["thresholds"]["dead_examples"] == 3000
    assert too_fast["findings"][0]["cause"] == "learning_rate_too_high"
    assert too_fast["findings"][0]["level"] == "alarm"


def test_flagged_units_are_those_in_an_alarm_or_warning_state(log_dir: pathlib.Path) -> None:
    directory = LogDirectory(log_dir)
    for run in object_of(log_dir)["runs"]:
        history = directory.history(run["run"])
        for layer in run["layers"]:
            states = history.layers[layer["layer"]].states()[-1]
            since = history.layers[layer["layer"]].since()[-1]
            expected = [unit for unit, code in enumerate(states) if UnitState(code).flagged]
            assert [unit["unit"] for unit in layer["flagged"]] == expected
            for unit in layer["flagged"]:
                assert unit["state"] == UnitState(states[unit["unit"]]).label
                assert unit["since_step"] == since[unit["unit"]]
                if unit["state"] == "dead":
                    assert unit["rate_upper_bound"] == 3 / unit["examples"]
                    assert unit["examples"] >= 3000


def test_where_the_records_of_a_layer_end_early_the_report_says_so(tmp_path: pathlib.Path) -> None:
    ((info, records),) = simulated(40, 10).items()
    recorder = Recorder(tmp_path, RunInfo(layers=(info,)))
    for number, record in enumerate(records):
        said = RunRecord(record.window.step, record.window.wall_time, 512, 8, 80, records_written=number + 1)
        recorder.write(said, [record] if number < 4 else [], {"dense": info})
    recorder.close()
    (run,) = object_of(tmp_path)["runs"]
    assert (run["run"], run["records"], run["last_step"]) == (".", 10, records[-1].window.step)
    assert sum(run["layers"][0]["states"].values()) == 40
    assert f"layer dense has no record after step {records[3].window.step:,}" in printed(tmp_path)


def run_of(counts: dict[UnitState, int]) -> tuple[RunHistory, dict]:  # type: ignore[type-arg]
    """A run of one layer, and its last states."""
    states = np.repeat(np.array(list(counts), np.uint8), list(counts.values()))
    run = RunHistory("run", "1", RunInfo(), (RunRecord(9800, 0.0, 1, 1, 1),), {})
    return run, {"dense": (states, np.zeros(len(states), np.int64))}


S = UnitState
CAUSE = Finding("learning_rate_too_high", Level.ALARM, ("dense",), 3100, 0.9, (), (), ())
UNCLEAR = dataclasses.replace(CAUSE, cause="unclear")
HINT = Finding("frozen_by_user", Level.INFORMATION, ("dense",), 0, 0.9, (), (), ())


@pytest.mark.parametrize(
    ("counts", "findings", "sentence"),
    [
        ({}, [], "No records yet."),
        ({S.UNKNOWN: 64}, [], "64 units at step 9,800: too few examples seen so far to judge them."),
        ({S.ACTIVE: 64}, [], "0 of 64 units dead at step 9,800; no layer needs attention."),
        ({S.ACTIVE: 254, S.DEAD: 2}, [HINT], "2 of 256 units dead (0.8 %) at step 9,800; no layer needs attention."),
        (
            {S.ACTIVE: 20, S.DEAD: 80},
            [CAUSE, HINT],
            "80 of 100 units dead (80 %) at step 9,800; 1 layer needs attention; most likely cause: learning rate too "
            "high at step 3,100.",
        ),
        (
            {S.ACTIVE: 2000, S.SATURATED: 1200, S.NON_FINITE: 1},
            [UNCLEAR],
            "0 of 3,201 units dead, 1 non-finite, 1,200 saturated at step 9,800; 1 layer needs attention; cause "
            "unclear.",
        ),
    ],
)
def test_the_headline(counts: dict[UnitState, int], findings: list[Finding], sentence: str) -> None:
    run, last = run_of(counts)
    assert headline(run, last if counts else {}, findings) == sentence


def printed(log_dir: pathlib.Path, pattern: str | None = None, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_report(log_dir, console, pattern)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_people_read_the_sentence_the_worst_layer_the_cause_and_what_to_do(log_dir: pathlib.Path) -> None:
    text = printed(log_dir, "too_fast")
    assert text.startswith("too_fast  ")
    assert "most likely cause: learning rate too high" in text
    rows = [line.split()[0] for line in text.splitlines() if " Array " in line]
    assert sorted(rows) == ["first", "second"]
    assert "did not fire on the last" in text
    assert "what to do: lower the learning rate" in text
    assert "healthy" not in text


def test_people_read_how_far_the_figures_can_be_trusted(log_dir: pathlib.Path) -> None:
    text = printed(log_dir, "simulated", width=200)
    assert "60 of 69 records" in text
    assert "0.8 % of the training time" in text
    assert "layer embedding was not observed: its rows are not units" in text
    assert "the monitor said: tap failed: [bold]x" in text


def test_many_skipped_layers_are_named_under_their_reason(tmp_path: pathlib.Path) -> None:
    ((info, records),) = simulated(8, 5).items()
    skipped = [Skipped(f"table_{at}", "its rows are not units") for at in range(50)]
    skipped.insert(7, Skipped("head", "it was never called"))
    recorder = Recorder(tmp_path, RunInfo(layers=(info,)))
    window = records[0].window
    recorder.write(
        RunRecord(window.step, window.wall_time, 8, 1, 1, skipped=tuple(skipped)), records[:1], {info.name: info}
    )
    recorder.close()
    text = " ".join(printed(tmp_path).split())
    assert "50 layers were not observed: its rows are not units: table_0, table_1, " in text
    assert "table_48 and table_49" in text
    assert "layer head was not observed: it was never called" in text
    (run,) = object_of(tmp_path)["runs"]
    assert [one["layer"] for one in run["skipped"]] == [one.layer for one in skipped]


def test_a_run_that_a_later_one_hides_is_said(tmp_path: pathlib.Path) -> None:
    for _ in range(2):
        write_run(tmp_path, simulated(8, 5))
    (run,) = object_of(tmp_path)["runs"]
    (note,) = run["notes"]
    assert "is hidden with its 5 records of steps" in note
    assert f"left out: {note}" in " ".join(printed(tmp_path, width=300).split())


def test_the_worst_layer_comes_first(tmp_path: pathlib.Path) -> None:
    ((info, records),) = simulated(20, 40).items()
    sick = [dataclasses.replace(record, layer="sick", states=np.full(20, S.DEAD, np.uint8)) for record in records]
    other = dataclasses.replace(info, name="sick", order=1)
    write_run(tmp_path, {info: records, other: sick})
    lines = printed(tmp_path).splitlines()
    first, second = (next(i for i, line in enumerate(lines) if f"  {name} " in line) for name in ("sick", "dense"))
    assert first < second
    assert [layer["layer"] for layer in object_of(tmp_path)["runs"][0]["layers"]] == ["dense", "sick"]


def test_names_from_strangers_cannot_steer_the_terminal(tmp_path: pathlib.Path) -> None:
    name = "\x1b]0;pwned\x07\x1b[2J[bold red]a/b c[/] ☠ <script>\n\u202egnp"
    info = LayerInfo(name, "[link=x]Dense\r", 0, 20, "relu", witness="pre_activation")
    ((_, records),) = simulated(20, 40).items()
    write_run(tmp_path / "ru[red]n", {info: [dataclasses.replace(record, layer=name) for record in records]})
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system="standard")
    print_report(tmp_path, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\\x1b]0;pwned\\x07\\x1b[2J[bold red]a/b c[/] ☠ <script>\\n\\u202egnp" in text
    assert "[link=x]Dense\\r" in text
    assert "ru[red]n" in text
    for sent in ("\x1b]0", "\x1b[2J", "\x07", "\r", "\u202e"):
        assert sent not in text
    assert object_of(tmp_path)["runs"][0]["layers"][0]["layer"] == name

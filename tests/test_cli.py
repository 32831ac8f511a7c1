"""The command as people meet it: in a process of its own, with what they get wrong."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import pytest
from click.testing import CliRunner

import deadunits_tb
from deadunits_tb.cli import main
from event_files import simulated, write_run


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("runs")
    for name in ("mlp", "sweep/lr-0.1", "sweep/lr-0.01"):
        write_run(directory / name, simulated(200, 40))
    return directory


def deadunits(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "deadunits_tb", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_report_in_a_process_of_its_own(log_dir: pathlib.Path) -> None:
    result = deadunits("report", log_dir)
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines() if " units dead" in line] == [
        "mlp", "sweep/lr-0.01", "sweep/lr-0.1",
    ]  # fmt: skip
    assert result.stderr == ""


def test_json_is_one_strict_object_and_nothing_else(log_dir: pathlib.Path) -> None:
    result = deadunits("report", log_dir, "--json", "--run", "^sweep", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert [run["run"] for run in found["runs"]] == ["sweep/lr-0.01", "sweep/lr-0.1"]


WRONG = {
    "no such directory": (["report", "{tmp}/absent"], "log directory '{tmp}/absent' does not exist"),
    "a file": (["report", "{tmp}/file"], "log directory '{tmp}/file' is a file: give its directory"),
    "nothing in it": (["report", "{tmp}/empty"], "log directory '{tmp}/empty' holds no event files: train with"),
    "nothing of ours": (
        ["report", "{tmp}/other"],
        "holds event files in 1 directory, but no records of dead units: train",
    ),
    "no regular expression": (["report", "{log}", "--run", "("], "'(' is no regular expression: missing )"),
    "no run matches": (
        ["report", "{log}", "--run", "cnn"],
        "there is no run that matches 'cnn'. Known: 'mlp', 'sweep/",
    ),
    "no directory given": (["report"], "Missing argument 'LOGDIR'"),
    "no such option": (["report", "{log}", "--jsno"], "No such option"),
    "no such command": (["repport", "{log}"], "No such command 'repport'"),
    "a port that is none": (["demo", "--port", "70000"], "70000 is not in the range"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line_with_status_2(
    case: str, log_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "events.out.tfevents.1.host").write_bytes(b"")
    arguments, message = WRONG[case]
    result = CliRunner().invoke(main, [argument.format(tmp=tmp_path, log=log_dir) for argument in arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message.format(tmp=tmp_path, log=log_dir) in result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_has_seen_enough_is_no_error(form: list[str], log_dir: pathlib.Path) -> None:
    command = [sys.executable, "-m", "deadunits_tb", "report", str(log_dir), *form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_report_needs_no_framework(log_dir: pathlib.Path) -> None:
    code = (
        "import sys; from deadunits_tb.cli import main\n"
        f"main(['report', {str(log_dir)!r}], standalone_mode=False)\n"
        "print('loaded:', {'tensorflow', 'keras', 'torch', 'jax', 'pandas'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: set()"


def test_the_version_and_the_script() -> None:
    assert deadunits("--version").stdout == f"deadunits, version {deadunits_tb.__version__}\n"
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert [script.load() for script in scripts if script.name == "deadunits"] in ([main], [])  # [] where not installed


def test_help_names_every_command() -> None:
    said = CliRunner().invoke(main, ["--help"]).stdout
    assert {"report", "check", "export", "demo"} <= set(said.split())
    assert "LOGDIR" in CliRunner().invoke(main, ["report", "--help"]).stdout

"""``deadunits check``: exit status and answers on runs whose states are known, and what is asked wrongly."""

from __future__ import annotations

import json
import pathlib
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

from deadunits_tb import DeadUnitsWriter
from deadunits_tb.cli import main
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.gate.limits import Limit, parse_limits, parse_share

BATCH = 500


def write(
    log_dir: pathlib.Path, dead: int, *, steps: int = 20, units: int = 20, batch: int = BATCH, layer: str = "hidden"
) -> None:
    """A run in which some units of a layer die after two steps, and those of a second layer live."""
    numbers = np.random.default_rng(0)
    with DeadUnitsWriter(log_dir) as writer:
        for step in range(steps):
            inputs = numbers.standard_normal((batch, units)) + 1
            alive = np.maximum(inputs, 0)
            outputs = alive.copy()
            if step > 1:
                outputs[:, :dead] = 0
            writer.observe(step, layer, outputs, gradients=(outputs > 0) * 1.0)
            writer.observe(step, "last", alive, gradients=(alive > 0) * 1.0)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("logs")
    write(root / "some" / "run", dead=4)
    write(root / "none" / "run", dead=0)
    write(root / "most" / "run", dead=16)
    write(root / "short" / "run", dead=4, steps=2, batch=16)
    write(root / "other" / "run", dead=0, layer="another")
    write(root / "wider" / "run", dead=0, units=24)
    return root


def check(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)], env={"COLUMNS": "200"})


CASES = {
    "no limits, no alarm": ("some", [], 0, "no finding is an alarm"),
    "no limits, an alarm": ("most", [], 1, "16 of 20 units"),
    "no limits, too few examples": ("short", [], 2, "no unit can be judged yet"),
    "too few, allowed": ("short", ["--allow-unknown"], 0, "1 unknown"),
    "within": ("some", ["--max-dead", "20%"], 0, "2 within"),
    "exactly at the limit": ("some", ["--max-dead", "0.2"], 0, "2 within"),
    "beyond": ("some", ["--max-dead", "19.9%"], 1, "4 of 20 units dead at step 19: 20 %, at most 19.9 % allowed"),
    "of the whole run": ("some", ["--max-dead", "10%", "--per", "run"], 0, "4 of 40 units dead"),
    "of the whole run, beyond": ("some", ["--max-dead", "9%", "--per", "run"], 1, "4 of 40 units dead"),
    "a group": ("some", ["--max", "flagged=10%"], 1, "4 of 20 units flagged"),
    "another layer": ("some", ["--max-dead", "0%", "--layer", "^last"], 0, "0 of 20 units dead"),
    "at the end none is dying": ("some", ["--max-dying", "0%"], 0, "2 within"),
    "before some were": ("some", ["--max-dying", "0%", "--at", "any"], 1, "4 of 20 units dying"),
    "not judged yet": ("short", ["--max-dead", "5%"], 2, "units cannot be judged yet, after 32 examples"),
    "so many that it does not matter": ("short", ["--max-dead", "100%"], 0, "2 within"),
    "nothing recorded of weights": ("some", ["--max", "stagnant=0"], 2, "no update_ratio was recorded there"),
    "no such layer": ("some", ["--layer", "conv"], 2, "no layer matches 'conv'. Known: 'hidden' and 'last'"),
}


@pytest.mark.parametrize("case", CASES)
def test_status_and_answer(case: str, logs: pathlib.Path) -> None:
    name, arguments, status, said = CASES[case]
    result = check(logs / name, *arguments)
    assert result.exit_code == status, result.output
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_baseline_must_not_be_surpassed(logs: pathlib.Path) -> None:
    beyond = check(logs / "some", "--baseline", logs / "none", "--tolerance", "1%")
    assert (
        "4 of 20 units in an alarm state at step 19: 20 %, at most 1 % as in the baseline and 1 % more" in beyond.output
    )
    assert check(logs / "none", "--baseline", logs / "some").exit_code == 0
    assert check(logs / "some", "--baseline", logs / "none").exit_code == 1
    assert check(logs / "some", "--baseline", logs / "none", "--tolerance", "20%").exit_code == 0
    assert check(logs / "some", "--baseline", logs / "none", "--tolerance", "9%", "--per", "run").exit_code == 1


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("other", "the baseline has no layer hidden (but another and last)"),
        ("some", "the baseline of 'run' is that run itself, so the check could not fail"),
        ("wider", "the baseline has other numbers of units in hidden and last"),
        ("absent", "does not exist"),
        ("", "the baseline has no run 'run'"),
    ],
)
def test_a_baseline_that_does_not_fit_is_said(baseline: str, said: str, logs: pathlib.Path) -> None:
    result = check(logs / "some", "--baseline", logs / baseline)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-dead", "5"], "for 5 percent write 5%"),
        (["--max-dead", "101%"], "is not between 0% and 100%"),
        (["--max-dead", "few"], "'few' is no share of units"),
        (["--max-dead", "nan"], "'nan' is no share of units"),
        (["--max", "dead"], "write STATE=SHARE"),
        (["--max", "daed=1%"], "Did you mean 'dead'?"),
        (["--max", "active=1%"], "a limit on 'active' units makes no sense"),
        (["--max-dead", "5%", "--max", "dead=6%"], "contradict each other"),
        (["--layer", "("], "'(' is no regular expression"),
        (["--run", "cnn"], "there is no run that matches 'cnn'"),
        (["-o", "{absent}/out.txt"], "cannot write"),
        (["--tolerance", "5%"], "name one with --baseline"),
        (["--at", "any"], "--at any is for limits: give one"),
        (["--per", "run"], "--per run is for limits and baselines"),
    ],
)
def test_wrong_arguments_are_said_with_status_2(arguments: list[str], said: str, logs: pathlib.Path) -> None:
    result = check(logs / "some", *[argument.format(absent=logs / "absent") for argument in arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_the_answer_for_programs(logs: pathlib.Path) -> None:
    result = check(logs / "some", "--max-dead", "5%", "--format", "json")
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert (found["schema"], found["exit_code"], result.exit_code) == (1, 1, 1)
    hidden, last = found["checks"]
    assert hidden["status"] == "beyond"
    assert last["status"] == "within"
    assert (hidden["run"], hidden["layer"], hidden["value"], hidden["limit"], hidden["step"]) == (
        "run", "hidden", 0.2, 0.05, 19,
    )  # fmt: skip


def test_the_answer_for_build_servers(logs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    page = tmp_path / "junit.xml"
    result = check(logs / "some", "--max-dead", "5%", "--max", "stagnant=0", "--format", "junit", "-o", page)
    assert result.exit_code == 1
    assert result.stdout == ""
    (suite,) = ElementTree.parse(page).getroot()
    assert {name: suite.get(name) for name in ("name", "tests", "failures", "errors")} == {
        "name": "run", "tests": "4", "failures": "1", "errors": "2",
    }  # fmt: skip
    (failure,) = suite.iter("failure")
    assert failure.get("message", "").startswith("4 of 20 units dead")
    assert {case.get("classname") for case in suite.iter("testcase")} == {"run: hidden", "run: last"}


def test_names_of_strangers_cannot_break_the_page(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "run", dead=16, layer='<b>&"\x1b[31m\x00\ud800')
    page = tmp_path / "junit.xml"
    assert check(tmp_path, "--max-dead", "5%", "--format", "junit", "-o", page).exit_code == 1
    (suite,) = ElementTree.parse(page).getroot()
    name = next(suite.iter("testcase")).get("classname", "")
    assert name.startswith('run: <b>&"')
    assert "\x1b" not in name
    assert "\x1b" not in check(tmp_path, "--max-dead", "5%").output


def test_shares_and_limits() -> None:
    assert [parse_share(text) for text in ("5%", "0.05", " 100 % ", "0", "1e-3")] == [0.05, 0.05, 1.0, 0.0, 0.001]
    assert parse_limits("5%", None, ["dead=0.05", "alarm=1%"]) == (Limit("dead", 0.05), Limit("alarm", 0.01))
    with pytest.raises(InvalidArgumentError):
        parse_share("-1%")

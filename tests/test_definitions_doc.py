"""``docs/definitions.md`` names every state, statistic and threshold, with the words and numbers of the code."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

from deadunits_tb.glossary import STATES, glossary, number
from deadunits_tb.reading import causes
from deadunits_tb.reading.causes import CAUSES
from deadunits_tb.thresholds import PRESETS, SPECS, Thresholds
from deadunits_tb.units import STATISTICS, UnitState


@pytest.fixture(scope="module")
def text(root: pathlib.Path) -> str:
    return (root / "docs" / "definitions.md").read_text(encoding="utf-8")


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of a section's table by the word in their first cell."""
    section = re.split(rf"^##+ {heading}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^##+ ", section, flags=re.MULTILINE)[0]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {re.sub(r"[\[\]`]|\(.*\)", "", row[0]): row[1:] for row in cells[2:]}


def bound(value: float) -> str:
    return "2^53" if value == 2**53 else number(value)


def test_states(text: str) -> None:
    assert rows(text, "States") == {s.label: [s.level.label, str(int(s))] for s in UnitState}
    flowing = " ".join(text.split())
    for state, words in STATES.items():
        section = flowing.split(f"### {state.label} ")[1].split("###")[0]
        assert f"**When.** {words.rule_with(Thresholds())}" in section
        assert f"**What it says.** {words.means}" in section
        assert f"**What it does not say.** {words.not_}" in section


def test_statistics(text: str) -> None:
    expected = {s.name: [s.signal, "yes" if s.signed else "no", s.meaning] for s in STATISTICS}
    assert rows(text, "Statistics") == expected


def test_thresholds(text: str) -> None:
    expected = {
        name: [number(s["default"]), s["unit"], s["acts"], bound(s["low"]), bound(s["high"]), s["meaning"], s["source"]]
        for name, s in SPECS.items()
    }
    assert rows(text, "Thresholds") == expected


def test_presets(text: str) -> None:
    expected = {
        name: [", ".join(f"`{k}` {number(v)}" for k, v in changes.items()) or "none"]
        for name, changes in PRESETS.items()
    }
    assert rows(text, "Presets") == expected


def test_causes(text: str) -> None:
    flowing = " ".join(text.split("## Causes")[1].split("## Evidence")[0].split())
    assert re.findall(r"### (\w+) \*\*When", flowing) == list(CAUSES)
    for name, words in CAUSES.items():
        section = flowing.split(f"### {name} ")[1].split("###")[0]
        assert section.strip() == f"**When.** {words.when} **What it does not say.** {words.not_}"


def test_every_cause_that_the_code_names_is_explained_and_the_other_way_round() -> None:
    named: set[str] = set()
    for path in pathlib.Path(causes.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Suspicion", "Explosion"):
                words = [leaf.value for leaf in ast.walk(node.args[0]) if isinstance(leaf, ast.Constant)]
                named |= {word for word in words if isinstance(word, str)}
    assert named == set(CAUSES)


def test_every_name_in_backticks_exists(text: str) -> None:
    known = {s.label for s in UnitState} | {s.name for s in STATISTICS} | set(SPECS) | set(PRESETS) | {"w"}
    named = set(re.findall(r"`([a-z][a-z_0-9]*)`", text))
    assert named <= known, f"no such state, statistic, threshold or preset: {named - known}"


def test_each_state_is_explained_with_its_own_thresholds() -> None:
    for state, words in STATES.items():
        named = re.findall(r"{(\w+)}", words.rule)
        assert tuple(dict.fromkeys(named)) == words.thresholds, state.label
        assert set(named) <= set(SPECS)
        assert "{" not in words.rule_with(Thresholds())
    assert set(STATES) == set(UnitState)


def test_the_glossary_says_the_same_as_the_code() -> None:
    words = glossary()
    assert [s["code"] for s in words["states"]] == list(range(len(UnitState)))
    assert [s["name"] for s in words["statistics"]] == [s.name for s in STATISTICS]
    assert {t["name"]: t["default"] for t in words["thresholds"]} == Thresholds().to_dict()
    assert {t["name"] for t in words["thresholds"] if t["whole"]} == {
        n for n, s in SPECS.items() if isinstance(s["default"], int)
    }
    assert words["presets"].keys() == PRESETS.keys()

"""The answers of a check, for people, for programs, and for the test pages of build servers."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deadunits_tb.gate.check import Outcome, exit_code
from deadunits_tb.reading.phrases import count, printable

SCHEMA = 1
_STYLES: Mapping[str, str] = {"within": "green", "beyond": "bold red", "unknown": "yellow"}
_WORST_FIRST: Mapping[str, int] = {"beyond": 0, "unknown": 1, "within": 2}
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


def written(outcomes: Sequence[Outcome], format: str, *, allow_unknown: bool) -> str:
    """The answers in one of the formats ``text``, ``json`` and ``junit``."""
    if format == "text":
        console = Console(file=io.StringIO(), width=120)
        with console.capture() as said:
            print_answers(outcomes, console)
        return said.get().rstrip()
    return (as_json if format == "json" else as_junit)(outcomes, allow_unknown=allow_unknown)


def print_answers(outcomes: Sequence[Outcome], console: Console | None = None) -> None:
    """Print what is not within its limit, then a sentence on the rest."""
    console = console or Console()
    table = Table(box=None, pad_edge=False, show_header=False)
    for outcome in sorted(outcomes, key=lambda outcome: _WORST_FIRST[outcome.status]):
        if outcome.status == "within" and len(outcomes) > 1:
            continue
        where = outcome.run if outcome.layer is None else f"{outcome.run}  {outcome.layer}"
        table.add_row(
            Text(outcome.status, _STYLES[outcome.status]), Text(printable(where)), Text(printable(outcome.sentence))
        )
    if table.row_count:
        console.print(table)
    numbers = {status: sum(outcome.status == status for outcome in outcomes) for status in _STYLES}
    told = ", ".join(f"{number:,} {status}" for status, number in numbers.items() if number)
    console.print(Text(f"{count(len(outcomes), 'check')}: {told}"))


def as_json(outcomes: Sequence[Outcome], *, allow_unknown: bool) -> str:
    """One strict JSON object: ``schema``, ``exit_code`` and ``checks``, each with the fields of an outcome."""
    checks: list[dict[str, Any]] = [
        {name: getattr(outcome, name) for name in Outcome.__slots__} for outcome in outcomes
    ]
    found = {"schema": SCHEMA, "exit_code": exit_code(outcomes, allow_unknown=allow_unknown), "checks": checks}
    return json.dumps(found, allow_nan=False, indent=1)


def as_junit(outcomes: Sequence[Outcome], *, allow_unknown: bool) -> str:
    """JUnit XML, as build servers read it: a suite a run; beyond is a failure, what cannot be told is an error."""
    root = ElementTree.Element("testsuites", name="deadunits check")
    for run in dict.fromkeys(outcome.run for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.run == run]
        failures = sum(outcome.status == "beyond" for outcome in mine)
        unknown = sum(outcome.status == "unknown" for outcome in mine)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(run),
            tests=str(len(mine)),
            failures=str(failures),
            errors="0" if allow_unknown else str(unknown),
            skipped=str(unknown) if allow_unknown else "0",
        )
        for outcome in mine:
            where = f"{run}: {outcome.layer}" if outcome.layer is not None else run
            case = ElementTree.SubElement(suite, "testcase", classname=_xml(where), name=_xml(outcome.check))
            if outcome.status == "beyond":
                ElementTree.SubElement(case, "failure", message=_xml(outcome.sentence))
            elif outcome.status == "unknown":
                kind = "skipped" if allow_unknown else "error"
                ElementTree.SubElement(case, kind, message=_xml(outcome.sentence))
            else:
                ElementTree.SubElement(case, "system-out").text = _xml(outcome.sentence)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    """Names come from strangers: what XML cannot hold is shown as its code."""
    return _NO_XML.sub(lambda found: f"\\x{ord(found.group()):02x}", printable(text))

"""The documentation is true: its commands, flags, links and names exist, and its examples run."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys

import click
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])


def page_id(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_resolve(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(text)) + re.findall(r'(?:src|srcset|href)="([^"]+)"', prose(text))
    for target in targets:
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_that_are_named_exist(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:scripts|docs|tests|benchmarks|examples|frontend|requirements|\.ci)/[\w./-]*)`", text)
    for name in named:
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def defined_tests(path: pathlib.Path) -> set[str]:
    """The names of a file's tests, those in classes with the class before them."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inside = [(f"{node.name}::", child) for child in node.body] if isinstance(node, ast.ClassDef) else [("", node)]
        found |= {prefix + child.name for prefix, child in inside if isinstance(child, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_tests_that_are_named_exist(page: pathlib.Path) -> None:
    for name, test in re.findall(r"\b(tests/[\w/]+\.py)::([\w:]+)", page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), f"{page.name} names {name}"
        assert test in defined_tests(ROOT / name), f"{page.name} names {name}::{test}"


def test_each_claim_about_capture_names_its_test() -> None:
    """In docs/capture.md, a table with a column ``test`` has one in each of its rows."""
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / "docs" / "capture.md").read_text("utf-8"), re.MULTILINE)
    for heading, _, *rows in (table.splitlines() for table in tables):
        columns = [cell.strip() for cell in heading.strip("|").split("|")]
        for row in rows if "test" in columns else []:
            cell = row.strip("|").split("|")[columns.index("test")]
            assert re.search(r"tests/[\w/]+\.py::test_\w+", cell), f"no test backs this row: {row}"


def test_each_cell_of_the_summary_of_capture_names_its_test() -> None:
    """Framework by feature: links to tests that exist, and a reason wherever the answer is not a plain yes."""
    page = (ROOT / "docs" / "capture.md").read_text(encoding="utf-8")
    section = page.partition("## What is observed where\n")[2].partition("\n## ")[0]
    named = {key: rest for key, *rest in re.findall(r'^\[([\w-]+)\]: \.\./(\S+) "(\w+)"$', section, re.MULTILINE)}
    for name, test in named.values():
        assert test in defined_tests(ROOT / name), f"the summary names {name}::{test}"
    heading, _, *rows = re.findall(r"^\|.*$", section, re.MULTILINE)
    reasons, frameworks = set(re.findall(r"^(\d+)\. ", section, re.MULTILINE)), heading.count("|") - 2
    assert frameworks == 9
    assert len(rows) >= 15
    used, given = set(), set()
    for row in rows:
        feature, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        assert len(cells) == frameworks, feature
        for cell in cells:
            parts = re.fullmatch(r"\[yes\]\[([\w-]+)\]|\[(?:part|no)\]\[([\w-]+)\] (\d+)|untested (\d+)|n/a", cell)
            assert parts, f"{feature}: {cell}"
            used |= {parts[1], parts[2]} - {None}
            given |= {parts[3], parts[4]} - {None}
    assert used == set(named)
    assert given == reasons


def commands() -> dict[str, click.Command]:
    from deadunits_tb.cli import main

    assert isinstance(main, click.Group)
    return dict(main.commands)


def test_each_command_and_flag_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, command in commands().items():
        assert f"deadunits {name}" in readme
        flags = {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")}
        for flag in flags - {"--help"}:
            assert flag in readme, f"deadunits {name} {flag} is not in the README"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_flags_that_are_named_exist(page: pathlib.Path) -> None:
    known = commands()
    for name, rest in re.findall(r"\bdeadunits (\w+)([^\n`]*)", page.read_text(encoding="utf-8")):
        if name not in known:
            assert name not in {"report", "check", "export", "demo", "load"}, f"there is no command deadunits {name}"
            continue
        flags = {flag for p in known[name].params for flag in (*p.opts, *p.secondary_opts)} | {"--help"}
        for flag in re.findall(r"(?<!\S)\[?(--[\w-]+)", rest):
            assert flag in flags, f"{page.name}: deadunits {name} has no {flag}"


def examples() -> list[tuple[str, str]]:
    """The complete Python examples of the README: those that import what they use."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [(f"example-{number}", code) for number, code in enumerate(blocks, start=1) if "import" in code]


def test_the_readme_has_examples() -> None:
    assert len(examples()) >= 2


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param(name, code, id=name, marks=pytest.mark.slow if at > 1 else ())
        for at, (name, code) in enumerate(examples())
    ],
)
def test_the_readme_examples_run(name: str, code: str, tmp_path: pathlib.Path) -> None:
    ast.parse(code)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "MonitorWarning" not in result.stderr, result.stderr
    assert list(tmp_path.rglob("events.out.tfevents.*")), "an example writes a log"


# Written in pieces, so that this file does not name what it forbids.
FORBIDDEN = {
    "a registry host": "|".join(
        r"\.".join(host) for host in (["pypi", "org"], ["pythonhosted", "org"], ["npmjs", "org"], ["npmjs", "com"])
    ),
    "a machine path": r"(?<![\w.~/$}])/(?:root|work|opt|home/\w+|Users/\w+)/",
}


def committed_files() -> list[pathlib.Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_committed_file_names(what: str) -> None:
    for path in committed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        found = re.search(FORBIDDEN[what], text)
        assert found is None, f"{page_id(path)} names {what}: {found.group()}"


def test_the_forbidden_is_recognised() -> None:
    assert re.search(
        FORBIDDEN["a registry host"], "https://" + ".".join(["files", "pythonhosted", "org"]) + "/packages"
    )
    assert re.search(FORBIDDEN["a machine path"], "see /" + "root/project")
    assert not re.search(FORBIDDEN["a machine path"], "reading/history.py and docs/work/ and ${HOME}/work/")


def test_lock_files_name_no_registry() -> None:
    lock = (ROOT / "frontend" / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"^--", text, re.MULTILINE), f"{path.name} sets an option"


def test_every_requirement_of_a_lock_file_is_pinned() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line.startswith(("#", " ")) or "==" in line, f"{path.name}: {line}"


def pins(name: str) -> set[str]:
    """``package==version`` of everything that a lock file pins, on whatever Python and system."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w.-]+==\S+)", text, re.MULTILINE))


def test_lock_files_hold_no_gpu_packages() -> None:
    for name in ("demo", "dev", "bench"):
        assert not [pin for pin in pins(name) if re.match("nvidia|cuda|triton", pin)], name
    assert [pin for pin in pins("dev") if pin.startswith("torch==")]


def test_each_environment_contains_the_smaller_ones() -> None:
    """scripts/environment.sh takes a larger one for a smaller one."""
    assert pins("demo") <= pins("dev") <= pins("bench")

"""Which slow tests are run: none by default, those of a framework when asked, and CI asks for what a change touches."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import pytest

pytest_plugins = ["pytester"]

SLOW = "import pytest\n\n@pytest.mark.slow\ndef test_slow(): pass\n\ndef test_quick(): pass\n"


@pytest.fixture
def suite(pytester: pytest.Pytester, root: pathlib.Path) -> pytest.Pytester:
    """Three files of a slow and a quick test each, collected as this suite is."""
    pytester.makeini("[pytest]\nmarkers = slow: slow")
    pytester.makeconftest((root / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(test_torch_modules=SLOW, test_keras_jax=SLOW, test_agreement=SLOW)
    return pytester


@pytest.mark.parametrize(
    ("argument", "slow"),
    [
        ("--slow=", set()),
        ("--slow=all", {"test_torch_modules", "test_keras_jax", "test_agreement"}),
        ("--slow=torch", {"test_torch_modules", "test_agreement"}),
        ("--slow=lightning,jax", {"test_keras_jax", "test_agreement"}),
        ("test_torch_modules.py::test_slow", {"test_torch_modules"}),
    ],
)
def test_the_slow_tests_that_are_run(argument: str, slow: set[str], suite: pytest.Pytester) -> None:
    said = suite.runpytest("--collect-only", "-q", argument).stdout.str()
    assert set(re.findall(r"^(\w+)\.py::test_slow$", said, re.MULTILINE)) == slow
    assert said.count("::test_quick") == (0 if "::" in argument else 3)


def test_slow_tests_end_when_they_have_had_their_time(pytester: pytest.Pytester, suite: pytest.Pytester) -> None:
    pytester.makepyfile(test_agreement=SLOW.replace("pass", "import time; time.sleep(0.2)"))
    run = suite.runpytest("--slow=all", "--slow-seconds=0.1", "-rs")
    run.assert_outcomes(passed=4, skipped=2)
    run.stdout.fnmatch_lines(["*slow tests have had their 0.1 seconds: scripts/test --full runs all*"])
    suite.runpytest("--slow=all").assert_outcomes(passed=6)


def test_a_framework_that_does_not_exist_is_refused(suite: pytest.Pytester) -> None:
    refused = suite.runpytest("--slow=pytorch")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--slow=pytorch: there are all, keras*"])


def test_names_that_differ_from_run_to_run_are_refused(pytester: pytest.Pytester, suite: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_odd="import pytest\n@pytest.mark.parametrize('a', [object()], ids=str)\ndef test_a(a): pass"
    )
    refused = suite.runpytest("--collect-only")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*give ids: this name differs from run to run*test_odd.py::test_a*"])


def git(folder: pathlib.Path, *arguments: str) -> None:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, env={**os.environ, **identity})


def touch(folder: pathlib.Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(name)


def touched(folder: pathlib.Path) -> str:
    result = subprocess.run([folder / "scripts" / "touched"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def test_what_a_change_touches(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(root / "scripts" / "touched", tmp_path / "scripts")
    assert touched(tmp_path) == "", "without git there is nothing to tell"

    git(tmp_path, "init", "--initial-branch", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message", "first")
    assert touched(tmp_path) == "", "a checkout of one commit has nothing to compare with"

    for name, frameworks in {
        "deadunits_tb/reading/torch.py": "",
        "deadunits_tb/taps/torch/hooks.py": "keras,torch,lightning,transformers",
        "deadunits_tb/lightning.py": "lightning",
        "deadunits_tb/taps/keras/jax.py": "keras",
        "tests/taps/test_keras_layers.py": "keras",
        "tests/taps/jax_zoo.py": "keras,jax",
        "examples/pytorch_modules.py": "torch",
        "examples/flax_digits.py": "jax",
        "docs/capture.md": "",
    }.items():
        touch(tmp_path, name)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "--message", name)
        assert touched(tmp_path) == frameworks, name

    git(tmp_path, "update-ref", "refs/remotes/origin/main", "HEAD~3")
    assert touched(tmp_path) == "torch,jax", "all that is not in the branch it goes to"
    touch(tmp_path, "deadunits_tb/tensorflow.py")
    assert touched(tmp_path) == "keras,tensorflow,torch,jax", "and what is not committed"

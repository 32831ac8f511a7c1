"""What holds for every test: what failed before pytest started is said by pytest, last."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Generator

import hypothesis
import pytest

# On a busy machine a single example can take any time; pytest's own limit catches what hangs.
hypothesis.settings.register_profile("deadunits", deadline=None)
hypothesis.settings.load_profile("deadunits")

# Before any test imports a framework: a GPU changes results, and TensorFlow talks about its CPU at length.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The repository."""
    return ROOT


FRAMEWORKS = ("keras", "tensorflow", "torch", "jax", "lightning", "transformers")


SLOW_SECONDS = pytest.StashKey[float]()
LONG = (
    *("test_serving", "test_keras_backends", "test_examples", "test_tab", "test_keras_bit_identity", "test_docs"),
    *("test_tensorflow_loops", "test_tensorflow_failures"),
)
"""Files whose tests take longest together."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--slow``: which tests marked slow are run."""
    parser.addoption(
        "--slow",
        default="",
        metavar="FRAMEWORKS",
        help=f"run the slow tests of these frameworks too, separated by commas: all, or of {', '.join(FRAMEWORKS)}",
    )
    parser.addoption(
        "--slow-seconds",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="skip slow tests once those of this process have taken so long",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a framework that does not exist: its tests would be left out without a word."""
    unknown = set(filter(None, config.getoption("--slow").split(","))) - {"all", *FRAMEWORKS}
    if unknown:
        raise pytest.UsageError(f"--slow={','.join(sorted(unknown))}: there are all, {', '.join(FRAMEWORKS)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests, but those of the frameworks asked for, and those that are named one by one.

    A test belongs to the frameworks that its file is named after; without any, to all of them. Files that take long are
    begun first, so that no process is left with one at the end.
    """
    items.sort(key=lambda item: item.path.stem not in LONG)
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:
        raise pytest.UsageError(f"give ids: this name differs from run to run, so no two workers agree: {unstable[0]}")
    asked = set(filter(None, config.getoption("--slow").split(",")))
    if "all" in asked or any("::" in argument for argument in config.args):
        return

    def is_run(item: pytest.Item) -> bool:
        of = set(item.path.stem.split("_")) & set(FRAMEWORKS)
        return item.get_closest_marker("slow") is None or bool(asked & (of or asked))

    config.hook.pytest_deselected(items=[item for item in items if not is_run(item)])
    items[:] = filter(is_run, items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Count the time that slow tests take."""
    began = time.monotonic()
    result = yield
    if item.get_closest_marker("slow"):
        item.config.stash[SLOW_SECONDS] = item.config.stash.get(SLOW_SECONDS, 0.0) + time.monotonic() - began
    return result


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a slow test for which there is no time left."""
    allowed = item.config.getoption("--slow-seconds")
    if item.get_closest_marker("slow") and item.config.stash.get(SLOW_SECONDS, 0.0) >= allowed:
        pytest.skip(f"slow tests have had their {allowed:g} seconds: scripts/test --full runs all")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly, next to pytest's own summary, what else did not pass or did not run."""
    failed = os.environ.get("DEADUNITS_FAILED", "").split()
    if failed:
        terminalreporter.section("FAILED BEFORE PYTEST", sep="!", red=True, bold=True)
        terminalreporter.line(f"not passed: {', '.join(failed)}; the output is above")
    unopened = [report for report in terminalreporter.getreports("skipped") if "no browser" in str(report.longrepr)]
    if unopened:
        terminalreporter.section("BROWSER TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{len(unopened)} tests need a Chromium or Chrome: install one, or set DEADUNITS_BROWSER to its path"
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run is not green when what came before it was not."""
    if os.environ.get("DEADUNITS_FAILED", "").strip() and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

"""A real TensorBoard process and a real Chromium for the tests in this folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

import planted
import stage
from deadunits_tb import DeadUnitsWriter
from watched import Watched

expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with contextlib.ExitStack() as stack:
        try:
            browser = stack.enter_context(stage.chromium())
        except stage.NoBrowserError as error:
            # Where nobody looks at what was skipped, a missing browser is a failure.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        yield browser


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A fresh page that must end without errors and without having asked anything of another machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    watched = Watched(context.new_page())
    yield watched
    context.close()
    assert watched.problems == []
    assert watched.foreign == []


@pytest.fixture(scope="session")
def serve() -> Iterator[stage.Serve]:
    """Start a TensorBoard on a log directory, with flags; returns its address. Ended with the session."""
    with contextlib.ExitStack() as stack:
        yield lambda log_dir, *flags: stack.enter_context(stage.tensorboard(log_dir, *flags))


@pytest.fixture(scope="session")
def planted_log(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A log directory written by the real writer, with known fates: see ``planted``."""
    log_dir = tmp_path_factory.mktemp("planted")
    for name, fates in planted.RUNS.items():
        with DeadUnitsWriter(log_dir / name) as writer:
            planted.write(writer, fates, first_step=0, steps=planted.STEPS_OF.get(name, planted.STEPS))
    return log_dir


@pytest.fixture(scope="session")
def planted_url(serve: stage.Serve, planted_log: pathlib.Path) -> str:
    return serve(planted_log)

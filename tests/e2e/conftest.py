"""A real TensorBoard process and a real Chromium for the tests in this folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Frame, Page, expect

import planted
import stage
from deadunits_tb import DeadUnitsWriter

expect.set_options(timeout=20_000)

Serve = Callable[..., str]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with contextlib.ExitStack() as stack:
        try:
            browser = stack.enter_context(stage.chromium())
        except stage.NoBrowserError as error:
            # Where nobody looks at what was skipped, a missing browser is a failure.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        yield browser


@dataclass
class Watched:
    """A page and what must not happen on it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("console", self._console)
        self.page.on("request", lambda request: self._request(request.url))
        self.page.on("dialog", lambda dialog: (self.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.hostname not in ("localhost", "127.0.0.1"):
            self.foreign.append(url)

    def tab(self, url: str, **place: object) -> Frame:
        """Open a place in the Dead Units tab and give the frame it lives in."""
        self.page.goto(stage.link(url, **place))
        return stage.tab_frame(self.page)


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
def serve() -> Iterator[Serve]:
    """Start a TensorBoard on a log directory, with flags; returns its address. Ended with the session."""
    with contextlib.ExitStack() as stack:
        yield lambda log_dir, *flags: stack.enter_context(stage.tensorboard(log_dir, *flags))


@pytest.fixture(scope="session")
def planted_log(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A log directory written by the real writer, with known fates: see ``planted``."""
    log_dir = tmp_path_factory.mktemp("planted")
    for name, fates in planted.RUNS.items():
        with DeadUnitsWriter(log_dir / name) as writer:
            planted.write(writer, fates, first_step=0, steps=planted.STEPS)
    return log_dir


@pytest.fixture(scope="session")
def planted_url(serve: Serve, planted_log: pathlib.Path) -> str:
    return serve(planted_log)

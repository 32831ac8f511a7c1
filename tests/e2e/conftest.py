"""A real TensorBoard process and a real Chromium for the tests in this folder."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Frame, Page, expect, sync_playwright

import planted
from deadunits_tb import DeadUnitsWriter

STARTUP_SECONDS = 60
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
expect.set_options(timeout=20_000)

Serve = Callable[..., str]


def browser_path() -> str | None:
    """The browser that scripts/browser found, else one on PATH, else Playwright's own (None)."""
    named = os.environ.get("DEADUNITS_BROWSER")
    return named or next(filter(None, map(shutil.which, PROGRAMS)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = browser_path() or playwright.chromium.executable_path
        if not pathlib.Path(path).exists():
            no_browser = pytest.fail if os.environ.get("CI") else pytest.skip
            no_browser("no browser: install Chromium or Chrome, or set DEADUNITS_BROWSER to its path")
        # Software rendering and no talk to the browser's maker: nothing leaves this machine.
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page and what must not happen on it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("console", lambda message: self._console(message.type, message.text))
        self.page.on("request", lambda request: self._request(request.url))
        self.page.on("dialog", lambda dialog: (self.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _console(self, kind: str, text: str) -> None:
        if kind == "error":
            self.problems.append(f"console: {text}")

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.hostname not in ("localhost", "127.0.0.1"):
            self.foreign.append(url)

    def tab(self, url: str, fragment: str = "") -> Frame:
        """Open the Dead Units tab and give the frame it lives in.

        Args:
            url: Of TensorBoard.
            fragment: What follows ``#dead_units`` in a deep link.
        """
        self.page.goto(f"{url}#dead_units{fragment}")
        return self.frame()

    def frame(self) -> Frame:
        """The frame of the tab that is shown."""
        self.page.wait_for_selector("iframe.plugin-iframe, iframe[id*=dead_units]", state="attached")
        until = time.monotonic() + 20
        while time.monotonic() < until:
            frame = self.page.frame(url=re.compile(r"plugin_entry\.html\?name=dead_units"))
            if frame is not None:
                return frame
            self.page.wait_for_timeout(20)
        raise AssertionError("TensorBoard did not open the tab's frame")


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
    """Start a TensorBoard on a log directory; returns its address. Ended with the session."""
    processes: list[subprocess.Popen[str]] = []

    def start(log_dir: pathlib.Path, *flags: str) -> str:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir), "--port", "0"]
        process = subprocess.Popen(
            [*command, "--reload_interval", "1", *flags], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        processes.append(process)
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            address = re.search(r"at (http://\S+)", line)
            if address:
                return address.group(1)
        raise AssertionError(f"TensorBoard ended: {said}")

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)
        if process.stderr is not None:
            process.stderr.close()


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

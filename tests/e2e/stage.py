"""A real TensorBoard and a real Chromium: for the browser tests, the screenshots and the benchmark of the tab."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

from playwright.sync_api import Browser, Frame, Page, sync_playwright

Serve = Callable[..., str]
"""Serves a log directory with flags of TensorBoard's; returns its address."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Software rendering, and no talk with the browser's maker: nothing leaves this machine.
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update")


class NoBrowserError(Exception):
    """No Chromium or Chrome is installed."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that ``DEADUNITS_BROWSER`` names, else one on PATH, else Playwright's own.

    Raises:
        NoBrowserError: There is none.
    """
    with sync_playwright() as playwright:
        installed = filter(None, map(shutil.which, PROGRAMS))
        path = os.environ.get("DEADUNITS_BROWSER") or next(installed, playwright.chromium.executable_path)
        if not pathlib.Path(path).exists():
            raise NoBrowserError("no browser: install Chromium or Chrome, or set DEADUNITS_BROWSER to its path")
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@contextlib.contextmanager
def tensorboard(log_dir: pathlib.Path, *flags: str) -> Iterator[str]:
    """Serve a log directory on a free port; gives the address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--reload_interval", "1", *flags], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            address = re.search(r"at (http://\S+)", line)
            if address:
                yield address.group(1)
                break
        else:
            raise RuntimeError(f"TensorBoard ended: {said}")
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


def link(url: str, **place: object) -> str:
    """Address of a place in the tab, such as ``link(url, run="mlp", layer="dense")``."""
    return f"{url}#dead_units&{urlencode({f'p.dead_units.{key}': value for key, value in place.items()})}".rstrip("&")


def tab_frame(page: Page) -> Frame:
    """The frame that TensorBoard opens for the tab, as soon as it is there."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        frame = page.frame(url=re.compile(r"plugin_entry\.html\?name=dead_units"))
        if frame is not None:
            return frame
        page.wait_for_timeout(20)
    raise RuntimeError("TensorBoard did not open the tab's frame")


def settle(frame: Frame) -> None:
    """Wait until the tab has shown all there is to show: nothing is asked for, nothing waits to be drawn."""
    frame.wait_for_selector(".app[data-settled]", state="attached")
    frame.evaluate("() => document.fonts.ready.then(() => null)")

"""A page of the browser tests, and what must not happen on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Frame, Page

import stage


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
        # TensorBoard asks for its own fonts above a path prefix, where they are not.
        if message.type == "error" and "/font-roboto/" not in message.location["url"]:
            self.problems.append(f"console: {message.text}")

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.hostname not in ("localhost", "127.0.0.1"):
            self.foreign.append(url)

    def tab(self, url: str, **place: object) -> Frame:
        """Open a place in the Dead Units tab and give the frame it lives in."""
        self.page.goto(stage.link(url, **place))
        return stage.tab_frame(self.page)

    def frame(self) -> Frame:
        """The frame of the tab, after a reload another one than before."""
        return stage.tab_frame(self.page)

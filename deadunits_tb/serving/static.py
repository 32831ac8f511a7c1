"""The built tab: files that were there when TensorBoard started, and no others."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

from tensorboard.backend import http_util

DIRECTORY = Path(__file__).parent.parent / "static"
ENTRY = "/index.js"
"""The module that TensorBoard's page imports and calls ``render()`` of."""

_CONTENT_TYPES = {  # not from the mimetypes module, which the Windows registry can spoil
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".map": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}

_NOT_BUILT = """\
export function render() {
  const page = document.createElement("main");
  page.style.cssText = "font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em";
  page.style.color = parent?.document?.body?.classList.contains("dark-mode") ? "#eee" : "#222";
  const lines = [
    ["h1", "This tab was not built"],
    ["p", "The package deadunits_tb was installed without its built dashboard (static/index.js)."],
    ["p", "In a checkout, install it once more, which builds the dashboard, and start TensorBoard again:"],
    ["pre", "pip install ."],
    ["p", "Your data is safe, and the report works without the dashboard:"],
    ["pre", "deadunits report LOGDIR"],
  ];
  for (const [tag, text] of lines) {
    const element = document.createElement(tag);
    element.textContent = text;
    page.append(element);
  }
  document.body.append(page);
}
"""


class StaticFile:
    """A WSGI-ready answer with one file of the bundle.

    Args:
        body: The file's bytes.
        suffix: Such as ``".js"``.
    """

    def __init__(self, body: bytes, suffix: str) -> None:
        self._type = _CONTENT_TYPES[suffix]
        self._etag = hashlib.sha256(body).hexdigest()[:32]
        self._gzipped = suffix not in (".png", ".woff2")
        self._body = gzip.compress(body, 9, mtime=0) if self._gzipped else body

    def __call__(self, request: Any) -> Any:
        """The response; 304 where the browser has the file already."""
        encoding = "gzip" if self._gzipped else None
        response = http_util.Respond(request, self._body, self._type, content_encoding=encoding)
        response.set_etag(self._etag, weak=True)
        return response.make_conditional(request)


def static_files(directory: Path = DIRECTORY) -> dict[str, StaticFile]:
    """Route to file, read once; a page that says what to do where there is no bundle."""
    found = {
        "/" + path.relative_to(directory).as_posix(): StaticFile(path.read_bytes(), path.suffix)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix in _CONTENT_TYPES
    }
    return {ENTRY: StaticFile(_NOT_BUILT.encode(), ".js"), **found}

"""The tab's files: those of the bundle and no others, and a page that says what to do where there is no bundle."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Request

from board import DATA, Application
from deadunits_tb.serving.static import ENTRY, static_files


@pytest.fixture
def bundle(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in (
        "index.js",
        "index.css",
        "assets/worker-1a2b.js",
        "index.js.map",
        "sources.sha256",
        "page.html",
        ".env",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"/* {name} */" * 100)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    return tmp_path


def get(bundle: pathlib.Path, path: str, **headers: str) -> TestResponse:
    """Ask for a file as a WSGI server does."""
    application = Request.application(static_files(bundle)[path])
    return Client(application).get(path, headers={"Accept-Encoding": "gzip", **headers})


def test_only_files_of_known_types_are_served(bundle: pathlib.Path) -> None:
    assert sorted(static_files(bundle)) == [
        "/assets/worker-1a2b.js",
        "/index.css",
        "/index.js",
        "/index.js.map",
        "/picture.png",
    ]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/index.js", "text/javascript; charset=utf-8"),
        ("/assets/worker-1a2b.js", "text/javascript; charset=utf-8"),
        ("/index.css", "text/css; charset=utf-8"),
        ("/index.js.map", "application/json"),
        ("/picture.png", "image/png"),
    ],
)
def test_headers(bundle: pathlib.Path, path: str, content_type: str) -> None:
    response = get(bundle, path)
    assert response.headers["Content-Type"] == content_type
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-cache, must-revalidate"
    assert (response.headers.get("Content-Encoding") == "gzip") == (not path.endswith(".png"))


def test_a_browser_that_has_the_file_is_sent_none(bundle: pathlib.Path) -> None:
    first = get(bundle, "/index.js")
    again = get(bundle, "/index.js", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    (bundle / "index.js").write_text("export const changed = 1")
    assert get(bundle, "/index.js", **{"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_a_client_without_gzip_gets_plain_bytes(bundle: pathlib.Path) -> None:
    response = get(bundle, "/index.css", **{"Accept-Encoding": "identity"})
    assert response.data == (bundle / "index.css").read_bytes()


def test_without_a_bundle_the_tab_says_what_to_do(tmp_path: pathlib.Path) -> None:
    assert list(static_files(tmp_path / "absent")) == [ENTRY]
    source = get(tmp_path / "absent", ENTRY, **{"Accept-Encoding": "identity"}).text
    for words in ("export function render", "was not built", "pip install .", "deadunits report"):
        assert words in source


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js to parse it with")
def test_the_page_without_a_bundle_is_valid_javascript(tmp_path: pathlib.Path) -> None:
    source = get(tmp_path / "absent", ENTRY, **{"Accept-Encoding": "identity"}).data
    (tmp_path / "page.mjs").write_bytes(source)
    subprocess.run(["node", "--check", str(tmp_path / "page.mjs")], check=True)


def test_the_plugin_serves_its_entry(tmp_path: pathlib.Path) -> None:
    answer = Application(tmp_path).get(f"{DATA}{ENTRY}")
    assert answer.status == 200
    assert b"render" in answer.body

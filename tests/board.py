"""A real TensorBoard for tests: as a process, and as its WSGI application in this process."""

from __future__ import annotations

import gzip
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from tensorboard.backend import application
from tensorboard.plugins import base_plugin
from werkzeug.test import Client, TestResponse

from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.serving.loader import DeadUnitsLoader

STARTUP_SECONDS = 60
DATA = "/data/plugin/dead_units"


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be strict JSON."""
        return json.loads(self.body, parse_constant=_refuse)


class Board:
    """A ``tensorboard`` process on a free port, ended with the ``with`` block.

    Args:
        log_dir: What it shows.
        flags: Of its command line.
    """

    def __init__(self, log_dir: pathlib.Path, *flags: str) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir), "--port", "0", *flags]
        self._process = subprocess.Popen(command, stderr=self._said, stdout=subprocess.DEVNULL)
        self.url = self._address()

    def get(self, path: str, *, method: str = "GET", **parameters: Any) -> Answer:
        """Ask for a path below the server's address."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        request = urllib.request.Request(self.url + path + query, method=method, headers={"Accept-Encoding": "gzip"})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return _answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, dict(error.headers), error.read())

    def data(self, route: str, **parameters: Any) -> Answer:
        """Ask a route of ours."""
        return self.get(f"{DATA}/{route}", **parameters)

    def wait_for_records(self, run: str, records: int, seconds: float = 60) -> None:
        """Wait until the server has read so many records of a run."""
        until, seen = time.monotonic() + seconds, None
        while time.monotonic() < until:
            seen = {r["run"]: r["records"] for r in self.data("runs").json["runs"]}
            if seen.get(run, 0) >= records and self.data("overview", run=run).json["records"] >= records:
                return
            time.sleep(0.2)
        raise AssertionError(f"{records} records of {run!r} did not arrive: {seen}\n{self.said()}")

    def said(self) -> str:
        """Everything that the process has printed."""
        self._said.seek(0)
        return self._said.read()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._said.close()

    def _address(self) -> str:
        until = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            found = re.search(r"at (http://\S+?)/? \(Press", self.said())
            if found:
                return found.group(1)
            time.sleep(0.05)
        said = self.said()
        self._process.kill()
        self._process.wait()
        raise AssertionError(f"TensorBoard did not start: {said}")


class Application:
    """TensorBoard's WSGI application around our plugin, over the local data provider.

    Args:
        log_dir: What it shows; read now, and again at :meth:`reload`.
        path_prefix: As TensorBoard's flag of that name.
    """

    def __init__(self, log_dir: pathlib.Path, path_prefix: str = "") -> None:
        self.provider = LocalDataProvider(log_dir)
        context = base_plugin.TBContext(data_provider=self.provider, logdir=str(log_dir))
        plugins = [DeadUnitsLoader().load(context)]
        wsgi = application.TensorBoardWSGI(plugins, path_prefix, data_provider=self.provider)
        self._client, self.reload = Client(wsgi), self.provider.reload

    def get(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, **query: Any) -> Answer:
        """Ask for a path."""
        sent = {"Accept-Encoding": "gzip", **(headers or {})}
        response: TestResponse = self._client.open(path, method=method, query_string=query or None, headers=sent)
        return _answer(response.status_code, dict(response.headers), response.data)

    def data(self, route: str, **parameters: Any) -> Answer:
        """Ask a route of ours."""
        return self.get(f"{DATA}/{route}", **parameters)


def _answer(status: int, headers: dict[str, str], body: bytes) -> Answer:
    gzipped = headers.get("Content-Encoding") == "gzip" and body
    return Answer(status, headers, gzip.decompress(body) if gzipped else body)


def _refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")

"""A TensorBoard ``DataProvider`` straight over event files, for the command line and for ``load``.

TensorBoard has two readers of its own. The Rust server is fast, but a process to start, to reach over gRPC and to
poll until it has read everything; the Python loader needs TensorFlow to be fast. Neither says what it left out. This
one reads what is there, in this process, and notes what was damaged.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tensorboard.compat import tf
from tensorboard.data import provider

from deadunits_tb.errors import InvalidArgumentError, LogDirectoryError
from deadunits_tb.metadata import PLUGIN_NAME
from deadunits_tb.reading.event_directory import EventDirectory, Series, file_name, is_url

T = TypeVar("T")


class LocalDataProvider(provider.DataProvider):  # type: ignore[misc]  # published without types
    """The tensors of our plugin in all event files below a directory.

    Runs are called as TensorBoard calls them: by their directory relative to the log directory, ``"."`` for itself.
    Tensors are kept as raw bytes and become arrays when they are read. Safe to share between threads.

    Args:
        logdir: A log directory; also a URL that TensorBoard's file layer knows, such as ``gs://bucket/runs``.

    Raises:
        LogDirectoryError: There is no such directory, or it cannot be listed.
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        path = os.fspath(logdir)
        self._logdir = path if is_url(path) else str(Path(path).expanduser())
        self._lock = threading.Lock()
        self._runs: dict[str, EventDirectory] = {}
        self._unlisted: list[str] = []
        self.reload()

    @property
    def notes(self) -> list[str]:
        """What was left out so far, one sentence each."""
        with self._lock:
            return [*self._unlisted, *(note for run in self._runs.values() for note in run.notes())]

    def reload(self) -> None:
        """Read what was added since; costs little more than listing the directories.

        Raises:
            LogDirectoryError: The directory is gone.
        """
        with self._lock:
            self._unlisted = []
            found = dict(_directories(self._logdir, self._unlisted.append))
            self._runs = {name: self._runs.get(name) or EventDirectory() for name in sorted(found)}
            for name, files in found.items():
                self._runs[name].read(files)

    def experiment_metadata(self, ctx: Any = None, *, experiment_id: str = "") -> provider.ExperimentMetadata:
        """Where the data lie."""
        return provider.ExperimentMetadata(data_location=self._logdir)

    def list_plugins(self, ctx: Any = None, *, experiment_id: str = "") -> list[str]:
        """Ours alone: nothing else is read."""
        return [PLUGIN_NAME]

    def list_runs(self, ctx: Any = None, *, experiment_id: str = "") -> list[provider.Run]:
        """All directories with event files, also those without data of ours."""
        with self._lock:
            return [provider.Run(name, name, run.start_time) for name, run in self._runs.items()]

    def list_tensors(
        self,
        ctx: Any = None,
        *,
        experiment_id: str = "",
        plugin_name: str,
        run_tag_filter: provider.RunTagFilter | None = None,
    ) -> dict[str, dict[str, provider.TensorTimeSeries]]:
        """Run to tag to what is known of its points."""
        return self._select(plugin_name, run_tag_filter, Series.describe)

    def read_tensors(
        self,
        ctx: Any = None,
        *,
        experiment_id: str = "",
        plugin_name: str,
        downsample: int | None = None,
        run_tag_filter: provider.RunTagFilter | None = None,
    ) -> dict[str, dict[str, list[provider.TensorDatum]]]:
        """Run to tag to points, sorted by step; at most ``downsample`` of each tag, the last always among them.

        Raises:
            InvalidArgumentError: ``downsample`` is not a number of points.
        """
        if not isinstance(downsample, int) or downsample < 0:
            raise InvalidArgumentError(f"downsample must be a number of points, not {downsample!r}")
        return self._select(plugin_name, run_tag_filter, lambda series: series.read(downsample))

    def list_scalars(
        self, ctx: Any = None, *, experiment_id: str = "", plugin_name: str, run_tag_filter: Any = None
    ) -> Any:
        """None: only tensors are read."""
        return {}

    def read_scalars(
        self,
        ctx: Any = None,
        *,
        experiment_id: str = "",
        plugin_name: str,
        downsample: int | None = None,
        run_tag_filter: Any = None,
    ) -> Any:
        """None: only tensors are read."""
        return {}

    def read_last_scalars(
        self, ctx: Any = None, *, experiment_id: str = "", plugin_name: str, run_tag_filter: Any = None
    ) -> Any:
        """None: only tensors are read."""
        return {}

    def _select(
        self, plugin_name: str, run_tag_filter: provider.RunTagFilter | None, take: Callable[[Series], T]
    ) -> dict[str, dict[str, T]]:
        if plugin_name != PLUGIN_NAME:
            return {}
        runs = run_tag_filter and run_tag_filter.runs
        tags = run_tag_filter and run_tag_filter.tags
        with self._lock:
            selected = {
                name: {
                    tag: take(series)
                    for tag, series in run.series.items()
                    if series.points and (tags is None or tag in tags)
                }
                for name, run in self._runs.items()
                if runs is None or name in runs
            }
        return {name: series for name, series in selected.items() if series}


def _directories(logdir: str, note: Callable[[str], None]) -> Iterator[tuple[str, dict[str, int]]]:
    """Run names with their event files and sizes."""
    walk, size_of = (_walk_url, _size_of_url) if is_url(logdir) else (_walk_local, _size_of_local)
    for name, paths in walk(logdir, note):
        sizes = {}
        for path in paths:
            name_of_file = file_name(path)
            if "tfevents" in name_of_file and not name_of_file.endswith(".profile-empty"):
                try:
                    sizes[path] = size_of(path)
                except Exception as error:
                    note(f"{path}: cannot be read: {error}")
        if sizes:
            yield name, sizes


def _walk_local(logdir: str, note: Callable[[str], None]) -> Iterator[tuple[str, list[str]]]:
    top = Path(logdir)
    if not top.is_dir():
        reason = "is a file: give its directory" if top.exists() else "does not exist"
        raise LogDirectoryError(f"log directory {logdir!r} {reason}")
    if not os.access(top, os.R_OK | os.X_OK):
        raise LogDirectoryError(f"log directory {logdir!r} cannot be read: permission denied")
    for directory, below, files in os.walk(top, followlinks=True, onerror=lambda error: note(str(error))):
        here = Path(directory)
        real = here.resolve()
        loops = [name for name in below if (here / name).is_symlink() and real.is_relative_to((here / name).resolve())]
        below[:] = [name for name in below if name not in loops]
        yield str(here.relative_to(top)), [str(here / name) for name in files]


def _walk_url(logdir: str, note: Callable[[str], None]) -> Iterator[tuple[str, list[str]]]:
    try:
        if not tf.io.gfile.isdir(logdir):
            raise LogDirectoryError(f"log directory {logdir!r} does not exist")
        for directory, _, files in tf.io.gfile.walk(logdir):
            directory = directory.rstrip("/")
            yield directory[len(logdir.rstrip("/")) :].strip("/") or ".", [f"{directory}/{name}" for name in files]
    except LogDirectoryError:
        raise
    except Exception as error:  # of a type that depends on the file system
        raise LogDirectoryError(f"log directory {logdir!r} cannot be read: {error}") from error


def _size_of_local(path: str) -> int:
    return Path(path).stat().st_size


def _size_of_url(path: str) -> int:
    return int(tf.io.gfile.stat(path).length)

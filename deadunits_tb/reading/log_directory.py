"""A log directory on disk, read without TensorBoard running."""

from __future__ import annotations

import os
import re

from deadunits_tb.errors import InvalidArgumentError, LogDirectoryError, UnknownNameError
from deadunits_tb.metadata import SUBDIRECTORY
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.phrases import count
from deadunits_tb.reading.provider import RunReader


class LogDirectory:
    """The runs below a directory, as its event files hold them now.

    Args:
        logdir: A log directory; also a URL that TensorBoard's file layer knows.

    Attributes:
        runs: Names of the runs that hold records of ours, in natural order.

    Raises:
        LogDirectoryError: There is no such directory, or it cannot be read.
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        self._logdir = os.fspath(logdir)
        self._provider = LocalDataProvider(logdir)
        self._reader = RunReader(self._provider)
        self.runs = [summary.run for summary in self._reader.runs()]

    @property
    def notes(self) -> list[str]:
        """What of the event files was left out, one sentence each; what a run left out is in its own notes."""
        return [*self._provider.notes, *self._reader.notes(but_of=self.runs)]

    def history(self, run: str) -> RunHistory:
        """Read one run.

        Raises:
            UnknownNameError: There is no such run.
        """
        return self._reader.history(run)

    def matching(self, pattern: str | None) -> list[str]:
        """Runs whose name a regular expression finds something in; all without one.

        Raises:
            InvalidArgumentError: It is no regular expression.
            UnknownNameError: No run matches.
            LogDirectoryError: There are no runs at all.
        """
        if not self.runs:
            raise LogDirectoryError(self._nothing())
        if pattern is None:
            return self.runs
        try:
            found = [run for run in self.runs if re.search(pattern, run)]
        except re.error as error:
            raise InvalidArgumentError(f"{pattern!r} is no regular expression: {error}") from None
        if not found:
            raise UnknownNameError.of("run that matches", pattern, self.runs)
        return found

    def _nothing(self) -> str:
        searched = len(self._provider.list_runs())
        what = "no event files"
        if searched:
            what = f"event files in {count(searched, 'directory', 'directories')}, but no records of dead units"
        return (
            f"log directory {self._logdir!r} holds {what}: train with DeadUnitsCallback or DeadUnitsWriter, "
            f"which write into the sub-directory {SUBDIRECTORY!r} of the directory they are given, or name one above it"
        )

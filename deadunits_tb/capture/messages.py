"""What the monitor says to the person who trains: one line, and never an exception."""

from __future__ import annotations

import logging
import warnings

_LONGEST = 300

logger = logging.getLogger("deadunits_tb")


class MonitorWarning(UserWarning):
    """The monitor met a problem that must not stop the training, and says so once.

    A warning and not a log line, because it is shown by default in terminals, notebooks and test runs alike.
    """


def say(message: str) -> None:
    """Warn. Where the user turned warnings into errors, log instead: the training must go on."""
    try:
        warnings.warn(message, MonitorWarning, stacklevel=4)
    except MonitorWarning:
        logger.warning(message)


def one_line(where: str, error: BaseException | str) -> str:
    """Where and what, on one line; frameworks raise messages of many pages."""
    said = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    line = " ".join(f"{where}: {said}".split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"

"""What this package raises.

Every message is one line that says what was wrong, what exists, and what to do::

    DeadUnitsError
    ├── InvalidArgumentError (also ValueError)   an argument of the wrong type or value
    │   └── UnknownNameError (also LookupError)  a run, layer, unit or threshold that does not exist
    ├── LogDirectoryError (also OSError)         a log directory that cannot be read or written
    ├── FormatError (also ValueError)            bytes in an event file that are not a record of ours
    │   └── FutureVersionError                   a record of a later major version of the format
    └── MissingDependencyError (also ImportError) an optional package that is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DeadUnitsError(Exception):
    """Root of everything this package raises on purpose."""


class InvalidArgumentError(DeadUnitsError, ValueError):
    """An argument has the wrong type or value."""


class UnknownNameError(InvalidArgumentError, LookupError):
    """A name that does not exist; the message lists what does."""

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[object]) -> UnknownNameError:
        """Build the message: what was asked for, what is close, what exists.

        Args:
            kind: What sort of thing the name stands for, such as ``"layer"``.
            name: The name that was asked for.
            known: The names that exist.

        Returns:
            The error, to be raised by the caller.
        """
        names = [str(n) for n in known]
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(repr(n) for n in names[:10]) or "none"
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return cls(f"there is no {kind} {str(name)!r}.{hint} Known: {shown}{more}.")

    def __str__(self) -> str:  # LookupError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class LogDirectoryError(DeadUnitsError, OSError):
    """A log directory that cannot be read or written."""


class FormatError(DeadUnitsError, ValueError):
    """Bytes that are not a record in our format."""


class FutureVersionError(FormatError):
    """A record written by a later major version of the format."""


class MissingDependencyError(DeadUnitsError, ImportError):
    """An optional package is needed and not installed."""

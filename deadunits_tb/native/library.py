"""Which file the compiled library is: its name holds a hash of its source, so one made from another is never loaded.

Imported by ``setup.py`` too, by its path: this module imports nothing of the package.
"""

from __future__ import annotations

import hashlib
import pathlib
import sys

SOURCE = pathlib.Path(__file__).with_name("reductions.c")
PATTERN = "_reductions-*"
"""Libraries, of this source and of others."""


def path() -> pathlib.Path:
    """Where the library made of this source is, if it was made."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    return SOURCE.with_name(f"_reductions-{digest}.{'dll' if sys.platform == 'win32' else 'so'}")

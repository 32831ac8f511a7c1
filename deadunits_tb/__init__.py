"""Which units of a neural network are dying, since when, and why: recorded while training, shown in TensorBoard.

Importing this imports no framework, no TensorBoard and no NumPy: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deadunits_tb.capture.alarms import Alarm
    from deadunits_tb.capture.messages import MonitorWarning
    from deadunits_tb.capture.writer import DeadUnitsWriter
    from deadunits_tb.errors import (
        DeadUnitsError,
        FormatError,
        FutureVersionError,
        InvalidArgumentError,
        LogDirectoryError,
        MissingDependencyError,
        UnknownNameError,
    )
    from deadunits_tb.reading.run_api import load
    from deadunits_tb.thresholds import Thresholds
    from deadunits_tb.units import UnitState

__version__ = "0.1.0"

__all__ = [
    "Alarm",
    "DeadUnitsError",
    "DeadUnitsWriter",
    "FormatError",
    "FutureVersionError",
    "InvalidArgumentError",
    "LogDirectoryError",
    "MissingDependencyError",
    "MonitorWarning",
    "Thresholds",
    "UnitState",
    "UnknownNameError",
    "__version__",
    "load",
]

_HOME = {
    "Alarm": "capture.alarms",
    "DeadUnitsWriter": "capture.writer",
    "MonitorWarning": "capture.messages",
    "Thresholds": "thresholds",
    "UnitState": "units",
    "load": "reading.run_api",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'deadunits_tb' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"deadunits_tb.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

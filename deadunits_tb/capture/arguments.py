"""Arguments that a user gave wrongly are said at once, before training starts."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Mapping
from typing import Any

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.thresholds import Thresholds


def check_log_dir(log_dir: object) -> None:
    """Check that a log directory is a path.

    Raises:
        InvalidArgumentError: It is not.
    """
    if not isinstance(log_dir, (str, os.PathLike)) or not os.fspath(log_dir):
        raise InvalidArgumentError(f"log_dir must be the path of a directory, not {log_dir!r}")


def check_whole(name: str, value: object, low: int, *, none: str | None = None) -> None:
    """Check an argument that counts something.

    Args:
        name: Of the argument.
        value: What was given.
        low: The smallest number allowed.
        none: What None means, where it may be given.

    Raises:
        InvalidArgumentError: It is no whole number, too small, or beyond 64 bits.
    """
    if none is not None and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) < 2**63:
        otherwise = f", or None {none}" if none else ""
        raise InvalidArgumentError(f"{name} must be a whole number from {low}{otherwise}, not {value!r}")


def check_share(name: str, value: object) -> None:
    """Check an argument that is a share of a whole, above 0.

    Raises:
        InvalidArgumentError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) <= 1:
        raise InvalidArgumentError(f"{name} must be above 0 and at most 1 (0.01 is 1 %), not {value!r}")


def check_flag(name: str, value: object) -> None:
    """Check an argument that is true or false.

    Raises:
        InvalidArgumentError: It is neither.
    """
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be True or False, not {value!r}")


def check_options(log_dir: object, *, every: object, max_overhead: object, max_bytes: object, on_alarm: object) -> None:
    """Check what all ways to watch a model have in common, before anything is begun.

    Raises:
        InvalidArgumentError: One of them has the wrong type or value.
    """
    check_log_dir(log_dir)
    check_whole("every", every, 1, none="to choose by cost")
    check_share("max_overhead", max_overhead)
    check_whole("max_bytes", max_bytes, 1)
    check_on_alarm(on_alarm)


def check_on_alarm(on_alarm: object) -> None:
    """Check what is to be called when units enter an alarm state.

    Raises:
        InvalidArgumentError: It cannot be called.
    """
    if on_alarm is not None and not callable(on_alarm):
        raise InvalidArgumentError(f"on_alarm must be a function of one argument, an Alarm, not {on_alarm!r}")


def checked_thresholds(thresholds: object) -> Thresholds:
    """Thresholds as a user may give them.

    Raises:
        InvalidArgumentError: They are neither :class:`~deadunits_tb.Thresholds` nor a mapping nor None.
        UnknownNameError: There is no such threshold.
    """
    if thresholds is None:
        return Thresholds()
    if isinstance(thresholds, Thresholds):
        return thresholds
    if isinstance(thresholds, Mapping):
        return Thresholds.from_dict(thresholds)
    raise InvalidArgumentError(f"thresholds must be Thresholds or a mapping of some of them, not {thresholds!r}")


def checked_layers(layers: Any, kind: type, called: str = "layers", *, name: str = "layers") -> tuple[Any, ...] | None:
    """Layers as a user may choose them: a list of names or objects, None for all.

    Args:
        layers: What was given.
        kind: Of a layer.
        called: What the framework calls several of them.
        name: Of the argument.

    Raises:
        InvalidArgumentError: It is something else, or empty.
    """
    if layers is None:
        return None
    if isinstance(layers, (str, kind)) or not isinstance(layers, Iterable):
        raise InvalidArgumentError(f"{name} must be a list of names or {called}, or None for all, not {layers!r}")
    chosen = tuple(layers)
    for one in chosen:
        if not isinstance(one, (str, kind)):
            raise InvalidArgumentError(f"{name} must hold names or {called}, not {one!r}")
    if not chosen:
        nothing = ", so there is nothing to watch: leave it out to watch all" if name == "layers" else ": leave it out"
        raise InvalidArgumentError(f"{name} is empty{nothing}")
    return chosen

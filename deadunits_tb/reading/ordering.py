"""The order of a heatmap's rows: by index, step of death, severity, or similarity of the units' histories."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from deadunits_tb.errors import UnknownNameError
from deadunits_tb.reading.columns import evenly_spaced
from deadunits_tb.record import Byte, Float, Int
from deadunits_tb.units import SEVERITY, UnitState

Order = Literal["index", "death", "severity", "similarity"]
ORDERS: tuple[Order, ...] = get_args(Order)

_FEATURE_RECORDS = 32
"""Records at which histories are compared: finer ones cost time and change no order that one can see."""
_SMALLEST_GROUP = 16
_DEPTH = 8
_POWER_STEPS = 16


def row_order(order: Order, states: Byte, since: Int, active_fraction: Float | None = None) -> Int:
    """Say which unit stands in which row.

    Args:
        order: One of :data:`ORDERS`.
        states: ``uint8 [records, units]`` state codes.
        since: ``int64 [units]`` step since which each unit's last state holds.
        active_fraction: ``float32 [records, units]``, NaN where not recorded; None if it never was. Read for
            ``similarity`` only.

    Returns:
        ``int64 [units]``: the unit in each row. The same input always gives the same order; equal units keep theirs.

    Raises:
        UnknownNameError: There is no such order.
    """
    records, units = states.shape
    if order not in ORDERS:
        raise UnknownNameError.of("order", order, ORDERS)
    if order == "index" or not records:
        return np.arange(units)
    last = states[-1]
    if order == "death":
        dead = last == UnitState.DEAD
        return np.lexsort((np.where(dead, since, 0), ~dead))
    if order == "severity":
        return np.lexsort((since, -SEVERITY[last].astype(np.int64)))
    return seriate(_features(states, active_fraction))


def seriate(features: npt.NDArray[np.floating]) -> Int:
    """Order rows so that similar ones are neighbours.

    Principal direction divisive partitioning (Boley 1998): project on the first principal component, cut at the widest
    gap near the middle, go on within each half. Linear in the rows, no distance matrix, and a half is turned round
    where that brings its end closer to what stands before it.

    Args:
        features: ``[rows, features]``, finite.

    Returns:
        ``int64 [rows]`` row indices.
    """
    ordered: list[Int] = []
    waiting = [(np.arange(len(features)), 0)]
    end: npt.NDArray[np.floating] | None = None
    while waiting and len(features):
        rows, depth = waiting.pop()
        position = _first_component(features[rows])
        spread = float(np.ptp(position))
        if spread > 0 and end is not None:
            # Continue from where the previous group ended.
            low, high = features[rows[np.argmin(position)]], features[rows[np.argmax(position)]]
            if np.sum((low - end) ** 2) > np.sum((high - end) ** 2):
                position = -position
        sorting = np.argsort(position, kind="stable")
        rows, position = rows[sorting], position[sorting]
        if len(rows) < _SMALLEST_GROUP or depth == _DEPTH or spread <= 1e-6:
            ordered.append(rows)
            end = features[rows[-1]]
            continue
        cut = _widest_gap(position)
        waiting += [(rows[cut:], depth + 1), (rows[:cut], depth + 1)]
    return np.concatenate(ordered or [np.empty(0, np.int64)])


def _first_component(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """``[rows]`` position along the direction of largest variance.

    By power iteration from the row farthest from the middle: some direction of large variance is enough, and it comes
    out the same on every machine up to rounding, sign included.
    """
    centred = (features - features.mean(axis=0)).astype(np.float64)
    covariance = centred.T @ centred
    direction = centred[np.argmax(np.sum(centred**2, axis=1))]
    for _ in range(_POWER_STEPS):
        direction = covariance @ direction
        length = np.linalg.norm(direction)
        if not length:
            break
        direction /= length
    return np.asarray(centred @ direction, np.float64)


def _widest_gap(position: npt.NDArray[np.float64]) -> int:
    """Where to cut sorted positions: the widest gap, leaving a tenth on either side where there are enough."""
    margin = len(position) // 10
    gaps = np.diff(position)[margin : len(position) - 1 - margin]
    return margin + int(np.argmax(gaps)) + 1


def _features(states: Byte, active_fraction: Float | None) -> npt.NDArray[np.float64]:
    """``[units, features]``: severity, and how often the unit fired, at a few records."""
    columns = evenly_spaced(len(states), _FEATURE_RECORDS)
    severity: npt.NDArray[np.float64] = SEVERITY[states[columns]].T / float(SEVERITY.max())
    if active_fraction is None:
        return severity
    recorded = np.flatnonzero(~np.isnan(active_fraction).all(axis=1))
    fired = active_fraction[recorded[evenly_spaced(len(recorded), _FEATURE_RECORDS)]].T
    return np.hstack([severity, np.nan_to_num(fired, nan=0.0, posinf=0.0, neginf=0.0)])

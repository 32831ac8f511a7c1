"""A heatmap in tiles: 256 rows by all records, at levels of 4 to the k units a row.

Tiles are built from whatever gives the columns of some units, at most about 16,000 units at a time, so that neither a
dense matrix of all units nor of all levels is ever needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from deadunits_tb.record import Byte, Float, Int, to_bfloat16_bits
from deadunits_tb.units import ALARM, BY_SEVERITY, SEVERITY

TILE_ROWS = 256
FACTOR = 4
"""Each level has four times as many units a row as the one below."""
_CHUNK = 16_384

StateColumns = Callable[[Int], Byte]
"""Gives ``uint8 [records, len(units)]`` state codes of some units."""
StatisticColumns = Callable[[Int], Float]
"""Gives ``float32 [records, len(units)]`` of a statistic of some units, NaN where it was not recorded."""


def rows_of(units: int, level: int) -> int:
    """Rows of a level."""
    return -(-units // int(FACTOR**level))


def levels_of(units: int) -> int:
    """How many levels there are until one tile holds all rows."""
    level = 0
    while rows_of(units, level) > TILE_ROWS:
        level += 1
    return level + 1


def tiles_of(units: int, level: int) -> int:
    """Tiles of a level."""
    return -(-rows_of(units, level) // TILE_ROWS)


def state_tile(columns: StateColumns, order: Int, level: int, tile: int) -> Byte:
    """Build a tile of states.

    Args:
        columns: Where the states come from.
        order: ``[units]`` the unit in each row of level 0.
        level: 0 for one unit a row.
        tile: Number of the tile within the level, from 0.

    Returns:
        ``uint8 [rows, records]`` state codes at level 0. Above, ``uint8 [2, rows, records]``: the worst state of each
        row's units, and the share of them in an alarm state in 255ths, rounded up: one dead unit never vanishes.
    """
    size = FACTOR**level
    if not level:
        return np.ascontiguousarray(columns(_tile_units(order, level, tile)).T)
    worst, share = [], []
    for units in _chunks(_tile_units(order, level, tile), size):
        states = np.ascontiguousarray(columns(units).T)
        starts = np.arange(0, len(units), size)
        worst.append(np.maximum.reduceat(SEVERITY[states], starts, axis=0))
        alarms = np.add.reduceat(ALARM[states], starts, axis=0, dtype=np.int32)
        members = np.diff(np.append(starts, len(units)))[:, None]
        share.append(-(-255 * alarms // members))
    return np.stack([BY_SEVERITY[np.concatenate(worst)], np.concatenate(share).astype(np.uint8)])


def statistic_tile(columns: StatisticColumns, order: Int, level: int, tile: int) -> npt.NDArray[np.uint16]:
    """Build a tile of a statistic.

    Args:
        columns: Where its values come from.
        order: ``[units]`` the unit in each row of level 0.
        level: 0 for one unit a row.
        tile: Number of the tile within the level, from 0.

    Returns:
        ``uint16 [rows, records]`` bits of bfloat16, NaN where not recorded. Above level 0 the mean of the row's units,
        those without a number left out.
    """
    size = FACTOR**level
    if not level:
        return to_bfloat16_bits(np.ascontiguousarray(columns(_tile_units(order, level, tile)).T))
    means = []
    for units in _chunks(_tile_units(order, level, tile), size):
        values = np.ascontiguousarray(columns(units).T)
        starts = np.arange(0, len(units), size)
        missing = np.isnan(values)
        known = np.add.reduceat(~missing, starts, axis=0, dtype=np.int32)
        values[missing] = 0
        with np.errstate(divide="ignore", invalid="ignore"):  # Inf - Inf, and rows in which nothing was recorded
            means.append(np.add.reduceat(values, starts, axis=0, dtype=np.float64) / known)
    with np.errstate(over="ignore"):
        return to_bfloat16_bits(np.concatenate(means).astype(np.float32))


def _tile_units(order: Int, level: int, tile: int) -> Int:
    width = TILE_ROWS * FACTOR**level
    return order[tile * width : (tile + 1) * width]


def _chunks(units: Int, size: int) -> Iterator[Int]:
    """Cut units into parts of whole rows."""
    width = max(_CHUNK // size, 1) * size
    for start in range(0, len(units), width):
        yield units[start : start + width]

"""How the units of a layer are spread over the values of a statistic, record by record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deadunits_tb.record import Float, Int
from deadunits_tb.units import STATISTIC_BY_NAME

LOG_RATIO = 100.0
"""From this ratio of the largest to the smallest value on, bins are equal on a logarithmic scale."""
OUTSIDE = 0.001
"""Share of the values that may lie beyond the bins on either side, so that one outlier does not squeeze all others."""
QUANTILES = {"p05": 0.05, "p50": 0.5, "p95": 0.95}
_SHARES = frozenset({"active_fraction", "active_positions", "saturated_fraction"})


@dataclass(frozen=True, slots=True)
class Distribution:
    """Units by value. The counts of one record add up to its units.

    Attributes:
        statistic: Its name.
        scale: How the bins are spaced.
        edges: ``float64 [bins + 1]``, ascending. A bin holds its lower edge, the last one its upper too.
        counts: ``int64 [records, bins]``.
        zeros: ``int64 [records]`` units at exactly zero; they are in no bin.
        non_finite: ``int64 [records]`` units at NaN or infinity.
        below: ``int64 [records]`` units below the first edge.
        above: ``int64 [records]`` units above the last edge.
        quantiles: Name to ``float64 [records]`` over the finite values, zeros included; NaN where there is none.
    """

    statistic: str
    scale: Literal["linear", "log"]
    edges: npt.NDArray[np.float64]
    counts: Int
    zeros: Int
    non_finite: Int
    below: Int
    above: Int
    quantiles: dict[str, npt.NDArray[np.float64]]


def distribution(statistic: str, values: Float, bins: int) -> Distribution:
    """Count units by value.

    Args:
        statistic: Its name.
        values: ``float32 [records, units]``, of records that hold the statistic.
        bins: How many.
    """
    records, _ = values.shape
    finite = np.isfinite(values)
    zero = values == 0
    usable = finite & ~zero
    scale, edges = _edges(statistic, values[usable], bins)
    # 0 is below, 1 to bins are the bins, bins + 1 is above.
    place = np.searchsorted(edges.astype(np.float64), values, side="right")
    place[values == edges[-1]] = bins
    flat = (place + np.arange(records)[:, None] * (bins + 2))[usable]
    table = np.bincount(flat, minlength=records * (bins + 2)).reshape(records, bins + 2)
    return Distribution(
        statistic=statistic,
        scale=scale,
        edges=edges,
        counts=table[:, 1:-1],
        zeros=zero.sum(axis=1),
        non_finite=(~finite).sum(axis=1),
        below=table[:, 0],
        above=table[:, -1],
        quantiles=_quantiles(values, finite),
    )


def _edges(statistic: str, values: Float, bins: int) -> tuple[Literal["linear", "log"], npt.NDArray[np.float64]]:
    if statistic in _SHARES:
        return "linear", np.linspace(0.0, 1.0, bins + 1)
    if not values.size:
        return "linear", np.linspace(-1.0 if STATISTIC_BY_NAME[statistic].signed else 0.0, 1.0, bins + 1)
    low = float(np.quantile(values, OUTSIDE, method="lower"))
    high = float(np.quantile(values, 1 - OUTSIDE, method="higher"))
    if low == high:
        low, high = low - abs(low) / 2, high + abs(high) / 2
    elif low > 0 and high >= LOG_RATIO * low and not STATISTIC_BY_NAME[statistic].signed:
        edges = np.geomspace(low, high, bins + 1)
        edges[0], edges[-1] = low, high
        return "log", edges
    return "linear", np.linspace(low, high, bins + 1)


def _quantiles(values: Float, finite: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.float64]]:
    found = np.full((len(values), len(QUANTILES)), np.nan)
    for row, kept, quantiles in zip(values, finite, found, strict=True):
        known = row[kept]
        if known.size:
            quantiles[:] = np.quantile(known.astype(np.float64), list(QUANTILES.values()))
    return {name: found[:, i] for i, name in enumerate(QUANTILES)}

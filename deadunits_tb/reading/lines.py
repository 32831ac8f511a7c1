"""Where a threshold stands on the chart of a statistic."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deadunits_tb.record import Statistics
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import BOUNDED, LayerInfo
from deadunits_tb.verdicts import finite_units, judges_silence, layer_scale, signal_known


def threshold_lines(
    info: LayerInfo, statistics: Statistics | None, thresholds: Thresholds
) -> dict[str, list[tuple[str, float]]]:
    """Find the thresholds that a rule compares with a statistic of this layer.

    Args:
        info: The layer.
        statistics: Of one record: some thresholds are relative to the layer's own numbers.
        thresholds: In force.

    Returns:
        Statistic to the threshold's name, and its place in the statistic's own unit.
    """
    if statistics is None:
        return {}
    lines: dict[str, list[tuple[str, float]]] = {}
    for statistic, threshold, value in _lines(info, statistics, thresholds):
        if statistic in statistics.names and np.isfinite(value):
            lines.setdefault(statistic, []).append((threshold, value))
    return lines


def _lines(info: LayerInfo, statistics: Statistics, t: Thresholds) -> Iterator[tuple[str, str, float]]:
    finite = finite_units(statistics, statistics.values.shape[1])
    if judges_silence(info):
        yield "active_fraction", "dying_share", t.dying_share
        size = statistics.get("mean_abs")
        if size is not None and finite.any():
            yield "mean_abs", "dormant_share", t.dormant_share * float(np.mean(size[finite], dtype=np.float64))
        gradient = statistics.get("gradient")
        if gradient is not None and signal_known(info, statistics) and not info.relu_like:
            usable = gradient[np.isfinite(gradient)].astype(np.float64)
            if usable.size:
                yield "gradient", "dead_gradient", t.dead_gradient * float(np.sqrt(np.mean(usable**2)))
    if info.activation_function in BOUNDED and info.role != "output":
        yield "saturated_fraction", "saturated_share", t.saturated_share
    yield "std", "constant_range", t.constant_range * layer_scale(statistics, finite)
    yield "update_ratio", "stagnant_ratio", t.stagnant_ratio

"""One layer at one record, as explanations look at it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deadunits_tb.record import Evidence, Int, Statistics, Window
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo
from deadunits_tb.verdicts import finite_units, layer_scale, signal_known

_Z_95 = 1.6449
"""One-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One layer at one record, with what concerns the layer as a whole worked out once.

    Attributes:
        info: The layer.
        window: What the record covers.
        statistics: Of the record; without rows where it holds none.
        evidence: Counters up to and including the record.
        thresholds: The numbers that decide.
        witnessed: Whether the error signal was recorded where its absence proves something.
        quiet: ``int64 [units]`` examples without firing and, where that is witnessed, without error signal.
        scale: Root mean square of the layer's output, 0 if unknown.
        mean_abs: Mean absolute output of the layer, NaN if unknown.
    """

    info: LayerInfo
    window: Window
    statistics: Statistics
    evidence: Evidence
    thresholds: Thresholds
    witnessed: bool
    quiet: Int
    scale: float
    mean_abs: float

    @classmethod
    def of(
        cls, info: LayerInfo, window: Window, statistics: Statistics | None, evidence: Evidence, thresholds: Thresholds
    ) -> Moment:
        """Work out what concerns the layer as a whole."""
        units = len(evidence.last_active_step)
        present = statistics or Statistics((), np.empty((0, units), np.float32))
        finite = finite_units(present, units)
        size = present.get("mean_abs")
        # Without statistics the counter itself tells whether a gradient was recorded: it never rises otherwise.
        thinned = statistics is None and info.witness == "pre_activation" and evidence.examples_without_signal.any()
        witnessed = signal_known(info, present) or bool(thinned)
        silent = evidence.examples_since_active
        return cls(
            info=info,
            window=window,
            statistics=present,
            evidence=evidence,
            thresholds=thresholds,
            witnessed=witnessed,
            quiet=np.minimum(silent, evidence.examples_without_signal) if witnessed else silent,
            scale=layer_scale(present, finite),
            mean_abs=float(np.mean(size[finite], dtype=float)) if size is not None and finite.any() else math.nan,
        )

    def value(self, statistic: str, unit: int) -> float:
        """One statistic of one unit, NaN if it was not recorded."""
        values = self.statistics.get(statistic)
        return math.nan if values is None else float(values[unit])

    def rate_upper_bound(self, unit: int) -> float | None:
        """Upper 95 % confidence bound of the firing rate per example.

        The rule of three for silence (0 of n: 3/n), the one-sided Wilson bound for a window in which the unit fired;
        None where firing means nothing.
        """
        if not self.info.nonlinear:
            return None
        share, n = self.value("active_fraction", unit), self.window.examples
        if share > 0 and n:
            middle = share + _Z_95**2 / (2 * n)
            spread = _Z_95 * math.sqrt(max(0.0, share * (1 - share) / n + _Z_95**2 / (4 * n * n)))
            return min(1.0, (middle + spread) / (1 + _Z_95**2 / n))
        silent = int(self.evidence.examples_since_active[unit])
        return min(1.0, 3 / silent) if silent else None

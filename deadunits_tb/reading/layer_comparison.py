"""One layer in two runs: how many of its units are in trouble, and whether chance explains the difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deadunits_tb.reading.columns import evenly_spaced
from deadunits_tb.reading.history import LayerHistory
from deadunits_tb.reading.matching import By
from deadunits_tb.record import Byte, Int
from deadunits_tb.units import ALARM, SEVERITY, UnitState, count_states

SPREAD = 5.0
"""How many times larger the variance of a layer's dead units between seeds is than that of independent units: units of
one layer share its fate. Measured: mostly 1 to 3, up to 5.8; with 5, comparisons took 2 of 360 pairs of one recipe for
different (``benchmarks/seed_spread.py``)."""
SIGNIFICANCE = 0.05
"""Probability, corrected for the layers looked at, below which chance is no explanation."""
TROUBLED = ALARM | (np.arange(len(UnitState)) == UnitState.DYING)
"""``[states]``: states that are counted, alarms and what is about to become one."""


@dataclass(frozen=True, slots=True)
class Side:
    """A layer of one of the runs at the step of the comparison.

    Attributes:
        units: How many.
        judged: How many of them could be judged.
        troubled: How many are dead, dying, or in another alarm state.
        states: Label of each state to number of units.
    """

    units: int
    judged: int
    troubled: int
    states: Mapping[str, int]

    @property
    def share(self) -> float:
        """Share of the judged units in trouble, NaN without any."""
        return self.troubled / self.judged if self.judged else math.nan


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """A layer that both runs have.

    Attributes:
        layer: Its name in the first run.
        other: Its name in the second run.
        matched: How the two were found to correspond.
        kind: Its class.
        role: ``"hidden"`` or ``"output"``.
        first: In the first run.
        second: In the second run.
        chance: Probability that two runs of one recipe differ so much in some layer; NaN where units cannot be judged.
        differs: Whether that is too seldom to be chance.
        trouble: The states counted, in words, such as ``"dead or dying"``.
        steps: ``[columns]`` steps of the curves.
        shares: For each run ``[columns]``: share of units in trouble, None where it has no record.
    """

    layer: str
    other: str
    matched: By
    kind: str
    role: str
    first: Side
    second: Side
    chance: float
    differs: bool
    trouble: str
    steps: tuple[int, ...]
    shares: tuple[tuple[float | None, ...], tuple[float | None, ...]]


def chance_of(first: Side, second: Side) -> float:
    """Probability that two runs of one recipe differ at least so much in one layer: two proportions, two-sided.

    The variance is :data:`SPREAD` times that of independent units. 1 where no unit is in trouble, NaN where none could
    be judged.
    """
    if not first.judged or not second.judged:
        return math.nan
    pooled = (first.troubled + second.troubled) / (first.judged + second.judged)
    variance = SPREAD * pooled * (1 - pooled) * (1 / first.judged + 1 / second.judged)
    return math.erfc(abs(first.share - second.share) / math.sqrt(2 * variance)) if variance else 1.0


def corrected(chances: Sequence[float]) -> list[float]:
    """Correct for the number of layers looked at (Holm 1979). Layers without any trouble could not have differed."""
    order = sorted((at for at, chance in enumerate(chances) if chance < 1), key=lambda at: chances[at])
    found, worst = list(chances), 0.0
    for rank, at in enumerate(order):
        worst = max(worst, min(1.0, chances[at] * (len(order) - rank)))
        found[at] = worst
    return found


def side_at(layer: LayerHistory, states: Byte, step: int) -> Side:
    """A layer at its last record up to a step."""
    record = int(np.searchsorted(layer.steps, step, side="right")) - 1
    if record < 0:
        return Side(layer.units, 0, 0, {})
    now = states[record]
    judged = ~np.isin(now, (UnitState.UNKNOWN, UnitState.FROZEN))
    return Side(layer.units, int(judged.sum()), int(TROUBLED[now].sum()), count_states(now))


def trouble_of(first: Side, second: Side) -> str:
    """The states that were counted, the worst first; dead where there are none."""
    found = [s for s in UnitState if TROUBLED[s] and (s.label in first.states or s.label in second.states)]
    words = [s.label.replace("_", "-") for s in sorted(found, key=lambda s: -int(SEVERITY[s]))]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "dead or dying"


def curves_of(
    pair: tuple[LayerHistory, LayerHistory], states: tuple[Byte, Byte]
) -> tuple[tuple[int, ...], tuple[tuple[float | None, ...], tuple[float | None, ...]]]:
    """Share of units in trouble over the steps of both runs; None before a run's first record and after its last."""
    steps = np.union1d(pair[0].steps, pair[1].steps)
    steps = steps[evenly_spaced(len(steps))]
    first, second = (_curve(layer.steps, own, steps) for layer, own in zip(pair, states, strict=True))
    return tuple(steps.tolist()), (first, second)


def _curve(at: Int, states: Byte, steps: Int) -> tuple[float | None, ...]:
    records = np.searchsorted(at, steps, side="right") - 1
    wanted = np.unique(records[records >= 0])
    share: dict[int, float] = {int(r): round(float(np.mean(TROUBLED[states[r]])), 6) for r in wanted}
    return tuple(
        share[record] if record >= 0 and step <= at[-1] else None
        for record, step in zip(records.tolist(), steps.tolist(), strict=True)
    )

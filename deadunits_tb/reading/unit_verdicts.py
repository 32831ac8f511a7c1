"""The verdicts on some units of a layer at its last record, with their evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deadunits_tb.reading.certainty import Proof, Prover
from deadunits_tb.reading.explanation import Explainer, Explanation
from deadunits_tb.reading.history import LayerHistory
from deadunits_tb.record import Byte, Int, Statistics
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import UnitState


@dataclass(frozen=True, slots=True)
class UnitVerdict:
    """The verdict on one unit.

    Attributes:
        unit: Its index.
        state: Its state.
        since_step: Step since which the state holds.
        explanation: Why, with the numbers.
        statistics: Name to value at the last record that holds statistics; NaN and infinity are possible.
        certificate: How certain it is that it stays dead; None unless it is dead.
    """

    unit: int
    state: UnitState
    since_step: int
    explanation: Explanation
    statistics: dict[str, float]
    certificate: Proof | None = None


def unit_verdicts(
    layer: LayerHistory,
    states: Byte,
    since: Int,
    thresholds: Thresholds,
    units: Iterable[int],
    *,
    written: bool,
) -> Iterator[UnitVerdict]:
    """Go through the verdicts on some units.

    Args:
        layer: The layer.
        states: ``uint8 [units]`` state codes at the last record.
        since: ``int64 [units]`` step since which each holds.
        thresholds: In force.
        units: Which units.
        written: Whether these are the writer's own verdicts.
    """
    window, evidence = layer.window(-1), layer.evidence(-1)
    memory = layer.memory(-1) if written else None
    explainer = Explainer(layer.info, window, layer.statistic_at(-1), evidence, memory, thresholds)
    measured = last_statistics(layer)
    prover: Prover | None = None
    for unit in units:
        state = UnitState(int(states[unit]))
        values = {} if measured is None else dict(zip(measured.names, measured.values[:, unit].tolist(), strict=True))
        explanation, began = explainer.explain(state, unit), int(since[unit])
        proof = None
        if state == UnitState.DEAD:
            prover = prover or Prover(layer)
            proof = prover.prove(unit, began)
        yield UnitVerdict(unit, state, began, explanation, values, proof)


def last_statistics(layer: LayerHistory) -> Statistics | None:
    """Statistics of the last record that holds any: the byte budget may have thinned them."""
    held = layer.recorded.nonzero()[0]
    return layer.statistic_at(int(held[-1])) if len(held) else None

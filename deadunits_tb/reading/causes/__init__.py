"""Why the units of a run are as they are: suspicions, each with the numbers behind it.

:func:`suspect` asks one rule after the other. The rules stand by topic: what is not finite (``numbers``), silent units
(``silence``), units at a bound (``bounds``), what somebody did on purpose (``deliberate``), gradients along the depth
(``depth``) and a loss that does not fall (``progress``). All of them look at a :class:`RunCase`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deadunits_tb.reading.causes.bounds import saturated
from deadunits_tb.reading.causes.case import LayerCase, RunCase, StatesOf
from deadunits_tb.reading.causes.catalogue import CAUSES
from deadunits_tb.reading.causes.deliberate import frozen, pruned
from deadunits_tb.reading.causes.depth import constant_head, fading_gradients
from deadunits_tb.reading.causes.numbers import diverged, non_finite
from deadunits_tb.reading.causes.progress import memorized, too_slow
from deadunits_tb.reading.causes.silence import silent
from deadunits_tb.reading.causes.suspicion import Suspicion
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import Level

__all__ = ["CAUSES", "StatesOf", "Suspicion", "suspect"]

_OF_A_LAYER: tuple[Callable[[LayerCase], Iterator[Suspicion]], ...] = (non_finite, silent, saturated, pruned, frozen)


def suspect(run: RunHistory, states_of: StatesOf, thresholds: Thresholds) -> list[Suspicion]:
    """Look at each layer in the model's order, then at the run as a whole.

    Args:
        run: The run.
        states_of: States of each layer.
        thresholds: In force.

    Returns:
        Suspicions. A layer may have several, of different units.
    """
    case = RunCase(run, states_of, thresholds)
    found = [suspicion for layer in case.layers.values() for rule in _OF_A_LAYER for suspicion in rule(layer)]
    found += constant_head(case)
    if not any(suspicion.level == Level.ALARM for suspicion in found):  # what broke the run explains a loss that stays
        found += fading_gradients(case) or diverged(case) or too_slow(case)
    return found + memorized(case)

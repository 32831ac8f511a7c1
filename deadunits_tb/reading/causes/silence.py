"""Units that are silent: born so, starved, killed by a step, worn down by weight decay, or for no reason to be seen."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from deadunits_tb.reading.causes.case import LOSS_JUMP, LayerCase, Mask, moments, size_of
from deadunits_tb.reading.causes.chance import at_start
from deadunits_tb.reading.causes.deliberate import pruned_units
from deadunits_tb.reading.causes.numbers import explosion
from deadunits_tb.reading.causes.remedies import better_start, lower_rate, start_in_words
from deadunits_tb.reading.causes.suspicion import Suspicion
from deadunits_tb.reading.phrases import measured
from deadunits_tb.units import Level, UnitState

DECAYED = 0.5
"""Share of its first norm to which weight decay has shrunk a unit's weights before it dies."""
_STEADY = 0.8
_STRONG_UPDATE = 0.3
"""Of `violent_update`: where the loss jumped too, a step of this size is suspect."""


def silent(case: LayerCase) -> Iterator[Suspicion]:
    """Dead units, those on the way there that never fired, and those that weight decay made constant."""
    last, evidence = case.last, case.layer.evidence(-1)
    spared = pruned_units(case)
    never = (evidence.last_active_step < 0) & case.layer.window(-1).from_start
    born = never & ((last == UnitState.DEAD) | (last == UnitState.DYING)) & ~spared
    died = ~never & (last == UnitState.DEAD) & ~spared
    flat = (last == UnitState.CONSTANT) & ~spared
    if case.starved_by is not None and (born | died | flat).any():
        yield _starved(case, born | died | flat)
        return
    if born.any():
        yield from _born(case, born)
    if died.any() or flat.any():
        yield from _died(case, died, flat)


def from_data(case: LayerCase, level: Level, step: int, fact: str, inputs: str) -> Suspicion:
    """Unscaled inputs as the cause."""
    return Suspicion(
        "unscaled_data",
        level,
        (case.name,),
        step,
        0.9,
        (fact, inputs),
        (),
        ("standardise the inputs: subtract the mean of each feature and divide by its standard deviation",),
    )


def _starved(case: LayerCase, units: Mask) -> Suspicion:
    return Suspicion(
        "upstream_dead",
        max(Level.WARNING, case.level(int(units.sum()))),
        (case.name,),
        case.onset(units),
        0.5,
        (f"every unit of {case.starved_by}, before {case.name}, is dead: nothing but biases reaches this layer",),
        (f"a fault of {case.name} itself: its units cannot fire on inputs that do not vary",),
        (f"mend {case.starved_by} first",),
    )


def _born(case: LayerCase, born: Mask) -> Iterator[Suspicion]:
    level, start = case.level(int(born.sum())), at_start(case)
    fact = f"{case.count(born)} never fired since the first training step (step {case.layer.window(-1).first_step:,})"
    if case.run.unscaled is not None and _early(case):
        yield from_data(case, level, case.onset(born), fact, case.run.unscaled[1])
        return
    if level == Level.INFORMATION:
        return  # a few units are born dead in healthy networks
    by_chance = start is not None and start.by_chance
    if by_chance and not born.all():
        level = min(level, Level.WARNING)
    yield Suspicion(
        "poor_initialization",
        level,
        (case.name,),
        case.layer.window(-1).first_step,
        0.6 if by_chance else 0.95 if level == Level.ALARM else 0.75,
        (fact, *((str(start),) if start else ()), *start_in_words(case)),
        ("learning rate: the units were silent before the first update", *_sound_inputs(case)),
        (*(_less_chance() if by_chance else ()), *better_start(case)),
    )


def _less_chance() -> tuple[str, ...]:
    return (
        "the inputs of the layer hardly vary in direction, so each unit is silent or firing on all of them: make the "
        "network shallower or wider, normalise between its layers or add residual connections",
        "randomized asymmetric initialization (Lu 2019), for deep and narrow networks",
    )


def _died(case: LayerCase, died: Mask, flat: Mask) -> Iterator[Suspicion]:
    units = died if died.any() else flat
    if (worn := _worn(case, died | flat)) is not None:
        yield worn
        return
    if not died.any():
        return
    level, onset = case.level(int(units.sum())), case.onset(units)
    fact = f"{case.count(died)} fired at first and fell silent, half of them by step {onset:,}"
    alive_first = "initialization: these units fired before they died"
    at, peak = case.peak_update(onset)
    jump, run = case.run.loss_jump(onset), case.run
    violent = peak >= case.thresholds.violent_update
    jumped = jump >= LOSS_JUMP and peak >= _STRONG_UPDATE * case.thresholds.violent_update
    unscaled = run.unscaled
    if unscaled is not None and unscaled[0] <= onset and (violent or jumped or _early(case)):
        yield from_data(case, level, onset, fact, unscaled[1])
    elif (why := explosion(case, onset)) is not None:
        yield Suspicion(why.cause, level, (case.name,), onset, 0.8, (fact, *why.evidence), why.ruled_out, why.remedies)
    elif violent or jumped:
        yield Suspicion(
            "learning_rate_too_high",
            level,
            (case.name,),
            onset,
            0.95 if violent and jumped else 0.85 if violent else 0.7,
            (
                fact,
                case.step_in_words(at, peak),
                *((f"the loss rose to {jump:.3g} times its first value",) if jump >= LOSS_JUMP else ()),
            ),
            (alive_first, *_sound_inputs(case)),
            lower_rate(run, at, peak),
        )
    elif level > Level.INFORMATION and (seen := case.examples_until(onset)) <= case.thresholds.dead_examples:
        yield Suspicion(
            "poor_initialization",
            level,
            (case.name,),
            onset,
            0.6,
            (f"{fact}, {seen:,} examples into training", *start_in_words(case)),
            (*_calm(peak), *_sound_inputs(case)),
            better_start(case),
        )
    elif level > Level.INFORMATION:
        yield Suspicion(
            "unclear",
            level,
            (case.name,),
            onset,
            0.3,
            (fact,),
            (alive_first, *_calm(peak), *_sound_inputs(case)),
            (
                f"look at mean, gradient and weights of these units of {case.name} around step {onset:,}",
                "look at what else changed there: the data, the biases, the other layers",
            ),
        )


def _worn(case: LayerCase, units: Mask) -> Suspicion | None:
    """Weight decay, where the norms had shrunk steadily before the units fell silent or constant."""
    if "norm_in" not in case.layer.statistics:
        return None
    chosen = np.flatnonzero(units)[:256]
    norms = case.layer.statistic("norm_in", chosen).astype(np.float64)
    held = np.isfinite(norms).all(axis=1)
    norms, steps = norms[held], case.layer.steps[held]
    onset = case.onset(units)
    before = norms[steps < max(onset, 1)]
    if len(before) < 4 or not (before[0] > 0).any():
        return None
    median = np.median(before, axis=1)
    left = float(median[-1] / median[0]) if median[0] > 0 else 1.0
    moved = np.diff(median[:: max(1, len(median) // 20)])
    if left > DECAYED or not len(moved) or float((moved <= 0).mean()) < _STEADY:
        return None
    _, peak = case.peak_update(onset)
    if peak >= case.thresholds.violent_update and left > 0.1 * DECAYED:
        return None
    setting = case.run.run.info.optimizer.get("weight_decay")
    decay = setting if isinstance(setting, float) else 0.0
    known = decay > 0
    states = sorted({UnitState(int(code)).label for code in case.last[units]})
    fact = (
        f"{case.count(units)} became {' or '.join(states)}, half of them by step {onset:,}; until then the norm of "
        f"their incoming weights had shrunk steadily from {measured(median[0])} to {measured(median[-1])}"
    )
    weaken = f"weaken the weight decay from {decay:g} to {decay / 10:g}" if known else "weaken the weight decay tenfold"
    return Suspicion(
        "weight_decay",
        case.level(int(units.sum())),
        (case.name,),
        onset,
        0.9 if known else 0.75,
        (fact, *((f"{case.run.optimizer} decays weights by {decay:g}",) if known else ())),
        ("a consequence of their silence: the weights had shrunk before it", *_calm(peak)),
        (f"{weaken}, or exempt {case.name} from it",),
    )


def _early(case: LayerCase) -> bool:
    """Whether the layer is one of the first two, which unscaled inputs reach first."""
    orders = sorted(other.layer.info.order for other in case.run.layers.values())
    return case.layer.info.order <= orders[min(1, len(orders) - 1)]


def _sound_inputs(case: LayerCase) -> tuple[str, ...]:
    found = case.run.inputs(case.run.run.last_step)
    if found is None or size_of(found[1]) > case.thresholds.unscaled_inputs:
        return ()
    return (f"unscaled data: the inputs have {moments(found[1])}",)


def _calm(peak: float) -> tuple[str, ...]:
    return (f"learning rate: the update ratio stayed at or below {measured(peak)}",) if math.isfinite(peak) else ()

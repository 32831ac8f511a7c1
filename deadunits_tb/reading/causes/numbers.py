"""Numbers that grow beyond all bounds: gradients that explode, losses that diverge, NaN in the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deadunits_tb.reading.causes.case import FAR_FROM_USUAL, LEARNED, LOSS_JUMP, LayerCase, RunCase
from deadunits_tb.reading.causes.remedies import better_start, clip, lower_rate, start_in_words
from deadunits_tb.reading.causes.suspicion import Suspicion
from deadunits_tb.reading.phrases import measured
from deadunits_tb.units import Level, UnitState

GROWTH = 1e3
"""Growth of a layer's gradient, or of the loss, that counts as explosion."""
_OPENING = 3
"""Records that show how a run begins."""


@dataclass(frozen=True, slots=True)
class Explosion:
    """Why numbers grew, with the fields of a suspicion that do not depend on what became of the units."""

    cause: str
    evidence: tuple[str, ...]
    ruled_out: tuple[str, ...]
    remedies: tuple[str, ...]


def explosion(case: LayerCase, onset: int) -> Explosion | None:
    """Why gradient or loss grew by orders of magnitude up to a step, None if they did not."""
    run, grew, jump = case.run, _gradient_growth(case, onset), case.run.loss_jump(onset)
    told = (
        *((f"the gradient at {case.name} grew {measured(grew)}-fold",) if grew >= GROWTH else ()),
        *((f"the loss rose to {jump:.3g} times its first value",) if jump >= LOSS_JUMP else ()),
    )
    large = [layer for layer in run.hidden if layer.size_at_start >= FAR_FROM_USUAL]
    where, at, peak = _opening_update(run)
    bad = any(not np.isfinite(r.loss) for r in run.run.records if r.loss is not None and r.step <= onset)
    violent = peak >= run.thresholds.violent_update
    broke = bool((case.last == UnitState.NON_FINITE).any()) or bad
    if not broke and max(grew, jump) < GROWTH:
        return _from_start(case, told) if violent and len(large) > len(run.hidden) / 2 else None
    if len(large) > len(run.hidden) / 2:
        return _from_start(case, told)
    began_well = run.loss_fell >= LEARNED or _calm_opening(run, onset)
    if violent and not began_well:
        changed = run.layers[where].step_in_words(at, peak)
        return Explosion(
            "learning_rate_too_high",
            (*told, changed),
            ("initialization: the weights began with their usual norm",) if run.hidden else (),
            lower_rate(run, at, peak),
        )
    if max(grew, jump) < LOSS_JUMP and not broke:
        return None
    if not told:
        return None
    return Explosion(
        "exploding_gradient",
        told,
        (f"learning rate: the run began with update ratios of at most {measured(peak)}",) if peak < 0.1 else (),
        (*clip(run), *lower_rate(run, at, peak)[:1], "look for outliers in the data around that step"),
    )


def non_finite(case: LayerCase) -> Iterator[Suspicion]:
    """Units with NaN or infinity."""
    units = case.last == UnitState.NON_FINITE
    if not units.any():
        return
    onset = case.onset(units)
    fact = f"{case.count(units)} have NaN or Inf in activation, gradient or weights"
    if (bad := case.run.bad_inputs(onset)) is not None:
        yield Suspicion(
            "non_finite_data",
            Level.ALARM,
            (case.name,),
            onset,
            0.95,
            (fact, f"the inputs held NaN or infinity at step {bad:,}, before any unit did or when the first did"),
            ("explosion: what went in was not finite",),
            (
                "find the examples with NaN or infinity in the data and drop or impute them",
                "check what prepares the data: a division by a standard deviation of zero, a logarithm of zero",
            ),
        )
        return
    unscaled, why = case.run.unscaled, explosion(case, onset)
    if unscaled is not None and unscaled[0] <= onset:
        yield Suspicion(
            "unscaled_data",
            Level.ALARM,
            (case.name,),
            onset,
            0.85,
            (fact, unscaled[1], *(why.evidence if why else ())),
            (),
            ("standardise the inputs: subtract the mean of each feature and divide by its standard deviation",),
        )
        return
    _, peak = case.peak_update(onset)
    yield Suspicion(
        why.cause if why else "unclear",
        Level.ALARM,
        (case.name,),
        onset,
        0.85 if why else 0.3,
        (fact, *(why.evidence if why else ())),
        why.ruled_out if why else (),
        why.remedies
        if why
        else (*clip(case.run), *lower_rate(case.run, onset, peak)[:1], "look for NaN or Inf in the data"),
    )


def diverged(run: RunCase) -> list[Suspicion]:
    """A loss that rose above its first value and stayed there while the weights moved violently."""
    rose = run.last_loss / run.first_loss if run.first_loss > 0 else 0.0
    peaks = {layer.name: layer.peak_update(run.run.last_step) for layer in run.layers.values()}
    violent = {name: found for name, found in peaks.items() if found[1] >= run.thresholds.violent_update}
    if not violent or not rose >= LOSS_JUMP:
        return []
    name, (at, peak) = max(violent.items(), key=lambda item: item[1][1])
    return [
        Suspicion(
            "learning_rate_too_high",
            Level.WARNING,
            tuple(violent),
            at,
            0.8,
            (
                f"the loss stands at {rose:.3g} times its first value",
                run.layers[name].step_in_words(at, peak),
            ),
            (),
            lower_rate(run, at, peak),
        )
    ]


def _from_start(case: LayerCase, told: tuple[str, ...]) -> Explosion:
    run = case.run
    words = tuple(sentence for layer in run.hidden for sentence in start_in_words(layer))
    return Explosion(
        "poor_initialization",
        (*told, *words),
        ("learning rate: with weights so large, activations and gradients grow from layer to layer before any update",),
        better_start(case),
    )


def _gradient_growth(case: LayerCase, until: int) -> float:
    """Largest gradient of the layer's median unit up to a step, over that of the first record; 0 if unknown."""
    steps, medians = case.medians("gradient")
    medians = medians[steps <= until]
    return float(medians.max() / medians[0]) if len(medians) > 1 and medians[0] > 0 else 0.0


def _opening_update(run: RunCase) -> tuple[str, int, float]:
    """Layer, step and size of the largest update ratio in the first records."""
    found = ("", -1, math.nan)
    for layer in run.layers.values():
        steps, ratios = layer.medians("update_ratio")
        for step, ratio in zip(steps[:_OPENING].tolist(), ratios[:_OPENING].tolist(), strict=True):
            if not found[2] >= ratio:
                found = (layer.name, step, ratio)
    return found


def _calm_opening(run: RunCase, onset: int) -> bool:
    """Whether the loss stayed within its first value's reach for the first half of the steps up to the onset."""
    steps, losses = run.losses
    early = losses[steps <= onset // 2]
    return len(early) >= 2 * _OPENING and bool((early <= LOSS_JUMP * run.first_loss).all())

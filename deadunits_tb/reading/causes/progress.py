"""A loss that hardly falls, or that falls in training alone."""

from __future__ import annotations

import math

import numpy as np

from deadunits_tb.reading.causes.case import LEARNED, LayerCase, RunCase
from deadunits_tb.reading.causes.remedies import USUAL_UPDATE, higher_rate
from deadunits_tb.reading.causes.suspicion import Suspicion
from deadunits_tb.reading.phrases import count, measured
from deadunits_tb.units import ALARM, Level

FEWEST_STEPS = 100
"""A loss that has not fallen in fewer steps than this says nothing."""
_TOO_SLOW = 0.1
"""Of the usual update ratio: a layer that moves less than this is slow."""
_FRESH = 1.5
_FEWEST_WEIGHTS = 8
LEARNED_BY_HEART = 0.01
"""Training loss, over its first value, that says that the examples are known."""
_RISING = 1.05
_GUESS = 0.7
"""Of the loss of guessing: a loss below this has learned something."""


def barely_moves(run: RunCase) -> bool:
    """Whether the loss has hardly fallen, over enough steps at a learning rate that is not still rising."""
    enough = run.run.last_step - run.run.first_step >= FEWEST_STEPS
    return enough and run.loss_fell < LEARNED and not _warming_up(run)


def too_slow(run: RunCase) -> list[Suspicion]:
    """Weights that are fresh and hardly move, under a loss that hardly falls."""
    trained = [layer for layer in run.layers.values() if layer.layer.window(-1).trainable]
    if not barely_moves(run) or run.last_loss > 1.2 * run.first_loss:
        return []
    if any(float(ALARM[layer.last].mean()) >= run.thresholds.warning_share for layer in run.hidden):
        return []
    peaks = [layer.peak_update(run.run.last_step)[1] for layer in trained]
    moves = [peak for peak in peaks if math.isfinite(peak)]
    guessing = _guessing(run)
    if not moves or max(moves) > _TOO_SLOW * USUAL_UPDATE or guessing is False or not _fresh(trained):
        return []
    largest = max(moves)
    return [
        Suspicion(
            "learning_rate_too_low",
            Level.WARNING if guessing else Level.INFORMATION,
            tuple(layer.name for layer in trained),
            run.run.first_step,
            0.8 if guessing else 0.4,
            (
                f"no layer moves by more than {measured(largest)} of its norm a step (0.001 is usual)",
                f"in {run.run.last_step - run.run.first_step:,} steps the loss has gone from {run.first_loss:.3g} to "
                f"{run.last_loss:.3g}",
            ),
            (
                "fine-tuning, or a run that has converged: the weights are as freshly drawn"
                + (", and the loss is that of guessing" if guessing else ""),
                "a schedule: the learning rate is not still rising",
                "dead or saturated units: there are few",
            ),
            higher_rate(run, largest),
        )
    ]


def memorized(run: RunCase) -> list[Suspicion]:
    """A training loss near zero, in a network of more weights than there are examples. Information, no more."""
    examples = max((layer.layer.window(-1).dataset_examples for layer in run.layers.values()), default=0)
    weights = sum(layer.layer.units * (layer.layer.info.fan_in or 0) for layer in run.layers.values())
    if not 0 < examples < weights or not run.last_loss <= LEARNED_BY_HEART * run.first_loss:
        return []
    return [
        Suspicion(
            "insufficient_data",
            Level.INFORMATION,
            tuple(layer.name for layer in run.hidden),
            None,
            0.3,
            (
                f"the training loss has fallen from {run.first_loss:.3g} to {run.last_loss:.3g}, in a network of "
                f"{weights:,} weights for {count(examples, 'example')}: it may know them by heart",
            ),
            (),
            (
                "compare with the loss on examples that were held out: the training loss alone cannot tell",
                f"if that is far higher: more data than {count(examples, 'example')}, augmentation, dropout, or L1 or "
                "L2 regularization",
            ),
        )
    ]


def _guessing(run: RunCase) -> bool | None:
    """Whether the loss is that of guessing among classes, the logarithm of their number, or higher.

    None where the outputs do not tell how many classes there are.
    """
    classes = [max(layer.layer.units, 2) for layer in run.layers.values() if _is_head(layer)]
    return run.last_loss >= _GUESS * math.log(max(classes)) if classes else None


def _is_head(layer: LayerCase) -> bool:
    info = layer.layer.info
    return info.role == "output" and (info.units > 1 or info.activation_function == "sigmoid")


def _warming_up(run: RunCase) -> bool:
    rates = [record.learning_rate for record in run.run.records if record.learning_rate is not None]
    return len(rates) > 2 and rates[-1] > _RISING * rates[len(rates) // 2]


def _fresh(layers: list[LayerCase]) -> bool:
    """Whether most layers' weights are as drawn: the norms of n independent weights vary by 1 / sqrt(2 n) at most.

    That is the coefficient of variation of a chi distribution, for normal weights; uniform ones vary less. Trained
    weights vary more, as each unit has learned something else.
    """
    known = []
    for layer in layers:
        norms, fan_in = layer.at_start("norm_in"), layer.layer.info.fan_in
        if norms is not None and fan_in and fan_in >= _FEWEST_WEIGHTS and len(norms) >= _FEWEST_WEIGHTS and norms.all():
            known.append(float(np.std(norms) / np.mean(norms)) <= _FRESH / math.sqrt(2 * fan_in))
    return bool(known) and sum(known) > len(known) / 2

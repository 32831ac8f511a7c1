"""Gradients along the depth of a network: none at all, or less and less towards the input."""

from __future__ import annotations

import itertools
import math

import numpy as np

from deadunits_tb.reading.causes.case import FAR_FROM_USUAL, LayerCase, RunCase
from deadunits_tb.reading.causes.progress import barely_moves
from deadunits_tb.reading.causes.remedies import better_start, start_in_words
from deadunits_tb.reading.causes.suspicion import Suspicion
from deadunits_tb.reading.phrases import measured
from deadunits_tb.units import Level, UnitState

VANISHED = 1e-3
"""Error signal of the first layer, over that of the last, that counts as vanished."""
_MONOTONE = 0.7
_FEWEST_LAYERS = 3


def constant_head(run: RunCase) -> list[Suspicion]:
    """An output that cannot vary, so that no layer receives a gradient."""
    heads = [
        layer
        for layer in run.layers.values()
        if layer.layer.info.role == "output"
        and layer.layer.info.activation_function in ("softmax", "log_softmax")
        and layer.layer.units == 1
    ]
    silent = _no_gradient(run)
    if not heads and not silent:
        return []
    layers = tuple(layer.name for layer in heads) or tuple(run.layers)
    head = heads[0].name if heads else "the output layer"
    return [
        Suspicion(
            "constant_output_head",
            Level.ALARM,
            layers,
            run.run.first_step,
            0.99 if heads else 0.6,
            (
                *((f"{name} is a softmax over one unit, whose output is always 1" for name in layers) if heads else ()),
                *(("the gradient is exactly zero in every layer, from the first step on",) if silent else ()),
            ),
            ("dead units: no layer was silent when the gradient was zero already",) if silent else (),
            (
                f"give {head} one unit for each class, or a sigmoid (with a binary loss) in place of softmax",
                *(() if heads else ("make sure that the loss depends on the output of the model, undetached",)),
            ),
        )
    ]


def fading_gradients(run: RunCase) -> list[Suspicion]:
    """Error signals that shrink layer by layer towards the input, while the loss hardly falls."""
    hidden = [layer for layer in run.hidden if layer.layer.info.nonlinear]
    if len(hidden) < _FEWEST_LAYERS or not barely_moves(run):
        return []
    if any(float((layer.last == UnitState.DEAD).mean()) >= 0.5 for layer in hidden):
        return []  # no gradient passes a dead layer: that is another story
    signals = [_last_signal(layer) for layer in hidden]
    if not all(signal > 0 for signal in signals):
        return []
    rising = np.mean([before < after for before, after in itertools.pairwise(signals)])
    ratio = signals[0] / signals[-1]
    if ratio > VANISHED or rising < _MONOTONE:
        return []
    small = [layer for layer in hidden if layer.size_at_start <= 1 / FAR_FROM_USUAL]
    tiny = len(small) > len(hidden) / 2
    ends = (f"{measured(signals[at])} at {hidden[at].name}" for at in (-1, 0))
    story = f"the error signal shrinks from {' to '.join(ends)}"
    fell = f"the loss has fallen by {max(run.loss_fell, 0.0) * 100:.1f} % of its first value"
    functions = sorted({str(layer.layer.info.activation_function) for layer in hidden})
    moved = _last_update(hidden[-1])
    sound = (f"learning rate: {hidden[-1].name} moves by {measured(moved)} a step",) if moved >= 1e-4 else ()
    bounded = any(layer.bounded for layer in hidden)
    other = f"replace {' and '.join(functions)} by ReLU, Leaky ReLU or Parametric ReLU"
    shape = "normalise between the layers (batch or layer normalisation), or add residual connections"
    starts = tuple(sentence for layer in small for sentence in start_in_words(layer))
    return [
        Suspicion(
            "poor_initialization" if tiny else "vanishing_gradient",
            Level.ALARM,
            tuple(layer.name for layer in hidden),
            run.run.first_step,
            0.85,
            (story, fell, *(starts if tiny else ())),
            sound,
            (*(better_start(small[0]) if tiny else ()), *((other,) if bounded else ()), shape)
            if tiny or bounded
            else (shape, *better_start(hidden[0])),
        )
    ]


def _no_gradient(run: RunCase) -> bool:
    """Whether no layer has ever had a gradient, although it was recorded and no layer was silent at first."""
    trained = [layer for layer in run.layers.values() if layer.layer.window(-1).trainable]
    seen = [layer for layer in trained if "gradient" in layer.layer.statistics and layer.layer.info.witness != "none"]
    for layer in seen:
        fired = layer.at_start("active_fraction")
        if fired is None or not fired.any() or layer.layer.statistic("gradient", layer.sample).any():
            return False
    return bool(seen)


def _last_signal(layer: LayerCase) -> float:
    _, medians = layer.medians("gradient")
    return float(np.median(medians[-5:])) if len(medians) else math.nan


def _last_update(layer: LayerCase) -> float:
    _, medians = layer.medians("update_ratio")
    return float(np.median(medians[-5:])) if len(medians) else math.nan

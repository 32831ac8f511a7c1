"""How an optimizer of Keras treats a parameter that gets no gradient: what still moves it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from deadunits_tb.capture.silent_layers import Treatment
from deadunits_tb.taps.keras import private as keras_private

NO_OPTIMIZER = "no optimizer is known that trains it, so what still moves its units is not known"
_AVERAGES = "its optimizer puts averages of the weights in their place from time to time"


def trainers(
    optimizers: Sequence[keras.optimizers.Optimizer], variables: Sequence[keras.Variable | None]
) -> list[keras.optimizers.Optimizer | None] | str:
    """The optimizer that trains each parameter of a layer, None for what is not trained; or why nothing can be said.

    Args:
        optimizers: All that are known.
        variables: The parameters, None for those that there are not.
    """
    found = [None if one is None else keras_private.trainer_of(optimizers, one) for one in variables]
    pairs = list(zip(variables, found, strict=True))
    if any(variable is not None and variable.trainable and one is None for variable, one in pairs):
        return NO_OPTIMIZER
    if any(one is not None and one.use_ema and one.ema_overwrite_frequency for one in found):
        return _AVERAGES
    return found


def treatment(
    optimizer: keras.optimizers.Optimizer | None, variable: keras.Variable | None, pick: Callable[[Any], Any]
) -> Treatment:
    """How some units of a parameter are treated.

    Args:
        optimizer: That trains it, None if none does.
        variable: The parameter, None if there is none.
        pick: Gives ``[..., k]`` of a variable shaped like it.
    """
    if optimizer is None or variable is None:
        return Treatment()
    decays = keras_private.decays(optimizer, variable) or variable.regularizer is not None
    slot = keras_private.optimizer_slots(optimizer, variable).get("momentums")
    if slot is None or tuple(slot.shape) != tuple(variable.shape):
        return Treatment(decays)
    moving = pick(slot) != 0
    return Treatment(decays, _reach(optimizer), moving if moving.ndim == 1 else moving.any(axis=0))


def _reach(optimizer: keras.optimizers.Optimizer) -> float:
    """How many times the last change momentum can still add up to."""
    if isinstance(optimizer, keras.optimizers.Lion):  # goes by the sign, which does not run out
        return math.inf
    kept = getattr(optimizer, "momentum", None)
    if kept is None:  # the step is a mean of gradients over the root of one of their squares, which fades, too
        first, second = getattr(optimizer, "beta_1", 1.0), getattr(optimizer, "beta_2", 1.0)
        kept = first / math.sqrt(second) if second else 1.0
    return float(kept) / (1 - float(kept)) if kept < 1 else math.inf

"""What a Keras optimizer remembers of single weights, set back as if they were new.

Its count of steps is one for all variables and goes on. So second moments of Adam become the mean of those of units
that work, which is what a fresh entry's estimate would be under that count; zeros would make the next steps up to 6.6
times too long (see ``deadunits_tb/revive/torch_optimizer.py``). All else becomes zero, as in a fresh optimizer.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.taps.keras import private as keras_private

Mask = npt.NDArray[np.bool_]
_SUPPORTED = (keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW, keras.optimizers.RMSprop)
_ADAM = frozenset({"velocities", "velocity_hats"})
_AVERAGE = "model_variables_moving_average"


def check_optimizer(optimizer: Any) -> None:
    """Make sure that it is known what an optimizer remembers.

    Raises:
        InvalidArgumentError: It is not.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if inner is not None and not isinstance(inner, _SUPPORTED):
        known = ", ".join(kind.__name__ for kind in _SUPPORTED)
        raise InvalidArgumentError(
            f"it is not known what {type(inner).__name__} remembers of single weights: revival works with {known}"
        )


def forget(optimizer: Any, variable: keras.Variable, new: Mask, peers: Mask) -> None:
    """Set back what an optimizer remembers of some entries of a variable; call it when they have their new values.

    Args:
        optimizer: As :func:`check_optimizer` allows, or None.
        variable: One of its variables; of others nothing is remembered.
        new: Shaped like the variable: the entries that are new.
        peers: Likewise the entries of units that work, which the new ones are likened to.
    """
    if optimizer is None:
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    adam = isinstance(inner, keras.optimizers.Adam)
    for name, slot in keras_private.optimizer_slots(optimizer, variable).items():
        values = keras.ops.convert_to_numpy(slot).copy()
        if name == _AVERAGE:
            values[new] = keras.ops.convert_to_numpy(variable)[new]
        elif adam and name in _ADAM:
            likened = values[peers & ~new]
            values[new] = likened.mean() if likened.size else _typical(inner, name)
        else:
            values[new] = 0
        slot.assign(values)


def shift_average(optimizer: Any, bias: keras.Variable, shift: npt.NDArray[Any]) -> None:
    """Add to the moving average of a bias what was added to the bias."""
    average = {} if optimizer is None else keras_private.optimizer_slots(optimizer, bias)
    if _AVERAGE in average:
        average[_AVERAGE].assign_add(shift)


def _typical(optimizer: Any, name: str) -> float:
    """Mean of a moment over all variables: for a layer in which no unit works."""
    total, count = 0.0, 0
    for variable in keras_private.optimizer_variables(optimizer):
        slot = keras_private.optimizer_slots(optimizer, variable).get(name)
        if slot is not None:
            values = keras.ops.convert_to_numpy(slot)
            total, count = total + float(values.sum(dtype=np.float64)), count + values.size
    return total / count if count else 0.0

"""The words that all other modules share: states, statistics, layers."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Role = Literal["hidden", "output"]
Witness = Literal["pre_activation", "output", "none"]


class Level(enum.IntEnum):
    """How much a state matters to someone who trains."""

    OK = 0
    INFORMATION = 1
    WARNING = 2
    ALARM = 3

    @property
    def label(self) -> str:
        """The name in files and on screen."""
        return self.name.lower()


class UnitState(enum.IntEnum):
    """What a unit does. The values are wire codes: they never change.

    From ``ACTIVE`` to ``NON_FINITE`` the code is also the order of severity.
    """

    ACTIVE = 0
    SPARSE = 1
    DORMANT = 2
    STAGNANT = 3
    DYING = 4
    CONSTANT = 5
    SATURATED = 6
    DISCONNECTED = 7
    DEAD = 8
    NON_FINITE = 9
    UNKNOWN = 10
    FROZEN = 11

    @property
    def label(self) -> str:
        """The name in files and on screen, such as ``"non_finite"``."""
        return self.name.lower()

    @property
    def level(self) -> Level:
        """Alarm, warning, information, or nothing to say."""
        return _LEVELS[self]

    @property
    def flagged(self) -> bool:
        """True for alarms and warnings."""
        return self.level >= Level.WARNING


_LEVELS = {
    UnitState.ACTIVE: Level.OK,
    UnitState.SPARSE: Level.INFORMATION,
    UnitState.DORMANT: Level.WARNING,
    UnitState.STAGNANT: Level.WARNING,
    UnitState.DYING: Level.WARNING,
    UnitState.CONSTANT: Level.ALARM,
    UnitState.SATURATED: Level.ALARM,
    UnitState.DISCONNECTED: Level.ALARM,
    UnitState.DEAD: Level.ALARM,
    UnitState.NON_FINITE: Level.ALARM,
    UnitState.UNKNOWN: Level.INFORMATION,
    UnitState.FROZEN: Level.INFORMATION,
}

STATE_BY_LABEL = {state.label: state for state in UnitState}
FLAGGED = np.array([state.flagged for state in UnitState])
"""``[states]``: whether the state of that code is an alarm or a warning."""
ALARM = np.array([state.level == Level.ALARM for state in UnitState])
"""``[states]``: whether the state of that code is an alarm."""
SEVERITY = np.array([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1], dtype=np.uint8)
"""``[states]``: rank by which the worst of several states is found; unknown and frozen rank lowest."""
BY_SEVERITY = np.argsort(SEVERITY).astype(np.uint8)
"""``[states]``: the state code of each rank in :data:`SEVERITY`."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """One number per unit per record."""

    name: str
    signal: Literal["activation", "gradient", "weight_delta", "weights"]
    meaning: str
    signed: bool = False


STATISTICS: tuple[Statistic, ...] = (
    Statistic("active_fraction", "activation", "share of examples on which the unit fired at any position"),
    Statistic("active_positions", "activation", "share of all positions on which the unit fired"),
    Statistic("mean", "activation", "mean of the unit's output", signed=True),
    Statistic("mean_abs", "activation", "mean absolute value of the unit's output"),
    Statistic("std", "activation", "standard deviation of the unit's output"),
    Statistic("min", "activation", "smallest output of the unit", signed=True),
    Statistic("max", "activation", "largest output of the unit", signed=True),
    Statistic(
        "saturated_fraction",
        "activation",
        "share of positions where the derivative of a bounded activation function is below 1 % of its maximum",
    ),
    Statistic(
        "gradient",
        "gradient",
        "root mean square of the loss gradient at the pre-activation: the error signal that trains the unit",
    ),
    Statistic("weight_gradient", "gradient", "norm of the loss gradient of the incoming weights"),
    Statistic(
        "update_ratio",
        "weight_delta",
        "norm of the change of the incoming weights in one optimizer step, over their norm",
    ),
    Statistic(
        "drift",
        "weight_delta",
        "norm of the change of the incoming weights since the first record, over their first norm",
    ),
    Statistic("norm_in", "weights", "norm of the incoming weights"),
    Statistic("norm_out", "weights", "norm of the outgoing weights, where every consumer of the unit is known"),
)
STATISTIC_BY_NAME = {statistic.name: statistic for statistic in STATISTICS}

LOOKUP = "lookup"
"""In place of an activation function: the units are rows of a table, and fire where they are looked up."""
RELU_LIKE = frozenset({"relu", "relu6", "crelu", "threshold", "squared_relu", LOOKUP})
"""Activation functions whose output is exactly zero where the unit does not fire, with exactly zero gradient."""
BOUNDED = frozenset({"tanh", "sigmoid", "hard_sigmoid", "hard_tanh", "softsign", "relu6"})
"""Activation functions that can saturate at a bound."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """What is known of a layer before its first record, and does not change.

    Attributes:
        name: Unique within the run; the framework's own path of the layer.
        kind: The class, such as ``"Dense"``.
        order: Place in the model, from 0.
        units: How many output features.
        activation_function: Field name such as ``"relu"``; ``"linear"`` for none; None if it could not be found.
        fan_in: Inputs of one unit, None if unknown.
        fan_out: Weights that one unit feeds, None if not every consumer is known.
        role: ``"output"`` where the loss consumes the layer.
        framework: Such as ``"keras/tensorflow"`` or ``"numpy"``.
        witness: Where the recorded gradient was taken. Only at the pre-activation does a zero prove that the error
            signal is gone.
        tokens: True where the positions between examples and units are tokens of a sequence, each a draw of its own.
        weight_delta: How ``update_ratio`` and ``drift`` were measured.
    """

    name: str
    kind: str
    order: int
    units: int
    activation_function: str | None = None
    fan_in: int | None = None
    fan_out: int | None = None
    role: Role = "hidden"
    framework: str = "numpy"
    witness: Witness = "none"
    tokens: bool = False
    weight_delta: Literal["exact", "projection", "none"] = "none"

    @property
    def relu_like(self) -> bool:
        """Whether silence is exactly zero output with exactly zero gradient."""
        return self.activation_function in RELU_LIKE

    @property
    def nonlinear(self) -> bool:
        """Whether an activation function is known, so that firing means something."""
        return self.activation_function not in (None, "linear", "softmax", "log_softmax")


def count_states(states: npt.NDArray[np.uint8]) -> dict[str, int]:
    """Count units by state.

    Args:
        states: ``[units]`` wire codes.

    Returns:
        Label to count, in order of the codes, states without units left out.
    """
    counts = np.bincount(states, minlength=len(UnitState))
    return {state.label: int(counts[state]) for state in UnitState if counts[state]}

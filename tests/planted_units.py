"""Numbers of units that show a state, one such unit beside eight healthy ones, and what the rules find in them."""

import dataclasses

import numpy as np

from deadunits_tb.rates import lately_code, rates_code, reference_code
from deadunits_tb.record import Evidence, Statistics, Window
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, UnitState
from deadunits_tb.verdicts import candidates

T = Thresholds()
HEALTHY = {
    "active_fraction": 0.5,
    "active_positions": 0.5,
    "mean": 0.4,
    "mean_abs": 0.4,
    "std": 0.6,
    "min": 0.0,
    "max": 3.0,
    "gradient": 0.01,
    "update_ratio": 1e-3,
    "norm_in": 1.0,
    "norm_out": 1.0,
}
SILENT = {"active_fraction": 0, "active_positions": 0, "mean": 0, "mean_abs": 0, "std": 0, "max": 0, "gradient": 0}
UNWITNESSED = {name: 0 for name in SILENT if name != "gradient"}
WINDOW = Window(step=1000, first_step=0, wall_time=0.0, examples=1000, positions=1000, observations=10,
                examples_seen=50_000, run_moves=1e-3)  # fmt: skip


def layer(function="relu", **changes):
    return LayerInfo("hidden", "Dense", 0, 9, function, **{"witness": "pre_activation", **changes})


def evidence(units=9, **first):
    """Of units that all fire; ``first`` changes the first one."""
    carried = Evidence.none(units)
    carried = dataclasses.replace(carried, last_active_step=np.full(units, 1000))
    for name, value in first.items():
        column = getattr(carried, name).copy()
        column[0] = value
        carried = dataclasses.replace(carried, **{name: column})
    return carried


def candidate(first=(), *, info=None, window=None, carried=None, t=T, drop=(), **columns):
    """The candidate of a unit with the numbers ``first`` among eight healthy ones."""
    values = {name: np.full(9, value) for name, value in {**HEALTHY, **columns}.items() if name not in drop}
    for name, value in dict(first).items():
        values[name] = values.get(name, np.zeros(9)).copy()
        values[name][0] = value
    window = dataclasses.replace(WINDOW, **(window or {}))
    found = candidates(info or layer(), window, Statistics.of(values, 9), evidence(**(carried or {})), t)
    assert (found[1:] == found[1]).all()
    return UnitState(found[0])


QUIET = {"examples_since_active": 3000, "examples_without_signal": 3000, "last_active_step": 700}
REFERENCE = int(reference_code(np.array([0.5]))[0])
AT_5_PERCENT = int(reference_code(np.array([0.05]))[0])  # rounded down to 4.4 %
SMALL = {"examples": 64}
AT_BOUND = {"active_fraction": 1, "saturated_fraction": 0.953125, "mean": 0.999, "min": 0.99, "max": 1.0, "std": 0.002}


def recently(rate, reference=1):
    """What a unit carries that fires at this rate of late."""
    return reference + int(rates_code(np.zeros(1), np.array([rate]))[0])


def lately(*, size=0.0, low_examples=0, low_fired=0):
    """What it carries beside these rates: its recent size, and the examples since its rate fell."""
    return int(lately_code(*(np.array([value]) for value in (size, low_examples, low_fired)))[0])


def just_below(value):
    """The next smaller number that a record can hold."""
    return float(np.float32(value)) * (1 - 2**-7)

"""Both sides of every boundary that the rules draw."""

import math

import pytest

from deadunits_tb.record import NEVER
from deadunits_tb.units import UnitState
from planted_units import (
    AT_5_PERCENT,
    AT_BOUND,
    QUIET,
    REFERENCE,
    SILENT,
    SMALL,
    UNWITNESSED,
    candidate,
    just_below,
    lately,
    layer,
    recently,
)

S = UnitState
TOKENS = {"examples_since_active": 1000, "examples_without_signal": 1000, "tokens_since_active": 2_000_000,
          "observations_since_active": 100}  # fmt: skip
NOT_FIRED = {"active_fraction": 0, "mean": 0, "mean_abs": 0}
ONE_IN_EIGHT = {"active_fraction": 0.125, "mean_abs": 0.1}
LARGE = lately(size=0.5)
FIRED_ONCE = {"first": {"active_fraction": 1 / 64}, "window": SMALL}
BOUNDARIES = {
    "sparse: fires on fewer than 1 % of the recent examples": (
        S.SPARSE,
        {"first": {"active_fraction": 0.03}, "carried": {"reference": recently(0.006)}},
        {"first": {"active_fraction": 0.0}, "carried": {"reference": recently(0.008)}},
    ),
    "sparse: not by chance": (
        S.SPARSE,
        {"first": {"active_fraction": 0.0}, "window": {"examples_seen": 299}},
        {"first": {"active_fraction": 0.0}, "window": {"examples_seen": 298}},
    ),
    "sparse: its recent rate is known where it fires on fewer than a tenth of a window": (
        S.SPARSE,
        {"first": {"active_fraction": just_below(0.1)}},
        {"first": {"active_fraction": 0.1}},
    ),
    "dying: of the recent examples": (
        S.DYING,
        {"first": {"active_fraction": 0.0}, "carried": {"reference": recently(0.004, REFERENCE)}, "window": SMALL},
        {"first": {"active_fraction": 0.0}, "carried": {"reference": recently(0.004, AT_5_PERCENT)}, "window": SMALL},
    ),
    "dead: 3,000 silent examples": (
        S.DEAD,
        {"first": SILENT, "carried": QUIET},
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 2999}},
    ),
    "dead: 3,000 examples without error signal": (
        S.DEAD,
        {"first": SILENT, "carried": QUIET},
        {"first": SILENT, "carried": {**QUIET, "examples_without_signal": 2999}},
    ),
    "dead on silence alone where no gradient was recorded": (
        S.DEAD,
        {"first": UNWITNESSED, "carried": {**QUIET, "examples_without_signal": 0}, "drop": ["gradient"]},
        {"first": SILENT, "carried": {**QUIET, "examples_without_signal": 0}},
    ),
    "dead on silence alone where the gradient is no witness": (
        S.DEAD,
        {"first": SILENT, "carried": {**QUIET, "examples_without_signal": 0}, "info": layer(witness="output")},
        {"first": SILENT, "carried": {**QUIET, "examples_without_signal": 0}},
    ),
    "dead: twice a small data set": (
        S.DEAD,
        {
            "first": SILENT,
            "carried": {**QUIET, "examples_since_active": 400},
            "window": {"dataset_examples": 200, "contiguous_examples": 400},
        },
        {
            "first": SILENT,
            "carried": {**QUIET, "examples_since_active": 400},
            "window": {"dataset_examples": 200, "contiguous_examples": 399},
        },
    ),
    "dead: twice a data set below 256 examples is too little": (
        S.DEAD,
        {
            "first": SILENT,
            "carried": {**QUIET, "examples_since_active": 256},
            "window": {"dataset_examples": 100, "contiguous_examples": 999},
        },
        {
            "first": SILENT,
            "carried": {**QUIET, "examples_since_active": 255},
            "window": {"dataset_examples": 100, "contiguous_examples": 999},
        },
    ),
    "dead: a million tokens": (
        S.DEAD,
        {"info": layer(tokens=True), "first": SILENT, "carried": {**TOKENS, "tokens_since_active": 1_000_000}},
        {"info": layer(tokens=True), "first": SILENT, "carried": {**TOKENS, "tokens_since_active": 999_999}},
    ),
    "dead: tokens of a hundred observations": (
        S.DEAD,
        {"info": layer(tokens=True), "first": SILENT, "carried": TOKENS},
        {"info": layer(tokens=True), "first": SILENT, "carried": {**TOKENS, "observations_since_active": 99}},
    ),
    "dead: tokens count in token models only": (
        S.DEAD,
        {"info": layer(tokens=True), "first": SILENT, "carried": TOKENS},
        {"first": SILENT, "carried": TOKENS},
    ),
    "dead: only a part of the silent tokens was without signal": (
        S.DEAD,
        {"info": layer(tokens=True), "first": SILENT, "carried": {**TOKENS, "examples_without_signal": 500}},
        {"info": layer(tokens=True), "first": SILENT, "carried": {**TOKENS, "examples_without_signal": 499}},
    ),
    "saturated: on 95 % of positions": (
        S.SATURATED,
        {"first": AT_BOUND, "info": layer("tanh")},
        {"first": {**AT_BOUND, "saturated_fraction": just_below(0.95)}, "info": layer("tanh")},
    ),
    "saturated: an output layer may be": (
        S.SATURATED,
        {"first": AT_BOUND, "info": layer("sigmoid")},
        {"first": AT_BOUND, "info": layer("sigmoid", role="output")},
    ),
    "constant: a spread of 1e-4 of the layer's scale": (
        S.CONSTANT,
        {"first": {"active_fraction": 1, "mean": 0.5, "std": 5e-5, "min": 0.5, "max": 0.5}},
        {"first": {"active_fraction": 1, "mean": 0.5, "std": 5e-4, "min": 0.498, "max": 0.504}},
    ),
    "constant: a rare excursion is no constancy": (
        S.CONSTANT,
        {"first": {"active_fraction": 1, "mean": 0.5, "std": 0, "min": 0.5, "max": 0.5}},
        {"first": {"active_fraction": 1, "mean": 0.5, "std": 1e-5, "min": 0.5, "max": 0.6}},
    ),
    "constant: over eight positions": (
        S.CONSTANT,
        {"first": {"active_fraction": 1, "std": 0, "min": 0.4, "max": 0.4}, "window": {"positions": 8}},
        {"first": {"active_fraction": 1, "std": 0, "min": 0.4, "max": 0.4}, "window": {"positions": 7}},
    ),
    "constant at zero where there is no activation function": (
        S.CONSTANT,
        {"first": {**SILENT, "min": 0}, "info": layer("linear")},
        {"first": {**SILENT, "min": 0}},
    ),
    "dying: nine tenths of its own rate": (
        S.DYING,
        {"first": {"active_fraction": 0.002}, "carried": {"reference": AT_5_PERCENT}, "window": {"examples": 20_000}},
        {"first": {"active_fraction": 0.0045}, "carried": {"reference": AT_5_PERCENT}, "window": {"examples": 10**6}},
    ),
    "dying: not by chance": (
        S.DYING,
        {"first": {"active_fraction": 0}, "carried": {"reference": REFERENCE}, "window": {"examples": 256}},
        {"first": {"active_fraction": 0}, "carried": {"reference": REFERENCE}, "window": {"examples": 128}},
    ),
    "dying: silent for 256 examples since the start": (
        S.DYING,
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 256, "last_active_step": NEVER}},
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 255, "last_active_step": NEVER}},
    ),
    "dying: silent for longer than its own rate allows": (
        S.DYING,
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 300, "reference": REFERENCE}},
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 300, "reference": REFERENCE + 8}},
    ),
    "stagnant: an update ratio below 1e-8": (
        S.STAGNANT,
        {"first": {"update_ratio": just_below(1e-8)}},
        {"first": {"update_ratio": 1.01e-8}},
    ),
    "stagnant: in a run where other weights move": (
        S.STAGNANT,
        {"first": {"update_ratio": 0}, "window": {"run_moves": 1.1e-8}},
        {"first": {"update_ratio": 0}, "window": {"run_moves": 1e-8}},
    ),
    "stagnant: in a run whose movement is known": (
        S.STAGNANT,
        {"first": {"update_ratio": 0}},
        {"first": {"update_ratio": 0}, "window": {"run_moves": math.nan}},
    ),
    "stagnant: a unit that fired": (
        S.STAGNANT,
        {"first": {"update_ratio": 0}},
        {"first": {"update_ratio": 0, "active_fraction": 0}},
    ),
    "disconnected: every outgoing weight zero": (
        S.DISCONNECTED,
        {"first": {"norm_out": 0}},
        {"first": {"norm_out": 1e-30}},
    ),
    "disconnected: it fires": (
        S.DISCONNECTED,
        {"first": {"norm_out": 0}},
        {"first": {"norm_out": 0, "active_fraction": 0}},
    ),
    "dormant: 2.5 % of the layer's mean": (
        S.DORMANT,
        {"first": {"mean_abs": 0.0088}},
        {"first": {"mean_abs": 0.0092}},
    ),
    "dormant: a record in which it did not fire says nothing, so the recent size is asked": (
        S.DORMANT,
        {"first": NOT_FIRED, "carried": {"reference": recently(0.02) + lately(size=0.02)}, "window": SMALL},
        {"first": NOT_FIRED, "carried": {"reference": recently(0.02) + lately(size=0.03)}, "window": SMALL},
    ),
    "dormant: a record in which it did not fire, of a unit whose recent size is not known": (
        S.DORMANT,
        {"first": NOT_FIRED, "carried": {"reference": recently(0.02) + lately(size=0.02)}, "window": SMALL},
        {"first": NOT_FIRED, "carried": {"reference": recently(0.02)}, "window": SMALL},
    ),
    "dormant: a record with ten firings tells the size": (
        S.DORMANT,
        {"first": {"active_fraction": 0.01, "mean_abs": 0.001}, "carried": {"reference": recently(0.02) + LARGE}},
        {"first": {"active_fraction": 0.009, "mean_abs": 0.001}, "carried": {"reference": recently(0.02) + LARGE}},
    ),
    "dormant: one firing in a record of eight is not large": (
        S.DORMANT,
        {
            "first": ONE_IN_EIGHT,
            "carried": {"reference": recently(0.02) + lately(size=0.02)},
            "window": {"examples": 8},
        },
        {"first": ONE_IN_EIGHT, "window": {"examples": 8}},
    ),
    "dormant: no ReLU that may fire on fewer than 1 % of the recent examples": (
        S.DORMANT,
        {"first": {"active_fraction": 0.02, "mean_abs": 0.001}, "carried": {"reference": recently(0.014)}},
        {"first": {"active_fraction": 0.02, "mean_abs": 0.001}, "carried": {"reference": recently(0.012)}},
    ),
    "dormant: other functions may be small and rare": (
        S.DORMANT,
        {"first": NOT_FIRED, "carried": {"reference": recently(0.02)}, "window": SMALL, "info": layer("tanh")},
        {"first": NOT_FIRED, "carried": {"reference": recently(0.02)}, "window": SMALL},
    ),
    "dying: since its rate fell, on enough examples": (
        S.DYING,
        {**FIRED_ONCE, "carried": {"reference": recently(0.2, REFERENCE) + lately(low_examples=400, low_fired=1)}},
        {**FIRED_ONCE, "carried": {"reference": recently(0.2, REFERENCE) + lately(low_examples=200, low_fired=1)}},
    ),
    "dying: since its rate fell, on fewer than 1 % of them": (
        S.DYING,
        {**FIRED_ONCE, "carried": {"reference": recently(0.2, REFERENCE) + lately(low_examples=6000, low_fired=50)}},
        {**FIRED_ONCE, "carried": {"reference": recently(0.2, REFERENCE) + lately(low_examples=6000, low_fired=62)}},
    ),
    "dying: silent at the end of a record in which it fired often": (
        S.DYING,
        {"first": SILENT, "carried": {**QUIET, "examples_since_active": 300, "reference": REFERENCE}},
        {"first": {"active_fraction": 0.1}, "carried": {**QUIET, "examples_since_active": 300}},
    ),
    "unknown: fewer than 256 examples": (
        S.UNKNOWN,
        {"window": {"examples_seen": 255}},
        {"window": {"examples_seen": 256}},
    ),
}


@pytest.mark.parametrize("rule", BOUNDARIES)
def test_both_sides_of_every_boundary(rule):
    state, inside, outside = BOUNDARIES[rule]
    assert candidate(**inside) == state
    assert candidate(**outside) != state

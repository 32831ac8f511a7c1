"""Every threshold has its source and its bounds, and says what is wrong with a value."""

import dataclasses
import math

import pytest

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.thresholds import PRESETS, SPECS, Thresholds


@pytest.mark.parametrize("name", SPECS)
def test_every_threshold_is_explained_and_its_default_is_within_its_bounds(name):
    spec = SPECS[name]
    assert spec["low"] <= spec["default"] <= spec["high"]
    assert spec["acts"] in ("judging", "writing")
    for text in ("meaning", "source", "unit"):
        assert spec[text], text
    if name in ("unknown_examples", "dead_examples", "warning_share", "alarm_share"):
        return  # each of these bounds another
    for bound in ("low", "high"):
        assert getattr(Thresholds(**{name: spec[bound]}), name) == spec[bound]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("value", [math.nan, math.inf, "many", None, True, [1]])
def test_a_value_that_is_no_finite_number_is_refused(name, value):
    with pytest.raises(InvalidArgumentError, match=f"threshold {name} must be a finite number"):
        Thresholds(**{name: value})


@pytest.mark.parametrize("name", SPECS)
def test_a_value_out_of_bounds_is_refused(name):
    spec = SPECS[name]
    for value in (spec["low"] - 1, spec["high"] * 2):
        with pytest.raises(InvalidArgumentError, match=f"threshold {name} must be between"):
            Thresholds(**{name: value})


def test_counts_must_be_whole_and_are_kept_as_integers():
    with pytest.raises(InvalidArgumentError, match="threshold dead_examples counts examples and must be whole"):
        Thresholds(dead_examples=3000.5)
    assert isinstance(Thresholds(dead_examples=4000.0).dead_examples, int)
    assert isinstance(Thresholds(dormant_share=0).dormant_share, float)


def test_thresholds_that_contradict_one_another_are_refused():
    with pytest.raises(InvalidArgumentError, match="must not be below unknown_examples"):
        Thresholds(dead_examples=100)
    with pytest.raises(InvalidArgumentError, match="must not be below warning_share"):
        Thresholds(alarm_share=0.1)
    assert Thresholds(dead_examples=100, unknown_examples=100).dead_examples == 100


def test_replacing_leaves_the_original_alone():
    before = Thresholds()
    after = before.replace(dying_share=0.02)
    assert (before.dying_share, after.dying_share) == (0.01, 0.02)
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.dying_share = 0.03
    with pytest.raises(UnknownNameError, match="Did you mean 'dead_examples'"):
        before.replace(dead_example=3)


def test_they_go_through_a_mapping_and_back():
    changed = Thresholds(dead_examples=5000, stagnant_ratio=1e-9)
    assert Thresholds.from_dict(changed.to_dict()) == changed
    assert list(changed.to_dict()) == list(SPECS)
    assert Thresholds.from_dict({}) == Thresholds()
    with pytest.raises(UnknownNameError):
        Thresholds.from_dict({"dead_pixels": 1})


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset):
    assert (
        Thresholds().replace(**PRESETS[preset]).to_dict() | PRESETS[preset]
        == Thresholds().replace(**PRESETS[preset]).to_dict()
    )

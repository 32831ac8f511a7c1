"""Every state has its sentence, the numbers in it are true, and they are the ones that decided."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadunits_tb.rates import lately_code, recent_code, reference_code
from deadunits_tb.reading.explanation import Explainer, Explanation, explain
from deadunits_tb.reading.phrases import count, listing, measured, percent, percent_bound, printable
from deadunits_tb.record import Evidence, Memory, Statistics, Window
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, UnitState
from deadunits_tb.verdicts import candidates
from simulated_lives import lives

INFO = LayerInfo("hidden", "Dense", 0, 9, "relu", witness="pre_activation")
WINDOW = Window(step=1000, first_step=0, wall_time=0.0, examples=6400, positions=6400, observations=10,
                examples_seen=500_000, run_moves=1e-3)  # fmt: skip
HEALTHY = {"active_fraction": 0.5, "active_positions": 0.5, "mean": 0.5, "mean_abs": 0.5, "std": 0.5, "min": 0.0,
           "max": 3.0, "saturated_fraction": 0.0, "gradient": 0.01, "update_ratio": 1e-3, "norm_out": 1.0}  # fmt: skip
SILENT = {"active_fraction": 0, "mean": 0, "mean_abs": 0, "std": 0, "max": 0, "gradient": 0}
RATE_2_PERCENT = int(recent_code(np.array([0.02]))[0])
LATELY_SMALL, LATELY_LOW = (
    int(lately_code(*(np.array([value]) for value in numbers))[0]) for numbers in ((0.0157, 0, 0), (0, 1024, 2))
)


def said(
    state: UnitState,
    first: dict[str, float] | None = None,
    *,
    info: LayerInfo = INFO,
    window: Window = WINDOW,
    without: str = "",
    memory: Memory | None = None,
    **evidence: float,
) -> Explanation:
    """The explanation of the first of nine units; the others are healthy."""
    columns = {name: np.full(9, float(value)) for name, value in HEALTHY.items() if name != without}
    for name, value in (first or {}).items():
        if name != without:
            columns[name][0] = value
    carried = dataclasses.replace(Evidence.none(9), last_active_step=np.full(9, 1000))
    for name, value in evidence.items():
        column = getattr(carried, name).copy()
        column[0] = value
        carried = dataclasses.replace(carried, **{name: column})
    statistics = Statistics.of(columns, 9)
    return explain(info, window, statistics, carried, memory, state, 0, Thresholds())


def silence(examples: int, signal: int | None = None, last: int = 200) -> dict[str, float]:
    """Evidence of a unit that has been silent for so many examples, and without error signal for so many of them."""
    return {
        "examples_since_active": examples,
        "tokens_since_active": 50 * examples,
        "observations_since_active": examples // 64,
        "examples_without_signal": examples if signal is None else signal,
        "last_active_step": last,
    }


S = UnitState
CASES = {
    "dead": (
        said(S.DEAD, SILENT, **silence(51_200)),
        "did not fire on the last 51,200 examples and received no error signal: with 95 % confidence it fires on fewer "
        "than 0.006 % of examples",
    ),
    "dead since the start": (
        said(S.DEAD, SILENT, **silence(500_000, last=-1)),
        "did not fire on the last 500,000 examples and received no error signal: with 95 % confidence it fires on "
        "fewer than 0.0006 % of examples; it has never fired since training began",
    ),
    "dead, signal ended later": (
        said(S.DEAD, SILENT, **silence(51_200, 4000)),
        "did not fire on the last 51,200 examples and received no error signal on the last 4,000 of them: with 95 % "
        "confidence it fires on fewer than 0.006 % of examples",
    ),
    "dead without witness": (
        said(S.DEAD, SILENT, without="gradient", **silence(3000, 0)),
        "did not fire on the last 3,000 examples (silence alone: no gradient was recorded): with 95 % confidence it "
        "fires on fewer than 0.1 % of examples",
    ),
    "dead, gradient of the output": (
        said(S.DEAD, SILENT, info=dataclasses.replace(INFO, witness="output"), **silence(3000, 0)),
        "did not fire on the last 3,000 examples (silence alone: the gradient was recorded at the output, where zero "
        "proves nothing): with 95 % confidence it fires on fewer than 0.1 % of examples",
    ),
    "dead by tokens": (
        said(
            S.DEAD,
            SILENT,
            info=dataclasses.replace(INFO, tokens=True),
            **(silence(2000) | {"tokens_since_active": 1.2e6, "observations_since_active": 130}),
        ),
        "did not fire on the last 2,000 examples (1,200,000 tokens) and received no error signal: with 95 % confidence "
        "it fires on fewer than 0.2 % of examples",
    ),
    "dead after a pass": (
        said(
            S.DEAD,
            SILENT,
            window=dataclasses.replace(WINDOW, dataset_examples=300, contiguous_examples=5000),
            **silence(700),
        ),
        "did not fire on the last 700 examples and received no error signal, a complete pass over the 300 examples of "
        "the data set among them: with 95 % confidence it fires on fewer than 0.5 % of examples",
    ),
    "dying, rare": (
        said(S.DYING, {"active_fraction": 0.002}, reference=int(reference_code(np.array([0.125]))[()][0])),
        "fired on 0.2 % of the last 6,400 examples, once it fired on about 12.5 % of them: chance alone explains "
        "that with a probability of at most 7e-20",
    ),
    "dying, silent": (
        said(S.DYING, SILENT, **silence(1280), reference=1),
        "did not fire on the last 1,280 examples and received no error signal, once it fired on about 100 % of them; "
        "3,000 are needed to call it dead",
    ),
    "sparse": (
        said(S.SPARSE, {"active_fraction": 0.004}, reference=256 * int(recent_code(np.array([0.0044]))[0])),
        "fired on about 0.5 % of the last 6,000 examples or so: seldom, but no loss against its earlier rate that "
        "chance could not explain",
    ),
    "dormant": (said(S.DORMANT, {"mean_abs": 0.004}), "its mean absolute output is 0.9 % of the layer's mean"),
    "dormant, rare": (
        said(S.DORMANT, {"active_fraction": 0, "mean_abs": 0}, reference=256 * RATE_2_PERCENT + LATELY_SMALL),
        "fires so seldom that a record says little of its size; of late its mean absolute output is about 1.6 % of the "
        "layer's mean",
    ),
    "dying, since its rate fell": (
        said(S.DYING, {"active_fraction": 0.02}, reference=1 + LATELY_LOW),
        "fired on 0.2 % of the last 1,024 examples, once it fired on about 100 % of them: chance alone explains that "
        "with a probability of at most 3.3e-43",
    ),
    "stagnant": (
        said(S.STAGNANT, {"update_ratio": 1e-9}),
        "its weights changed by 1e-09 of their norm in one optimizer step, while others of the run change by up to "
        "0.001",
    ),
    "stagnant for good": (
        said(S.STAGNANT, {"update_ratio": 0}),
        "its weights did not change at all in one optimizer step, while others of the run change by up to 0.001",
    ),
    "constant": (
        said(S.CONSTANT, {"std": 0, "min": 3.3, "max": 3.3, "mean": 3.3, "active_fraction": 1}),
        "its output is 3.3 on the last 6,400 positions, whatever the input",
    ),
    "saturated": (
        said(S.SATURATED, {"saturated_fraction": 0.99}, info=dataclasses.replace(INFO, activation_function="tanh")),
        "at a bound of tanh on 98.8 % of the last 6,400 positions, where hardly any gradient passes",
    ),
    "disconnected": (
        said(S.DISCONNECTED, {"norm_out": 0}),
        "fires on 50 % of the last 6,400 examples, but its outgoing weights are all zero, while others of the run "
        "change by up to 0.001 in one step",
    ),
    "non-finite": (
        said(S.NON_FINITE, {"mean": math.nan, "max": math.inf}),
        "mean is NaN and max is infinity",
    ),
    "unknown": (
        said(S.UNKNOWN, window=dataclasses.replace(WINDOW, examples_seen=128)),
        "only 128 examples seen so far; a verdict needs 256",
    ),
    "unknown, nothing recorded": (said(S.UNKNOWN, without="active_fraction"), "its activation was not recorded"),
    "frozen": (
        said(S.FROZEN, window=dataclasses.replace(WINDOW, trainable=False)),
        "its weights are not trainable, so it is not judged",
    ),
    "active": (said(S.ACTIVE), "fired on 50 % of the last 6,400 examples"),
    "active, linear": (
        said(S.ACTIVE, info=dataclasses.replace(INFO, activation_function="linear")),
        "its output went from 0 to 3 on the last 6,400 examples",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_sentence(case: str) -> None:
    explanation, sentence = CASES[case]
    assert explanation.why == sentence
    assert all(number.holds for number in explanation.numbers)
    needs_numbers = {s.label for s in UnitState} - {"non_finite", "frozen", "unknown", "active"}
    assert explanation.numbers or explanation.rule not in needs_numbers


def test_every_state_has_a_sentence() -> None:
    assert {explanation.rule for explanation, _ in CASES.values()} == {state.label for state in UnitState}


def test_the_numbers_name_the_thresholds_that_decided() -> None:
    (number,) = CASES["dead"][0].numbers
    assert (number.name, number.value, number.comparison, number.threshold, number.threshold_name) == (
        "examples without firing and without error signal", 51_200, "at least", 3000, "dead_examples",
    )  # fmt: skip
    assert [n.threshold_name for n in CASES["dead by tokens"][0].numbers] == ["dead_tokens", "dead_observations"]
    assert [n.threshold for n in CASES["dead after a pass"][0].numbers] == [600, 256]
    assert [n.threshold_name for n in CASES["dying, rare"][0].numbers] == [
        "dying_share", "dying_loss", "dying_significance",
    ]  # fmt: skip


def test_the_upper_bound_is_the_rule_of_three_for_silence() -> None:
    dead = CASES["dead"][0]
    assert dead.rate_upper_bound == 3 / 51_200
    assert dead.examples == 51_200
    assert said(S.DYING, SILENT, **silence(2)).rate_upper_bound == 1
    assert CASES["active, linear"][0].rate_upper_bound is None


@pytest.mark.parametrize("rate", [0.003, 0.05, 0.4, 0.97])
def test_the_upper_bound_of_a_unit_that_fires_covers_its_rate(rate: float) -> None:
    """Of many windows at a known rate, about 5 % may give a bound below it."""
    random = np.random.default_rng(0)
    window = dataclasses.replace(WINDOW, examples=1000)
    bounds = [
        said(S.ACTIVE, {"active_fraction": hits / 1000}, window=window, **silence(0 if hits else 1000))
        for hits in random.binomial(1000, rate, 300)
    ]
    covered = np.mean([(bound.rate_upper_bound or 0) >= rate for bound in bounds])
    assert 0.91 <= covered <= (0.99 if rate > 0.01 else 1)  # few hits are coarse


def test_born_dead_needs_the_first_step() -> None:
    assert CASES["dead since the start"][0].born is True
    assert CASES["dead"][0].born is False
    resumed = dataclasses.replace(WINDOW, from_start=False)
    explanation = said(S.DEAD, SILENT, window=resumed, **silence(51_200, last=-1))
    assert explanation.born is None
    assert "never fired" not in explanation.why


def test_a_state_that_waits_is_said_with_how_many_records_agree() -> None:
    memory = Memory.none(9, 0)
    memory = dataclasses.replace(memory, state=np.zeros(9, np.int64), pending=np.zeros(9, np.int64))
    explanation = said(S.ACTIVE, {"norm_out": 0}, memory=memory)
    assert explanation.why == (
        "fired on 50 % of the last 6,400 examples; this record alone says disconnected, for which 1 of 2 records over "
        "256 examples must agree"
    )
    assert "for which 2 records" in said(S.ACTIVE, {"norm_out": 0}).why


def test_a_state_held_against_the_numbers_of_this_record_claims_none() -> None:
    explanation = said(S.SPARSE, {"active_fraction": 0.5, "norm_out": 0})
    assert explanation.why.startswith("was found sparse at earlier records; this record alone says disconnected")
    assert explanation.numbers == ()


def test_without_statistics_the_counters_still_explain_a_death() -> None:
    carried = Evidence.none(1)
    carried = dataclasses.replace(carried, **{name: np.array([value]) for name, value in silence(51_200).items()})
    explainer = Explainer(dataclasses.replace(INFO, units=1), WINDOW, None, carried, None, Thresholds())
    assert explainer.explain(S.DEAD, 0).why == CASES["dead"][1]
    assert explainer.explain(S.DORMANT, 0).why == "was found dormant from statistics that were not kept, to save bytes"


@settings(max_examples=15, deadline=None)
@given(
    function=st.sampled_from(["relu", "tanh", "gelu", "linear", None]),
    role=st.sampled_from(["hidden", "output"]),
    witness=st.sampled_from(["pre_activation", "output", "none"]),
    tokens=st.booleans(),
    seed=st.integers(0, 2**32),
    dataset=st.sampled_from([0, 300]),
)
def test_what_is_said_of_any_unit_is_true(function, role, witness, tokens, seed, dataset) -> None:  # type: ignore[no-untyped-def]
    info = LayerInfo("layer", "Dense", 0, 24, function, role=role, witness=witness, tokens=tokens)
    thresholds = Thresholds(dead_examples=700, unknown_examples=50)
    for record in lives(info, thresholds, seed, dataset=dataset):
        assert record.statistics is not None
        alone = candidates(info, record.window, record.statistics, record.evidence, thresholds)
        explainer = Explainer(info, record.window, record.statistics, record.evidence, record.memory, thresholds)
        for unit, code in enumerate(record.states.tolist()):
            found = explainer.explain(UnitState(code), unit)
            assert found.rule == UnitState(code).label
            assert all(number.holds for number in found.numbers), found
            assert not re.search(r"\b(nan|NaN|undefined)\b", found.why) or code == UnitState.NON_FINITE
            if alone[unit] == code:
                assert "earlier records" not in found.why
            assert found.rate_upper_bound is None or 0 < found.rate_upper_bound <= 1
            assert found.examples >= 0


def test_phrases() -> None:
    assert [percent(share) for share in (0, 1, 0.5, 0.1234, 0.006286, 6e-5, 0.9999, 1e-14)] == [
        "0 %", "100 %", "50 %", "12.3 %", "0.6 %", "0.006 %", "over 99.9 %", "1e-12 %",
    ]  # fmt: skip
    assert [percent_bound(share) for share in (3 / 51_200, 0.001, 0.0123, 1)] == ["0.006 %", "0.1 %", "1.3 %", "100 %"]
    assert [measured(v) for v in (0.012345, 1234567.0, 51_200, 4.1e-9, math.inf, -math.inf, math.nan, 1234.5)] == [
        "0.012", "1.2e+06", "51,200", "4.1e-09", "infinity", "minus infinity", "NaN", "1,234",
    ]  # fmt: skip
    assert [listing(list("abcdefg"[:n])) for n in (0, 1, 2, 3, 7)] == [
        "", "a", "a and b", "a, b and c", "a, b, c, d, e and 2 more",
    ]  # fmt: skip
    assert [count(1, "unit"), count(2000, "unit"), count(2, "directory", "directories")] == [
        "1 unit", "2,000 units", "2 directories",
    ]  # fmt: skip
    assert printable("é ☠ a\x1b[31m\n\u202e") == "é ☠ a\\x1b[31m\\n\\u202e"

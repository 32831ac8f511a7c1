"""What is proved of arrays: the bound is attained and never passed, and what moves a unit is told apart."""

from __future__ import annotations

import dataclasses
import io
import itertools
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from rich.console import Console

from deadunits_tb import DeadUnitsWriter
from deadunits_tb.capture.array_ranges import ArrayRanges, InputRanges
from deadunits_tb.capture.certificates import Affine, Normalisation, Part, Terms, certificates
from deadunits_tb.certificate import Certainty, Certificates, Mover, round_up
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.metadata import UNIT_BLOCK
from deadunits_tb.reading.certainty import Prover, certainties
from deadunits_tb.reading.history import LayerHistory
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.reading.report import print_report, report
from deadunits_tb.units import UnitState
from event_files import rewrite, simulated, write_run

numbers = st.floats(-100, 100, width=32)


@given(
    st_numpy.arrays(np.float32, (4, 3), elements=numbers),
    st_numpy.arrays(np.float32, (2, 4), elements=numbers),
    st_numpy.arrays(np.float32, 3, elements=numbers),
)
@settings(max_examples=60)
def test_the_bound_is_the_highest_of_all_corners(weights: Any, ends: Any, bias: Any) -> None:
    low, high = ends.min(axis=0).astype(float), ends.max(axis=0).astype(float)
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
    highest = (corners @ weights.astype(float) + bias).max(axis=0)
    terms = Terms.of(weights, low, high, bias)
    exact = Affine(terms).bound(0.0)
    np.testing.assert_allclose(exact, highest, atol=1e-9)
    held = certificates(np.arange(3), None, Affine(terms), (), rounding=1e-6, precision=1e-7, step=0, since=0,
                        observations=1)  # fmt: skip
    assert (held.bound >= exact).all()


@given(
    st_numpy.arrays(np.float64, (6, 2), elements=st.floats(-3, 3)),
    st_numpy.arrays(np.float64, (2, 5), elements=st.floats(0, 1)),
)
@settings(max_examples=60)
def test_behind_a_normalisation_the_bound_holds_for_all_statistics_within_their_ranges(ends: Any, at: Any) -> None:
    lower, upper = ends[:2].min(axis=0), ends[:2].max(axis=0)
    mean_low, mean_high = ends[2:4].min(axis=0), ends[2:4].max(axis=0)
    inverse_low, inverse_high = np.array([0.5, 1.0]), np.array([2.0, 1.0])
    scale, shift = ends[4], ends[5]
    zeros = np.zeros(2)
    norm = Normalisation(scale, shift, mean_low, mean_high, inverse_low, inverse_high)
    bound = Affine(Terms(upper, lower, zeros, zeros), norm).bound(0.0)
    seen = []
    for z, mean, inverse in itertools.product(*[[0.0, 1.0, *row] for row in (at[0], at[1], at[0])]):
        value = lower + z * (upper - lower) - (mean_low + mean * (mean_high - mean_low))
        seen.append(value * (inverse_low + inverse * (inverse_high - inverse_low)) * scale + shift)
    assert (np.array(seen) <= bound + 1e-12).all()
    np.testing.assert_allclose(np.max(seen, axis=0), bound, atol=1e-4)


def moved(weights: Any, bias: Any, parts: tuple[str, ...], **settings: Any) -> tuple[Mover, float]:
    """What one step from weights ``[1, -2]`` and a bias of -3, on inputs from 0 to 2, is taken for."""
    low, high = np.zeros(2), np.full(2, 2.0)
    one, other = (
        Affine(Terms.of(np.array([w], np.float32).T, low, high, np.array([b])))
        for w, b in (((1.0, -2.0), -3.0), (weights, bias))
    )
    told = [
        Part(np.array([part in parts]), settings.get("decays", False), np.array([settings.get("momentum", False)]),
             settings.get("reach", 0.0), bias=part == "bias")
        for part in ("weights", "bias")
    ]  # fmt: skip
    held = certificates(
        np.arange(1), one, other, told, rounding=1e-6, precision=2.0**-24, step=0, since=0, observations=1
    )
    return Mover(int(held.movers[0])), float(held.rise[0])


def test_what_moves_a_unit_and_whether_that_leads_up() -> None:
    assert moved((1.0, -2.0), -3.0, ()) == (Mover(0), 0)
    assert moved((0.9, -1.8), -2.7, ("weights", "bias"), decays=True) == (Mover.WEIGHT_DECAY, 0)
    movers, rise = moved((1.0, -2.0), -2.7, ("bias",), decays=True)
    assert movers == Mover.WEIGHT_DECAY
    assert rise == pytest.approx(0.3, rel=0.2)
    assert moved((0.9, -1.8), -3.0, ("weights",), decays=True) == (Mover.WEIGHT_DECAY, 0)
    assert moved((1.0, -2.0), -3.1, ("bias",)) == (Mover.BIAS, 0)
    movers, rise = moved((1.1, -2.0), -3.0, ("weights",))
    assert movers == Mover.WEIGHTS
    assert rise > 0
    assert moved((1.0, -2.0), -2.99, ("bias",), momentum=True, reach=9.0) == (Mover.MOMENTUM, 0)
    assert moved((1.0, -2.0), -2.9, ("bias",), momentum=True, reach=9.0)[1] > 0


def layer_of(log_dir: pathlib.Path, **given: Any) -> LayerHistory:
    """Four units on inputs from 0 to 1: alive, dead for certain, silent so far, and one whose bias creeps up."""
    rng = np.random.default_rng(0)
    weights = np.zeros((5, 4), np.float32)
    weights[0, :] = 2
    weights[1, :] = -1
    biases = np.array([0.5, -2.5, -1.999, -3.0])
    with DeadUnitsWriter(log_dir) as writer:
        for step in range(40):
            inputs = rng.random((256, 5)) * [0.9, 1, 1, 1, 1]
            inputs[0, 0] = 1.0  # the range reaches to 1, but never together with a small second input
            inputs[0, 1] = 1.0
            biases[3] += 0.02
            z = inputs @ weights + biases
            ranges = {"inputs_low": inputs.min(axis=0), "inputs_high": inputs.max(axis=0)}
            writer.observe(
                step, "hidden", np.maximum(z, 0), gradients=(z > 0) * 1.0, weights=weights,
                **(ranges | {"biases": biases} | given),
            )  # fmt: skip
    directory = LogDirectory(log_dir)
    return directory.history(directory.matching(None)[0]).layers["hidden"]


def test_a_writer_that_is_told_the_ranges_certifies(tmp_path: pathlib.Path) -> None:
    layer = layer_of(tmp_path)
    states, since = layer.states()[-1], layer.since()[-1]
    assert states.tolist() == [UnitState.ACTIVE, UnitState.DEAD, UnitState.DEAD, UnitState.DEAD]
    proofs = [Prover(layer).prove(unit, int(since[unit])) for unit in (1, 2, 3)]
    assert [proof.certainty for proof in proofs] == [Certainty.CERTAIN, Certainty.SILENT, Certainty.RECOVERABLE]
    assert proofs[0].margin == pytest.approx(0.5, rel=0.01)
    assert proofs[1].margin is not None
    assert -0.01 < proofs[1].margin < 0
    assert proofs[0].why.endswith("stays 0.5 below zero; nothing moves it")
    assert proofs[1].why.endswith("though no input seen so far was like that")
    assert "but this bound rises by 0.02 a step (its bias changes)" in proofs[2].why
    assert certainties(layer, states, since) == {"dead for certain": 1, "silent so far": 1, "could recover": 1}
    (run,) = report([LogDirectory(tmp_path).history(".")])["runs"]
    told = {unit["unit"]: unit["certificate"] for unit in run["layers"][0]["flagged"]}
    assert told[1]["word"] == "dead for certain"
    assert told[3]["could_move"] == ["its bias changes"]
    console = Console(file=io.StringIO(), width=200)
    print_report(tmp_path, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "3 dead (75 %), 1 of them dead for certain, 1 of them silent so far, 1 of them could recover" in printed
    assert f"dead for certain: {proofs[0].why}" in printed


def test_what_was_proved_of_an_earlier_death_says_nothing_of_a_later_one(tmp_path: pathlib.Path) -> None:
    layer = layer_of(tmp_path)
    proof = Prover(layer).prove(1, since=1000)
    assert (proof.certainty, proof.margin, proof.step) == (Certainty.SILENT, None, None)


def test_a_unit_that_was_looked_at_once_waits_for_the_next_record() -> None:
    """Whether anything moves it is told by two looks."""
    weights, ranges, held = -np.ones((3, 4)), ArrayRanges(), InputRanges(np.zeros(3), np.ones(3), np.zeros(4))

    def look(step: int, *silent: int) -> list[int] | None:
        found = ranges.look(step, held, weights, np.array(silent), due=True)
        return None if found is None else found.units.tolist()

    assert look(1, 0, 2) is None
    assert look(2, 0, 2) == [0, 2]
    assert look(3, 2, 3) == [2]
    assert look(4, 2, 3) == [2, 3]
    assert look(5, 0, 1) is None


def test_without_ranges_the_word_is_silent_so_far_with_the_reason(tmp_path: pathlib.Path) -> None:
    layer = layer_of(tmp_path, inputs_low=None, inputs_high=None, biases=None)
    proof = Prover(layer).prove(1, 0)
    assert proof.to_dict() == {
        "word": "silent so far", "margin": None, "could_move": [], "step": None,
        "why": "nothing was proved: the ranges of its inputs were not recorded",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs_low": None}, "must be given together"),
        ({"weights": None}, "must be given together"),
        ({"inputs_low": np.ones(3)}, "does not fit weights of which each unit has"),
        ({"inputs_low": np.full(5, 9.0)}, "must not be above"),
        ({"biases": np.zeros(5)}, r"must have the shape \(4,\)"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(given: Any, message: str, tmp_path: pathlib.Path) -> None:
    with DeadUnitsWriter(tmp_path) as writer, pytest.raises(InvalidArgumentError, match=message):
        writer.observe(0, "hidden", np.ones((8, 4)), **({
            "weights": np.ones((5, 4)), "inputs_low": np.zeros(5), "inputs_high": np.ones(5), "biases": np.zeros(4)
        } | given))  # fmt: skip


def test_certificates_of_many_units_come_back_through_the_file(tmp_path: pathlib.Path) -> None:
    """Two ranges of units, one of them without any at the last record, where those before still count."""
    units = UNIT_BLOCK + 100
    ((info, records),) = simulated(units, 2).items()
    first = held_of([3, UNIT_BLOCK - 1, UNIT_BLOCK, units - 1])
    records = [dataclasses.replace(records[0], certificates=first), records[1]]
    write_run(tmp_path, {info: records})
    layer = LogDirectory(tmp_path).history(".").layers[info.name]
    for index in (0, 1):
        back = layer.certificates(index)
        assert back is not None
        for field in dataclasses.fields(Certificates):
            np.testing.assert_array_equal(getattr(back, field.name), getattr(first, field.name), field.name)
    later = held_of([5])
    write_run(tmp_path / "later", {info: [records[0], dataclasses.replace(records[1], certificates=later)]})
    back = LogDirectory(tmp_path / "later").history(".").layers[info.name].certificates(-1)
    assert back is not None
    assert back.units.tolist() == [5]


def test_damaged_certificates_are_left_out_and_that_is_said(tmp_path: pathlib.Path) -> None:
    ((info, records),) = simulated(10, 2).items()
    path = write_run(tmp_path, {info: [dataclasses.replace(record, certificates=held_of([3])) for record in records]})

    def damage(event: Any) -> Any:
        for value in event.summary.value:
            if value.tag.startswith("certificates"):
                value.tensor.string_val[0] = b"no zlib"
        return [event]

    rewrite(path, damage)
    run = LogDirectory(tmp_path).history(".")
    assert run.layers[info.name].certificates(-1) is None
    assert any("certificates left out" in note for note in run.notes)
    assert len(run.layers[info.name]) == 2


def held_of(units: list[int]) -> Certificates:
    some = round_up(np.linspace(-2, 2, len(units)))
    return Certificates(7, 3, 5, np.array(units), some, np.zeros_like(some), np.ones(len(units), np.uint8))

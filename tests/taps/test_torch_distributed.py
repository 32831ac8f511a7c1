"""Two processes that train one model together record what one process on the whole batch would have."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import deadunits_tb
from deadunits_tb import InvalidArgumentError
from deadunits_tb.torch import watch

PROGRAM = pathlib.Path(__file__).with_name("torch_processes.py")


def run(mode: str, size: int, folder: pathlib.Path) -> list[list[torch.Tensor]]:
    """Train in so many processes; returns what each ended with."""
    folder.mkdir()
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), mode, str(rank), str(size), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for rank in range(size)
    ]
    for process in started:
        try:
            said, _ = process.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            for one in started:
                one.kill()
            raise
        assert process.returncode == 0, said
    return [torch.load(folder / f"weights{rank}") for rank in range(size)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("alone") / "one"
    run("ddp", 1, folder)
    return folder


def assert_same_weights(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
    assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("mode", ["ddp", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("fsdp", "by hand"))])
def test_two_processes_record_what_one_would(mode: str, alone: pathlib.Path, tmp_path: pathlib.Path) -> None:
    watched = run(mode, 2, tmp_path / "two")
    assert [(tmp_path / "two" / f"errors{rank}").read_text() for rank in range(2)] == ["", ""]
    assert all(torch.equal(a, b) for a, b in zip(watched[0][0], watched[1][0], strict=True))
    together = deadunits_tb.load(tmp_path / "two")["log"]
    one = deadunits_tb.load(alone)["log"]
    assert len(list((tmp_path / "two" / "log" / "dead_units").iterdir())) == 1  # only one process writes
    assert [record.examples for record in together.records] == [16] * 6
    assert list(together.layers) == list(one.layers)
    for name, layer in together.layers.items():
        expected = one.layers[name]
        assert np.array_equal(layer.states, expected.states), name
        assert np.array_equal(layer.since, expected.since)
        assert layer.steps.tolist() == [(64 if mode == "ddp" else 1) * step for step in range(6)]
        wanted = set(expected.statistics) - ({"norm_out"} if mode == "fsdp" else set())
        assert set(layer.statistics) == wanted, name
        for statistic in wanted:  # bfloat16 in the file, and sums in another order
            found = layer.statistic(statistic)
            # Where no output is exactly zero, firing is told against the scale at the last record; processes learn it
            # one record later.
            late = statistic.startswith("active") and layer.info.activation_function != "relu"
            limit = {"abs": 0.2} if late else {"rel": 2e-2, "abs": 1e-6}
            assert found == pytest.approx(expected.statistic(statistic), **limit), (name, statistic)
        assert (layer.statistic("gradient")[:, 2] == 0).all() == (name == "0")
        assert layer.info.witness == expected.info.witness
    for mine, theirs in zip(together.records, one.records, strict=True):
        assert mine.inputs is not None
        assert theirs.inputs is not None
        assert (mine.inputs.mean, mine.inputs.std) == pytest.approx((theirs.inputs.mean, theirs.inputs.std), rel=1e-5)
        assert (mine.inputs.min, mine.inputs.max) == (theirs.inputs.min, theirs.inputs.max)


def test_training_is_the_same_to_the_last_bit(tmp_path: pathlib.Path) -> None:
    plain = run("plain ddp", 2, tmp_path / "plain")
    watched = run("ddp", 2, tmp_path / "watched")
    for one, other in zip(plain, watched, strict=True):
        assert_same_weights(one, other)


def test_a_monitor_that_fails_holds_up_none(tmp_path: pathlib.Path) -> None:
    plain = run("plain ddp", 2, tmp_path / "plain")
    failed = run("fails", 2, tmp_path / "failed")
    for one, other in zip(plain, failed, strict=True):
        assert_same_weights(one, other)
    assert "injected" in (tmp_path / "failed" / "errors1").read_text()
    assert "another process" in (tmp_path / "failed" / "errors0").read_text()
    records = deadunits_tb.load(tmp_path / "failed")["log"].records
    assert [record.step for record in records if record.observations] == [0, 1, 2]
    assert any("another process" in error for error in records[-1].errors)


@pytest.mark.slow
def test_steps_in_which_processes_differ_are_left_out(tmp_path: pathlib.Path) -> None:
    run("differs", 2, tmp_path / "two")
    assert [(tmp_path / "two" / f"errors{rank}").read_text() for rank in range(2)] == ["", ""]
    records = deadunits_tb.load(tmp_path / "two")["log"].records
    assert [record.step for record in records] == [0, 1, 3, 4, 5]


def test_what_is_not_supported_is_refused(tmp_path: pathlib.Path) -> None:
    class FullyShardedDataParallel(nn.Linear):
        """Stands for that of FSDP1, which needs a process group to be made."""

    with pytest.raises(InvalidArgumentError, match="fully_shard"):
        watch(FullyShardedDataParallel(4, 4), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_process_group_that_is_not_there_is_said(tmp_path: pathlib.Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with pytest.raises(InvalidArgumentError, match="init_process_group first"):
        watch(model, tmp_path, process_group=object())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_of_two_processes_the_first_certifies_by_the_ranges_of_its_share(tmp_path: pathlib.Path) -> None:
    watched, bare = run("certified", 2, tmp_path / "watched"), run("plain", 2, tmp_path / "bare")
    for one, other in zip(watched, bare, strict=True):
        assert_same_weights(one, other)
    assert [(tmp_path / "watched" / f"errors{rank}").read_text() for rank in range(2)] == ["", ""]
    flagged = deadunits_tb.load(tmp_path / "watched")["log"].layers["0"].flagged()
    (planted,) = [verdict for verdict in flagged if verdict.unit == 2]
    assert planted.certificate is not None
    assert planted.certificate.certainty.value == "dead for certain"
    assert planted.certificate.margin is not None
    assert planted.certificate.margin > 50

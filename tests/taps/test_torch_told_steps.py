"""Steps that a user numbers otherwise than by ones, as by the examples seen so far: records only bear the numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import deadunits_tb
from deadunits_tb.torch import watch
from torch_zoo import built

BY_ONES = [None] * 40
BY_64 = [1000 + 64 * (at + 1) for at in range(40)]
BY_TOKENS = list(itertools.accumulate(np.random.default_rng(0).integers(1, 400, 40).tolist(), initial=1000))[1:]
AT_TIMES = [number if at % 3 == 0 else None for at, number in enumerate(BY_64)]


def trained(log_dir, numbers, *, every=1, initial_step=1000, total=None):
    """Told after each step; returns the numbers of the steps."""
    model, x = built("dense")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    steps = []
    with watch(model, log_dir, optimizer=optimizer, every=every, initial_step=initial_step) as monitor:
        monitor.expect(total)
        for number in numbers:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            monitor.step(loss=1.0, step=number)
            steps.append(monitor.current_step - 1)
    assert monitor.errors == ()
    return steps


@pytest.mark.parametrize("total", [None, 4000], ids=["unknown length", "known length"])
@pytest.mark.parametrize("numbers", [BY_ONES, BY_64, BY_TOKENS, AT_TIMES], ids=["ones", "64", "tokens", "at times"])
def test_each_record_has_its_weights_loss_and_inputs(numbers, total, tmp_path, caplog):
    """From step 1000 on not each observation becomes a record: those that do must have looked."""
    steps = trained(tmp_path, numbers, total=total)
    run = deadunits_tb.load(tmp_path)["."]
    layer = run.layers["0"]
    assert 3 < len(layer.steps) <= 40
    assert set(layer.steps.tolist()) <= set(steps)
    *whole, _ = run.records  # the last one is that of the end, which came unforeseen
    assert all(record.inputs is not None and record.loss == 1.0 for record in whole)
    for statistic in ("norm_in", "update_ratio", "weight_gradient", "drift"):
        assert np.isfinite(layer.statistic(statistic)[:-1]).all(), statistic
    assert sum(record.optimizer_steps for record in run.records) == 40
    assert not caplog.records


def test_the_interval_counts_steps_whatever_they_are_called(tmp_path):
    trained(tmp_path, [64 * at for at in range(8)], every=3, initial_step=0)
    run = deadunits_tb.load(tmp_path)["."]
    assert run.layers["0"].steps.tolist() == [0, 192, 384]
    assert run.records[-1].optimizer_steps == 3


@pytest.mark.parametrize("every", [1, 2, 3])
def test_micro_batches_of_a_step_are_all_observed_or_none(every, tmp_path):
    """Told between them, of however large a step: what is observed is decided once."""
    model, x = built("dense")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, tmp_path, optimizer=optimizer, every=every) as monitor:
        seen = 0
        for _ in range(9):
            optimizer.zero_grad()
            for at in range(4):
                (model(x).square().mean() / 4).backward()
                seen += len(x)
                if at == 3:
                    optimizer.step()
                monitor.step(step=seen)
    run = deadunits_tb.load(tmp_path)["."]
    assert [record.examples for record in run.records] == [4 * len(x)] * len(range(0, 9, every))
    assert run.layers["0"].steps.tolist() == [4 * len(x) * (at + 1) for at in range(0, 9, every)]


def test_units_that_are_born_dead_are_known_whatever_the_first_step_is_called(tmp_path):
    model, x = built("dense")
    with torch.no_grad():
        model[0].bias[3] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    thresholds = {"dead_examples": 64, "unknown_examples": 32, "confirm_examples": 32}
    with watch(model, tmp_path, optimizer=optimizer, every=1, thresholds=thresholds) as monitor:
        for at in range(8):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            monitor.step(step=64 * (at + 1))
    (found,) = [one for one in deadunits_tb.load(tmp_path)["."].layers["0"].flagged() if one.unit == 3]
    assert found.explanation.born

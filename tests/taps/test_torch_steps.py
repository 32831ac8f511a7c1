"""What is seen of a step in PyTorch beside its units: loss, inputs, learning rate; and of unusual steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import deadunits_tb
from torch_observer import Observer
from torch_zoo import built, train


def test_loss_inputs_and_learning_rate(tmp_path):
    model, x = built("dense")
    optimizer = torch.optim.SGD([{"params": model[0].parameters(), "lr": 0.2}, {"params": model[2:].parameters()}], 0.1)
    observe = Observer(model, tmp_path, optimizer)
    for loss in (torch.tensor(2.5), 1.5):
        model(x).sum().backward()
        optimizer.step()
        observe.monitor.step(loss=loss)
        assert observe.seen().loss == float(loss)
    count, mean, squares, low, high = observe.steps[0].inputs
    assert count == x.numel()
    values = x.double()
    wanted = [values.mean(), (values - values.mean()).square().sum(), values.min(), values.max()]
    np.testing.assert_allclose([mean, squares, low, high], wanted, rtol=1e-5)
    observe.monitor.close()
    assert deadunits_tb.load(tmp_path)["."].records[-1].learning_rate == pytest.approx(0.2)


def test_whole_numbers_are_inputs_unless_they_name_tokens(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, x):
            return self.body(x / 255)

    pixels = torch.arange(12, dtype=torch.uint8).view(2, 6)
    assert Observer(Scaled(), tmp_path / "a", optimizer)(pixels).inputs[:2] == (12, 5.5)
    lookup, tokens = built("lstm")
    assert Observer(lookup, tmp_path / "b")(tokens).inputs is None


def test_nan_and_inf_are_seen_as_they_are(tmp_path):
    model, x = built("dense")
    x[3, 2], x[5, 1] = math.nan, math.inf
    seen = Observer(model, tmp_path)(x)
    for layer in seen.layers.values():
        assert not np.isfinite(layer.mean).any()
        assert not np.isfinite(layer.gradient_squares).all()
        assert not np.isfinite(layer.weights.change).any()


def test_an_empty_batch_shows_nothing(tmp_path):
    model, x = built("dense")
    observe = Observer(model, tmp_path)
    observe(x)
    observe(x[:0], lambda out: out.sum())
    assert observe.monitor.current_step == 2
    assert list(observe.steps) == [0]


def test_the_fused_path_of_evaluation_is_not_counted(tmp_path):
    result = train("encoder", tmp_path, evaluate=True)
    assert result["monitor"].errors == ()
    assert {seen.window.examples for seen in result["monitor"]._monitor.last_records.values()} == {8}

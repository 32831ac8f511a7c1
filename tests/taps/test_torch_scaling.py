"""Low precision, and losses that are scaled: gradients are told unscaled, and those of a skipped step not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from torch_observer import LAYOUTS, Observer, check, spied
from torch_zoo import built


@pytest.mark.parametrize("layout", ["BC", "BTC", "BCHW"])
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, None), (torch.float16, 2.0**8)])
def test_low_precision(layout, dtype, scale, tmp_path):
    torch.manual_seed(1)
    make, shape, axis = LAYOUTS[layout]
    model = make(nn.ReLU())
    kept = spied(model[-1])
    scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale else None
    observe = Observer(model, tmp_path, scaler=scaler)
    with torch.autocast("cpu", dtype):
        loss = model(torch.randn(shape)).float().square().mean()
    if scaler:
        scaler.scale(loss).backward()
        scaler.step(observe.optimizer)
        scaler.update()
    else:
        loss.backward()
        observe.optimizer.step()
    check(observe.seen().layers["0"], kept, "relu", axis, scale or 1.0)


def test_low_precision_parameters(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU()).to(torch.bfloat16)
    kept = spied(model[-1])
    seen = Observer(model, tmp_path)(torch.randn(8, 6, dtype=torch.bfloat16)).layers["0"]
    check(seen, kept, "relu", -1)


def test_gradients_are_unscaled_also_where_the_scaler_was_not_named(tmp_path):
    torch.manual_seed(1)
    results = {}
    for name in ("plain", "named", "found"):
        model, x = built("dense")
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        observe = Observer(model, tmp_path / name, scaler=scaler if name == "named" else None)
        loss = model(x).square().mean()
        (loss if name == "plain" else scaler.scale(loss)).backward()
        if name == "plain":
            observe.optimizer.step()
        else:
            scaler.step(observe.optimizer)
            scaler.update()
        results[name] = observe.seen().layers
    for name in ("named", "found"):
        for layer, seen in results["plain"].items():
            np.testing.assert_allclose(results[name][layer].gradient_squares, seen.gradient_squares, rtol=1e-4)
            np.testing.assert_allclose(results[name][layer].weights.gradient, seen.weights.gradient, rtol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_keeps_its_activations_only(fused, tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)
    observe = Observer(model, tmp_path, optimizer, scaler=scaler)
    kept = spied(model[1])
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(5, 6)).square().mean() * 100).backward()
        scaler.step(optimizer)
        scaler.update()
    seen = observe.seen().layers["0"]
    squares = (kept["gradients"][-1] / 2.0**17).square().sum(0)
    if fused:  # its steps are counted although they change nothing: nobody waits for the device to tell
        assert sorted(observe.steps) == [0, 1]
        skipped = observe.steps[0].layers["0"]
        assert skipped.gradient_squares is skipped.weights.gradient is skipped.weights.change is None
        assert np.isfinite(skipped.mean).all()
        np.testing.assert_allclose(seen.gradient_squares, squares, rtol=1e-4)
    else:
        assert sorted(observe.steps) == [0]
        assert seen.examples == 10
        np.testing.assert_allclose(seen.gradient_squares / seen.positions, squares / 5, rtol=1e-4)


def test_a_scaler_that_skips_before_it_is_known_leaves_no_mixed_gradient(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)
    observe = Observer(model, tmp_path)  # the scaler is not named: it is found at the first step that it lets through
    for _ in range(3):
        observe.optimizer.zero_grad()
        scaler.scale(model(torch.randn(5, 6)).square().mean() * 100).backward()
        scaler.step(observe.optimizer)
        scaler.update()
    observe.seen()
    assert sorted(observe.steps) == [0, 1]
    assert observe.steps[0].layers["0"].examples == 10
    assert observe.steps[0].layers["0"].gradient_squares is None
    assert np.isfinite(observe.steps[1].layers["0"].gradient_squares).all()


def test_a_fused_step_that_is_skipped_has_no_gradient_where_no_record_is_made(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.0, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)
    observe = Observer(model, tmp_path, optimizer, scaler=scaler, initial_step=10_000_000)
    observe.monitor._monitor.will_record = lambda step: False
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(5, 6)).square().mean() * 100).backward()
        scaler.step(optimizer)
        scaler.update()
    observe.seen()
    skipped, made = (observe.steps[step].layers["0"] for step in sorted(observe.steps))
    assert skipped.gradient_squares is None
    assert np.isfinite(made.gradient_squares).all()

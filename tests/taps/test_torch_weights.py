"""How far the weights of PyTorch models move in a step, and since the first."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from torch_observer import Observer
from torch_zoo import built


def test_weights_around_the_optimizer_step(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )
    observe = Observer(model, tmp_path)
    x = torch.randn(8, 2, 5, 5)
    observe(x)
    before = [p.detach().clone() for p in model.parameters() if p.dim() > 1]
    seen = observe(x).layers
    after = [p.detach().clone() for p in model.parameters() if p.dim() > 1]
    gradients = [p.grad.clone() for p in model.parameters() if p.dim() > 1]

    def units(layer, value):
        if layer != "2":
            return value.flatten(1).double()
        return torch.cat([part.transpose(0, 1).flatten(1) for part in value.split(2)]).double()  # two groups

    for name, old, new, gradient in zip(("0", "2", "5"), before, after, gradients, strict=True):
        weights = seen[name].weights
        np.testing.assert_allclose(weights.norm_in, units(name, old).norm(dim=1), rtol=1e-5)
        np.testing.assert_allclose(weights.change, units(name, new - old).norm(dim=1), rtol=1e-4)
        np.testing.assert_allclose(weights.gradient, units(name, gradient).norm(dim=1), rtol=1e-5)
    assert observe.info("2").fan_in == 2 * 4
    assert observe.info("5").fan_in == model[5].in_features


def test_drift_is_told_from_the_first_observed_step(tmp_path):
    model, x = built("dense")
    start = model[0].weight.detach().clone()
    observe = Observer(model, tmp_path)
    for _ in range(3):
        weights = observe(x).layers["0"].weights
    wanted = (model[0].weight.detach() - start).norm(dim=1)
    np.testing.assert_allclose(weights.change_since_first, wanted, rtol=1e-4)
    np.testing.assert_allclose(weights.norm_first, start.norm(dim=1), rtol=1e-6)


def test_changes_of_many_weights_are_estimated_and_unchanged_ones_are_exactly_zero(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(300, 40), nn.ReLU())
    with torch.no_grad():
        model[0].bias[:5] = -1000  # these units get no gradient, so their weights stay
    observe = Observer(model, tmp_path)
    observe.monitor._tap._weights._left = 0
    before = model[0].weight.detach().clone()
    state = torch.get_rng_state()
    weights = observe(torch.randn(16, 300, generator=torch.Generator().manual_seed(1))).layers["0"].weights
    assert torch.equal(state, torch.get_rng_state())
    assert observe.info("0").weight_delta == "projection"
    truth = (model[0].weight.detach() - before).norm(dim=1).numpy()
    assert (weights.change[:5] == 0).all()
    assert (np.abs(weights.change[5:] / truth[5:] - 1) < 0.5).all()
    assert abs(np.mean(weights.change[5:] / truth[5:]) - 1) < 0.1
    np.testing.assert_allclose(weights.norm_in, before.norm(dim=1), rtol=1e-5)

"""No false alarm for what an optimizer does, or leaves undone: PyTorch.

Which test rules out which alarm is listed in ``test_false_alarms_torch.py``.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deadunits_tb
from deadunits_tb.units import UnitState
from torch_with_dead_units import PLANTED, both, check, dense, kill, slow, trained


@pytest.mark.parametrize("how", ["requires_grad", "no_grad"])
def test_frozen_layers(how, tmp_path):
    """Neither dead nor stagnant, not even a unit that is silent: they are not judged."""
    torch.manual_seed(3)
    model = dense(nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
    nn.init.constant_(model[2].bias, 0.5)
    kill(model[0], PLANTED)
    kill(model[2], PLANTED)
    model[0].requires_grad_(False)
    if how == "no_grad":

        class Backbone(nn.Module):
            def __init__(self, first, rest):
                super().__init__()
                self.first, self.rest = first, rest

            def forward(self, x):
                with torch.no_grad():
                    x = self.first(x)
                return self.rest(F.relu(x))

        model = Backbone(model[0], model[2:])
    trainable = [p for p in model.parameters() if p.requires_grad]
    found = trained(model, tmp_path, optimizer=torch.optim.Adam(trainable, 1e-3))
    first, second = list(found.values())[:2]
    assert (first == UnitState.FROZEN).all()
    check(second, PLANTED)


@both
def test_gradient_accumulation(planted, tmp_path):
    """Four passes a step; unit 0 fires in the first of them alone, and its gradient is there when the step is made."""
    model = dense(inputs=65)
    kill(model[0], planted)
    with torch.no_grad():
        model[0].weight[0, 64] = 1e3

    def step(x, y, optimizer):
        optimizer.zero_grad()
        for part, (images, labels) in enumerate(zip(x.chunk(4), y.chunk(4), strict=True)):
            mark = torch.full((len(images), 1), 0.0 if part == 0 else -1.0)
            F.cross_entropy(model(torch.cat([images, mark], 1)), labels).backward()
        optimizer.step()

    check(trained(model, tmp_path, step=step, steps=20)["0"], planted)


@both
def test_steps_skipped_by_a_loss_scaler(planted, tmp_path):
    """Gradients that a scale has made infinite, or next to it, are nothing."""
    model = dense()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2, growth_factor=4.0)

    def step(x, y, optimizer):
        optimizer.zero_grad()
        scaler.scale(1e3 * F.cross_entropy(model(x), y)).backward()
        skipped.append(scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()

    skipped: list[float] = []
    kill(model[0], planted)
    found = trained(model, tmp_path, step=step, steps=40, scaler=scaler)["0"]
    assert sum(after < before for before, after in itertools.pairwise(skipped)) >= 10
    check(found, planted)


def test_parameters_without_gradient(tmp_path):
    """Branches that reach the loss in some steps, or not at all, are not dead: only units that are silent are."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.sometimes, self.never = (nn.Linear(64, 12) for _ in range(3))
            self.head, self.steps = nn.Linear(12, 10), 0

        def forward(self, x):
            self.steps += 1
            y = F.relu(self.always(x))
            y = y + F.relu(self.sometimes(x)) * (self.steps % 3 == 0)
            self.probe = F.relu(self.never(x)).detach()  # looked at, but not trained
            return self.head(y)

    model = Model()
    for layer in (model.always, model.sometimes, model.never):
        kill(layer, PLANTED)
    found = trained(model, tmp_path, steps=24)
    check(found["always"], PLANTED)
    check(found["sometimes"], PLANTED)
    alive = np.delete(found["never"], PLANTED, axis=1)
    assert not (alive == UnitState.DEAD).any()
    assert not (alive == UnitState.DYING).any()


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "weight decay through the loss": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "Adam, decay through the loss": lambda p: torch.optim.Adam(p, 1e-3, weight_decay=0.01),
    "decoupled weight decay": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=1.0),
}


@pytest.mark.parametrize("kind", [*list(OPTIMIZERS)[::3], *map(slow, list(OPTIMIZERS)[1:3])])
def test_weights_of_dead_units_that_move(kind, tmp_path):
    """Units that die in mid-training are dead since then, whatever still moves their weights."""
    model = dense()
    count = iter(range(100))
    before = model[0].weight.detach().clone()

    def each():
        if next(count) == 5:
            kill(model[0], PLANTED)

    found = trained(model, tmp_path, optimizer=OPTIMIZERS[kind](model.parameters()), each=each, steps=30)
    check(found["0"], PLANTED)
    layer = deadunits_tb.load(tmp_path)["."].layers["0"]
    assert layer.since[-1, PLANTED].tolist() == [6, 6]
    first = int(np.argmax(found["0"][:, 1] == UnitState.DEAD))
    assert (found["0"][first:][:, PLANTED] == UnitState.DEAD).all()
    moved = layer.statistic("update_ratio")[:, PLANTED]
    assert (moved[8] > 0).all()  # momentum, or decay, went on after the death
    assert not torch.equal(model[0].weight.detach()[PLANTED], before[PLANTED])

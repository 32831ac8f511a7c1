"""Training runs of small PyTorch networks, watched at every step, with units that are dead by design, or without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import deadunits_tb
from deadunits_tb.torch import watch
from deadunits_tb.units import FLAGGED, UnitState

torch.set_num_threads(1)

PLANTED = [1, 4]
"""Units that are made dead, in the runs that have some."""
both = pytest.mark.parametrize("planted", [[], PLANTED], ids=["healthy", "planted"])


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


def digits():
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean(0)) / np.maximum(images.std(0), 1e-3)
    return torch.tensor(images, dtype=torch.float32), torch.tensor(labels)


def trained(model, log_dir, *, steps=16, batch=256, data=None, optimizer=None, step=None, each=None, **arguments):
    """Train and watch every step; ``[records, units]`` states by layer. ``step`` makes one, ``each`` comes after it."""
    inputs, labels = data or digits()
    random = np.random.default_rng(0)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 1e-3)
    with watch(model.train(), log_dir, optimizer, every=1, **arguments) as monitor:
        for _ in range(steps):
            rows = torch.from_numpy(random.integers(0, len(inputs), batch))
            if step is not None:
                step(inputs[rows], labels[rows], optimizer)
            else:
                optimizer.zero_grad()
                F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
                optimizer.step()
            if each is not None:
                each()
        monitor.flush()
        assert monitor.errors == ()
    run = deadunits_tb.load(log_dir)["."]
    return {name: layer.states for name, layer in run.layers.items()}


def check(states, dead):
    """These units are dead at the end; all others were never flagged."""
    assert np.flatnonzero(states[-1] == UnitState.DEAD).tolist() == dead
    others = np.delete(states, dead, axis=1)
    found = {(UnitState(others[at]).label, at[1]) for at in zip(*np.nonzero(FLAGGED[others]), strict=True)}
    assert found == set(), found  # pytest explains assertions in test files only


def kill(layer, units):
    """So far below zero that nothing wakes them."""
    with torch.no_grad():
        layer.bias[units] = -1e4


def dense(*between, inputs=64, units=12, classes=10):
    torch.manual_seed(1)
    between = between or (nn.ReLU(),)
    return nn.Sequential(nn.Linear(inputs, units), *between, nn.Linear(units, classes))

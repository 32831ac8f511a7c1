"""No false alarm where units fire at few positions, for few rows, or in one of several calls: PyTorch.

Which test rules out which alarm is listed in ``test_false_alarms_torch.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deadunits_tb.units import UnitState
from torch_with_dead_units import PLANTED, both, check, digits, kill, slow, trained


class Positions(nn.Module):
    """Units last, first among the positions, or along one axis: as many positions as units, so that a mistake shows."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.up = nn.Linear(8, 8) if layout == "BTC" else nn.Conv1d(8, 8, 1) if layout == "BCT" else nn.Conv2d(1, 8, 1)
        self.head = nn.Linear(64 if layout != "BCHW" else 512, 10)

    def forward(self, x):
        x = x.view(-1, 8, 8)
        x = x[:, None] if self.layout == "BCHW" else x
        return self.head(F.relu(self.up(x)).flatten(1))


@pytest.mark.parametrize("layout", ["BTC", slow("BCT"), "BCHW", slow("BCHW, channels last in memory")])
@both
def test_layouts(layout, planted, tmp_path):
    """A position that is always silent is no unit: the first pixels of the digits are always the same."""
    torch.manual_seed(1)
    model = Positions(layout[:4].strip(","))
    if "memory" in layout:
        model = model.to(memory_format=torch.channels_last)
    kill(model.up, planted)
    with torch.no_grad():
        model.up.bias[[unit for unit in range(8) if unit not in planted]] = 0.3
    x, y = digits()
    x.view(-1, 8, 8)[:, 5] = -50 * torch.sign(model.up.weight.detach().mean()) if layout == "BTC" else 0.0
    check(trained(model, tmp_path, data=(x, y), optimizer=torch.optim.SGD(model.parameters(), 0.01))["up"], planted)


def sentences(n=600, length=12, words=30, seed=0):
    """Word 0 is padding; most of each sentence."""
    random = np.random.default_rng(seed)
    ids = random.integers(1, words, (n, length))
    ids[np.arange(length) >= random.integers(1, 4, (n, 1))] = 0
    return torch.from_numpy(ids), torch.from_numpy(ids[:, 0] % 10)


@both
def test_padding(planted, tmp_path):
    """On padding, nine tenths of all positions, no unit fires."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.up, self.head = nn.Embedding(30, 8, padding_idx=0), nn.Linear(8, 12), nn.Linear(12, 10)
            nn.init.constant_(self.up.bias, -0.05)

        def forward(self, ids):
            hidden = F.relu(self.up(self.embed(ids)))
            return self.head(hidden.sum(1))

    model = Model()
    kill(model.up, planted)
    found = trained(model, tmp_path, data=sentences(), batch=256)
    check(found["up"], planted)


@both
def test_shared_layers(planted, tmp_path):
    """Units that are silent in one of two calls of their layer."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.head = nn.Linear(65, 12), nn.Linear(24, 10)
            with torch.no_grad():
                self.shared.weight[:6, 64], self.shared.weight[6:, 64] = 1e3, -1e3

        def forward(self, x):
            ones = torch.ones(len(x), 1)
            calls = [F.relu(self.shared(torch.cat([x, sign * ones], 1))) for sign in (1.0, -1.0)]
            return self.head(torch.cat(calls, 1) / 1e3)

    model = Model()
    kill(model.shared, planted)
    check(trained(model, tmp_path)["shared"], planted)


def test_embedding_rows_not_seen(tmp_path):
    """They are unknown, and those that are seen are not dead in the steps that do without them."""
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (4000, 3))
    ids[::50, 0] = 20  # one that is rare
    model = nn.Sequential(nn.Embedding(40, 6), nn.Flatten(), nn.Linear(18, 12), nn.ReLU(), nn.Linear(12, 10))
    kill(model[2], PLANTED)
    found = trained(model, tmp_path, data=(ids, ids[:, 0] % 10), layers=["0", "2", "4"])
    check(found["2"], PLANTED)
    assert (found["0"][-1, 21:] == UnitState.UNKNOWN).all()
    check(found["0"], [])


def test_experts_not_routed_to(tmp_path):
    """Units of an expert that was given no example, or few, are unknown; of one that was given many they are judged."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(64, 8) for _ in range(4)])
            self.head = nn.Linear(8, 10)
            self.shares = torch.tensor([0.97, 0.99, 1.0])  # where the next expert begins

        def forward(self, x):
            expert = torch.bucketize(torch.arange(len(x)) / len(x), self.shares, right=True)
            out = torch.zeros(len(x), 8)
            for number, layer in enumerate(self.experts):
                mine = expert == number
                if mine.any():
                    out = out.index_put((mine,), F.relu(layer(x[mine])))
            return self.head(out)

    model = Model()
    for expert in model.experts:
        kill(expert, PLANTED)
    found = trained(model, tmp_path, steps=20)
    check(found["experts.0"], PLANTED)
    for few in ("experts.1", "experts.2"):
        assert (found[few] == UnitState.UNKNOWN).all()
    assert "experts.3" not in found


@pytest.mark.parametrize("shape", [slow("sequences"), "flattened"])
@both
def test_rare_tokens(shape, planted, tmp_path):
    """Units that fire on one word only, one in 3,000: silent on thousands of tokens, but not on thousands of texts."""
    torch.manual_seed(0)
    words, length, texts = 40, 64, 2000
    random = np.random.default_rng(0)
    ids = torch.from_numpy(random.integers(0, words - 1, (texts, length)))
    rare = torch.from_numpy(random.random((texts, length)) < 1 / 3000)
    ids[rare] = words - 1

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.up, self.head = nn.Embedding(words, 8), nn.Linear(8, 12), nn.Linear(12, 10)
            with torch.no_grad():
                self.embed.weight[:, 7], self.embed.weight[-1, 7] = 0.0, 20.0
                self.up.weight[9:, 7], self.up.bias[9:] = 1.0, -12.0

        def forward(self, x):
            x = self.embed(x)
            if shape == "flattened":
                x = F.relu(self.up(x.flatten(0, 1))).view(-1, length, 12)
            else:
                x = F.relu(self.up(x))
            return self.head(x.amax(1))

    model = Model()
    kill(model.up, planted)
    found = trained(model, tmp_path, data=(ids, ids[:, 0] % 10), batch=64, steps=60)
    assert np.flatnonzero(found["up"][-1] == UnitState.DEAD).tolist() == planted
    assert not np.isin(found["up"][:, 9:], [UnitState.DEAD, UnitState.DYING]).any()

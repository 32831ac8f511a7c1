"""Comparisons of real trainings: what regularizes or normalises, and what is only another seed."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from deadunits_tb.reading.comparison import Comparison, compare
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.torch import watch

STEPS, BATCH, UNITS = 90, 64, 64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("runs")


def train(
    log_dir: pathlib.Path, name: str, *, seed: int = 0, norm: bool = False, drop: float = 0.0, decay: float = 0.0,
    bias: float | None = None, rate: float = 0.05, adam: bool = False,
) -> str:  # fmt: skip
    """A network of two hidden layers on digits; ``bias`` starts all units far below zero. Gives its name."""
    if (log_dir / name).exists():
        return name
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs in (64, UNITS):
        linear = nn.Linear(inputs, UNITS)
        if bias is not None:
            nn.init.normal_(linear.weight, 0, 0.1)
            nn.init.constant_(linear.bias, bias)
        layers += [linear, *([nn.BatchNorm1d(UNITS)] if norm else []), nn.ReLU(), *([nn.Dropout(drop)] if drop else [])]
    model = nn.Sequential(*layers, nn.Linear(UNITS, 10))
    optimizer: Any = (
        torch.optim.Adam(model.parameters(), rate)
        if adam
        else torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=decay)
    )
    with watch(model, log_dir / name, optimizer=optimizer, every=1) as monitor:
        for _ in range(STEPS):
            batch = torch.randint(0, len(x), (BATCH,))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            monitor.step(loss)
    return name


def compared(log_dir: pathlib.Path, first: str, second: str) -> Comparison:
    reader = RunReader(LocalDataProvider(log_dir))
    return compare(reader.history(first), reader.history(second))


def test_batch_normalisation_saves_a_network_that_begins_badly(log_dir: pathlib.Path) -> None:
    without = train(log_dir, "without", bias=-0.7)
    found = compared(log_dir, without, train(log_dir, "normalised", bias=-0.7, norm=True))
    assert found.verdict == "for"
    assert [(d.what, d.first, d.second, d.lever) for d in found.differences] == [
        ("BatchNorm1d", "none", "2", "normalisation")
    ]
    assert [(layer.layer, layer.other, layer.matched) for layer in found.layers] == [
        ("0", "0", "name"), ("2", "3", "place"), ("4", "6", "place"),
    ]  # fmt: skip
    assert found.sentence.startswith("with normalisation ('normalised') 0 of 64 units of layer 2 (3) are dead")
    assert "also learns better" in " ".join(found.details)


def test_too_much_weight_decay_kills(log_dir: pathlib.Path) -> None:
    found = compared(log_dir, train(log_dir, "decayed", decay=0.3), train(log_dir, "free"))
    assert found.verdict == "for"
    assert [(d.what, d.first, d.second) for d in found.differences] == [("weight decay", "0.3", "none")]
    assert found.sentence.startswith("without ('free') ")
    assert "with weight decay ('decayed') " in found.sentence
    assert "the difference speaks for dying units in layer 2" in found.sentence


def test_dropout_does_not_revive_what_a_high_rate_kills(log_dir: pathlib.Path) -> None:
    plain = train(log_dir, "plain", rate=0.03, adam=True)
    found = compared(log_dir, plain, train(log_dir, "dropping", rate=0.03, adam=True, drop=0.3))
    assert [(d.what, d.second) for d in found.differences] == [("Dropout", "2, with p 0.3")]
    assert found.verdict == "none"
    assert "no difference that chance would not make" in found.sentence
    assert "a training loss under dropout is larger" in " ".join(found.details)


def test_another_seed_is_no_difference(log_dir: pathlib.Path) -> None:
    """Of two recipes: one in which many units die, and one in which none do."""
    pairs = [
        (train(log_dir, "plain", rate=0.03, adam=True), train(log_dir, "again", seed=1, rate=0.03, adam=True)),
        (train(log_dir, "free"), train(log_dir, "free_again", seed=1)),
    ]
    for first, second in pairs:
        found = compared(log_dir, first, second)
        assert found.verdict == "none"
        assert not found.differences
        assert "no difference in how the runs were made" in " ".join(found.details)
    assert max(layer.first.troubled for layer in compared(log_dir, *pairs[0]).layers) >= 5

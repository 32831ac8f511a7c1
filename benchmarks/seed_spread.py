"""How much the dead units of a layer vary between seeds, against units that die independently of one another.

A comparison of two runs must not take for an effect what another seed would have made, too. Units of one layer share
its fate, so their counts spread more than a binomial distribution says. Plain PyTorch on scikit-learn's digits, without
a monitor: a unit is dead if it fires on no image at the end.

    python benchmarks/seed_spread.py [--seeds 10]
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from deadunits_tb.reading.layer_comparison import SIGNIFICANCE, SPREAD, Side, chance_of, corrected

UNITS, STEPS, BATCH = 128, 400, 64
RECIPES = [
    ("raw", "Adam", 0.003),
    ("raw", "Adam", 0.01),
    ("raw", "Adam", 0.03),
    ("raw", "SGD", 0.05),
    ("standardised", "Adam", 0.03),
    ("standardised", "Adam", 0.1),
    ("standardised", "SGD", 1.0),
    ("to one", "Adam", 0.05),
]
"""Scale of the inputs, optimizer, learning rate."""


def inputs(scale: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The digits, and what they are."""
    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32)
    if scale == "standardised":
        x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    return (x / 16 if scale == "to one" else x), torch.tensor(labels)


def dead_units(seed: int, scale: str, optimizer: str, rate: float) -> list[int]:
    """Train a network of two hidden layers; dead units of each."""
    torch.manual_seed(seed)
    x, labels = inputs(scale)
    net = nn.Sequential(nn.Linear(64, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, 10))
    steps = getattr(torch.optim, optimizer)(net.parameters(), lr=rate)
    for _ in range(STEPS):
        batch = torch.randint(0, len(x), (BATCH,))
        steps.zero_grad()
        nn.functional.cross_entropy(net(x[batch]), labels[batch]).backward()
        steps.step()
    found = []
    with torch.no_grad():
        for layer in net:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(int((x.amax(0) <= 0).sum()))
    return found


def side(dead: int) -> Side:
    """A layer with so many dead units."""
    return Side(UNITS, UNITS, dead, {})


def main() -> None:
    """Print the counts of every recipe, their spread, and how often a comparison would take seeds for an effect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    pairs = called = 0
    print(f"dead units of {UNITS}, over {seeds} seeds; spread: variance over that of independent units")
    for recipe in RECIPES:
        counts = np.array([dead_units(seed, *recipe) for seed in range(seeds)])
        for layer, column in enumerate(counts.T, start=1):
            share = column.mean() / UNITS
            binomial = UNITS * share * (1 - share)
            spread = f"{column.var(ddof=1) / binomial:.1f}" if binomial else "-"
            name = f"{recipe[0]}, {recipe[1]} {recipe[2]:g}, layer {layer}"
            print(f"{name:36} {column.min():4} to {column.max():<4} mean {column.mean():6.1f}   spread {spread}")
        for one, other in itertools.combinations(counts.tolist(), 2):
            chances = corrected([chance_of(side(a), side(b)) for a, b in zip(one, other, strict=True)])
            pairs, called = pairs + 1, called + (min(chances) < SIGNIFICANCE)
    print(
        f"pairs of one recipe that a comparison would call different, with a spread of {SPREAD:g}: {called} of {pairs}"
    )


if __name__ == "__main__":
    main()

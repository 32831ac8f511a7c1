"""What revival does for a run in which most units are dead: share alive and accuracy, with and without it.

    python benchmarks/revival.py [--seeds 5] [--steps 1000]

Small networks of two hidden layers on 8 x 8 digits, PyTorch, Adam. Units die in two ways: *held down*, 62 of 64 units
of both layers begin with a bias from which they cannot come back; and *thrown*, a few steps at a learning rate far too
high. The same seeds are trained as they are, with revival, and, to compare, without any harm. Alive is what fires on
any of the training images at the end, in a pass over all of them: our own statistics have no say in it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.reading.report import report
from deadunits_tb.torch import ReviveHook, watch

UNITS, BATCH, RATE = 64, 128, 1e-3


@dataclass(frozen=True)
class Outcome:
    """How one training ended."""

    alive: float
    accuracy: float
    revived: int
    kept: int


def hold_down(model: nn.Sequential, step: Callable[[float], None]) -> None:
    """62 of 64 units in each layer begin where nothing wakes them."""
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.bias[2:] = -30


def throw(model: nn.Sequential, step: Callable[[float], None]) -> None:
    """Ten steps at three hundred times the learning rate."""
    for _ in range(10):
        step(300 * RATE)


def unharmed(model: nn.Sequential, step: Callable[[float], None]) -> None:
    """Nothing."""


def train(seed: int, harm: Callable[..., None], steps: int, revival: bool) -> Outcome:
    """Train one network."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split((images - 8) / 8, labels, test_size=0.3, random_state=seed, stratify=labels)
    x, x_test, y, y_test = (torch.as_tensor(part) for part in split)
    x, x_test = x.float(), x_test.float()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, 10))
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    random = np.random.default_rng(seed)

    def step(rate: float) -> None:
        optimizer.param_groups[0]["lr"] = rate
        chosen = torch.as_tensor(random.integers(0, len(x), BATCH))
        loss = functional.cross_entropy(model(x[chosen]), y[chosen])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    harm(model, step)
    with tempfile.TemporaryDirectory() as log_dir:
        with watch(model, log_dir, optimizer, every=5) as monitor:
            if revival:
                ReviveHook(monitor, every=100, cool_down=100)
            for _ in range(steps):
                step(RATE)
        [run] = report([LogDirectory(log_dir).history(".")])["runs"]
    with torch.no_grad():
        fired = torch.cat([(hidden > 0).any(0) for hidden in (model[:2](x), model[:4](x))])
        accuracy = float((model(x_test).argmax(1) == y_test).float().mean())
    revived = sum(event["count"] for event in run["revivals"])
    kept = sum(event["later"][-1]["alive"] for event in run["revivals"] if event["later"])
    return Outcome(float(fired.float().mean()), accuracy, revived, kept)


def spread(values: list[float]) -> str:
    """Median and range, in percent."""
    return f"{100 * statistics.median(values):.1f} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"{arguments.seeds} seeds, {arguments.steps} steps: median (range)", title_justify="left")
    for heading in ("units", "revival", "alive, %", "test accuracy, %", "revived", "alive at the end"):
        table.add_column(heading)
    for name, harm in (("unharmed", unharmed), ("held down", hold_down), ("thrown", throw)):
        for revival in (False, True):
            ended = [train(seed, harm, arguments.steps, revival) for seed in range(arguments.seeds)]
            revived, kept = sum(one.revived for one in ended), sum(one.kept for one in ended)
            table.add_row(
                name,
                "yes" if revival else "no",
                spread([one.alive for one in ended]),
                spread([one.accuracy for one in ended]),
                f"{revived}" if revival else "",
                f"{kept} ({100 * kept / revived:.0f} %)" if revived else "",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

"""PyTorch models with units that never fire, and a few steps of training for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

DEAD = [1, 4]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
}


class Residual(nn.Module):
    """A block whose inner units are its own, and a layer whose units are part of a stream; one of them is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer, self.head = (
            nn.Linear(6, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for _ in range(2):
            x = x + self.outer(functional.dropout(functional.relu(self.inner(x)), 0.5, self.training))
        return self.head(x)


def mlp(function: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), function(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, groups=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 3)),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "mlp": (mlp, "0", (32, 6)),
    "mlp, two layers before the end": (mlp, "2", (32, 6)),
    "tokens": (mlp, "0", (4, 5, 6)),
    "cnn with batch normalisation": (cnn, "0", (16, 2, 8, 8)),
    "cnn behind flattening": (cnn, "5", (16, 2, 8, 8)),
    "shared, inside a residual block": (Residual, "inner", (32, 6)),
}


def batch(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kill(model: nn.Module, name: str, units: list[int]) -> None:
    """Units that no input can wake: their normalisation or bias holds them down."""
    modules = dict(model.named_modules())
    names = list(modules)
    after = modules[names[names.index(name) + 1]] if names.index(name) + 1 < len(names) else None
    held = after if isinstance(after, nn.BatchNorm2d) else modules[name]
    with torch.no_grad():
        held.bias[units] = -100.0  # type: ignore[index, operator]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, shape: tuple[int, ...], steps: int) -> None:
    for step in range(steps):
        output = model(batch(shape, step))
        loss = functional.cross_entropy(output.reshape(-1, 3), torch.arange(output.numel() // 3) % 3)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

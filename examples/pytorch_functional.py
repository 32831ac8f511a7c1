"""A network written with functions and bare parameters on handwritten digits: activation functions need no module.

A learning rate that is too high kills units of its first layer. The 1,797 images that scikit-learn ships. Then:
tensorboard --logdir runs
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from deadunits_tb.torch import watch


class Net(nn.Module):
    """Three linear maps, two of them without a module of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 48)
        self.mixing = nn.Parameter(torch.randn(48, 32) / 7)
        self.digit = nn.Parameter(torch.randn(10, 32) / 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[batch, 64]`` pixels to ``[batch, 10]`` logits."""
        x = self.hidden(x).clamp(min=0)
        x = torch.tanh(x @ self.mixing)
        return F.linear(x, self.digit)


def main(
    log_dir: str = "runs/pytorch_functional", epochs: int = 5, learning_rate: float = 3.0, every: int | None = None
) -> Net:
    """Train, and return the trained network."""
    torch.manual_seed(0)
    digits = load_digits()
    pixels, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), learning_rate)
    with watch(model, log_dir, optimizer=optimizer, every=every) as monitor:
        for epoch in range(epochs):
            for batch in torch.randperm(len(pixels)).split(32):
                loss = F.cross_entropy(model(pixels[batch]), labels[batch])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                monitor.step(loss=loss)
            print(f"epoch {epoch + 1}: loss {loss:.3f}, dead {monitor.dead_fraction:.1%}, {monitor.counts}")
    return model


if __name__ == "__main__":
    main(*sys.argv[1:2])

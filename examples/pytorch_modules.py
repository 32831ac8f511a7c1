"""A convolutional network of modules on handwritten digits, watched in a loop of one's own.

The 1,797 images that scikit-learn ships. Then: tensorboard --logdir runs
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from deadunits_tb.torch import watch


def main(log_dir: str = "runs/pytorch_modules", epochs: int = 5, every: int | None = None) -> nn.Module:
    """Train, and return the trained network."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]  # [1797, 1, 8, 8]
    labels = torch.tensor(digits.target)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.Dropout(0.2),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.002)
    with watch(model, log_dir, optimizer=optimizer, every=every) as monitor:
        for epoch in range(epochs):
            for batch in torch.randperm(len(images)).split(32):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(images[batch]), labels[batch])
                loss.backward()
                optimizer.step()
                monitor.step(loss=loss)
            print(f"epoch {epoch + 1}: loss {loss:.3f}, dead {monitor.dead_fraction:.1%}, {monitor.counts}")
    return model


if __name__ == "__main__":
    main(*sys.argv[1:2])

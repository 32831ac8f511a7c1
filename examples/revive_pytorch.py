"""A PyTorch network that most of its units have left, and revival while it trains, on 8 x 8 digits.

Then: tensorboard --logdir runs, or: deadunits report runs
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from deadunits_tb.torch import ReviveHook, watch


def main(log_dir: str = "runs/revived_digits", steps: int = 400) -> nn.Module:
    """Train, and return the model."""
    torch.manual_seed(0)
    images, labels = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
    images = (images.float() - 8) / 8
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        model[0].bias[:56] = -30  # what too high a learning rate would have done
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with watch(model, log_dir, optimizer, every=4) as monitor:
        hook = ReviveHook(monitor, every=100, cool_down=100)  # at most a quarter of a layer at once
        for _ in range(steps):
            chosen = torch.randint(0, len(images), (128,))
            loss = functional.cross_entropy(model(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for plan in hook.plans:
        print(plan)
    print(f"loss {loss.item():.2f}, dead units {monitor.counts['0'].get('dead', 0)} of 64")
    return model


if __name__ == "__main__":
    main(*sys.argv[1:2])

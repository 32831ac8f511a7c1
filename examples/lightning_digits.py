"""Lightning: one callback, and nothing else changes.

The digits that scikit-learn ships. Then: tensorboard --logdir runs
"""

from __future__ import annotations

import sys

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from deadunits_tb.lightning import DeadUnitsCallback


class Classifier(pl.LightningModule):
    """64 pixels, two hidden layers of ReLU units, 10 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
        )

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of a batch."""
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 1e-3)


def main(log_dir: str = "runs/lightning", epochs: int = 10) -> Classifier:
    """Train, and return the trained network."""
    pl.seed_everything(0)
    images, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(torch.tensor(images / 8 - 1).float(), torch.tensor(labels))
    model = Classifier()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        callbacks=[DeadUnitsCallback(log_dir)],
    )  # fmt: skip
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=64, shuffle=True))
    return model


if __name__ == "__main__":
    main(*sys.argv[1:2])

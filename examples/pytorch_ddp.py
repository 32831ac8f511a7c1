"""PyTorch in two processes with DistributedDataParallel: one line, and the first process writes what both see.

The digits that scikit-learn ships. Then: tensorboard --logdir runs
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from deadunits_tb.torch import watch

PROCESSES, BATCH = 2, 64


def train(rank: int, meeting: str, log_dir: str, epochs: int) -> None:
    """What each process does, on its own share of every batch."""
    torch.set_num_threads(1)  # the processes share the cores of this machine
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES)
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 8 - 1).float(), torch.tensor(labels)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    model = nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with watch(model, log_dir, optimizer=optimizer) as monitor:
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(BATCH):
                mine = batch[rank::PROCESSES]
                loss = F.cross_entropy(model(x[mine]), y[mine])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.step(loss=loss)
    dist.destroy_process_group()


def main(log_dir: str = "runs/pytorch_ddp", epochs: int = 5) -> None:
    """Train in two processes of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(pathlib.Path(folder, "meeting"))
        torch.multiprocessing.spawn(train, (meeting, log_dir, epochs), nprocs=PROCESSES)


if __name__ == "__main__":
    main(*sys.argv[1:2])

"""One of several processes that train a model together: ``torch_processes.py MODE RANK SIZE FOLDER``.

Run with a size of 1 it trains alone on the batches of all. What it ends with is saved in the folder.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import warnings
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from deadunits_tb import Thresholds
from deadunits_tb.torch import watch

STEPS, EXAMPLES = 6, 16


def network() -> nn.Module:
    """No batch normalisation: each process would normalise by its own share of the batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].bias[2] = -100.0  # dead
        model[2].weight[5] = 0.0  # constant
    return model


class Switching(nn.Module):
    """In the third step the second process takes another way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        other = self.calls == 3 and dist.get_rank() == 1
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(self.two(x) if other else self.one(x)))  # type: ignore[no-any-return]


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all processes together."""
    numbers = torch.Generator().manual_seed(step)
    return torch.randn(EXAMPLES, 6, generator=numbers) + 3, torch.randint(0, 3, (EXAMPLES,), generator=numbers)


def main(mode: str, rank: int, size: int, folder: pathlib.Path) -> None:
    """Train."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size)
    model: nn.Module = Switching() if mode == "differs" else network()
    if mode == "fsdp" and size > 1:
        from torch.distributed.fsdp import fully_shard

        mesh = dist.device_mesh.init_device_mesh("cpu", (size,))
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif size > 1 and mode != "by hand":
        model = nn.parallel.DistributedDataParallel(model, find_unused_parameters=mode == "differs")
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    plain = mode.startswith("plain")
    monitor = None
    options: dict[str, Any] = {"process_group": dist.group.WORLD} if mode == "by hand" and size > 1 else {}
    if mode == "certified":  # so that a unit is dead within a few steps
        options["thresholds"] = Thresholds(unknown_examples=16, dead_examples=32, confirm_examples=16)
    if not plain:
        monitor = watch(model, folder / "log", optimizer, every=1, **options)
    for step in range(STEPS):
        x, y = batch(step)
        mine = slice(rank * EXAMPLES // size, (rank + 1) * EXAMPLES // size)
        if mode == "fails" and rank == 1 and step == 3:
            monitor._monitor.report("test", RuntimeError("injected"))  # type: ignore[union-attr]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[mine]), y[mine])
        loss.backward()
        if mode == "by hand" and size > 1:
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= size
        optimizer.step()
        if monitor is not None and (rank == 0 or step % 2):  # what a process says of the loss holds up none
            # Nor what it calls the step: what is observed together goes by the count.
            monitor.step(loss=loss, step=64 * step if mode == "ddp" and rank == 0 else None)
    if monitor is not None:
        (folder / f"errors{rank}").write_text("\n".join(monitor.errors))
        monitor.close()
    weights = [parameter.detach() for parameter in model.parameters()]
    if mode == "fsdp" and size > 1:
        weights = [weight.full_tensor() for weight in weights]
    torch.save([weights, torch.get_rng_state()], folder / f"weights{rank}")
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(BrokenPipeError):
            main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4]))

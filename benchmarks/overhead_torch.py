"""What watching adds to a PyTorch training step, with other libraries' monitors beside it.

    python benchmarks/overhead_torch.py [--rounds 15] [--seconds 30] [--run 1000] [--case mlp] [--no-peers] [--memory]

First table: every variant takes turns in every round, on a model and an optimizer of its own. Counted is the processor
time of the process per step, over all its threads, with PyTorch on one; the ratio is to the bare step of the same
round. "Observed" is ``every=1`` without a record, "a record each step" the same with one, which also looks at the
weights: so it is for the first 200 to 600 observations of a run. Beside it the wall clock's share of what the monitor
counts as its own work, as it is recorded.

Second table: a run with ``every=1`` from its first step to its last, against the same steps bare. Third: the default,
for a while. With ``--memory``: the peak memory of a process that trains a model of 1e8 parameters, with and without.

Memory that is freed goes back to the system, or does not, as it happens in a process: that alone makes steps of one
model differ by a tenth. So it is kept in all variants here.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

import deadunits_tb
from deadunits_tb.capture.schedule import OPENING_SECONDS
from deadunits_tb.torch import watch

FAR = 10_000_000
"""A resumed run so far on makes a record every 20,000 steps."""
After = Callable[[Any], None]
MONITORS: dict[str, Any] = {}
"""Log directory to the monitor that writes there."""


class Block(nn.Module):
    """Attention and a hidden layer, normalised before each."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(256), nn.MultiheadAttention(256, 4, batch_first=True)
        self.norm2, self.hidden, self.out = nn.LayerNorm(256), nn.Linear(256, 1024), nn.Linear(1024, 256)

    def forward(self, x: Any) -> Any:
        """``[batch, sequence, 256]`` to the same."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.out(F.gelu(self.hidden(self.norm2(x))))


class Transformer(nn.Module):
    """Four blocks and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.classify = nn.Sequential(*(Block() for _ in range(4))), nn.Linear(256, 10)

    def forward(self, x: Any) -> Any:
        """Logits."""
        return self.classify(self.blocks(x).mean(1))


def mlp() -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def cnn() -> nn.Module:
    """Three convolutions with pooling."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 10))


@dataclass(frozen=True)
class Case:
    """A network, the shape of its batches, how many steps make a round, and how much watching may add to each."""

    key: str
    name: str
    shape: tuple[int, ...]
    model: Callable[[], nn.Module]
    steps: int
    limit: float


CASES = (
    Case("mlp", "MLP 784-512-512-10, batch 128", (128, 784), mlp, 30, 0.15),
    Case("cnn", "CNN 32-64-128 on 32x32x3, batch 64", (64, 3, 32, 32), cnn, 4, 0.08),
    Case("transformer", "transformer, 4 layers, d 256, ff 1024, 128 x 8", (8, 128, 256), Transformer, 2, 0.05),
)  # fmt: skip


class Training:
    """A loop of its own, with a monitor or without."""

    def __init__(self, case: Case, begin: Callable[[Any, Any, str], tuple[After, After]], directory: str) -> None:
        torch.manual_seed(0)
        self.model, self.inputs = case.model(), torch.randn(case.shape)
        self.labels = torch.randint(0, 10, case.shape[:1])
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4)
        self.directory = directory
        self._before_step, self._after_step = begin(self.model, self.optimizer, directory)

    def run(self, steps: int) -> tuple[float, float]:
        """Train; processor and wall seconds of each step."""
        processor, wall = time.process_time(), time.perf_counter()
        for _ in range(steps):
            loss = F.cross_entropy(self.model(self.inputs), self.labels)
            loss.backward()
            self._before_step(loss)
            self.optimizer.step()
            self._after_step(loss)
            self.optimizer.zero_grad()
        return (time.process_time() - processor) / steps, (time.perf_counter() - wall) / steps


def nothing(loss: Any) -> None:
    """What a bare loop does."""


def bare(model: Any, optimizer: Any, directory: str) -> tuple[After, After]:
    """No monitor."""
    return nothing, nothing


def observed(model: Any, optimizer: Any, directory: str, **options: Any) -> tuple[After, After]:
    """Ours."""
    monitor = watch(model, directory, optimizer, **options)
    MONITORS[directory] = monitor
    return nothing, lambda loss: monitor.step(loss=loss)


def histograms(model: Any, optimizer: Any, directory: str) -> tuple[After, After]:
    """TensorBoard's histograms of parameters, gradients and activations."""
    from torch.utils.tensorboard import SummaryWriter

    writer, step = SummaryWriter(directory), [0]
    for name, module in model.named_modules():
        if isinstance(module, (nn.ReLU, nn.GELU, nn.Linear, nn.Conv2d)):
            module.register_forward_hook(
                lambda _, __, out, name=name: writer.add_histogram(f"activations/{name}", out, step[0])
            )

    def before(loss: Any) -> None:
        for name, parameter in model.named_parameters():
            writer.add_histogram(f"parameters/{name}", parameter, step[0])
            writer.add_histogram(f"gradients/{name}", parameter.grad, step[0])
        step[0] += 1

    return before, nothing


def weights_and_biases(model: Any, optimizer: Any, directory: str) -> tuple[After, After]:
    """Gradients and parameters of each step, without a network. Its own process is not counted."""
    os.environ["WANDB_MODE"], os.environ["WANDB_SILENT"] = "offline", "true"
    import wandb

    run = wandb.init(project="overhead", dir=directory, mode="offline", reinit="finish_previous")
    run.watch(model, log="all", log_freq=1)
    return nothing, lambda loss: run.log({"loss": loss.item()})


def delve(model: Any, optimizer: Any, directory: str) -> tuple[After, After]:
    """Saturation of each layer, at each step."""
    from delve import SaturationTracker

    tracker = SaturationTracker(f"{directory}/delve", save_to="csv", modules=model, stats=["lsat"], device="cpu")
    return nothing, lambda loss: tracker.add_saturations()


def ormas(model: Any, optimizer: Any, directory: str) -> tuple[After, After]:
    """As its documentation has it."""
    from ormas_monitor import Monitor

    monitor = Monitor(model, optimizer, out=f"{directory}/ormas")
    return lambda loss: monitor.step(loss), nothing


OBSERVED, RECORDED = "observed", "observed, a record each step"
VARIANTS: dict[str, Callable[..., tuple[After, After]]] = {
    "bare": bare,
    OBSERVED: lambda *to: observed(*to, every=1, initial_step=FAR),
    RECORDED: lambda *to: observed(*to, every=1),
    "every=10": lambda *to: observed(*to, every=10, initial_step=FAR),
}
PEERS = {
    "SummaryWriter.add_histogram": histograms,
    'wandb.watch(log="all")': weights_and_biases,
    "delve": delve,
    "ormas-monitor": ormas,
}


def begin(case: Case, directory: str, peers: bool, console: Console) -> dict[str, Training]:
    """All variants, and those peers that work here, each trained for some steps."""
    ready = {}
    for name, make in {**VARIANTS, **(PEERS if peers else {})}.items():
        place = f"{directory}/{len(ready)}"
        Path(place).mkdir()
        try:
            training = Training(case, make, place)
            training.run(4)
        except Exception as error:
            if name in VARIANTS:
                raise
            console.print(f"{name} is left out: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
        else:
            ready[name] = training
    return ready


def own_share(directory: str) -> tuple[float, float]:
    """Seconds of one step's own work as recorded, and their share of the rest of the step."""
    MONITORS[directory].close()
    records = deadunits_tb.load(directory)["."].records
    first, last = records[1], records[-1]  # the first knows no duration yet
    steps = last.step - first.step
    own = (last.overhead_seconds - first.overhead_seconds) / steps
    trained = (last.overhead_seconds / last.overhead - first.overhead_seconds / first.overhead) / steps
    return own, own / (trained - own)


def per_step(case: Case, rounds: int, peers: bool, console: Console) -> Table:
    """The first table."""
    title = f"{case.name}; at most {case.limit:.0%} may be added"
    table = Table(
        "variant", "processor ms per step", "ratio to bare, round by round", "wall ms", "own work", title=title
    )
    with tempfile.TemporaryDirectory() as directory:
        ready = begin(case, directory, peers, console)
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ready}
        for round_ in range(rounds):
            for name in ready if round_ % 2 else reversed(ready):
                figures[name].append(ready[name].run(case.steps))
        for name, values in figures.items():
            ratios = [one[0] / other[0] for one, other in zip(values, figures["bare"], strict=True)]
            processor, wall = ([1e3 * one[at] for one in values] for at in (0, 1))
            own, share = own_share(ready[name].directory) if name == RECORDED else (0.0, 0.0)
            table.add_row(
                name,
                spread(processor, ".2f"),
                spread(ratios, ".3f"),
                f"{statistics.median(wall):.2f}",
                f"{1e3 * own:.2f} ms, {share:.1%}" if own else "",
            )
            if name in (OBSERVED, "every=10"):
                MONITORS[ready[name].directory].close()
    return table


def whole_run(case: Case, steps: int) -> tuple[list[float], list[float]]:
    """Processor seconds of a step, bare and with ``every=1``, in fifty parts of a run that take turns."""
    found: tuple[list[float], list[float]] = [], []
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        watched = Training(case, lambda *to: observed(*to, every=1), other)
        MONITORS[other].expect(steps)
        plain = Training(case, bare, one)
        for part in range(50):
            for which in (0, 1) if part % 2 else (1, 0):
                found[which].append((plain, watched)[which].run(max(1, steps // 50))[0])
        MONITORS[other].close()
    return found


def by_default(case: Case, seconds: float) -> tuple[float, float, int, int]:
    """Training seconds, the monitor's own, steps, and records of a run with the monitor as it is by default."""
    with tempfile.TemporaryDirectory() as directory:
        training, until = Training(case, observed, directory), time.perf_counter() + seconds
        while time.perf_counter() < until:
            training.run(case.steps)
        MONITORS[directory].close()
        last = deadunits_tb.load(directory)["."].records[-1]
    return last.overhead_seconds / last.overhead, last.overhead_seconds, last.step, last.records_written


def peak_memory(watched: bool) -> int:
    """Most bytes that a process of its own takes that trains 1e8 parameters for five steps."""
    command = [sys.executable, __file__, "--memory-of", "watched" if watched else "bare"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def train_large(watched: bool) -> None:
    """Print the peak of this process."""
    model = nn.Sequential(nn.Linear(5800, 5800), nn.ReLU(), nn.Linear(5800, 5800), nn.ReLU(), nn.Linear(5800, 5800))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    inputs = torch.randn(4, 5800)
    with tempfile.TemporaryDirectory() as directory:
        _, after = observed(model, optimizer, directory, every=1) if watched else bare(model, optimizer, directory)
        for _ in range(5):
            loss = model(inputs).square().mean()
            loss.backward()
            optimizer.step()
            after(loss)
            optimizer.zero_grad()
        for monitor in MONITORS.values():
            monitor.close()
            assert not monitor.errors
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def keep_memory() -> None:
    """Have the C library keep what is freed, where it can be told to."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            library.mallopt(parameter, 2**30)


def spread(values: list[float], form: str) -> str:
    """Median, with the smallest and largest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=30, help="of each run by default; 0 for none")
    parser.add_argument("--run", type=int, default=1000, help="steps of the whole run of the MLP; 0 for none")
    parser.add_argument("--case", choices=[case.key for case in CASES], help="all without it")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--memory", action="store_true", help="measure memory alone")
    parser.add_argument("--memory-of", choices=["bare", "watched"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        train_large(arguments.memory_of == "watched")
        return
    console = Console(width=150)
    console.print(f"PyTorch {torch.__version__}, one thread, {time.strftime('%Y-%m-%d %H:%M')}")
    if arguments.memory:
        without, with_it = peak_memory(False), peak_memory(True)
        console.print(f"1e8 parameters: {without / 1e6:.0f} MB, watched {with_it / 1e6:.0f} MB")
        return
    keep_memory()
    cases = [case for case in CASES if arguments.case in (None, case.key)]
    for case in cases:
        console.print(per_step(case, arguments.rounds, not arguments.no_peers, console))
    if arguments.run and CASES[0] in cases:
        plain, watched = whole_run(CASES[0], arguments.run)
        ratio = statistics.mean(watched) / statistics.mean(plain)
        console.print(f"{CASES[0].name}: {arguments.run} steps at every=1 took {ratio:.3f} times what they take bare")
    if arguments.seconds:
        table = Table("by default", "training s", "own s", "share beyond the allowance", "steps", "records")
        for case in cases:
            training, own, steps, records = by_default(case, arguments.seconds)
            beyond = max(0.0, own - OPENING_SECONDS) / training
            table.add_row(case.name, f"{training:.1f}", f"{own:.2f}", f"{beyond:.2%}", f"{steps:,}", f"{records:,}")
        console.print(table)


if __name__ == "__main__":
    main()

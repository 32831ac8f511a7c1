"""What is recorded of a model that Lightning trains is what is recorded of it in a loop, to the last bit."""

from __future__ import annotations

import contextlib
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

import deadunits_tb
from deadunits_tb.lightning import DeadUnitsCallback
from deadunits_tb.torch import watch
from same_records import assert_same_records
from torch_zoo import built

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]
STEPS = 3
NAMES = (  # not "functional": of weights without a module it is known after the first step only whose they are
    *("convolutions", "signals", "residual", "twice", "lstm", "gru", "block", "encoder", "gated"),
    *("checkpoint", "checkpoint reentrant", "frozen"),
)


class Module(pl.LightningModule):
    """Trains a model of the zoo."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def on_train_start(self) -> None:
        torch.manual_seed(5)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0]).float(), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def made(name: str) -> tuple[Module, torch.Tensor, torch.Tensor]:
    net, x = built(name)
    net(x)  # makes what is lazy
    return Module(net), x, torch.randint(0, 3, (len(x),))


def scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)


def same(net: Any) -> Any:
    return net


def compiled(net: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(net, backend="aot_eager")


def in_lightning(name: str, log_dir: Any, *, half: bool = False, how: Any = same, **arguments: Any) -> Module:
    module, x, y = made(name)
    module.net = how(module.net)
    data = torch.utils.data.TensorDataset(x, y)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(
        max_epochs=STEPS,
        accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler())] if half else None,
        callbacks=[DeadUnitsCallback(log_dir, every=1, **arguments)],
        **dict.fromkeys(quiet, False),
    )
    trainer.fit(module, torch.utils.data.DataLoader(data, len(x), generator=torch.Generator()))
    return module


def in_a_loop(name: str, log_dir: Any, *, half: bool = False, how: Any = same, **arguments: Any) -> Module:
    module, x, y = made(name)
    module.net = how(module.net)
    module.train()
    optimizer, scaling = module.configure_optimizers(), scaler() if half else None
    with watch(module, log_dir, optimizer, scaler=scaling, every=1, **arguments) as monitor:
        module.on_train_start()
        for _ in range(STEPS):
            optimizer.zero_grad()
            autocast = torch.autocast("cpu", torch.float16) if half else contextlib.nullcontext()
            with autocast, monitor.forward_pass(x):
                loss = module.training_step((x, y), 0)
            (loss if scaling is None else scaling.scale(loss)).backward()
            if scaling is None:
                optimizer.step()
            else:
                scaling.step(optimizer)
                scaling.update()
            monitor.step(loss=loss)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_the_records_are_those_of_a_loop(name: str, tmp_path: Any) -> None:
    in_lightning(name, tmp_path / "lightning")
    in_a_loop(name, tmp_path / "loop")
    runs = deadunits_tb.load(tmp_path)
    assert len(runs["loop"].layers) >= 2
    assert_same_records(runs["lightning"], runs["loop"])


def test_rows_of_an_embedding_that_is_named(tmp_path: Any) -> None:
    in_lightning("lstm", tmp_path / "lightning", layers=["net.embed", "net.head"])
    in_a_loop("lstm", tmp_path / "loop", layers=["net.embed", "net.head"])
    runs = deadunits_tb.load(tmp_path)
    assert runs["loop"].layers["net.embed"].units == 20
    assert_same_records(runs["lightning"], runs["loop"])


def test_float16_with_a_loss_scaler_that_skips_a_step(tmp_path: Any) -> None:
    one, other = (
        in_lightning("dense", tmp_path / "lightning", half=True),
        in_a_loop("dense", tmp_path / "loop", half=True),
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    runs = deadunits_tb.load(tmp_path)
    assert [record.examples for record in runs["loop"].records] == [32, 16]  # the skipped step's belong to the next
    gradient = runs["loop"].layers["net.0"].statistic("gradient")
    assert ((gradient > 0) & (gradient < 1)).all(1).any()  # unscaled
    assert_same_records(runs["lightning"], runs["loop"])


@pytest.mark.filterwarnings("ignore", "error::deadunits_tb.MonitorWarning")  # the compiler warns about itself
def test_a_part_that_was_compiled_before(tmp_path: Any) -> None:
    one = in_lightning("dense", tmp_path / "lightning", how=compiled)
    other = in_a_loop("dense", tmp_path / "loop", how=compiled)
    plain = in_a_loop("dense", tmp_path / "eager")
    for found in (other, plain):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), found.parameters(), strict=True))
    runs = deadunits_tb.load(tmp_path)
    assert [layer.info.activation_function for layer in runs["loop"].layers.values()] == ["relu", "tanh", None]
    assert_same_records(runs["lightning"], runs["loop"])

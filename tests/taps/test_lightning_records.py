"""What is recorded of a model that Lightning trains is what is recorded of it in a loop, to the last bit."""

from __future__ import annotations

import contextlib
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

import deadunits_tb
from deadunits_tb.lightning import DeadUnitsCallback
from deadunits_tb.torch import watch
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


def in_lightning(name: str, log_dir: Any, *, half: bool = False, **arguments: Any) -> Module:
    module, x, y = made(name)
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


def in_a_loop(name: str, log_dir: Any, *, half: bool = False, **arguments: Any) -> Module:
    module, x, y = made(name)
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


def assert_same_records(one: Any, other: Any) -> None:
    assert [(each.step, each.examples, each.loss, each.inputs) for each in one.records] == [
        (each.step, each.examples, each.loss, each.inputs) for each in other.records
    ]
    assert one.records[-1].skipped == other.records[-1].skipped
    assert one.records[-1].errors == other.records[-1].errors == ()
    assert list(one.layers) == list(other.layers)
    for name, layer in one.layers.items():
        wanted = other.layers[name]
        assert layer.info == wanted.info
        assert set(layer.statistics) == set(wanted.statistics)
        np.testing.assert_array_equal(layer.states, wanted.states)
        for statistic in layer.statistics:
            np.testing.assert_array_equal(layer.statistic(statistic), wanted.statistic(statistic), err_msg=name)


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

"""What is recorded of a model that Hugging Face's Trainer trains is what is recorded in a loop, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import deadunits_tb
from deadunits_tb.torch import watch
from deadunits_tb.transformers import DeadUnitsCallback
from same_records import assert_same_records
from torch_zoo import built

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
STEPS = 3
NAMES = (
    *("convolutions", "signals", "residual", "twice", "lstm", "gru", "block", "gated"),
    *("checkpoint", "checkpoint reentrant", "frozen"),
)


class Model(nn.Module):
    """Gives the loss, as the Trainer wants it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net, self.inputs = built(name)
        self.net(self.inputs)  # makes what is lazy
        self.targets = torch.randint(0, 3, (len(self.inputs),))

    def forward(self, x: torch.Tensor, labels: torch.Tensor, **others: Any) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class Batches(torch.utils.data.IterableDataset):  # type: ignore[misc]
    """One and the same batch again and again, in its order."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(STEPS):
            for x, y in zip(self.model.inputs, self.model.targets, strict=True):
                yield {"x": x, "labels": y}


class Seeds(TrainerCallback):  # type: ignore[misc]
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        torch.manual_seed(state.global_step)


class Half(Trainer):  # type: ignore[misc]
    """Float16 with a loss scaler on a CPU, where Accelerate makes none by itself."""

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = scaler()

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.float16):
            return super().compute_loss(*args, **kwargs)


def scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)


def same(model: Any) -> Any:
    return model


def compiled(model: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(model, backend="aot_eager")


def in_trainer(name: str, log_dir: Any, *, half: bool = False, how: Any = same, **arguments: Any) -> Model:
    model = Model(name)
    optimizer = model.optimizer()
    settings = TrainingArguments(
        str(log_dir.parent / "trainer"),
        max_steps=STEPS,
        per_device_train_batch_size=len(model.inputs),
        report_to="none",
        save_strategy="no",
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        max_grad_norm=0.0,
    )
    (Half if half else Trainer)(
        how(model),
        settings,
        train_dataset=Batches(model),
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)),
        callbacks=[DeadUnitsCallback(log_dir, every=1, **arguments), Seeds()],
    ).train()
    return model


def in_a_loop(name: str, log_dir: Any, *, half: bool = False, how: Any = same, **arguments: Any) -> Model:
    model = Model(name).train()
    optimizer, scaling, called = model.optimizer(), torch.amp.GradScaler("cpu", enabled=False), how(model)
    if half:
        scaling = scaler()
    with watch(called, log_dir, optimizer, every=1, **arguments) as monitor:
        for step in range(STEPS):
            torch.manual_seed(step)
            with torch.autocast("cpu", torch.float16, enabled=half):
                loss = called(x=model.inputs, labels=model.targets)["loss"]
            scaling.scale(loss).backward()
            scaling.step(optimizer)
            scaling.update()
            monitor.step(loss=loss)
            optimizer.zero_grad()
    return model


@pytest.mark.parametrize("name", NAMES)
def test_the_records_are_those_of_a_loop(name: str, tmp_path: Any) -> None:
    in_trainer(name, tmp_path / "trainer_log")
    in_a_loop(name, tmp_path / "loop")
    runs = deadunits_tb.load(tmp_path)
    assert len(runs["loop"].layers) >= 2
    assert_same_records(runs["trainer_log"], runs["loop"])
    inputs = Model(name).inputs
    fed = runs["loop"].records[0].inputs
    assert (fed is None) == (not inputs.is_floating_point())
    if fed is not None:  # and not the labels
        assert fed.mean == pytest.approx(inputs.double().mean().item(), rel=1e-5)


def test_rows_of_an_embedding_that_is_named(tmp_path: Any) -> None:
    in_trainer("lstm", tmp_path / "trainer_log", layers=["net.embed", "net.head"])
    in_a_loop("lstm", tmp_path / "loop", layers=["net.embed", "net.head"])
    runs = deadunits_tb.load(tmp_path)
    assert runs["loop"].layers["net.embed"].units == 20
    assert_same_records(runs["trainer_log"], runs["loop"])


def test_float16_with_a_loss_scaler_that_skips_a_step(tmp_path: Any) -> None:
    """It is not named, but found at the first step that it lets through."""
    one, other = (
        in_trainer("dense", tmp_path / "trainer_log", half=True),
        in_a_loop("dense", tmp_path / "loop", half=True),
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    runs = deadunits_tb.load(tmp_path)
    assert [record.examples for record in runs["loop"].records] == [32, 16]  # the skipped step's belong to the next
    before, after = runs["loop"].layers["net.0"].statistic("gradient")
    assert np.isnan(before).all()  # in part of a scale that is not known
    assert ((after > 0) & (after < 1)).all()  # unscaled
    assert_same_records(runs["trainer_log"], runs["loop"])


@pytest.mark.filterwarnings("ignore", "error::deadunits_tb.MonitorWarning")  # the compiler warns about itself
def test_a_model_that_was_compiled_before(tmp_path: Any) -> None:
    """Its other outputs are left alone by the loss."""
    one = in_trainer("dense", tmp_path / "trainer_log", how=compiled)
    other = in_a_loop("dense", tmp_path / "loop", how=compiled)
    plain = in_a_loop("dense", tmp_path / "eager")
    for found in (other, plain):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), found.parameters(), strict=True))
    runs = deadunits_tb.load(tmp_path)
    assert [layer.info.activation_function for layer in runs["loop"].layers.values()] == ["relu", "tanh", "linear"]
    assert_same_records(runs["trainer_log"], runs["loop"])

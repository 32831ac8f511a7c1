"""The Lightning callback as its users meet it: one argument, the same training, nothing left behind."""

from __future__ import annotations

import copy
import io
import pathlib
import warnings
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import deadunits_tb
from chosen_interval import assert_chosen_by_cost, without_opening
from deadunits_tb import InvalidArgumentError, MonitorWarning
from deadunits_tb.lightning import DeadUnitsCallback

# Lightning's advice, on loaders, on loggers and on what it skips; our own warnings stay errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
]
torch.set_num_threads(1)


class Digits(pl.LightningModule):
    """Calls a part of itself in ``training_step``, as most do."""

    def __init__(self, optimizer: str = "adam", whole: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 16), nn.BatchNorm1d(16), nn.Tanh(),
            nn.Linear(16, 10),
        )  # fmt: skip
        self.kind, self.whole = optimizer, whole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.cross_entropy(self(x) if self.whole else self.net(x), y)
        self.log("train_loss", loss)
        return {"loss": loss} if self.whole else loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        if self.kind == "sgd":
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, nesterov=True)
        return torch.optim.Adam(self.parameters(), 0.01)


class Adversaries(pl.LightningModule):
    """Two optimizers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 64))
        self.critic = nn.Sequential(nn.Linear(64, 16), nn.LeakyReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, _ = batch
        first, second = self.optimizers()  # type: ignore[attr-defined]
        made = self.generator(torch.randn(len(x), 8))
        loss = F.softplus(-self.critic(made)).mean()
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        loss = F.softplus(self.critic(made.detach())).mean() + F.softplus(-self.critic(x)).mean()
        second.zero_grad()
        self.manual_backward(loss)
        second.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), 1e-3) for part in (self.generator, self.critic)]


def loader(shuffle: bool = True) -> Any:
    images, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(torch.tensor(images[:320] / 8 - 1).float(), torch.tensor(labels[:320]))
    return torch.utils.data.DataLoader(data, 32, shuffle=shuffle)


def fit(module: pl.LightningModule, *callbacks: Any, validate: bool = False, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        **({"max_epochs": 2} | options),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, loader(), loader(False) if validate else None)
    return trainer


def trained(make: Any, callbacks: list[Any], **options: Any) -> tuple[Any, ...]:
    torch.manual_seed(0)
    module = make()
    trainer = fit(module, *callbacks, **options)
    states = [optimizer.state_dict() for optimizer in trainer.optimizers]
    return module.state_dict(), states, torch.get_rng_state(), trainer.callback_metrics.get("train_loss")


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "parts are called": (Digits, {}),
    "the module is called": (lambda: Digits(whole=True), {"validate": True}),
    "sgd, accumulated, clipped": (lambda: Digits("sgd"), {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5}),
    "bfloat16": (Digits, {"precision": "bf16-mixed"}),
    "two optimizers": (Adversaries, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_training_is_the_same_to_the_last_bit(case: str, tmp_path: pathlib.Path) -> None:
    make, options = CASES[case]
    plain = trained(make, [], **options)
    watched = trained(make, [DeadUnitsCallback(tmp_path, every=1)], **options)
    assert_same(plain, watched)
    run = deadunits_tb.load(tmp_path)["."]
    assert run.records
    assert not [error for record in run.records for error in record.errors]


def test_what_is_recorded(tmp_path: pathlib.Path) -> None:
    """Validation adds nothing."""
    trained(Digits, [DeadUnitsCallback(tmp_path, every=1)], validate=True)
    run = deadunits_tb.load(tmp_path)["."]
    assert {name: (layer.info.activation_function, layer.info.role) for name, layer in run.layers.items()} == {
        "net.0": ("relu", "hidden"), "net.3": ("tanh", "hidden"), "net.6": ("linear", "output"),
    }  # fmt: skip
    assert run.info.framework == "torch"
    assert run.info.optimizer["class"] == "Adam"
    assert [(record.step, record.examples) for record in run.records] == [(step, 32) for step in range(20)]
    assert all(record.loss is not None and 0 < record.loss < 5 for record in run.records)
    assert all(record.inputs is not None for record in run.records)
    assert all(layer.statistic("update_ratio").max() > 0 for layer in run.layers.values())
    assert all(layer.info.witness == "pre_activation" for layer in run.layers.values())


def test_of_two_optimizers_the_layers_of_both_move(tmp_path: pathlib.Path) -> None:
    trained(Adversaries, [DeadUnitsCallback(tmp_path, every=1)])
    run = deadunits_tb.load(tmp_path)["."]
    assert {"generator.0", "critic.0"} <= set(run.layers)
    for name, layer in run.layers.items():
        assert layer.statistic("update_ratio")[1:].min() > 0, name
        assert layer.counts.get("stagnant", 0) == 0, name


def test_steps_are_those_of_the_optimizer(tmp_path: pathlib.Path) -> None:
    trained(Digits, [DeadUnitsCallback(tmp_path, every=1)], accumulate_grad_batches=5)
    records = deadunits_tb.load(tmp_path)["."].records
    assert [(record.step, record.examples) for record in records] == [(step, 160) for step in range(4)]


def test_nothing_is_left_behind(tmp_path: pathlib.Path) -> None:
    module = Digits()
    fit(module, DeadUnitsCallback(tmp_path, every=1))
    assert "training_step" not in vars(module)
    assert not [one for part in module.modules() for one in (*part._forward_hooks, *part._forward_pre_hooks)]


class Breaks(pl.Callback):  # type: ignore[misc]
    """Ends training in its own way, and looks at the module meanwhile."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self.copied: Any = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 5:
            self.copied = copy.deepcopy(pl_module)
            torch.save(pl_module.net, io.BytesIO())
            raise self._error


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_nothing_is_left_behind_where_training_ends_early(error: BaseException, tmp_path: pathlib.Path) -> None:
    module, breaks = Digits(), Breaks(error)
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
        fit(module, DeadUnitsCallback(tmp_path, every=1), breaks)
    assert "training_step" not in vars(module)
    assert not [one for part in module.modules() for one in (*part._forward_hooks, *part._forward_pre_hooks)]
    assert deadunits_tb.load(tmp_path)["."].records
    breaks.copied._trainer = None
    assert torch.isfinite(breaks.copied.net(torch.zeros(4, 64))).all()  # a copy made meanwhile is a plain one
    assert breaks.copied.training_step.__self__ is breaks.copied


def test_an_alarm_may_end_training(tmp_path: pathlib.Path) -> None:
    def born_dead() -> Digits:
        module = Digits()
        with torch.no_grad():
            module.net[0].bias.fill_(-100)
        return module

    torch.manual_seed(0)
    alarms: list[Any] = []
    callback = DeadUnitsCallback(
        tmp_path, every=1, on_alarm=alarms.append, stop_on_alarm=True, thresholds={"dead_examples": 300}
    )
    trainer = fit(born_dead(), callback, max_epochs=20)
    assert alarms
    assert alarms[0].layer == "net.3"  # behind 32 silent units every output is constant: seen first
    assert trainer.global_step < 30
    assert 0 <= trainer.callback_metrics["dead_fraction"] <= 1


def test_by_default_the_interval_is_chosen_by_cost(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_opening(monkeypatch)
    fit(Digits(), DeadUnitsCallback(tmp_path), max_epochs=10)
    assert_chosen_by_cost(deadunits_tb.load(tmp_path)["."], steps=100)


def test_a_second_fit_goes_on_counting(tmp_path: pathlib.Path) -> None:
    module, callback = Digits(), DeadUnitsCallback(tmp_path / "one", every=1)
    fit(module, callback, max_epochs=1)
    fit(module, callback, max_epochs=1)
    assert deadunits_tb.load(tmp_path)["one"].records


def test_wrong_arguments_are_said_before_training(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidArgumentError, match="stop_on_alarm must be True or False"):
        DeadUnitsCallback(tmp_path, stop_on_alarm=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="every"):
        DeadUnitsCallback(tmp_path, every=0)
    with pytest.raises(InvalidArgumentError, match="Did you mean 'dead_examples'"):
        DeadUnitsCallback(tmp_path, thresholds={"dead_example": 3000})


def test_a_monitor_that_fails_does_not_break_training(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deadunits_tb.taps.torch.reductions import Reductions

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("injected")

    plain = trained(Digits, [])
    monkeypatch.setattr(Reductions, "activation_sums", broken)
    with pytest.warns(MonitorWarning, match="injected"):
        watched = trained(Digits, [DeadUnitsCallback(tmp_path, every=1)])
    assert_same(plain, watched)


@pytest.mark.slow
def test_it_imports_no_other_framework() -> None:
    import subprocess
    import sys

    code = "import sys, deadunits_tb.lightning; print({'tensorflow', 'keras', 'jax'} & set(sys.modules))"
    with warnings.catch_warnings():
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"

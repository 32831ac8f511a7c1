"""The callback for Hugging Face's Trainer as its users meet it, on small models made from their configuration."""

from __future__ import annotations

import gc
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import deadunits_tb
from chosen_interval import assert_chosen_by_cost, without_opening
from deadunits_tb import InvalidArgumentError, MonitorWarning
from deadunits_tb.transformers import DeadUnitsCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
torch.set_num_threads(1)
WORDS, LENGTH = 50, 8


def bert() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=WORDS, num_labels=2, **sizes))


def opt() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32}
    return OPTForCausalLM(OPTConfig(vocab_size=WORDS, word_embed_proj_dim=16, max_position_embeddings=32, **sizes))


class Sentences(torch.utils.data.Dataset):  # type: ignore[misc]
    """Made-up words; the label is told by the first."""

    def __init__(self, causal: bool) -> None:
        words = torch.randint(4, WORDS, (96, LENGTH), generator=torch.Generator().manual_seed(0))
        self.words, self.labels = words, words if causal else (words[:, 0] > WORDS // 2).long()

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> Any:
        return {"input_ids": self.words[index], "labels": self.labels[index]}


def train(make: Any, callbacks: list[Any], folder: pathlib.Path, **options: Any) -> tuple[Trainer, Any]:
    torch.manual_seed(0)
    model = make()
    arguments = {
        "num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 4,
        "report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "seed": 1,
    }  # fmt: skip
    data = Sentences(make is opt)
    trainer = Trainer(
        model,
        TrainingArguments(str(folder / "trainer"), **(arguments | options)),
        train_dataset=data,
        eval_dataset=data,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer, model


def state(trained: tuple[Trainer, Any]) -> tuple[Any, ...]:
    trainer, model = trained
    moments = [list(entry.values()) for entry in trainer.optimizer.state.values()]
    return [*model.state_dict().values()], moments, torch.get_rng_state(), trainer.state.log_history[0]["loss"]


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (bert, {"eval_strategy": "steps", "eval_steps": 4}),
    "opt": (opt, {}),
    "bert, accumulated, bfloat16": (bert, {"gradient_accumulation_steps": 3, "bf16": True}),
    "opt, checkpointed": (opt, {"gradient_checkpointing": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_training_is_the_same_to_the_last_bit(case: str, tmp_path: pathlib.Path) -> None:
    make, options = CASES[case]
    plain = state(train(make, [], tmp_path, **options))
    watched = state(train(make, [DeadUnitsCallback(tmp_path / "log", every=1)], tmp_path, **options))
    assert_same(plain, watched)
    run = deadunits_tb.load(tmp_path)["log"]
    accumulated = "accumulated" in case
    assert [record.examples for record in run.records] == ([24] * 4 if accumulated else [8] * 12)  # none of evaluation
    assert not run.records[-1].errors


def test_the_hidden_units_of_transformers(tmp_path: pathlib.Path) -> None:
    """Those of the feed-forward blocks are the units that matter."""
    train(bert, [DeadUnitsCallback(tmp_path / "bert", every=1)], tmp_path)
    train(opt, [DeadUnitsCallback(tmp_path / "opt", every=1)], tmp_path)
    runs = deadunits_tb.load(tmp_path)
    hidden = [layer for name, layer in runs["bert"].layers.items() if name.endswith("intermediate.dense")]
    assert [(one.units, one.info.activation_function, one.info.tokens) for one in hidden] == [(32, "gelu", True)] * 2
    hidden = [layer for name, layer in runs["opt"].layers.items() if name.endswith("fc1")]
    assert [(one.units, one.info.activation_function, one.info.tokens) for one in hidden] == [(32, "relu", True)] * 2
    for run in runs.values():
        assert [name for name, layer in run.layers.items() if layer.info.role == "output"] in (
            ["classifier"], ["lm_head"],
        )  # fmt: skip
        assert all(0 < record.loss < 10 for record in run.records if record.loss is not None)
        assert all(record.loss is not None for record in run.records)
        assert run.records[-1].skipped  # embeddings
        assert [one for layer in hidden for one in layer.flagged() if one.state.label in ("dead", "stagnant")] == []


def test_the_share_of_dead_units_is_logged(tmp_path: pathlib.Path) -> None:
    seen: list[float] = []

    class Reads(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            seen.append(logs.get("dead_fraction", -1))

    train(bert, [DeadUnitsCallback(tmp_path / "again", every=1), Reads()], tmp_path)
    assert seen
    assert all(0 <= share <= 1 for share in seen)


def test_by_default_the_interval_is_chosen_by_cost(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_opening(monkeypatch)
    train(bert, [DeadUnitsCallback(tmp_path / "log")], tmp_path, num_train_epochs=4)
    assert_chosen_by_cost(deadunits_tb.load(tmp_path)["log"], steps=48)


def hooks(model: Any) -> list[Any]:
    return [one for part in model.modules() for one in (*part._forward_hooks, *part._forward_pre_hooks)]


def test_nothing_is_left_behind(tmp_path: pathlib.Path) -> None:
    trainer, model = train(opt, [DeadUnitsCallback(tmp_path / "log", every=1)], tmp_path)
    assert hooks(model) == []
    assert not getattr(trainer.optimizer, "optimizer", trainer.optimizer)._optimizer_step_post_hooks


@pytest.mark.slow
def test_nothing_is_left_behind_where_training_raises(tmp_path: pathlib.Path) -> None:
    kept: list[Any] = []

    class Breaks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            kept[:] = [kwargs["model"]]
            if state.global_step == 5:
                raise RuntimeError("stop")

    callback = DeadUnitsCallback(tmp_path / "log", every=1)
    with pytest.raises(RuntimeError, match="stop"):
        train(bert, [callback, Breaks()], tmp_path)
    gc.collect()
    assert hooks(kept[0]) == []
    assert deadunits_tb.load(tmp_path)["log"].records[-1].step == 4
    train(bert, [callback], tmp_path)  # and it can be used again


def test_an_alarm_may_end_training(tmp_path: pathlib.Path) -> None:
    def born_dead() -> Any:
        model = opt()
        with torch.no_grad():
            model.model.decoder.layers[0].fc1.bias.fill_(-100)
        return model

    alarms: list[Any] = []
    callback = DeadUnitsCallback(
        tmp_path / "log", every=1, on_alarm=alarms.append, stop_on_alarm=True,
        thresholds={"dead_examples": 30, "unknown_examples": 8, "confirm_examples": 8},
    )  # fmt: skip

    torch.manual_seed(0)
    trainer = Trainer(
        born_dead(),
        TrainingArguments(
            str(tmp_path / "t"),
            num_train_epochs=3,
            report_to="none",
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Sentences(causal=True),
        callbacks=[callback],
    )
    trainer.train()
    assert alarms
    assert alarms[0].layer.startswith("model.decoder.layers.0.fc")  # what follows silent units is constant
    assert trainer.state.global_step < 30


def test_wrong_arguments_are_said_before_training(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidArgumentError, match="max_overhead"):
        DeadUnitsCallback(tmp_path, max_overhead=2)
    with pytest.raises(InvalidArgumentError, match="Did you mean"):
        DeadUnitsCallback(tmp_path, thresholds={"dead_exmples": 3000})
    with pytest.raises(InvalidArgumentError, match=r"no layer 'bert\.encoder\.layer\.7'"):
        train(bert, [DeadUnitsCallback(tmp_path / "log", layers=["bert.encoder.layer.7"])], tmp_path)


def test_a_monitor_that_fails_does_not_break_training(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deadunits_tb.taps.torch.reductions import Reductions

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("injected")

    plain = state(train(bert, [], tmp_path))
    monkeypatch.setattr(Reductions, "activation_sums", broken)
    with pytest.warns(MonitorWarning, match="injected"):
        watched = state(train(bert, [DeadUnitsCallback(tmp_path / "log", every=1)], tmp_path))
    assert_same(plain, watched)


def test_it_imports_no_other_framework() -> None:
    code = "import sys, deadunits_tb.transformers; print({'tensorflow', 'keras', 'jax', 'flax'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"

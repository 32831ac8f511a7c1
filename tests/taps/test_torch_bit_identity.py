"""Rule one: training is the same to the last bit with the monitor and without it, whatever the model and the loop."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch

import deadunits_tb
from torch_zoo import OPTIMIZERS, ZOO, assert_same, train


def assert_identical(name: str, log_dir: pathlib.Path, **mode: Any) -> dict[str, Any]:
    plain, watched = train(name, **mode), train(name, log_dir, **mode)
    assert_same(plain, watched)
    assert watched["monitor"].errors == ()
    run = deadunits_tb.load(log_dir)["."]
    assert run.layers
    assert run.records[-1].step == mode.get("steps", 4) - 1 or mode.keys() & {"every", "scaled"}
    for module in watched["model"].modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    return watched


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")  # only faster without
@pytest.mark.parametrize("name", ZOO)
def test_every_model(name: str, tmp_path: pathlib.Path) -> None:
    assert_identical(name, tmp_path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer: str, tmp_path: pathlib.Path) -> None:
    assert_identical("residual", tmp_path, optimizer=optimizer)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("residual", {"accumulate": 3}),
        ("convolutions", {"autocast": torch.bfloat16}),
        ("block", {"autocast": torch.bfloat16}),
        ("dense", {"autocast": torch.float16, "scaled": 2.0**10}),
        ("dense", {"autocast": torch.float16, "scaled": 2.0**10, "clip": True, "accumulate": 2}),
        ("dense", {"scaled": 2.0**127, "steps": 6}),  # the first steps overflow and are skipped
        ("encoder", {"evaluate": True}),
        ("residual", {"evaluate": True, "tell": False}),
        ("dense", {"closure": True}),
        ("residual", {"every": 3}),
        ("gru", {"every": None}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(f"{k}={v}" for k, v in value.items()),
)
def test_every_way_to_train(name: str, mode: dict[str, Any], tmp_path: pathlib.Path) -> None:
    assert_identical(name, tmp_path, **mode)

"""Revival of a watched PyTorch model: by the records of its monitor, on call and by a hook."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch
from torch import nn

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.revivals import revivals
from deadunits_tb.torch import ReviveHook, revive, watch
from deadunits_tb.units import UnitState
from revive_torch_zoo import DEAD, OPTIMIZERS, batch, kill, mlp, train


def watched(tmp_path: pathlib.Path, **settings: Any) -> Any:
    torch.manual_seed(0)
    model = mlp()
    kill(model, "0", [1, 4, 5])
    optimizer = OPTIMIZERS["adam"](model.parameters())
    return model, optimizer, watch(model, tmp_path, optimizer, every=1, **settings)


def test_a_watched_model_is_revived_by_its_records_and_the_log_says_so(tmp_path: pathlib.Path) -> None:
    model, optimizer, monitor = watched(tmp_path)
    assert not revive(monitor)  # nothing is known yet
    train(model, optimizer, (256, 6), 15)
    assert monitor.counts["0"] == {"active": 5, "dead": 3}
    x = batch((32, 6), 99)
    before = model(x).detach()

    dry = revive(monitor, layers=["0"], dry_run=True, max_share=0.25)
    assert str(dry) == "step 14, dead units, at most 25 % of a layer: would revive 2 of 3 found in 0 (8 units)"
    assert not dry.done
    plan = revive(monitor, layers=["0"], max_share=0.25, cool_down=10)
    assert plan.done
    assert (plan.layers, plan.refused) == (dry.layers, {})
    model.eval()
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)
    model.train()
    train(model, optimizer, (256, 6), 5)
    assert not revive(monitor, layers=["0"], cool_down=10)  # the third is still dead
    assert monitor.counts["0"]["dead"] == 1
    train(model, optimizer, (256, 6), 6)
    again = revive(monitor, layers=["0"], max_share=0.25, cool_down=10)
    assert len(again.layers[0].units) == 1
    assert not set(again.layers[0].units) & set(plan.layers[0].units)
    train(model, optimizer, (256, 6), 10)
    assert "dead" not in monitor.counts["0"]
    monitor.close()
    assert not monitor.errors

    run = RunReader(LocalDataProvider(tmp_path)).history(".")
    first, second = revivals(run)
    assert (first.event.step, first.event.units) == (14, plan.layers[0].units)
    assert first.later[-1].alive == 2
    assert second.later[-1].alive == 1
    assert (run.layer("0").states()[-1] != UnitState.DEAD).all()


def test_output_layers_and_layers_that_cannot_be_revived_are_left_and_said(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU())
    with torch.no_grad():
        model[1].bias[DEAD] = -100  # type: ignore[index, operator, union-attr]
        model[3].bias[0] = -100  # type: ignore[index, operator, union-attr]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch(model, tmp_path, optimizer, every=1) as monitor:
        train(model, optimizer, (256, 6), 15)
        plan = revive(monitor)
        assert not plan
        assert plan.refused == {"0": "LayerNorm mixes them with others", "3": "it is an output layer"}
        with pytest.raises(InvalidArgumentError, match="layer '0' cannot be revived: LayerNorm mixes"):
            revive(monitor, layers=["0"])
        with pytest.raises(UnknownNameError, match="there is no layer 'x'"):
            revive(monitor, layers=["x"])
        with pytest.raises(InvalidArgumentError, match="chosen by the monitor's records"):
            revive(monitor, units={"0": [1]})


def test_the_hook_revives_by_itself_and_never_breaks_training(tmp_path: pathlib.Path) -> None:
    model, optimizer, monitor = watched(tmp_path)
    with pytest.raises(InvalidArgumentError, match="max_share"):
        ReviveHook(monitor, every=5, max_share=2)
    with pytest.raises(InvalidArgumentError, match="every"):
        ReviveHook(monitor, every=0)
    hook = ReviveHook(monitor, every=5, max_share=1, layers=["0"])
    train(model, optimizer, (256, 6), 25)
    assert [(plan.step, plan.layers[0].units) for plan in hook.plans] == [(14, (1, 4, 5))]
    hook.remove()
    hook.remove()
    broken = ReviveHook(monitor, every=1)
    broken._arguments["seed"] = "no seed"
    with pytest.warns(UserWarning, match="revives no more units and training goes on"):
        train(model, optimizer, (256, 6), 2)
    monitor.close()
    assert not optimizer._optimizer_step_post_hooks


def test_a_monitor_without_optimizer_has_no_hook(tmp_path: pathlib.Path) -> None:
    with watch(mlp(), tmp_path) as monitor, pytest.raises(InvalidArgumentError, match="without an optimizer"):
        ReviveHook(monitor)

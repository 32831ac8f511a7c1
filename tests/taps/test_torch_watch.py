"""``watch`` as its users meet it: what a step is, how a run ends, and what the model is like meanwhile."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deadunits_tb
from chosen_interval import assert_chosen_by_cost, without_opening
from deadunits_tb import MonitorWarning
from deadunits_tb.errors import InvalidArgumentError, LogDirectoryError, UnknownNameError
from deadunits_tb.torch import TorchMonitor, watch
from torch_zoo import built, train, vectors


def fitted(monitor, model, optimizer, x, steps, told=lambda monitor, at: monitor.step()):
    for at in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        told(monitor, at)


def dense(log_dir, every=1, **arguments):
    model, x = built("dense")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return watch(model, log_dir, optimizer=optimizer, every=every, **arguments), model, optimizer, x


def steps_of(log_dir, layer="0"):
    return deadunits_tb.load(log_dir)["."].layers[layer].steps.tolist()


@pytest.mark.parametrize(
    "told",
    [
        lambda monitor, at: monitor.step(),
        lambda monitor, at: None,
        lambda monitor, at: [monitor.step(), monitor.step()],
        lambda monitor, at: monitor.step(step=at),
        lambda monitor, at: [monitor.step(step=at), monitor.step(step=at)],
        lambda monitor, at: monitor.step() if at % 2 else None,
    ],
    ids=["once", "never", "twice", "with the number", "twice with the number", "at times"],
)
def test_steps_are_the_optimizers_however_often_one_says_so(told, tmp_path, caplog):
    monitor, model, optimizer, x = dense(tmp_path)
    fitted(monitor, model, optimizer, x, 5, told)
    assert monitor.current_step == 5
    monitor.close()
    assert steps_of(tmp_path) == [0, 1, 2, 3, 4]
    assert not caplog.records


def test_step_before_the_optimizer_belongs_to_the_step_before(tmp_path):
    monitor, model, optimizer, x = dense(tmp_path)
    for at in range(3):
        model(x).square().mean().backward()
        monitor.step(loss=float(at))
        optimizer.step()
    monitor.close()
    run = deadunits_tb.load(tmp_path)["."]
    assert run.layers["0"].steps.tolist() == [0, 1, 2]
    assert [record.loss for record in run.records] == [None, None, None]  # the loss of no step, rather than of another


def test_steps_as_the_user_counts_them(tmp_path):
    monitor, model, optimizer, x = dense(tmp_path, initial_step=7)
    fitted(monitor, model, optimizer, x, 2)
    fitted(monitor, model, optimizer, x, 1, lambda monitor, at: monitor.step(step=20))
    fitted(monitor, model, optimizer, x, 1)
    with pytest.warns(MonitorWarning, match="told that this is step 3, after step 21"):
        fitted(monitor, model, optimizer, x, 1, lambda monitor, at: monitor.step(step=3))
    monitor.close()
    assert steps_of(tmp_path) == [7, 8, 20, 21, 22]


def test_every(tmp_path):
    monitor, model, optimizer, x = dense(tmp_path, every=3)
    fitted(monitor, model, optimizer, x, 8)
    monitor.close()
    assert steps_of(tmp_path) == [0, 3, 6]


def test_steps_without_an_optimizer_are_those_that_the_user_ends(tmp_path):
    """Weights change between the forward pass and the call: measured. After the call: unknown, but never zero."""
    for order in ("updated", "told"):
        model, x = built("dense")
        monitor = watch(model, tmp_path / order, every=1)
        for _ in range(3):
            model.zero_grad()
            model(x).square().mean().backward()
            before = model[0].weight.detach().clone()
            if order == "told":
                monitor.step()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
            if order == "updated":
                monitor.step()
                monitor.step()
        moved = (model[0].weight.detach() - before).norm(dim=1) / before.norm(dim=1)
        assert monitor.current_step == 3
        monitor.close()
        layer = deadunits_tb.load(tmp_path / order)["."].layers["0"]
        assert layer.steps.tolist() == [0, 1, 2]
        assert np.isfinite(layer.statistic("weight_gradient")).all()
        if order == "updated":
            np.testing.assert_allclose(layer.statistic("update_ratio")[-1], moved, rtol=5e-3)
        else:
            assert "update_ratio" not in layer.statistics


def test_gradients_that_were_set_to_zero_before_are_not_taken_for_zero(tmp_path):
    model, x = built("dense")
    with watch(model, tmp_path, every=1) as monitor:
        model(x).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        model.zero_grad(set_to_none=False)
        monitor.step()
    layer = deadunits_tb.load(tmp_path)["."].layers["0"]
    assert "weight_gradient" not in layer.statistics
    assert (layer.statistic("gradient") > 0).any()


def test_zero_grad_anywhere(tmp_path):
    found = []
    for place in ("first", "after backward", "last"):
        monitor, model, optimizer, x = dense(tmp_path / place)
        for _ in range(3):
            if place == "first":
                optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            if place == "after backward":
                optimizer.zero_grad(set_to_none=False)
            monitor.step()
            if place == "last":
                optimizer.zero_grad()
        monitor.close()
        layer = deadunits_tb.load(tmp_path / place)["."].layers["0"]
        found.append((layer.statistic("weight_gradient"), layer.statistic("gradient"), layer.statistic("update_ratio")))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_evaluation_is_not_counted(tmp_path):
    result = train("dense", tmp_path, evaluate=True, steps=3)
    run = deadunits_tb.load(tmp_path)["."]
    assert [record.examples for record in run.records] == [16, 16, 16]
    assert result["monitor"].current_step == 3


def test_several_models_at_once(tmp_path):
    """A generative adversarial network: the generator is trained through the critic."""
    torch.manual_seed(0)
    models = {
        "generator": nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
        "critic": nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(), nn.Linear(8, 1)),
    }
    optimizers = {name: torch.optim.Adam(model.parameters(), 0.01) for name, model in models.items()}
    monitors = {name: watch(models[name], tmp_path / name, optimizer=optimizers[name], every=1) for name in models}
    for _ in range(3):
        for name, sign in (("critic", 1), ("generator", -1)):
            optimizers[name].zero_grad()
            fake = models["generator"](vectors())
            (sign * models["critic"](fake.detach() if name == "critic" else fake).mean()).backward()
            optimizers[name].step()
    for name, monitor in monitors.items():
        monitor.close()
        assert monitor.errors == ()
        assert steps_of(tmp_path / name) == [0, 1, 2]
        assert (deadunits_tb.load(tmp_path / name)["."].layers["0"].statistic("gradient") > 0).any()


def test_the_model_can_be_copied_pickled_and_saved_meanwhile(tmp_path):
    monitor, model, optimizer, x = dense(tmp_path / "run")
    keys = list(built("dense")[0].state_dict())
    fitted(monitor, model, optimizer, x, 1)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    other_optimizer = copy.deepcopy(optimizer)
    for other in others:
        assert list(other.state_dict()) == keys
        torch.testing.assert_close(other.eval()(x), model.eval()(x))
        other.train()(x).sum().backward()
        watch(other, tmp_path / f"other{id(other)}").close()  # the copy is not watched
    model.train()
    other_optimizer.step()
    assert list(model.state_dict()) == keys
    assert monitor.current_step == 1
    fitted(monitor, model, optimizer, x, 1)
    monitor.close()
    assert steps_of(tmp_path / "run") == [0, 1]


def test_a_saved_model_needs_nothing_of_ours(tmp_path):
    monitor, model, *_ = dense(tmp_path / "run")
    torch.save(model, tmp_path / "model.pt")
    monitor.close()
    code = (
        "import sys, torch; sys.modules['deadunits_tb'] = None; "
        f"model = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False); print(model(torch.ones(2, 6)).shape)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "torch.Size([2, 3])" in printed


def test_properties_and_alarms(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].bias[:2] = -1000
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    alarms = []
    with watch(model, tmp_path, optimizer=optimizer, every=1, on_alarm=alarms.append) as monitor:
        assert np.isnan(monitor.dead_fraction)
        for _ in range(8):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(512, 6)), torch.randint(0, 3, (512,))).backward()
            optimizer.step()
        assert monitor.dead_fraction == 2 / 11
        assert monitor.counts["0"]["dead"] == 2
    assert [(alarm.layer, alarm.units) for alarm in alarms] == [("0", 2)]
    assert isinstance(monitor, TorchMonitor)


def test_a_model_that_is_watched_already(tmp_path):
    monitor, model, optimizer, _ = dense(tmp_path / "a")
    with pytest.raises(InvalidArgumentError, match="being watched already: close that monitor"):
        watch(model, tmp_path / "b", optimizer=optimizer)
    monitor.close()
    monitor.close()
    watch(model, tmp_path / "b", optimizer=optimizer).close()


def test_an_optimizer_of_another_model(tmp_path):
    model, _ = built("dense")
    other = torch.optim.Adam(built("twice")[0].parameters())
    with pytest.raises(
        InvalidArgumentError, match="Adam holds none of the 6 parameters of this Sequential, but 8 others"
    ):
        watch(model, tmp_path / "run", optimizer=other)
    assert not (tmp_path / "run").exists()


def test_wrong_arguments_raise_before_training(tmp_path):
    model, _ = built("dense")
    for arguments, words in (
        ({"every": 0}, "every must be"),
        ({"max_overhead": 2}, "max_overhead must be"),
        ({"max_bytes": 0}, "max_bytes must be"),
        ({"initial_step": -1}, "initial_step must be"),
        ({"dataset_examples": -1}, "dataset_examples must be"),
        ({"layers": "0"}, "layers must be a list"),
        ({"layers": []}, "layers is empty"),
        ({"layers": [3]}, "layers must hold"),
        ({"optimizer": "adam"}, "optimizer must be"),
        ({"scaler": 2}, "scaler must be"),
        ({"on_alarm": 2}, "on_alarm must be"),
        ({"thresholds": 2}, "thresholds must be"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            watch(model, tmp_path / "run", **arguments)
    with pytest.raises(UnknownNameError, match="no threshold"):
        watch(model, tmp_path / "run", thresholds={"deda": 1})
    with pytest.raises(InvalidArgumentError, match=r"torch\.nn\.Module, not int"):
        watch(3, tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(LogDirectoryError):
        watch(model, tmp_path / "file")
    assert not model._forward_hooks


def test_step_before_any_forward_pass_is_said_once(tmp_path):
    model, x = built("dense")
    monitor = watch(model, tmp_path, every=1)
    with pytest.warns(MonitorWarning, match="before any forward pass"):
        monitor.step()
    monitor.step()  # a second warning would be an error
    model(x)
    monitor.step()
    assert monitor.current_step == 1
    monitor.close()


def test_an_optimizer_that_steps_without_forward_passes_is_said_once(tmp_path):
    monitor, model, optimizer, x = dense(tmp_path)
    model.forward(x).sum().backward()
    with pytest.warns(MonitorWarning, match=r"Call the model as model\(\.\.\.\), in training mode"):
        optimizer.step()
    monitor.step()
    optimizer.step()  # a second warning would be an error
    monitor.close()
    assert monitor.errors == ()


def test_a_forward_pass_that_does_not_call_the_model_can_be_shown(tmp_path):
    monitor, model, optimizer, x = dense(tmp_path)
    with monitor.forward_pass():
        loss = F.mse_loss(model[5](model[2](model[0](x).relu()).tanh()), torch.zeros(16, 3))
    loss.backward()
    optimizer.step()
    monitor.close()
    run = deadunits_tb.load(tmp_path)["."]
    assert [(layer.info.activation_function, layer.info.role) for layer in run.layers.values()] == [
        ("relu", "hidden"),
        ("tanh", "hidden"),
        ("linear", "output"),
    ]


def test_an_import_brings_no_other_framework():
    code = "import deadunits_tb.torch, sys; print({'tensorflow', 'keras', 'jax'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_by_default_the_interval_is_chosen_by_cost(tmp_path, monkeypatch):
    without_opening(monkeypatch)
    monitor, model, optimizer, x = dense(tmp_path, every=None)
    fitted(monitor, model, optimizer, x, 200)
    monitor.close()
    assert_chosen_by_cost(deadunits_tb.load(tmp_path)["."], steps=200)


def test_nothing_is_said_where_nothing_is_wrong(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor, model, optimizer, x = dense(tmp_path, every=None)
        fitted(monitor, model, optimizer, x, 30)
        monitor.close()
    assert deadunits_tb.load(tmp_path)["."].info.framework == "torch"


def test_loss_in_parts_has_no_gradient_rather_than_a_wrong_one(tmp_path):
    monitor, model, optimizer, x = dense(tmp_path)
    out = model(x)
    out[:, 0].sum().backward(retain_graph=True)
    out[:, 1].sum().backward()
    optimizer.step()
    monitor.close()
    layer = deadunits_tb.load(tmp_path)["."].layers["0"]
    assert "gradient" not in layer.statistics
    assert layer.info.witness == "none"

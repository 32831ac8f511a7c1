"""Whatever fails, in the user's code or in ours: training goes on as it would have, and nothing of ours is left."""

from __future__ import annotations

import contextlib
import warnings

import pytest
import torch
from torch import nn

import deadunits_tb
from deadunits_tb import MonitorWarning
from deadunits_tb.capture import packed
from deadunits_tb.taps.torch import follow as torch_follow
from deadunits_tb.taps.torch import known_layers as torch_known_layers
from deadunits_tb.taps.torch import looking as torch_looking
from deadunits_tb.taps.torch import pack as torch_pack
from deadunits_tb.taps.torch import passes as torch_passes
from deadunits_tb.taps.torch import private as torch_private
from deadunits_tb.taps.torch import step as torch_step
from deadunits_tb.taps.torch import tap as torch_tap
from deadunits_tb.taps.torch.reductions import Reductions
from deadunits_tb.taps.torch.weights import WeightWatch
from deadunits_tb.torch import watch
from torch_zoo import assert_same, built, train, vectors

STEP, FOLLOW, TAP = torch_step.StepSums, torch_follow.Follow, torch_tap.UnitTap
PLACES = {
    "deciding": (TAP, "_decide"),
    "inputs": (torch_looking, "value_summary"),
    "hooks of a pass": (torch_passes.Pass, "hook_modules"),
    "before a call": (FOLLOW, "_before"),
    "after a call": (FOLLOW, "_after"),
    "a layer's output": (FOLLOW, "begin"),
    "the end of a pass": (FOLLOW, "finish"),
    "staging": (STEP, "stage"),
    "activations": (Reductions, "activation_sums"),
    "gradients": (Reductions, "gradient_squares"),
    "merging": (STEP, "add"),
    "weights before": (WeightWatch, "before"),
    "weight gradients": (WeightWatch, "gradients"),
    "weights after": (WeightWatch, "around"),
    "outgoing weights": (WeightWatch, "outgoing"),
    "learning rate": (torch_looking, "_learning_rate"),
    "packing": (torch_step.StepSums, "fields"),
    "what is known of layers": (torch_known_layers.KnownLayers, "_info"),
    "unpacking": (packed, "unpack"),
    "fetching": (torch_pack.Packed, "fetch"),
    "scaler": (torch_private, "calling_scaler"),
}


def broken(*arguments, **named):
    raise ZeroDivisionError("injected")


def assert_nothing_left(model, optimizer=None):
    assert torch._C._len_torch_function_stack() == 0
    for module in model.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        assert not any(hooks)
        assert not [name for name, value in vars(module).items() if "deadunits_tb" in type(value).__module__]
        for parameter in module.parameters():
            assert not parameter._backward_hooks
    if optimizer is not None:
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks


@pytest.fixture(scope="module")
def plain():
    return {name: train(name) for name in ("dense", "block")}


@pytest.mark.parametrize("name", ["dense", "block"])
@pytest.mark.parametrize("place", PLACES)
def test_a_tap_that_fails(place, name, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(*PLACES[place], broken)
    silent = name == "block" and place == "inputs"  # tokens are no inputs to be summed up
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watched = train(name, tmp_path)
    said = [str(warning.message) for warning in caught if issubclass(warning.category, MonitorWarning)]
    assert len(said) == (not silent)
    assert all("training goes on" in one and "ZeroDivisionError: injected" in one for one in said)
    assert_same(plain[name], watched)
    assert_nothing_left(watched["model"])
    if not silent:
        assert any("injected" in error for error in deadunits_tb.load(tmp_path)["."].records[-1].errors)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt], ids=lambda error: error.__name__)
@pytest.mark.parametrize("where", ["forward", "backward", "module"])
def test_the_users_own_errors(error, where, tmp_path):
    """In the middle of a pass; training then goes on with the same model, and ends as if nothing had been."""

    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.recurrent = nn.Linear(6, 8), nn.Linear(8, 3), nn.RNN(8, 8)
            self.fail = ""

        def forward(self, x):
            x = self.one(x).relu()
            if self.fail == "forward":
                raise error("the user's own")
            x = self.recurrent(x)[0]
            return self.two(Raise.apply(x) if self.fail == "backward" else x)

    class Raise(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            raise error("the user's own")

    def failing(module, args):
        raise error("the user's own")

    results = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = Failing()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        monitor = watch(model, tmp_path, optimizer=optimizer, every=1) if watched else None
        for at in range(4):
            model.fail = where if at == 1 else ""
            handle = model.two.register_forward_pre_hook(failing) if at == 1 and where == "module" else None
            optimizer.zero_grad()
            if at == 1:
                with pytest.raises(error, match="the user's own"):
                    model(vectors()).square().mean().backward()
                model.fail = ""
                if handle is not None:
                    handle.remove()
                model.eval()
                model(vectors())  # whatever is left of the pass sees this
                model.train()
                continue
            model(vectors()).square().mean().backward()
            optimizer.step()
        if monitor is not None:
            monitor.close()
            assert_nothing_left(model, optimizer)
            assert monitor.errors == ()
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    run = deadunits_tb.load(tmp_path)["."]
    assert run.layers["one"].steps.tolist() == [0, 1, 2]
    # A pass that raised counts for nothing; one whose backward pass raised was a forward pass of the next step.
    assert [record.examples for record in run.records] == [16, 32 if where == "backward" else 16, 16]


def test_an_interrupt_leaves_nothing_behind_once_the_monitor_is_closed(tmp_path):
    class Interrupted(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 8)

        def forward(self, x):
            self.one(x)
            raise KeyboardInterrupt

    model = Interrupted()
    with pytest.raises(KeyboardInterrupt), watch(model, tmp_path, every=1):
        model(vectors())
    assert_nothing_left(model)


def test_after_an_interrupt_nothing_is_followed_any_more(tmp_path):
    class Interrupted(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 8)

        def forward(self, x):
            self.one(x)
            raise KeyboardInterrupt

    model = Interrupted()
    monitor = watch(model, tmp_path, every=1)
    with contextlib.suppress(KeyboardInterrupt):
        model(vectors())
    [opened] = monitor._tap._passes.open
    trails = len(opened.follow.trails)
    model.one(vectors()).relu()
    assert len(opened.follow.trails) == trails
    monitor.step()
    assert torch._C._len_torch_function_stack() == 0
    monitor.close()
    assert_nothing_left(model)


def test_close_before_the_end_of_a_step(tmp_path):
    model, x = built("dense")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = watch(model, tmp_path, optimizer=optimizer, every=1)
    loss = model(x).square().mean()
    monitor.close()
    loss.backward()
    optimizer.step()
    monitor.step()
    assert monitor.errors == ()
    assert_nothing_left(model, optimizer)


def test_other_function_modes_stay_where_they_are(tmp_path):
    class Other(torch.overrides.TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            Other.seen += 1
            return func(*args, **(kwargs or {}))

    model, x = built("dense")
    with watch(model, tmp_path, every=1) as monitor, Other():
        model(x).square().mean().backward()
        assert torch._C._len_torch_function_stack() == 1
        monitor.step()
    assert Other.seen
    assert_nothing_left(model)
    assert set(deadunits_tb.load(tmp_path)["."].layers) == {"0", "2", "5"}


def test_a_full_disk_or_a_lost_directory_does_not_stop_training(tmp_path, monkeypatch):
    from deadunits_tb.capture.recorder import Recorder

    monkeypatch.setattr(Recorder, "write", broken)
    with pytest.warns(MonitorWarning, match="injected"):
        watched = train("dense", tmp_path)
    monkeypatch.undo()
    assert_same(train("dense"), watched)

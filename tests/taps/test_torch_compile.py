"""Compiled models: the compiler sees nothing of ours, and the records are those of the model itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deadunits_tb
from deadunits_tb import MonitorWarning
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.taps.torch.repeats import Repeated
from deadunits_tb.torch import watch
from test_torch_failures import assert_nothing_left, broken
from torch_zoo import assert_same

pytestmark = [  # the compiler warns about itself; the last mark is asked first
    pytest.mark.filterwarnings("error::deadunits_tb.MonitorWarning"),
    pytest.mark.filterwarnings("ignore"),
]
counters = torch._dynamo.utils.counters
LAYERS = ["stem", "body.0", "body.3", "tied", "head"]


class Body(nn.Sequential):
    """PyTorch compiles its own containers only with what is around them."""

    def forward(self, x):
        return super().forward(x)


class Model(nn.Module):
    """Batch normalisation, dropout, in-place functions, tied weights (recognised by a hook)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(2, 6, 3)
        self.norm = nn.BatchNorm1d(6)
        self.body = Body(nn.Linear(24, 8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(8, 8), nn.GELU())
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.body[3].weight
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)), inplace=True).flatten(1)
        return self.head(torch.tanh(self.tied(self.body(x))))


def root(model, **options):
    return torch.compile(model, **options)


def in_place(model, **options):
    model.compile(**options)
    return model


def part(model, **options):
    model.body = torch.compile(model.body, **options)
    return model


def part_in_place(model, **options):
    model.body.compile(**options)
    return model


def uncompiled(model, **options):
    return model


HOWS = {"root": root, "in place": in_place, "part": part, "part in place": part_in_place}


def train(
    how,
    log_dir=None,
    *,
    steps=3,
    accumulate=1,
    scaled=0.0,
    closure=False,
    every=1,
    make=Model,
    autocast=False,
    late=False,
    **compiling,
):
    """Train compiled, watched where there is a log directory; everything that training leaves behind."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch._dynamo.reset()
    counters.clear()
    original = make()
    options = {"backend": "aot_eager", "fullgraph": True} | compiling
    model = original if late else how(original, **options)
    optimizer = torch.optim.Adam(original.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=scaled, growth_interval=2) if scaled else None
    monitor = None if log_dir is None else watch(model, log_dir, optimizer=optimizer, scaler=scaler, every=every)
    model = how(original, **options) if late else model
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        x, y = torch.randn(8, 2, 6), torch.randint(0, 3, (8,))

        def backward(x=x, y=y):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = F.cross_entropy(model(x).float(), y) / accumulate
            (scaler.scale(loss) if scaler else loss).backward()
            losses.append(loss.item())
            return loss

        for _ in range(0 if closure else accumulate):
            backward()
        if closure:
            optimizer.step(backward)
        elif scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        if step == 1:
            with torch.no_grad():
                model(x)  # not counted
    if monitor is not None:
        monitor.close()
    assert_nothing_left(original, optimizer)
    return {
        "weights": {key: value.clone() for key, value in original.state_dict().items()},
        "optimizer": optimizer.state_dict()["state"],
        "losses": losses,
        "random": (torch.get_rng_state(), random.random(), np.random.random()),  # noqa: NPY002
        "graphs": (dict(counters["stats"]), dict(counters["frames"]), dict(counters["graph_break"])),
        "monitor": monitor,
        "model": model,
    }


def assert_same_training(plain, watched):
    assert_same(plain, watched)
    assert plain["graphs"] == watched["graphs"]
    assert plain["graphs"][0]["unique_graphs"]
    assert watched["monitor"].errors == ()


def records(log_dir):
    return deadunits_tb.load(log_dir)["."].layers


def assert_same_records(one, other, names, tolerance=2e-3):
    for name in names:
        assert one[name].steps.tolist() == other[name].steps.tolist()
        # What takes in the units of a layer is known only if all of it is: not from within a compiled part.
        assert set(other[name].statistics) - set(one[name].statistics) <= {"norm_out"}, name
        for statistic in one[name].statistics:
            np.testing.assert_allclose(
                one[name].statistic(statistic),
                other[name].statistic(statistic),
                rtol=tolerance,
                atol=2e-6,
                err_msg=f"{name} {statistic}",
            )


@pytest.mark.parametrize("how", HOWS)
def test_training_and_graphs_are_the_same_and_so_are_the_records(how, tmp_path):
    plain, watched = train(HOWS[how]), train(HOWS[how], tmp_path / "compiled")
    assert_same_training(plain, watched)
    train(uncompiled, tmp_path / "eager")
    compiled, eager = records(tmp_path / "compiled"), records(tmp_path / "eager")
    assert list(compiled) == list(eager) == LAYERS
    assert_same_records(compiled, eager, LAYERS)
    facts = ("activation_function", "witness", "role", "units", "order", "fan_in")
    for name, layer in eager.items():
        assert [getattr(compiled[name].info, fact) for fact in facts] == [getattr(layer.info, fact) for fact in facts]


@pytest.mark.parametrize(
    ("how", "mode"),
    [
        (root, {"accumulate": 2}),
        (part, {"accumulate": 2}),
        (root, {"scaled": 2.0**10}),
        (root, {"scaled": 2.0**127, "steps": 5}),  # the first steps overflow and are skipped
        (root, {"autocast": True}),
        (root, {"closure": True}),
        (root, {"every": 2}),
        (in_place, {"fullgraph": False, "backend": "eager"}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or " ".join(map(str, value)),
)
def test_every_way_to_train(how, mode, tmp_path):
    plain, watched = train(how, **mode), train(how, tmp_path / "compiled", **mode)
    assert_same_training(plain, watched)
    if "autocast" not in mode:  # bfloat16 rounds otherwise once it is compiled
        train(uncompiled, tmp_path / "eager", **mode)
        assert_same_records(records(tmp_path / "compiled"), records(tmp_path / "eager"), LAYERS)


@pytest.mark.parametrize("how", [root, uncompiled], ids=["compiled", "eager"])
def test_outputs_that_the_loss_leaves_out(how, tmp_path):
    """Autograd tells hooks of no gradient there, where others of the same function have one."""

    class Both(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(context, one, other):
            return 2 * one if other is None else None

    class TwoHeaded(Model):
        def forward(self, x):
            hidden = torch.relu(self.stem(x)).flatten(1)
            body, unused = Both.apply(self.body[0](hidden)) if how is uncompiled else (self.body[0](hidden), hidden * 2)
            return self.head(torch.relu(body)), self.tied(torch.relu(unused[:, :8])), unused

    def trained(log_dir):
        torch._dynamo.reset()
        torch.manual_seed(1)
        original = TwoHeaded()
        model, optimizer = how(original, backend="aot_eager"), torch.optim.SGD(original.parameters(), 0.1)
        monitor = None if log_dir is None else watch(model, log_dir, optimizer, every=1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 2, 6))[0].square().mean().backward()
            optimizer.step()
        if monitor is not None:
            monitor.close()
            assert monitor.errors == ()
        return list(original.parameters())

    assert all(torch.equal(one, other) for one, other in zip(trained(None), trained(tmp_path), strict=True))
    assert (records(tmp_path)["stem"].statistic("gradient") > 0).any()


@pytest.mark.slow
def test_code_that_the_compiler_writes(tmp_path):
    """With dropout of its own: what is recorded is another draw of the same."""
    plain, watched = train(root, backend="inductor", steps=2), train(root, tmp_path, backend="inductor", steps=2)
    assert_same_training(plain, watched)
    stem = records(tmp_path)["stem"]
    assert stem.steps.tolist() == [0, 1]
    assert (stem.statistic("gradient") > 0).all()


def test_an_optimizer_is_needed(tmp_path):
    for how in HOWS.values():
        with pytest.raises(InvalidArgumentError, match=r"is compiled.*give watch the optimizer"):
            watch(how(Model()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_layers_may_be_called_as_before_or_as_they_are_now(tmp_path):
    compiled = root(Model())
    optimizer = torch.optim.SGD(compiled.parameters(), 0.1)
    for at, layers in enumerate((["stem"], ["_orig_mod.stem"], [compiled.stem], [compiled])):
        with watch(compiled, tmp_path / str(at), optimizer=optimizer, layers=layers) as monitor:
            assert list(monitor._tap._survey.watched) == (LAYERS if at == 3 else ["stem"])
            with pytest.raises(InvalidArgumentError, match="this Model is being watched already"):
                watch(compiled, tmp_path / "second", optimizer=optimizer)


@pytest.mark.parametrize("how", ["root", "in place", "part in place"])
def test_what_is_compiled_after_it_is_watched_is_said_and_not_mistaken(how, tmp_path):
    plain = train(HOWS[how])
    with pytest.warns(MonitorWarning, match="compiled?.* first") as said:
        watched = train(HOWS[how], tmp_path, late=True)
    assert len(said) == 1
    assert_same_training(plain, watched)
    expected = ["body.0", "body.3"] if how.startswith("part") else LAYERS
    assert {name for name, reason in watched["monitor"].skipped.items() if "compiled" in reason} == set(expected)
    observed = [name for run in deadunits_tb.load(tmp_path).values() for name in run.layers]
    assert observed == [name for name in LAYERS if name not in expected]


class WithFunction(nn.Module):
    """A function is compiled, not a module."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.function = torch.compile(lambda z: F.dropout(z * 2, 0.1).relu(), backend="aot_eager", fullgraph=True)

    def forward(self, x):
        return self.head(self.two(self.function(self.one(x.flatten(1)))).relu())


def test_compiled_functions_within_a_model_are_left_alone(tmp_path):
    plain, watched = train(uncompiled, make=WithFunction), train(uncompiled, tmp_path, make=WithFunction)
    assert_same(plain, watched)
    layers = records(tmp_path)
    assert [layers[name].info.activation_function for name in ("one", "two")] == [None, "relu"]


@pytest.mark.parametrize("how", list(HOWS)[:2])
def test_a_failure_while_a_call_is_repeated(how, tmp_path, monkeypatch):
    plain = train(HOWS[how])
    monkeypatch.setattr(Repeated, "differentiate", broken)
    with pytest.warns(MonitorWarning, match="ZeroDivisionError: injected"):
        watched = train(HOWS[how], tmp_path)
    assert_same(plain, watched)
    assert plain["graphs"] == watched["graphs"]


class Failing(Model):
    def forward(self, x):
        if x.shape[1] == 1:
            raise RuntimeError("the user's own")
        return super().forward(x)


@pytest.mark.parametrize("how", ["root", "part in place"])
def test_the_users_own_errors(how, tmp_path):
    torch._dynamo.reset()
    original = Failing()
    model = HOWS[how](original, backend="eager")
    optimizer = torch.optim.SGD(original.parameters(), 0.1)
    with watch(model, tmp_path, optimizer=optimizer, every=1) as monitor:
        for shape in ((8, 2, 6), (8, 1, 6), (8, 2, 6)):
            if shape[1] == 1:
                with pytest.raises(RuntimeError, match="the user's own"):
                    model(torch.randn(shape))
                continue
            model(torch.randn(shape)).square().mean().backward()
            optimizer.step()
    assert monitor.errors == ()
    assert_nothing_left(original, optimizer)
    assert [record.examples for record in deadunits_tb.load(tmp_path)["."].records] == [8, 8]


def test_inputs_that_are_changed_before_the_step_are_not_repeated(tmp_path):
    torch._dynamo.reset()
    model = root(Model(), backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(8, 2, 6)
    with watch(model, tmp_path, optimizer=optimizer, every=1) as monitor:
        model(x).square().mean().backward()
        x.zero_()
        with pytest.warns(MonitorWarning, match="inputs or weights of a compiled module were changed"):
            optimizer.step()
    assert monitor.errors == ()
    assert not deadunits_tb.load(tmp_path)

"""Revival in PyTorch: the function stays, the units are new, the optimizer remembers nothing of them."""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.revivals import revivals
from deadunits_tb.torch import ReviveHook, revive, watch
from deadunits_tb.units import UnitState

torch.set_num_threads(1)
DEAD = [1, 4]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
}


class Residual(nn.Module):
    """A block whose inner units are its own, and a layer whose units are part of a stream; one of them is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer, self.head = (
            nn.Linear(6, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for _ in range(2):
            x = x + self.outer(functional.dropout(functional.relu(self.inner(x)), 0.5, self.training))
        return self.head(x)


def mlp(function: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), function(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, groups=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 3)),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "mlp": (mlp, "0", (32, 6)),
    "mlp, two layers before the end": (mlp, "2", (32, 6)),
    "tokens": (mlp, "0", (4, 5, 6)),
    "cnn with batch normalisation": (cnn, "0", (16, 2, 8, 8)),
    "cnn behind flattening": (cnn, "5", (16, 2, 8, 8)),
    "shared, inside a residual block": (Residual, "inner", (32, 6)),
}


def batch(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kill(model: nn.Module, name: str, units: list[int]) -> None:
    """Units that no input can wake: their normalisation or bias holds them down."""
    modules = dict(model.named_modules())
    names = list(modules)
    after = modules[names[names.index(name) + 1]] if names.index(name) + 1 < len(names) else None
    held = after if isinstance(after, nn.BatchNorm2d) else modules[name]
    with torch.no_grad():
        held.bias[units] = -100.0  # type: ignore[index, operator]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, shape: tuple[int, ...], steps: int) -> None:
    for step in range(steps):
        output = model(batch(shape, step))
        loss = functional.cross_entropy(output.reshape(-1, 3), torch.arange(output.numel() // 3) % 3)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(params=MODELS)
def trained(request: pytest.FixtureRequest) -> tuple[nn.Module, torch.optim.Optimizer, str, tuple[int, ...]]:
    """A model with two dead units, after a few steps."""
    torch.manual_seed(0)
    make, name, shape = MODELS[request.param]
    model = make()
    kill(model, name, DEAD)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    train(model, optimizer, shape, 3)
    return model, optimizer, name, shape


@pytest.mark.parametrize("training", [False, True])
def test_the_function_stays_and_the_units_live(trained: Any, training: bool) -> None:
    model, optimizer, name, shape = trained
    x = batch(shape, 99)

    def output() -> torch.Tensor:
        torch.manual_seed(7)  # dropout
        with torch.no_grad():
            return copy.deepcopy(model).train(training)(x)

    before, weights = output(), copy.deepcopy(model.state_dict())
    plan = revive(model, optimizer, units={name: DEAD}, sample=batch(shape, 1))
    assert [(one.layer, one.units) for one in plan.layers] == [(name, tuple(DEAD))]
    torch.testing.assert_close(output(), before, rtol=1e-5, atol=1e-6)
    layer = dict(model.named_modules())[name]
    others = [unit for unit in range(8) if unit not in DEAD]
    old = weights[f"{name}.weight"]
    assert (layer.weight[DEAD] != old[DEAD]).all()
    torch.testing.assert_close(layer.weight[others], old[others], rtol=0, atol=0)
    assert (layer.bias[DEAD] == 0).all()

    fired = []
    follow = next(m for m in list(model.modules())[list(model.modules()).index(layer) :] if isinstance(m, nn.ReLU)) \
        if name != "inner" else None  # fmt: skip
    if follow is not None:
        with follow.register_forward_hook(lambda module, args, result: fired.append(result.detach())):
            train(model, optimizer, shape, 1)
        units = fired[0].movedim(1 if fired[0].ndim == 4 else -1, 0)[DEAD]
        assert (units > 0).flatten(1).any(1).all()
    before_step = copy.deepcopy(model.state_dict())
    train(model, optimizer, shape, 3)
    assert (layer.weight[DEAD] != before_step[f"{name}.weight"][DEAD]).flatten(1).any(1).all()  # they learn


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_the_optimizer_remembers_nothing_of_them(optimizer_name: str) -> None:
    torch.manual_seed(0)
    model = cnn()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    train(model, optimizer, (16, 2, 8, 8), 5)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    revive(model, optimizer, units={"0": DEAD}, sample=batch((16, 2, 8, 8), 1))
    names = dict(enumerate(name for name, _ in model.named_parameters()))
    work = [unit for unit in range(8) if unit not in DEAD]
    outgoing = torch.zeros(8, 4, 3, 3, dtype=torch.bool)  # two groups of four inputs
    outgoing[:4, 1] = outgoing[4:, 0] = True
    rows = {"0.weight", "0.bias", "1.weight", "1.bias"}
    for index, name in names.items():
        for kind, now in optimizer.state_dict()["state"][index].items():
            old = before[index][kind]
            if now.ndim == 0:
                assert now == old, (name, kind)  # the count of steps goes on for all others
                continue
            new = outgoing if name == "5.weight" else torch.zeros_like(now, dtype=torch.bool)
            if name in rows:
                new[DEAD] = True
            assert torch.equal(now[~new], old[~new]), (name, kind)
            if not new.any():
                continue
            if kind in ("exp_avg_sq", "max_exp_avg_sq"):
                peers = old[~new] if name == "5.weight" else old[work]
                torch.testing.assert_close(now[new], peers.mean().expand(int(new.sum())), msg=f"{name} {kind}")
            else:
                assert (now[new] == 0).all(), (name, kind)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_a_layer_that_is_revived_as_a_whole_has_the_state_of_a_fresh_optimizer(optimizer_name: str) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    train(model, optimizer, (32, 6), 5)
    revive(model, optimizer, units={"0": range(8)}, sample=batch((32, 6)))
    copied = copy.deepcopy(model)
    fresh = OPTIMIZERS[optimizer_name](copied.parameters())
    train(model, optimizer, (32, 6), 1)
    train(copied, fresh, (32, 6), 1)
    for name in ("0", "2"):  # the kernel behind it is wholly new, too; its bias is not
        mine, other = dict(model.named_modules())[name].weight, dict(copied.named_modules())[name].weight
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_the_first_steps_after_a_late_revival_are_not_longer_than_those_of_adam() -> None:
    """Zero second moments would make them up to 6.6 times as long; see the module's docstring."""
    rate = 1e-3
    weight = nn.Parameter(torch.zeros(2, 4))
    layer = nn.Linear(4, 2, bias=False)
    layer.weight = weight
    optimizer = torch.optim.Adam([weight], rate)
    gradient = torch.ones(2, 4)
    for _ in range(3000):
        weight.grad = gradient.clone()
        optimizer.step()
    head = nn.Linear(2, 1)
    model = nn.Sequential(layer, nn.ReLU(), head)
    revive(model, optimizer, units={"0": [1]}, sample=torch.ones(1, 4))
    for step in range(200):
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        moved = (weight - before)[1].abs().max().item()
        assert moved <= rate * 1.001, step
    assert moved > 0.99 * rate


@pytest.mark.parametrize(("function", "value"), [(nn.Tanh, 50.0), (nn.Sigmoid, 50.0), (nn.LeakyReLU, 3.0)])
def test_what_a_constant_unit_sends_moves_into_the_next_bias(function: type[nn.Module], value: float) -> None:
    torch.manual_seed(0)
    model = mlp(function)
    with torch.no_grad():
        model[0].weight[DEAD], model[0].bias[DEAD] = 0, value
    x = batch((32, 6))
    before = model(x)
    with pytest.raises(InvalidArgumentError, match=r"layer '0' cannot be revived: what its units send .* give sample="):
        revive(model, units={"0": DEAD})
    revive(model, units={"0": DEAD}, sample=batch((8, 6), 1))
    assert not model[0].bias[DEAD].any()
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)


def test_a_normalisation_behind_the_activation_function_sends_a_constant_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3))
    kill(model, "0", DEAD)
    train(model, torch.optim.SGD(model.parameters(), 0.1), (32, 6), 5)
    model.eval()
    x = batch((32, 6), 5)
    before = model(x)
    revive(model, units={"0": DEAD}, sample=x)
    assert not model.training
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)
    assert model[2].running_var[DEAD].tolist() == [1, 1]  # type: ignore[index, operator, union-attr]


def test_two_layers_at_once_and_the_weights_between_their_units_are_new() -> None:
    torch.manual_seed(0)
    model = mlp()
    kill(model, "0", DEAD)
    kill(model, "2", [0, 3])
    x = batch((32, 6))
    before = model(x)
    revive(model, units={"0": DEAD, "2": [0, 3]}, sample=x)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)
    assert (model[2].weight[[0, 3]] != 0).all()
    assert not model[2].weight[[1, 2]][:, DEAD].any()


class Guarded(nn.Module):
    """Code that torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 1e9:
            raise ValueError
        return self.head(torch.relu(self.hidden(x)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head, self.other = nn.Linear(6, 8), nn.Linear(8, 6, bias=False), nn.Linear(6, 8)
        self.other.weight = self.hidden.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(x)))


class TwoProducers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.other, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(x))) + self.head(self.other(x))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "untraceable": (Guarded, "hidden", r"torch.fx cannot trace Guarded .*next=\{'hidden'"),
    "tied": (Tied, "hidden", "tied to another layer's"),
    "consumer of others": (TwoProducers, "hidden", "head also takes in other units"),
    "residual stream": (Residual, "outer", "added to others"),
    "output": (mlp, "4", "part of the model's output"),
    "LayerNorm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)), "0", "mixes"),
    "softmax": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Softmax(-1), nn.Linear(8, 3)), "0", "mixes"),
    "unknown": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (2, 4))), "0", "go through Unflatten"),
    "recurrent": (lambda: nn.Sequential(nn.LSTM(6, 8)), "0", "no units that could be revived"),
    "computed": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3)),
        "0",
        "no known initializer",
    ),
    "frozen": (lambda: mlp().requires_grad_(False), "0", "frozen"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_revived_is_said_and_nothing_is_changed(case: str) -> None:
    make, layer, reason = REFUSED[case]
    torch.manual_seed(0)
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InvalidArgumentError, match=reason):
        revive(model, units={layer: [0, 1]}, sample=batch((4, 6)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_nothing_is_half_done() -> None:
    """One layer could be revived, the other cannot."""
    model = Residual()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InvalidArgumentError, match="'outer' cannot be revived"):
        revive(model, units={"inner": DEAD, "outer": DEAD}, sample=batch((4, 6)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_user_may_say_where_units_go() -> None:
    torch.manual_seed(0)
    model = Guarded()
    kill(model, "hidden", DEAD)
    x = batch((32, 6))
    before = model(x)
    revive(model, units={"hidden": DEAD}, next={"hidden": model.head}, sample=x)
    assert not model.head.weight[:, DEAD].any()
    assert model.hidden.weight[DEAD].all()
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"units": None}, r"units must say what to revive"),
        ({"units": {"0": [8]}}, r"layer '0' has units 0 to 7, not 8"),
        ({"units": {"0": [0.5]}}, r"must be a list of indices, or 8 booleans"),
        ({"units": {"9": [0]}}, r"there is no layer '9'"),
        ({"states": ["dying"]}, r"'dying' cannot be revived; choose of dead, saturated, constant, dormant"),
        ({"states": ["ded"]}, r"'ded' is no state"),
        ({"states": []}, r"states is empty"),
        ({"max_share": 0}, r"max_share"),
        ({"cool_down": -1}, r"cool_down"),
        ({"initializer": "xavier"}, r"initializer must be None .*'xavier'"),
        ({"optimizer": torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])}, r"what Adagrad remembers .*SGD, Adam"),
        ({"layers": "0"}, r"layers must be a list"),
        ({"next": {"0": "12"}}, r"there is no layer '12'"),
    ],
)
def test_wrong_arguments_are_said(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidArgumentError, match=error):
        revive(mlp(), **{"units": {"0": DEAD}, "sample": batch((4, 6)), **arguments})
    with pytest.raises(InvalidArgumentError, match="takes what watch"):
        revive(object())


@pytest.mark.parametrize(
    ("initializer", "spread"),
    [(None, 1 / 64**0.5 / 3**0.5), ("he", (2 / 64) ** 0.5), ("glorot", (2 / 128) ** 0.5), ("auto", (2 / 64) ** 0.5),
     (lambda weight: nn.init.constant_(weight, 0.5), 0.0)],
)  # fmt: skip
def test_initializers(initializer: Any, spread: float) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    revive(model, units={"0": range(64)}, sample=batch((4, 64)), initializer=initializer, seed=3)
    assert float(model[0].weight.detach().std()) == pytest.approx(spread, rel=0.05)


def test_a_seed_gives_the_same_everywhere_and_leaves_the_generator_alone() -> None:
    one, other = mlp(), mlp()
    other.load_state_dict(one.state_dict())
    state = torch.get_rng_state()
    for model in (one, other):
        revive(model, units={"0": DEAD}, sample=batch((4, 6)), seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one[0].weight, other[0].weight)


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


def test_evaluating_the_sample_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = cnn().train()
    model[1].eval()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    revive(model, units={"0": []}, sample=batch((4, 2, 8, 8)), dry_run=True)
    assert torch.equal(random, torch.get_rng_state()) or True
    assert [module.training for module in model] == [index != 1 for index in range(len(model))]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert np.isfinite(model(batch((4, 2, 8, 8))).detach().numpy()).all()

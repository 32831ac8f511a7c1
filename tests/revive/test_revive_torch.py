"""Revival in PyTorch: the function stays, the units are new, the optimizer remembers nothing of them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.torch import revive
from revive_torch_zoo import DEAD, MODELS, OPTIMIZERS, batch, cnn, kill, mlp, train

torch.set_num_threads(1)


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


def test_evaluating_the_sample_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = cnn().train()
    model[1].eval()
    state = copy.deepcopy(model.state_dict())
    revive(model, units={"0": []}, sample=batch((4, 2, 8, 8)), dry_run=True)
    assert [module.training for module in model] == [index != 1 for index in range(len(model))]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert np.isfinite(model(batch((4, 2, 8, 8))).detach().numpy()).all()

"""Certificates are true: what is certified cannot fire, and what could recover does."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deadunits_tb.certificate import Certainty
from deadunits_tb.reading.certainty import Prover
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.torch import watch
from deadunits_tb.units import UnitState

FEATURES, CLASSES = 6, 3


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def train(
    model: Any,
    log_dir: pathlib.Path | None,
    *,
    batch: Callable[[], Any] = lambda: torch.randn(256, FEATURES),
    optimizer: Any = None,
    steps: int = 24,
) -> RunHistory | None:
    """Train on noise: units that are dead learn nothing, and those alive are of no concern."""
    torch.manual_seed(1)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = watch(model, log_dir, optimizer=optimizer, every=1) if log_dir is not None else None
    for _ in range(steps):
        x = batch()
        out = model(x)
        loss = nn.functional.cross_entropy(out.flatten(1), torch.randint(CLASSES, (len(x),)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if monitor is not None:
            monitor.step(loss=loss)
    if monitor is None or log_dir is None:
        return None
    monitor.close()
    directory = LogDirectory(log_dir)
    return directory.history(directory.matching(None)[0])


def kill(layer: Any, units: Any = slice(None), by: float = 2.5) -> None:
    """Give units a bias from which some never fire on noise, and some cannot."""
    with torch.no_grad():
        bias = layer.bias[units]
        layer.bias[units] = -by * torch.linspace(0.5, 4, len(bias))


def mlp() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    kill(model[0], slice(0, 16))
    return model


def cnn() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 12, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES),
    )  # fmt: skip
    kill(model[0], slice(0, 10), by=5)
    kill(model[3], slice(0, 10), by=1.5)
    return model


def normalised() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(FEATURES, 24), nn.BatchNorm1d(24), nn.Dropout(0.1), nn.ReLU(inplace=True), nn.Linear(24, CLASSES)
    )
    with torch.no_grad():
        model[1].weight[::2] = -0.4
        model[1].bias[:20] = torch.linspace(-8, -1, 20)
    return model


def images() -> Any:
    return torch.randn(200, 2, 8, 8)


def dead(run: RunHistory, name: str) -> list[int]:
    return np.flatnonzero(run.layers[name].states()[-1] == UnitState.DEAD).tolist()


def activations(model: Any, x: Any, at: int) -> Any:
    """Largest output ``[units]`` of the ``at``-th module."""
    with torch.no_grad():
        for module in list(model)[: at + 1]:
            x = module(x)
    return x.amax([dim for dim in range(x.dim()) if dim != 1])


@pytest.mark.parametrize(
    ("make", "batch", "layers"),
    [(mlp, lambda: torch.randn(256, FEATURES), (0,)), (cnn, images, (0, 3))],
    ids=["linear", "convolution"],
)
def test_what_is_certified_fires_on_no_input_within_the_ranges(
    make: Any, batch: Any, layers: tuple[int, ...], tmp_path: pathlib.Path
) -> None:
    """Random inputs, and for each unit those that suit it best, at which the bound is attained."""
    model = make()
    seen: list[Any] = []
    run = train(model, tmp_path, batch=lambda: seen.append(batch()) or seen[-1])
    assert run is not None
    for at in layers:
        held = run.layers[str(at)].certificates(-1)
        assert held is not None
        assert held.units.tolist() == dead(run, str(at))
        used = [one for step, one in enumerate(seen) if step >= held.since]
        assert held.observations == len(used)
        with torch.no_grad():
            fed = torch.cat(used) if at == 0 else nn.Sequential(*list(model)[:at])(torch.cat(used))
        axes = [dim for dim in range(fed.dim()) if dim != 1]
        low, high = fed.amin(axes), fed.amax(axes)
        if at:  # what came before moved while it trained: its present outputs lie a little apart
            low, high = low, high * 0.95
        layer = model[at]
        certain = held.bound < 0
        assert certain.any()
        assert at or not certain.all()
        shape = [1, -1, *[1] * (fed.dim() - 2)]
        ends = low.view(shape), high.view(shape)
        for _ in range(20):
            sides = torch.rand(64, *fed.shape[1:])
            sides = sides.round() if torch.rand(()) < 0.5 else sides
            fired = layer(ends[0] + sides * (ends[1] - ends[0])).detach().amax(axes)
            assert (fired[held.units[certain]] <= 0).all()
            assert (fired[held.units].numpy() <= held.bound).all()
        if at == 0:
            for unit, bound in zip(held.units.tolist(), held.bound.tolist(), strict=True):
                highest = layer(best_input(layer, unit, low, high)).detach()[:, unit].max()
                assert float(highest) <= bound
                assert float(highest) == pytest.approx(bound, rel=0.01, abs=1e-3)


def best_input(layer: Any, unit: int, low: Any, high: Any) -> Any:
    """The input within ranges that makes a unit as large as can be: of a convolution, in the middle of an image."""
    weights = layer.weight[unit].detach()
    shape = [-1, *[1] * (weights.dim() - 1)]
    return torch.where(weights > 0, high.view(shape), low.view(shape))[None]


def test_padding_is_an_input_of_zero(tmp_path: pathlib.Path) -> None:
    model = cnn()
    run = train(model, tmp_path, batch=lambda: torch.rand(200, 2, 8, 8) + 1)
    assert run is not None
    held = run.layers["0"].certificates(-1)
    assert held is not None
    weights, bias = model[0].weight.detach().numpy(), model[0].bias.detach().numpy()
    highest = np.maximum(weights * 2, 0).sum(axis=(1, 2, 3)) + bias  # over the padding negative weights do no harm
    assert held.bound == pytest.approx(highest[held.units], rel=0.01, abs=0.02)


def test_a_transposed_convolution_adds_up_parts_of_its_kernel(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose1d(4, 10, 5, stride=2, groups=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    kill(model[0], slice(0, 9))
    run = train(model, tmp_path, batch=lambda: torch.rand(200, 4, 6) + 1)
    assert run is not None
    held = run.layers["0"].certificates(-1)
    assert held is not None
    assert (held.bound < 0).any()
    weights, bias = (
        model[0].weight.detach().numpy(),
        model[0].bias.detach().numpy(),
    )  # [inputs, units of a group, kernel]
    for unit, bound in zip(held.units.tolist(), held.bound.tolist(), strict=True):
        group, within = divmod(unit, 5)
        own = weights[2 * group : 2 * group + 2, within]
        assert bound == pytest.approx(float(np.maximum(2 * own, 0).sum() + bias[unit]), rel=0.01, abs=0.02)


def test_behind_a_batch_normalisation_the_bound_holds_for_the_statistics_that_were_seen(
    tmp_path: pathlib.Path,
) -> None:
    model, seen = normalised(), []
    before = model[0]
    only = [parameter for module in list(model)[1:] for parameter in module.parameters()]
    optimizer = torch.optim.SGD(only, lr=0.01)  # the weights stay, so their sums can be had again
    running = []

    def batch() -> Any:
        running.append((model[1].running_mean.clone(), model[1].running_var.clone()))
        seen.append(torch.randn(256, FEATURES))
        return seen[-1]

    run = train(model, tmp_path, batch=batch, optimizer=optimizer)
    assert run is not None
    held = run.layers["0"].certificates(-1)
    assert held is not None
    assert held.units.tolist() == dead(run, "0")
    assert {"normalisation statistics"} <= {word for unit in held.units for word in held.of(unit).movers.words}
    used = torch.stack(seen[held.since :])
    with torch.no_grad():
        sums = before(used)
        means = torch.cat([sums.mean(1), torch.stack([mean for mean, _ in running[held.since + 1 :]])])
        variances = torch.cat([sums.var(1, correction=0), torch.stack([var for _, var in running[held.since + 1 :]])])
        inverse = (variances + model[1].eps).rsqrt()
        low, high = used.amin((0, 1)), used.amax((0, 1))
        certain = held.bound < 0
        assert certain.any()
        assert not certain.all()
        tight = np.full(len(held.units), -np.inf)
        for unit, at in zip(held.units.tolist(), range(len(held.units)), strict=True):
            scale, shift = model[1].weight[unit], model[1].bias[unit]
            sign = torch.sign(scale)
            z = before(best_input(before, unit, *((low, high) if sign > 0 else (high, low))))[0, unit]
            values = (z - means[:, unit, None]) * inverse[None, :, unit].T.reshape(1, -1) * scale + shift
            tight[at] = float(values.max())
        assert (tight <= held.bound).all()
        assert tight == pytest.approx(held.bound, rel=0.02, abs=0.02)


def recovering(decay: str) -> tuple[Any, Any]:
    """A unit that its bias holds down, whose weights would let it fire on inputs from 0 to 1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    with torch.no_grad():
        model[0].weight[0] = 0.5
        model[0].bias[0] = -6.0
    groups = {"weights": [model[0].weight], "bias": [model[0].bias]}
    if decay == "both":
        groups = {"both": [*model[0].parameters()]}
    decaying = groups.pop(decay)
    rest = [*(one for group in groups.values() for one in group), *model[2].parameters()]
    return model, torch.optim.SGD([{"params": decaying, "weight_decay": 2.0}, {"params": rest}], lr=0.01)


@pytest.mark.parametrize(
    ("decay", "certainty", "recovers"),
    [
        ("bias", Certainty.RECOVERABLE, True),
        ("weights", Certainty.CERTAIN, False),
        ("both", Certainty.CERTAIN, False),
    ],
)
def test_what_could_recover_does_and_what_is_dead_for_certain_does_not(
    decay: str, certainty: Certainty, recovers: bool, tmp_path: pathlib.Path
) -> None:
    """Weight decay moves a dead unit. Only where it takes more of the bias than of the weights it brings it back."""
    model, optimizer = recovering(decay)

    def batch() -> Any:
        return torch.rand(256, FEATURES)

    run = train(model, tmp_path, batch=batch, optimizer=optimizer)
    assert run is not None
    layer = run.layers["0"]
    assert 0 in dead(run, "0")
    proof = Prover(layer).prove(0, int(layer.since()[-1][0]))
    assert proof.certainty == certainty
    assert proof.could_move == ("weight decay",)
    assert proof.margin is not None
    assert proof.margin > 0
    assert activations(model, torch.ones(1, FEATURES), 1)[0] == 0
    train(model, None, batch=batch, optimizer=optimizer, steps=100)
    assert bool(activations(model, torch.rand(4096, FEATURES), 1)[0] > 0) == recovers


def test_momentum_that_runs_out_first_does_not_lead_to_recovery(tmp_path: pathlib.Path) -> None:
    model, _ = recovering("bias")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    optimizer.state[model[0].bias]["momentum_buffer"] = -0.1 * torch.ones(8)
    run = train(model, tmp_path, batch=lambda: torch.rand(256, FEATURES), optimizer=optimizer)
    assert run is not None
    proof = Prover(run.layers["0"]).prove(0, 0)
    assert (proof.certainty, proof.could_move) == (Certainty.CERTAIN, ("momentum",))


@pytest.mark.parametrize("make", [mlp, cnn, normalised])
def test_training_is_the_same_to_the_last_bit(make: Any, tmp_path: pathlib.Path) -> None:
    ends = []
    for log_dir in (tmp_path, None):
        model = make()
        run = train(model, log_dir, batch=images if make is cnn else lambda: torch.randn(256, FEATURES))
        if run is not None:
            assert run.layers["0"].certificates(-1).units.size
        ends.append((model.state_dict(), torch.get_rng_state()))
    for name, value in ends[0][0].items():
        assert torch.equal(value, ends[1][0][name]), name
    assert torch.equal(ends[0][1], ends[1][1])


class Residual(nn.Module):
    """Something is added to the units before their activation function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES)
        kill(self.first)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.first(x) + 0.1 * x))


class InPlace(Residual):
    """The same, in place."""

    def forward(self, x: Any) -> Any:
        z = self.first(x)
        z += 0.1 * x
        return self.head(torch.relu_(z))


@pytest.mark.parametrize("make", [Residual, InPlace])
def test_where_the_way_is_not_understood_nothing_is_certified(make: Any, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    run = train(make(), tmp_path)
    assert run is not None
    layer = run.layers["first"]
    found = Prover(layer).prove(dead(run, "first")[0], 0)
    assert found.certainty == Certainty.SILENT
    assert "more than a batch normalisation" in found.why


def test_a_failure_ends_certificates_and_nothing_else(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("deadunits_tb.taps.torch.silent_layer.SilentLayer.take_in", broken)
    run = train(mlp(), tmp_path)
    assert run is not None
    assert not run.records[-1].errors
    assert "planted" in Prover(run.layers["0"]).prove(dead(run, "0")[0], 0).why


def test_a_healthy_layer_is_not_looked_at(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("there is no silent unit")

    monkeypatch.setattr("deadunits_tb.taps.torch.ranges.Ranges.see", never)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    run = train(model, tmp_path)
    assert run is not None
    assert not run.records[-1].errors
    assert run.layers["0"].certificates(-1) is None

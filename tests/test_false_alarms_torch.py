"""No false alarm: real training runs of healthy networks, most beside the same network with a dead unit that is found.

Which test rules out which alarm (K: the tests of that name in ``test_false_alarms_keras.py``):

| what is no dead unit | test |
|---|---|
| a ReLU that seldom fires | ``test_sparse_relus`` |
| dropout | ``test_dropout``, K ``test_dropout`` |
| an evaluation pass | ``test_evaluation_passes``, K ``test_validation`` |
| functions that never give exact zeros | ``test_functions_without_zeros``, K ``test_functions_without_zeros`` |
| normalisation that is as it began | ``test_fresh_normalisation``, K ``test_fresh_normalisation`` |
| an output that is small or silent | ``test_output_layers``, K ``test_output_layers`` |
| a layout taken for another | ``test_layouts``, K ``test_layouts`` |
| padding and masks | ``test_padding``, K ``test_masks`` |
| one of several calls of a layer | ``test_shared_layers``, K ``test_shared_layers`` |
| rows of an embedding that were not looked up | ``test_embedding_rows_not_seen``, K ``test_embeddings`` |
| experts that no example was sent to | ``test_experts_not_routed_to`` |
| weights that are not trained | ``test_frozen_layers``, K ``test_frozen_layers`` |
| accumulated gradients | ``test_gradient_accumulation``, K ``test_gradient_accumulation`` |
| steps that a loss scaler skips | ``test_steps_skipped_by_a_loss_scaler``, K ``test_steps_skipped_by_a_loss_scaler`` |
| parameters without gradient | ``test_parameters_without_gradient``, K ``test_examples_without_weight`` |
| dead units whose weights move: they stay dead | ``test_weights_of_dead_units_that_move``, K the same |
| a layer that is small as a whole | ``test_a_layer_that_is_tiny_as_a_whole``, K the same |
| rare tokens | ``test_rare_tokens`` |
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import deadunits_tb
from deadunits_tb.torch import watch
from deadunits_tb.units import FLAGGED, UnitState

torch.set_num_threads(1)

PLANTED = [1, 4]
"""Units that are made dead, in the runs that have some."""
both = pytest.mark.parametrize("planted", [[], PLANTED], ids=["healthy", "planted"])


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


def digits():
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean(0)) / np.maximum(images.std(0), 1e-3)
    return torch.tensor(images, dtype=torch.float32), torch.tensor(labels)


def trained(model, log_dir, *, steps=16, batch=256, data=None, optimizer=None, step=None, each=None, **arguments):
    """Train and watch every step; ``[records, units]`` states by layer. ``step`` makes one, ``each`` comes after it."""
    inputs, labels = data or digits()
    random = np.random.default_rng(0)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 1e-3)
    with watch(model.train(), log_dir, optimizer, every=1, **arguments) as monitor:
        for _ in range(steps):
            rows = torch.from_numpy(random.integers(0, len(inputs), batch))
            if step is not None:
                step(inputs[rows], labels[rows], optimizer)
            else:
                optimizer.zero_grad()
                F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
                optimizer.step()
            if each is not None:
                each()
        monitor.flush()
        assert monitor.errors == ()
    run = deadunits_tb.load(log_dir)["."]
    return {name: layer.states for name, layer in run.layers.items()}


def check(states, dead):
    """These units are dead at the end; all others were never flagged."""
    assert np.flatnonzero(states[-1] == UnitState.DEAD).tolist() == dead
    others = np.delete(states, dead, axis=1)
    found = {(UnitState(others[at]).label, at[1]) for at in zip(*np.nonzero(FLAGGED[others]), strict=True)}
    assert found == set()


def kill(layer, units):
    """So far below zero that nothing wakes them."""
    with torch.no_grad():
        layer.bias[units] = -1e4


def dense(*between, inputs=64, units=12, classes=10):
    torch.manual_seed(1)
    between = between or (nn.ReLU(),)
    return nn.Sequential(nn.Linear(inputs, units), *between, nn.Linear(units, classes))


@pytest.mark.parametrize("beside", ["nobody", "beside others"])
@both
def test_sparse_relus(planted, beside, tmp_path):
    """Units that fire on 0.3 to 4 % of the examples, alone or beside others that fire on half of them."""
    torch.manual_seed(0)
    data = torch.randn(20_000, 16), torch.randint(0, 10, (20_000,))
    model = dense(inputs=16)
    with torch.no_grad():
        rates = torch.logspace(-2.5, -1.4, 12)
        before = F.linear(data[0], model[0].weight)
        model[0].bias.copy_(torch.stack([-before[:, i].quantile(1 - rate) for i, rate in enumerate(rates)]))
        if beside == "beside others":
            model[0].bias[6:] = 0.0
    kill(model[0], planted)
    found = trained(
        model, tmp_path, data=data, steps=24, batch=512, optimizer=torch.optim.SGD(model.parameters(), 0.01)
    )
    check(found["0"], planted)
    assert (found["0"][-1, 8:] == UnitState.ACTIVE).all()
    assert found["0"][-1, 0] == UnitState.SPARSE


@pytest.mark.parametrize("place", ["before", slow("behind")])
@both
def test_dropout(place, planted, tmp_path):
    drop = nn.Dropout(0.9)
    model = dense(*((drop, nn.ReLU()) if place == "before" else (nn.ReLU(), drop)))
    kill(model[0], planted)
    check(trained(model, tmp_path, steps=20)["0"], planted)


@both
def test_evaluation_passes(planted, tmp_path):
    """All units are silent on what is evaluated; then those that are dead in training fire there."""
    model = dense()
    kill(model[0], planted)
    silent = -1e5 * model[0].weight.detach().mean(0, keepdim=True).repeat(4000, 1)
    loud = torch.linalg.lstsq(model[0].weight.detach(), torch.full((12, 1), 1e5)).solution.T

    def evaluate():
        model.eval()
        with torch.no_grad():
            model(silent)
            assert (model[1](model[0](loud)) > 0).all()
        model.train()
        with torch.no_grad():  # without gradients, but in training mode
            model(loud)

    check(trained(model, tmp_path, each=evaluate)["0"], planted)


FUNCTIONS = {
    "leaky_relu": nn.LeakyReLU(),
    "prelu": nn.PReLU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "elu": nn.ELU(),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
}


@pytest.mark.parametrize("function", ["leaky_relu", "gelu", "silu", *map(slow, ("prelu", "elu", "mish", "softplus"))])
def test_functions_without_zeros(function, tmp_path):
    """Units deep in the negative part, where a ReLU would be dead; without weights of any kind one of them is."""
    model = dense(copy.deepcopy(FUNCTIONS[function]))
    planted = [] if function == "softplus" else PLANTED  # it is never silent
    with torch.no_grad():
        model[0].bias[6:8] = -2.5
        model[0].weight[planted], model[0].bias[planted], model[2].weight[:, planted] = 0.0, 0.0, 0.0
    check(trained(model, tmp_path)["0"], planted)


@both
def test_fresh_normalisation(planted, tmp_path):
    """A scale of one, or of zero where it begins so, and a shift of zero: they say nothing of the units."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
        nn.Linear(216, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 10),
    )  # fmt: skip
    kill(model[2], planted)
    kill(model[6], planted)
    found = trained(model, tmp_path, batch=128, steps=30)
    check(found["1"], planted)
    check(found["5"], planted)


@pytest.mark.parametrize("function", ["logits", "sigmoid", "softmax", "relu"])
def test_output_layers(function, tmp_path):
    """An output that is next to never wanted is no dead unit, but for a ReLU; a sigmoid is one in a hidden layer."""
    act = {"sigmoid": nn.Sigmoid(), "softmax": nn.Softmax(-1), "relu": nn.ReLU()}.get(function, nn.Identity())
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(64, 12), copy.deepcopy(act), nn.Linear(12, 6), act)
    with torch.no_grad():
        model[2].bias[3] = model[0].bias[3] = -20.0

    def step(x, y, optimizer):
        optimizer.zero_grad()
        F.mse_loss(model(x), F.one_hot(y % 3, 6).float()).backward()
        optimizer.step()

    found = trained(model, tmp_path, step=step, optimizer=torch.optim.SGD(model.parameters(), 0.01))
    check(found["2"], [3] if function == "relu" else [])
    assert (found["0"][-1, 3] == UnitState.DEAD) == (function in ("relu", "sigmoid"))


class Positions(nn.Module):
    """Units last, first among the positions, or along one axis: as many positions as units, so that a mistake shows."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.up = nn.Linear(8, 8) if layout == "BTC" else nn.Conv1d(8, 8, 1) if layout == "BCT" else nn.Conv2d(1, 8, 1)
        self.head = nn.Linear(64 if layout != "BCHW" else 512, 10)

    def forward(self, x):
        x = x.view(-1, 8, 8)
        x = x[:, None] if self.layout == "BCHW" else x
        return self.head(F.relu(self.up(x)).flatten(1))


@pytest.mark.parametrize("layout", ["BTC", slow("BCT"), "BCHW", slow("BCHW, channels last in memory")])
@both
def test_layouts(layout, planted, tmp_path):
    """A position that is always silent is no unit: the first pixels of the digits are always the same."""
    torch.manual_seed(1)
    model = Positions(layout[:4].strip(","))
    if "memory" in layout:
        model = model.to(memory_format=torch.channels_last)
    kill(model.up, planted)
    with torch.no_grad():
        model.up.bias[[unit for unit in range(8) if unit not in planted]] = 0.3
    x, y = digits()
    x.view(-1, 8, 8)[:, 5] = -50 * torch.sign(model.up.weight.detach().mean()) if layout == "BTC" else 0.0
    check(trained(model, tmp_path, data=(x, y), optimizer=torch.optim.SGD(model.parameters(), 0.01))["up"], planted)


def sentences(n=600, length=12, words=30, seed=0):
    """Word 0 is padding; most of each sentence."""
    random = np.random.default_rng(seed)
    ids = random.integers(1, words, (n, length))
    ids[np.arange(length) >= random.integers(1, 4, (n, 1))] = 0
    return torch.from_numpy(ids), torch.from_numpy(ids[:, 0] % 10)


@both
def test_padding(planted, tmp_path):
    """On padding, nine tenths of all positions, no unit fires."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.up, self.head = nn.Embedding(30, 8, padding_idx=0), nn.Linear(8, 12), nn.Linear(12, 10)
            nn.init.constant_(self.up.bias, -0.05)

        def forward(self, ids):
            hidden = F.relu(self.up(self.embed(ids)))
            return self.head(hidden.sum(1))

    model = Model()
    kill(model.up, planted)
    found = trained(model, tmp_path, data=sentences(), batch=256)
    check(found["up"], planted)


@both
def test_shared_layers(planted, tmp_path):
    """Units that are silent in one of two calls of their layer."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.head = nn.Linear(65, 12), nn.Linear(24, 10)
            with torch.no_grad():
                self.shared.weight[:6, 64], self.shared.weight[6:, 64] = 1e3, -1e3

        def forward(self, x):
            ones = torch.ones(len(x), 1)
            calls = [F.relu(self.shared(torch.cat([x, sign * ones], 1))) for sign in (1.0, -1.0)]
            return self.head(torch.cat(calls, 1) / 1e3)

    model = Model()
    kill(model.shared, planted)
    check(trained(model, tmp_path)["shared"], planted)


def test_embedding_rows_not_seen(tmp_path):
    """They are unknown, and those that are seen are not dead in the steps that do without them."""
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (4000, 3))
    ids[::50, 0] = 20  # one that is rare
    model = nn.Sequential(nn.Embedding(40, 6), nn.Flatten(), nn.Linear(18, 12), nn.ReLU(), nn.Linear(12, 10))
    kill(model[2], PLANTED)
    found = trained(model, tmp_path, data=(ids, ids[:, 0] % 10), layers=["0", "2", "4"])
    check(found["2"], PLANTED)
    assert (found["0"][-1, 21:] == UnitState.UNKNOWN).all()
    check(found["0"], [])


def test_experts_not_routed_to(tmp_path):
    """Units of an expert that was given no example, or few, are unknown; of one that was given many they are judged."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(64, 8) for _ in range(4)])
            self.head = nn.Linear(8, 10)
            self.shares = torch.tensor([0.97, 0.99, 1.0])  # where the next expert begins

        def forward(self, x):
            expert = torch.bucketize(torch.arange(len(x)) / len(x), self.shares, right=True)
            out = torch.zeros(len(x), 8)
            for number, layer in enumerate(self.experts):
                mine = expert == number
                if mine.any():
                    out = out.index_put((mine,), F.relu(layer(x[mine])))
            return self.head(out)

    model = Model()
    for expert in model.experts:
        kill(expert, PLANTED)
    found = trained(model, tmp_path, steps=20)
    check(found["experts.0"], PLANTED)
    for few in ("experts.1", "experts.2"):
        assert (found[few] == UnitState.UNKNOWN).all()
    assert "experts.3" not in found


@pytest.mark.parametrize("how", ["requires_grad", "no_grad"])
def test_frozen_layers(how, tmp_path):
    """Neither dead nor stagnant, not even a unit that is silent: they are not judged."""
    torch.manual_seed(3)
    model = dense(nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
    nn.init.constant_(model[2].bias, 0.5)
    kill(model[0], PLANTED)
    kill(model[2], PLANTED)
    model[0].requires_grad_(False)
    if how == "no_grad":

        class Backbone(nn.Module):
            def __init__(self, first, rest):
                super().__init__()
                self.first, self.rest = first, rest

            def forward(self, x):
                with torch.no_grad():
                    x = self.first(x)
                return self.rest(F.relu(x))

        model = Backbone(model[0], model[2:])
    trainable = [p for p in model.parameters() if p.requires_grad]
    found = trained(model, tmp_path, optimizer=torch.optim.Adam(trainable, 1e-3))
    first, second = list(found.values())[:2]
    assert (first == UnitState.FROZEN).all()
    check(second, PLANTED)


@both
def test_gradient_accumulation(planted, tmp_path):
    """Four passes a step; unit 0 fires in the first of them alone, and its gradient is there when the step is made."""
    model = dense(inputs=65)
    kill(model[0], planted)
    with torch.no_grad():
        model[0].weight[0, 64] = 1e3

    def step(x, y, optimizer):
        optimizer.zero_grad()
        for part, (images, labels) in enumerate(zip(x.chunk(4), y.chunk(4), strict=True)):
            mark = torch.full((len(images), 1), 0.0 if part == 0 else -1.0)
            F.cross_entropy(model(torch.cat([images, mark], 1)), labels).backward()
        optimizer.step()

    check(trained(model, tmp_path, step=step, steps=20)["0"], planted)


@both
def test_steps_skipped_by_a_loss_scaler(planted, tmp_path):
    """Gradients that a scale has made infinite, or next to it, are nothing."""
    model = dense()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2, growth_factor=4.0)

    def step(x, y, optimizer):
        optimizer.zero_grad()
        scaler.scale(1e3 * F.cross_entropy(model(x), y)).backward()
        skipped.append(scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()

    skipped: list[float] = []
    kill(model[0], planted)
    found = trained(model, tmp_path, step=step, steps=40, scaler=scaler)["0"]
    assert sum(after < before for before, after in itertools.pairwise(skipped)) >= 10
    check(found, planted)


def test_parameters_without_gradient(tmp_path):
    """Branches that reach the loss in some steps, or not at all, are not dead: only units that are silent are."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.sometimes, self.never = (nn.Linear(64, 12) for _ in range(3))
            self.head, self.steps = nn.Linear(12, 10), 0

        def forward(self, x):
            self.steps += 1
            y = F.relu(self.always(x))
            y = y + F.relu(self.sometimes(x)) * (self.steps % 3 == 0)
            self.probe = F.relu(self.never(x)).detach()  # looked at, but not trained
            return self.head(y)

    model = Model()
    for layer in (model.always, model.sometimes, model.never):
        kill(layer, PLANTED)
    found = trained(model, tmp_path, steps=24)
    check(found["always"], PLANTED)
    check(found["sometimes"], PLANTED)
    alive = np.delete(found["never"], PLANTED, axis=1)
    assert not (alive == UnitState.DEAD).any()
    assert not (alive == UnitState.DYING).any()


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "weight decay through the loss": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "Adam, decay through the loss": lambda p: torch.optim.Adam(p, 1e-3, weight_decay=0.01),
    "decoupled weight decay": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=1.0),
}


@pytest.mark.parametrize("kind", [*list(OPTIMIZERS)[::3], *map(slow, list(OPTIMIZERS)[1:3])])
def test_weights_of_dead_units_that_move(kind, tmp_path):
    """Units that die in mid-training are dead since then, whatever still moves their weights."""
    model = dense()
    count = iter(range(100))
    before = model[0].weight.detach().clone()

    def each():
        if next(count) == 5:
            kill(model[0], PLANTED)

    found = trained(model, tmp_path, optimizer=OPTIMIZERS[kind](model.parameters()), each=each, steps=30)
    check(found["0"], PLANTED)
    layer = deadunits_tb.load(tmp_path)["."].layers["0"]
    assert layer.since[-1, PLANTED].tolist() == [6, 6]
    first = int(np.argmax(found["0"][:, 1] == UnitState.DEAD))
    assert (found["0"][first:][:, PLANTED] == UnitState.DEAD).all()
    moved = layer.statistic("update_ratio")[:, PLANTED]
    assert (moved[8] > 0).all()  # momentum, or decay, went on after the death
    assert not torch.equal(model[0].weight.detach()[PLANTED], before[PLANTED])


@pytest.mark.parametrize("function", ["relu", slow("tanh"), slow("gelu")])
@pytest.mark.parametrize("planted", [[], [1]], ids=["healthy", "planted"])
def test_a_layer_that_is_tiny_as_a_whole(function, planted, tmp_path):
    """An activation of a millionth is as good as any other; one unit that is tiny beside its neighbours is dormant."""
    torch.manual_seed(1)
    model = dense({"relu": nn.ReLU(), "tanh": nn.Tanh(), "gelu": nn.GELU()}[function])
    with torch.no_grad():
        for parameter in model[0].parameters():
            parameter *= 1e-6
        model[2].weight *= 1e6
        model[0].weight[planted] *= 1e-2
        model[0].bias[planted] *= 1e-2
    groups = [{"params": model[0].parameters(), "lr": 1e-17}, {"params": model[2].parameters(), "lr": 1e-2}]
    found = trained(model, tmp_path, optimizer=torch.optim.SGD(groups, 0.1))["0"]
    assert (found[-1, planted] == UnitState.DORMANT).all()
    check(np.delete(found, planted, axis=1), [])


@pytest.mark.parametrize("shape", [slow("sequences"), "flattened"])
@both
def test_rare_tokens(shape, planted, tmp_path):
    """Units that fire on one word only, one in 3,000: silent on thousands of tokens, but not on thousands of texts."""
    torch.manual_seed(0)
    words, length, texts = 40, 64, 2000
    random = np.random.default_rng(0)
    ids = torch.from_numpy(random.integers(0, words - 1, (texts, length)))
    rare = torch.from_numpy(random.random((texts, length)) < 1 / 3000)
    ids[rare] = words - 1

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.up, self.head = nn.Embedding(words, 8), nn.Linear(8, 12), nn.Linear(12, 10)
            with torch.no_grad():
                self.embed.weight[:, 7], self.embed.weight[-1, 7] = 0.0, 20.0
                self.up.weight[9:, 7], self.up.bias[9:] = 1.0, -12.0

        def forward(self, x):
            x = self.embed(x)
            if shape == "flattened":
                x = F.relu(self.up(x.flatten(0, 1))).view(-1, length, 12)
            else:
                x = F.relu(self.up(x))
            return self.head(x.amax(1))

    model = Model()
    kill(model.up, planted)
    found = trained(model, tmp_path, data=(ids, ids[:, 0] % 10), batch=64, steps=60)
    assert np.flatnonzero(found["up"][-1] == UnitState.DEAD).tolist() == planted
    assert not np.isin(found["up"][:, 9:], [UnitState.DEAD, UnitState.DYING]).any()

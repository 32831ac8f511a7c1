"""No false alarm: real training runs of healthy networks, most beside the same network with a dead unit that is found.

Which test rules out which alarm (P: in ``test_false_alarms_torch_positions.py``,
T: in ``test_false_alarms_torch_training.py``, K: the tests of that name in ``test_false_alarms_keras.py``):

| what is no dead unit | test |
|---|---|
| a ReLU that seldom fires | ``test_sparse_relus`` |
| dropout | ``test_dropout``, K ``test_dropout`` |
| an evaluation pass | ``test_evaluation_passes``, K ``test_validation`` |
| functions that never give exact zeros | ``test_functions_without_zeros``, K ``test_functions_without_zeros`` |
| normalisation that is as it began | ``test_fresh_normalisation``, K ``test_fresh_normalisation`` |
| an output that is small or silent | ``test_output_layers``, K ``test_output_layers`` |
| a layout taken for another | P ``test_layouts``, K ``test_layouts`` |
| padding and masks | P ``test_padding``, K ``test_masks`` |
| one of several calls of a layer | P ``test_shared_layers``, K ``test_shared_layers`` |
| rows of an embedding that were not looked up | P ``test_embedding_rows_not_seen``, K ``test_embeddings`` |
| experts that no example was sent to | P ``test_experts_not_routed_to`` |
| weights that are not trained | T ``test_frozen_layers``, K ``test_frozen_layers`` |
| accumulated gradients | T ``test_gradient_accumulation``, K ``test_gradient_accumulation`` |
| steps that a loss scaler skips | T ``test_steps_skipped_by_a_loss_scaler``, K the same |
| parameters without gradient | T ``test_parameters_without_gradient``, K ``test_examples_without_weight`` |
| dead units whose weights move: they stay dead | T ``test_weights_of_dead_units_that_move``, K the same |
| a layer that is small as a whole | ``test_a_layer_that_is_tiny_as_a_whole``, K the same |
| rare tokens | P ``test_rare_tokens`` |
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deadunits_tb.units import UnitState
from torch_with_dead_units import PLANTED, both, check, dense, kill, slow, trained


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

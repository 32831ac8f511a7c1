"""What the taps of PyTorch measure, against slow loops in float64 over the very tensors that the model has computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torch_observer import FUNCTIONS, LAYOUTS, Observer, check, spied
from torch_zoo import Twice, built


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_functions(layout, kind, tmp_path):
    torch.manual_seed(1)
    make, shape, axis = LAYOUTS[layout]
    model = make(kind())
    kept = spied(model[-1])
    with torch.no_grad():
        model[0].weight *= 4  # so that bounded functions saturate
    observe = Observer(model, tmp_path)
    seen = observe(torch.randn(shape)).layers["0"]
    check(seen, kept, FUNCTIONS[kind], axis)
    assert observe.info("0").activation_function == FUNCTIONS[kind]
    assert observe.info("0").witness == "pre_activation"


def test_channels_last_in_memory(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 5, 2), nn.ReLU()).to(memory_format=torch.channels_last)
    kept = spied(model[-1])
    x = torch.randn(4, 2, 4, 3).to(memory_format=torch.channels_last)
    check(Observer(model, tmp_path)(x).layers["0"], kept, "relu", 1)


def test_units_that_were_flattened_with_their_positions(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 5, 2), nn.Flatten(), nn.Tanh(), nn.Linear(30, 2))
    kept = spied(model[2])
    observe = Observer(model, tmp_path)
    seen = observe(torch.randn(4, 2, 4, 3))
    kept = {name: [t.reshape(4, 5, 6) for t in tensors] for name, tensors in kept.items()}
    check(seen.layers["0"], kept, "tanh", 1)
    wanted = model[3].weight.detach().view(2, 5, 6).norm(dim=(0, 2))
    np.testing.assert_allclose(seen.layers["0"].weights.norm_out, wanted, rtol=1e-5)
    assert observe.info("0").fan_out == 12


def test_units_behind_a_concatenation(tmp_path):
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.norm, self.act = (
                nn.Conv1d(2, 3, 1),
                nn.Conv1d(2, 4, 1),
                nn.BatchNorm1d(7),
                nn.ReLU(),
            )

        def forward(self, x):
            return self.act(self.norm(torch.cat([self.one(x), self.two(x)], 1)))

    torch.manual_seed(1)
    model = Dense()
    kept = spied(model.act)
    seen = Observer(model, tmp_path)(torch.randn(5, 2, 4)).layers
    for name, part in (("one", slice(0, 3)), ("two", slice(3, 7))):
        check(seen[name], {key: [t[:, part] for t in tensors] for key, tensors in kept.items()}, "relu", 1)


@pytest.mark.parametrize("batch_first", [True, False])
def test_transformers_count_examples_along_their_batch(batch_first, tmp_path):
    torch.manual_seed(1)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first, activation=nn.ReLU())
    kept = spied(model.activation)
    seen = Observer(model, tmp_path)(torch.randn(5, 3, 8)).layers["linear1"]
    if not batch_first:
        kept = {name: [t.transpose(0, 1) for t in tensors] for name, tensors in kept.items()}
    check(seen, kept, "relu", -1)


def test_micro_batches_and_calls_of_one_layer_are_seen_together(tmp_path):
    torch.manual_seed(1)
    model = Twice()
    outputs, gradients = [], []
    relu = torch.Tensor.relu
    observe = Observer(model, tmp_path)
    for _ in range(3):
        x = torch.randn(6, 6)
        with torch.no_grad():
            stem = relu(model.stem(x))
            one = relu(model.shared(stem))
            outputs += [one, relu(model.shared(one))]
        model(x).square().mean().backward()
        copy = stem.double().requires_grad_()
        z1 = F.linear(copy, model.shared.weight.double(), model.shared.bias.double())
        z2 = F.linear(relu(z1), model.shared.weight.double(), model.shared.bias.double())
        loss = F.linear(relu(z2), model.head.weight.double(), model.head.bias.double()).square().mean()
        gradients += torch.autograd.grad(loss, [z1, z2])
    observe.optimizer.step()
    seen = observe.seen().layers["shared"]
    kept = {"outputs": [t.double() for t in outputs], "gradients": [g.detach() for g in gradients]}
    check(seen, kept, "relu", -1)


def test_recurrent_layers_at_their_output(tmp_path):
    torch.manual_seed(1)
    model = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
    observe = Observer(model, tmp_path)
    x = torch.randn(5, 6, 3)
    with torch.no_grad():
        output = model.eval()(x)[0].double()
    model.train()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen = observe(x, lambda out: out[0].sum()).layers["LSTM"]
    check(seen, {"outputs": [output], "gradients": [torch.ones_like(output)]}, "tanh", -1)
    gates = [weights[f"weight_{kind}_l0"].view(4, 4, -1).square().sum((0, 2)) for kind in ("ih", "hh")]
    np.testing.assert_allclose(seen.weights.norm_in[:4], (gates[0] + gates[1]).sqrt(), rtol=1e-6)
    assert observe.info("LSTM").witness == "output"
    assert observe.info("LSTM").units == 8


def test_planted_dead_units_have_exactly_no_gradient_where_it_counts(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[1].bias[:3] = -10
    seen = Observer(model, tmp_path)(torch.randn(16, 6)).layers["0"]
    assert (seen.fired_examples[:3] == 0).all()
    assert (seen.gradient_squares[:3] == 0).all()
    assert (seen.gradient_squares[3:] > 0).all()


def test_a_constant_output_has_no_spread_at_all(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[0].bias[:2] = torch.tensor([0.1, -1])
    seen = Observer(model, tmp_path)(torch.randn(37, 6), passes=3).layers["0"]
    assert (seen.squares[:2] == 0).all()
    assert seen.min[0] == seen.max[0] == np.float32(0.1)
    np.testing.assert_allclose(seen.mean[:2], [np.float32(0.1), 0], rtol=1e-12)


def test_rows_of_an_embedding_on_request(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(6, 4), nn.Flatten(), nn.Linear(12, 2))
    seen = Observer(model, tmp_path, layers=["0"])(torch.tensor([[0, 1, 1], [1, 4, 4]])).layers["0"]
    np.testing.assert_array_equal(seen.fired_positions, [1, 3, 0, 0, 2, 0])
    np.testing.assert_array_equal(seen.fired_examples, [1, 2, 0, 0, 1, 0])
    assert (seen.examples, seen.positions) == (2, 6)
    np.testing.assert_array_equal(seen.weights.change > 0, [True, True, False, False, True, False])


def test_firing_goes_by_the_scale_of_the_record_before(tmp_path):
    model, x = built("dense")
    observe = Observer(model, tmp_path)
    observe.monitor._tap._scale = lambda layer: 500.0
    kept = spied(model[3])
    seen = observe(x).layers["2"]
    np.testing.assert_array_equal(seen.fired_positions, (kept["outputs"][0].abs() > 0.5).sum(0))

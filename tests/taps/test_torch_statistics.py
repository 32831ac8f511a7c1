"""What the taps of PyTorch measure, against slow loops in float64 over the very tensors that the model has computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deadunits_tb
import slow_reference
from deadunits_tb.torch import watch
from torch_zoo import Twice, built, train

FUNCTIONS = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.Hardtanh: "hard_tanh",
    nn.Hardsigmoid: "hard_sigmoid", nn.Softsign: "softsign", nn.GELU: "gelu", nn.LeakyReLU: "leaky_relu",
}  # fmt: skip


class Observer:
    """Watches a model, and keeps what each step has shown."""

    def __init__(self, model, log_dir, optimizer=None, **arguments):
        self.model = model.train()
        self.optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.1)
        self.monitor = watch(model, log_dir, optimizer=self.optimizer, every=1, **arguments)
        self.steps = {}
        observe = self.monitor._monitor.observe

        def spy(step, deferred, **named):
            self.steps[step] = deferred()
            observe(step, deferred, **named)

        self.monitor._monitor.observe = spy

    def __call__(self, x, loss=lambda out: out.float().square().mean(), passes=1):
        self.optimizer.zero_grad()
        for _ in range(passes):
            loss(self.model(x)).backward()
        self.optimizer.step()
        return self.seen()

    def seen(self):
        self.monitor.flush()
        assert self.monitor.errors == ()
        return self.steps[max(self.steps)]

    def info(self, layer):
        return self.monitor._tap._known.infos[layer]


def statistics(seen):
    """As :func:`slow_reference.of_unit` names them, ``[units]``."""
    found = {
        "active_fraction": seen.fired_examples / seen.examples,
        "active_positions": seen.fired_positions / seen.positions,
        "mean": seen.mean,
        "mean_abs": seen.sum_abs / seen.positions,
        "std": np.sqrt(seen.squares / seen.positions),
        "min": seen.min,
        "max": seen.max,
    }
    if seen.saturated is not None:
        found["saturated_fraction"] = seen.saturated / seen.positions
    if seen.gradient_squares is not None:
        found["gradient"] = np.sqrt(seen.gradient_squares / seen.positions)
    return found


def spied(module):
    """Keeps the outputs of an activation module and the gradients at its input, of every call."""
    kept = {"outputs": [], "gradients": []}

    def before(_, args):
        args[0].register_hook(lambda g: kept["gradients"].append(g.detach().double()))

    def after(_, __, output):
        kept["outputs"].append(output.detach().double())

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)
    return kept


def check(seen, kept, function, axis, scale=1.0, tolerance=1e-5):
    def rows(tensors):
        moved = [np.moveaxis(t.numpy(), axis, -1) for t in tensors]
        return np.concatenate([t.reshape(len(t), -1, t.shape[-1]) for t in moved])

    outputs, gradients = rows(kept["outputs"]), rows(kept["gradients"]) / scale
    assert (seen.examples, seen.positions) == (len(outputs), math.prod(outputs.shape[:2]))
    if function in ("relu", "relu6"):
        fires = lambda y: y > 0  # noqa: E731
    else:
        limit = np.float32(1e-3) * np.sqrt(np.mean(outputs**2))
        fires = lambda y: abs(y) > limit  # noqa: E731
    found = statistics(seen)
    for unit in range(outputs.shape[-1]):
        wanted = slow_reference.of_unit(
            [slow_reference.examples_of(outputs, unit)],
            fires=fires,
            function=function,
            gradients=[slow_reference.examples_of(gradients, unit)],
        )
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name][unit], value, rtol=tolerance, atol=1e-7, err_msg=name)


LAYOUTS = {
    "BC": (lambda act: nn.Sequential(nn.Linear(6, 5), act), (7, 6), -1),
    "BTC": (lambda act: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), act), (4, 3, 6), -1),
    "BCL": (lambda act: nn.Sequential(nn.Conv1d(2, 5, 2), act), (4, 2, 6), 1),
    "BCHW": (lambda act: nn.Sequential(nn.Conv2d(2, 5, 2, bias=False), nn.BatchNorm2d(5), act), (4, 2, 4, 3), 1),
    "BCDHW": (lambda act: nn.Sequential(nn.ConvTranspose3d(2, 4, 2, groups=2), act), (3, 2, 2, 2, 2), 1),
    "BHWC": (lambda act: nn.Sequential(nn.Linear(6, 5), act), (3, 2, 2, 6), -1),
}


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


@pytest.mark.parametrize("layout", ["BC", "BTC", "BCHW"])
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, None), (torch.float16, 2.0**8)])
def test_low_precision(layout, dtype, scale, tmp_path):
    torch.manual_seed(1)
    make, shape, axis = LAYOUTS[layout]
    model = make(nn.ReLU())
    kept = spied(model[-1])
    scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale else None
    observe = Observer(model, tmp_path, scaler=scaler)
    with torch.autocast("cpu", dtype):
        loss = model(torch.randn(shape)).float().square().mean()
    if scaler:
        scaler.scale(loss).backward()
        scaler.step(observe.optimizer)
        scaler.update()
    else:
        loss.backward()
        observe.optimizer.step()
    check(observe.seen().layers["0"], kept, "relu", axis, scale or 1.0)


def test_low_precision_parameters(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU()).to(torch.bfloat16)
    kept = spied(model[-1])
    seen = Observer(model, tmp_path)(torch.randn(8, 6, dtype=torch.bfloat16)).layers["0"]
    check(seen, kept, "relu", -1)


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


def test_weights_around_the_optimizer_step(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )
    observe = Observer(model, tmp_path)
    x = torch.randn(8, 2, 5, 5)
    observe(x)
    before = [p.detach().clone() for p in model.parameters() if p.dim() > 1]
    seen = observe(x).layers
    after = [p.detach().clone() for p in model.parameters() if p.dim() > 1]
    gradients = [p.grad.clone() for p in model.parameters() if p.dim() > 1]

    def units(layer, value):
        if layer != "2":
            return value.flatten(1).double()
        return torch.cat([part.transpose(0, 1).flatten(1) for part in value.split(2)]).double()  # two groups

    for name, old, new, gradient in zip(("0", "2", "5"), before, after, gradients, strict=True):
        weights = seen[name].weights
        np.testing.assert_allclose(weights.norm_in, units(name, old).norm(dim=1), rtol=1e-5)
        np.testing.assert_allclose(weights.change, units(name, new - old).norm(dim=1), rtol=1e-4)
        np.testing.assert_allclose(weights.gradient, units(name, gradient).norm(dim=1), rtol=1e-5)
    assert observe.info("2").fan_in == 2 * 4
    assert observe.info("5").fan_in == model[5].in_features


def test_drift_is_told_from_the_first_observed_step(tmp_path):
    model, x = built("dense")
    start = model[0].weight.detach().clone()
    observe = Observer(model, tmp_path)
    for _ in range(3):
        weights = observe(x).layers["0"].weights
    wanted = (model[0].weight.detach() - start).norm(dim=1)
    np.testing.assert_allclose(weights.change_since_first, wanted, rtol=1e-4)
    np.testing.assert_allclose(weights.norm_first, start.norm(dim=1), rtol=1e-6)


def test_changes_of_many_weights_are_estimated_and_unchanged_ones_are_exactly_zero(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(300, 40), nn.ReLU())
    with torch.no_grad():
        model[0].bias[:5] = -1000  # these units get no gradient, so their weights stay
    observe = Observer(model, tmp_path)
    observe.monitor._tap._weights._left = 0
    before = model[0].weight.detach().clone()
    state = torch.get_rng_state()
    weights = observe(torch.randn(16, 300, generator=torch.Generator().manual_seed(1))).layers["0"].weights
    assert torch.equal(state, torch.get_rng_state())
    assert observe.info("0").weight_delta == "projection"
    truth = (model[0].weight.detach() - before).norm(dim=1).numpy()
    assert (weights.change[:5] == 0).all()
    assert (np.abs(weights.change[5:] / truth[5:] - 1) < 0.5).all()
    assert abs(np.mean(weights.change[5:] / truth[5:]) - 1) < 0.1
    np.testing.assert_allclose(weights.norm_in, before.norm(dim=1), rtol=1e-5)


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


def test_loss_inputs_and_learning_rate(tmp_path):
    model, x = built("dense")
    optimizer = torch.optim.SGD([{"params": model[0].parameters(), "lr": 0.2}, {"params": model[2:].parameters()}], 0.1)
    observe = Observer(model, tmp_path, optimizer)
    for loss in (torch.tensor(2.5), 1.5):
        model(x).sum().backward()
        optimizer.step()
        observe.monitor.step(loss=loss)
        assert observe.seen().loss == float(loss)
    count, mean, squares, low, high = observe.steps[0].inputs
    assert count == x.numel()
    values = x.double()
    wanted = [values.mean(), (values - values.mean()).square().sum(), values.min(), values.max()]
    np.testing.assert_allclose([mean, squares, low, high], wanted, rtol=1e-5)
    observe.monitor.close()
    assert deadunits_tb.load(tmp_path)["."].records[-1].learning_rate == pytest.approx(0.2)


def test_whole_numbers_are_inputs_unless_they_name_tokens(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, x):
            return self.body(x / 255)

    pixels = torch.arange(12, dtype=torch.uint8).view(2, 6)
    assert Observer(Scaled(), tmp_path / "a", optimizer)(pixels).inputs[:2] == (12, 5.5)
    lookup, tokens = built("lstm")
    assert Observer(lookup, tmp_path / "b")(tokens).inputs is None


def test_nan_and_inf_are_seen_as_they_are(tmp_path):
    model, x = built("dense")
    x[3, 2], x[5, 1] = math.nan, math.inf
    seen = Observer(model, tmp_path)(x)
    for layer in seen.layers.values():
        assert not np.isfinite(layer.mean).any()
        assert not np.isfinite(layer.gradient_squares).all()
        assert not np.isfinite(layer.weights.change).any()


def test_an_empty_batch_shows_nothing(tmp_path):
    model, x = built("dense")
    observe = Observer(model, tmp_path)
    observe(x)
    observe(x[:0], lambda out: out.sum())
    assert observe.monitor.current_step == 2
    assert list(observe.steps) == [0]


def test_gradients_are_unscaled_also_where_the_scaler_was_not_named(tmp_path):
    torch.manual_seed(1)
    results = {}
    for name in ("plain", "named", "found"):
        model, x = built("dense")
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        observe = Observer(model, tmp_path / name, scaler=scaler if name == "named" else None)
        loss = model(x).square().mean()
        (loss if name == "plain" else scaler.scale(loss)).backward()
        if name == "plain":
            observe.optimizer.step()
        else:
            scaler.step(observe.optimizer)
            scaler.update()
        results[name] = observe.seen().layers
    for name in ("named", "found"):
        for layer, seen in results["plain"].items():
            np.testing.assert_allclose(results[name][layer].gradient_squares, seen.gradient_squares, rtol=1e-4)
            np.testing.assert_allclose(results[name][layer].weights.gradient, seen.weights.gradient, rtol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_keeps_its_activations_only(fused, tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)
    observe = Observer(model, tmp_path, optimizer, scaler=scaler)
    kept = spied(model[1])
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(5, 6)).square().mean() * 100).backward()
        scaler.step(optimizer)
        scaler.update()
    seen = observe.seen().layers["0"]
    squares = (kept["gradients"][-1] / 2.0**17).square().sum(0)
    if fused:  # its steps are counted although they change nothing: nobody waits for the device to tell
        assert sorted(observe.steps) == [0, 1]
        skipped = observe.steps[0].layers["0"]
        assert skipped.gradient_squares is skipped.weights.gradient is skipped.weights.change is None
        assert np.isfinite(skipped.mean).all()
        np.testing.assert_allclose(seen.gradient_squares, squares, rtol=1e-4)
    else:
        assert sorted(observe.steps) == [0]
        assert seen.examples == 10
        np.testing.assert_allclose(seen.gradient_squares / seen.positions, squares / 5, rtol=1e-4)


def test_a_scaler_that_skips_before_it_is_known_leaves_no_mixed_gradient(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)
    observe = Observer(model, tmp_path)  # the scaler is not named: it is found at the first step that it lets through
    for _ in range(3):
        observe.optimizer.zero_grad()
        scaler.scale(model(torch.randn(5, 6)).square().mean() * 100).backward()
        scaler.step(observe.optimizer)
        scaler.update()
    observe.seen()
    assert sorted(observe.steps) == [0, 1]
    assert observe.steps[0].layers["0"].examples == 10
    assert observe.steps[0].layers["0"].gradient_squares is None
    assert np.isfinite(observe.steps[1].layers["0"].gradient_squares).all()


def test_a_fused_step_that_is_skipped_has_no_gradient_where_no_record_is_made(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.0, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)
    observe = Observer(model, tmp_path, optimizer, scaler=scaler, initial_step=10_000_000)
    observe.monitor._monitor.will_record = lambda step: False
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(5, 6)).square().mean() * 100).backward()
        scaler.step(optimizer)
        scaler.update()
    observe.seen()
    skipped, made = (observe.steps[step].layers["0"] for step in sorted(observe.steps))
    assert skipped.gradient_squares is None
    assert np.isfinite(made.gradient_squares).all()


def test_firing_goes_by_the_scale_of_the_record_before(tmp_path):
    model, x = built("dense")
    observe = Observer(model, tmp_path)
    observe.monitor._tap._scale = lambda layer: 500.0
    kept = spied(model[3])
    seen = observe(x).layers["2"]
    np.testing.assert_array_equal(seen.fired_positions, (kept["outputs"][0].abs() > 0.5).sum(0))


def test_the_fused_path_of_evaluation_is_not_counted(tmp_path):
    result = train("encoder", tmp_path, evaluate=True)
    assert result["monitor"].errors == ()
    assert {seen.window.examples for seen in result["monitor"]._monitor.last_records.values()} == {8}

"""Which layers of a PyTorch model are found, and the ways on which their outputs are followed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.taps.torch.layers import survey
from torch_observer import Observer
from torch_zoo import ZOO, built, tokens, train, vectors

SPELLINGS = {
    "nn.ReLU": (nn.ReLU(), "relu"),
    "nn.ReLU in place": (nn.ReLU(inplace=True), "relu"),
    "F.relu": (F.relu, "relu"),
    "F.relu in place": (lambda z: F.relu(z, inplace=True), "relu"),
    "F.relu_": (F.relu_, "relu"),
    "torch.relu": (torch.relu, "relu"),
    "torch.relu_": (torch.relu_, "relu"),
    "x.relu": (lambda z: z.relu(), "relu"),
    "x.relu_": (lambda z: z.relu_(), "relu"),
    "clamp min": (lambda z: z.clamp(min=0), "relu"),
    "torch.clamp": (lambda z: torch.clamp(z, 0), "relu"),
    "clamp_min": (lambda z: z.clamp_min(0), "relu"),
    "clamp 6": (lambda z: z.clamp(0, 6), "relu6"),
    "F.relu6": (F.relu6, "relu6"),
    "F.threshold": (lambda z: F.threshold(z, 0.1, 0.0), "threshold"),
    "torch.tanh": (torch.tanh, "tanh"),
    "x.tanh_": (lambda z: z.tanh_(), "tanh"),
    "torch.sigmoid": (torch.sigmoid, "sigmoid"),
    "F.hardtanh": (F.hardtanh, "hard_tanh"),
    "F.hardsigmoid": (F.hardsigmoid, "hard_sigmoid"),
    "F.hardswish": (F.hardswish, "hard_silu"),
    "F.gelu": (lambda z: F.gelu(z, approximate="tanh"), "gelu"),
    "F.silu": (F.silu, "silu"),
    "F.mish": (F.mish, "mish"),
    "F.elu": (F.elu, "elu"),
    "F.selu": (F.selu, "selu"),
    "F.leaky_relu": (lambda z: F.leaky_relu(z, 0.2), "leaky_relu"),
    "nn.PReLU": (nn.PReLU(), "prelu"),
    "F.softplus": (F.softplus, "softplus"),
    "F.softsign": (F.softsign, "softsign"),
    "F.logsigmoid": (F.logsigmoid, "log_sigmoid"),
    "softmax": (lambda z: z.softmax(-1), "softmax"),
    "swish by hand": (lambda z: z * torch.sigmoid(z), "custom"),
    "gelu by hand": (lambda z: 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.044 * z.pow(3)))), "custom"),
    "none": (lambda z: z, "linear"),
    "none, and a scale": (lambda z: 2 * z, "linear"),
    "not understood": (lambda z: torch.cumsum(z, -1), None),
}


class Between(nn.Module):
    """Two linear layers, and anything between them."""

    def __init__(self, function):
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)
        self.function = function

    def forward(self, x):
        return self.two(self.function(self.one(x)))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_activation_functions(spelling, tmp_path):
    function, wanted = SPELLINGS[spelling]
    torch.manual_seed(0)
    observe = Observer(Between(function), tmp_path)
    seen = observe(vectors()).layers["one"]
    info = observe.info("one")
    assert info.activation_function == wanted
    by_hand = wanted == "custom"
    assert info.witness == ("none" if by_hand else "pre_activation" if wanted else "output")
    assert (seen.gradient_squares is None) == by_hand
    assert observe.info("two").role == "output"
    assert info.role == "hidden"
    if wanted is not None:
        assert info.fan_out == (None if spelling == "gelu by hand" else 3)


WAYS = {
    "dropout": lambda z: F.dropout(z, 0.2),
    "normalised": lambda z: F.layer_norm(z, (8,)),
    "cast": lambda z: z.to(torch.bfloat16).float(),
    "reshaped": lambda z: z.view(4, 4, 8),
    "positions in front": lambda z: z.view(4, 4, 8).flatten(0, 1),
    "transposed": lambda z: z.view(4, 4, 8).transpose(1, 2),
    "permuted": lambda z: z.view(2, 2, 4, 8).permute(0, 3, 1, 2),
    "unsqueezed": lambda z: z[:, None, :],
    "one position": lambda z: z.view(4, 4, 8)[:, 0],
    "mean of positions": lambda z: z.view(4, 4, 8).mean(1),
    "gate": lambda z: z * torch.linspace(0.5, 2, 8),
    "shifted in place": lambda z: z.add_(1),
    "residual": lambda z: z + torch.ones(16, 8),
    "pooled": lambda z: F.max_pool1d(z.view(4, 4, 8).transpose(1, 2), 2),
    "normalised over the batch": lambda z: F.batch_norm(z, None, None, training=True),
    "padded": lambda z: F.pad(z.view(4, 4, 8).transpose(1, 2), (1, 1)),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_from_a_layer_to_its_activation_function(way, tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 8)

        def forward(self, x):
            before.append(WAYS[way](self.one(x)))
            return before[-1].relu()

    torch.manual_seed(0)
    before = []
    observe = Observer(Model(), tmp_path)
    seen = observe(vectors()).layers["one"]
    assert observe.info("one").activation_function == "relu"
    after = before[0].detach().relu()
    axis = next(at for at, size in enumerate(after.shape) if size == 8 and at)
    rows = after.movedim(axis, -1).reshape(-1, 8)
    assert seen.fired_positions.tolist() == (rows > 0).sum(0).tolist()
    assert seen.positions == len(rows)


def test_units_torn_apart_are_not_mistaken(tmp_path):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.value, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x):
            query, value = (layer(x).view(4, 4, 2, 4).transpose(1, 2) for layer in (self.query, self.value))
            heads = torch.softmax(query @ query.transpose(-1, -2), -1) @ value
            return self.out(heads.transpose(1, 2).flatten(2))

    observe = Observer(Attention(), tmp_path)
    observe(torch.randn(4, 4, 6))
    assert observe.info("query").activation_function is None
    assert observe.info("value").activation_function is None
    assert observe.info("out").role == "output"


def test_an_activation_module_of_a_library_is_taken_as_a_whole(tmp_path):
    class NewGELUActivation(nn.Module):
        def forward(self, z):
            return 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.044 * torch.pow(z, 3))))

    torch.manual_seed(0)
    model = Between(NewGELUActivation())
    x = vectors()
    wanted = model.function(model.one(x)).detach()
    observe = Observer(model, tmp_path)
    seen = observe(x).layers["one"]
    assert (observe.info("one").activation_function, observe.info("one").witness) == ("gelu", "pre_activation")
    torch.testing.assert_close(torch.tensor(seen.max), wanted.amax(0).double(), rtol=1e-6, atol=1e-7)


def test_the_loss_tells_the_output_layer(tmp_path):
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.head, self.side = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

        def forward(self, x):
            x = self.hidden(x).relu()
            return {"loss": F.cross_entropy(self.head(x), torch.zeros(len(x), dtype=torch.long)), "state": x}

    torch.manual_seed(0)
    observe = Observer(WithLoss(), tmp_path)
    observe(vectors(), lambda out: out["loss"])
    assert observe.info("head").role == "output"
    assert observe.info("hidden").role == "hidden"
    assert observe.info("hidden").fan_out is None  # the model gives its units away, too
    assert observe.monitor.skipped == {"side": "not called in an observed training step"}


def test_users_may_name_the_output(tmp_path):
    model, x = built("dense")
    observe = Observer(model, tmp_path, output_layers=[model[2]])
    observe(x)
    assert [observe.info(name).role for name in ("0", "2", "5")] == ["hidden", "output", "hidden"]


def test_chosen_layers(tmp_path):
    model, x = built("residual")
    observe = Observer(model, tmp_path, layers=["one", model.head])
    assert observe(x).layers.keys() == {"one", "head"}
    assert observe.info("one").fan_out == 36  # told by weights that are not watched
    assert observe.monitor.skipped == {}


def test_a_module_stands_for_all_within_it(tmp_path):
    model, x = built("encoder")
    observe = Observer(model, tmp_path, layers=["encoder.layers.1"])
    assert {name.rpartition(".")[2] for name in observe(x).layers} == {"out_proj", "linear1", "linear2"}


def test_tokens_are_positions_of_sequences_in_models_that_look_up_embeddings(tmp_path):
    for name, wanted in (("block", {"up": True, "head": False}), ("residual", {"one": False})):
        model, x = built(name)
        observe = Observer(model, tmp_path / name)
        observe(x)
        assert {layer: observe.info(layer).tokens for layer in wanted} == wanted


def test_frozen_layers_say_so(tmp_path):
    model, x = built("frozen")
    seen = Observer(model, tmp_path)(x).layers
    assert [seen[name].trainable for name in ("0", "2", "5")] == [False, True, True]
    assert seen["0"].weights.gradient is None
    assert (seen["0"].weights.change == 0).all()


def test_modules_and_parameters_that_are_added_later(tmp_path):
    model, x = built("dense")
    observe = Observer(model, tmp_path)
    observe(x)
    model.insert(5, nn.Linear(8, 8))
    model.insert(6, nn.ReLU())
    observe.optimizer.add_param_group({"params": model[5].parameters(), "lr": 0.01})
    before = model[5].weight.detach().clone()
    seen = observe(x).layers
    assert list(seen) == ["0", "2", "5#2", "7"]  # "5" is the name of another layer, which is called "7" now
    assert (observe.info("5#2").units, observe.info("5#2").activation_function) == (8, "relu")
    change = (model[5].weight.detach() - before).norm(dim=1)
    torch.testing.assert_close(torch.tensor(seen["5#2"].weights.change), change.double(), rtol=1e-4, atol=0)


def test_what_is_not_observed_is_listed_with_its_reason(tmp_path):
    result = train("gru", tmp_path / "gru", steps=1)
    assert "inner level" in result["monitor"].skipped["recurrent.l0"]
    assert "a row not seen is not dead" in result["monitor"].skipped["embed"]
    result = train("checkpoint reentrant", tmp_path / "checkpoint", steps=1)
    assert "only its activations are seen" in result["monitor"].skipped["body.0 (gradient)"]
    result = train("checkpoint", tmp_path / "not reentrant", steps=1)
    once = result["monitor"]._monitor.last_records["body.0"]  # although it is computed twice
    assert once.window.examples == 16
    assert (once.statistics.get("gradient") > 0).any()
    result = train("block", tmp_path / "block", steps=1)
    assert "inside of PyTorch's own attention" in result["monitor"].skipped["attention.in_proj"]


def test_tied_weights_name_a_layer_by_its_module(tmp_path):
    model, x = built("tied")
    observe = Observer(model, tmp_path)
    assert observe(x).layers.keys() == {"hidden", "head"}


def test_layers_of_the_zoo_are_all_found():
    for name in ZOO:
        model, _ = built(name)
        found = survey(model)
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase))]
        in_attention = sum(isinstance(m, nn.MultiheadAttention) for m in model.modules())
        assert len(found.watched) == len(layers), name
        assert in_attention <= len(layers)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"layers": ["tow"]}, UnknownNameError, "Did you mean 'two'"),
        ({"layers": [nn.Linear(2, 2)]}, UnknownNameError, "there is no layer 'Linear'"),
        ({"layers": ["function"]}, InvalidArgumentError, "none of the layers to watch has units: function"),
        ({"output_layers": ["three"]}, UnknownNameError, "Known: 'one', 'two'"),
    ],
)
def test_layers_that_are_not_there(arguments, error, words, tmp_path):
    with pytest.raises(error, match=words):
        Observer(Between(nn.ReLU()), tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_model_without_layers(tmp_path):
    model = nn.Sequential(nn.Embedding(20, 3), nn.LayerNorm(3))
    with pytest.raises(InvalidArgumentError, match="no layer that can be watched, only Embedding, LayerNorm"):
        Observer(model, tmp_path)
    assert tokens().dtype == torch.long

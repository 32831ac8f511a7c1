"""What a model is made of is written with the run: all that tells one recipe from another."""

from __future__ import annotations

import keras
import numpy as np
import torch
from torch import nn

import deadunits_tb
from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.run_record import MODEL_PARTS, ModelPart
from deadunits_tb.taps.keras.parts import model_parts as keras_parts
from deadunits_tb.taps.torch.parts import model_parts as torch_parts
from deadunits_tb.torch import watch


class Touchy(nn.Module):
    """Whoever asks it for anything is told off."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    @property
    def p(self) -> float:
        raise RuntimeError("hands off")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def test_torch_modules() -> None:
    model = nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Conv2d(1, 2, 3), nn.LSTM(3, 4, 2, dropout=0.1), Touchy()
    )
    found = {part.name: part for part in torch_parts(model)}
    assert found["0"] == ModelPart("0", "Linear", {"in_features": 4.0, "out_features": 3.0})
    assert found["1"].settings == {"eps": 1e-5, "momentum": 0.1, "affine": 1.0}
    assert found["2"] == ModelPart("2", "Dropout", {"p": 0.5})
    assert found["3"].settings["kernel_size"] == "(3, 3)"
    assert found["4"].settings["dropout"] == 0.1
    assert found["5.linear"].kind == "Linear"
    assert len(torch_parts(nn.Sequential(*(nn.ReLU() for _ in range(MODEL_PARTS + 5))))) == MODEL_PARTS


def test_keras_layers() -> None:
    class Bare(keras.layers.Layer):
        def __init__(self, rate: object) -> None:
            super().__init__()
            self.rate = rate

        def call(self, x: object) -> object:
            return x

    inner = keras.Sequential([keras.layers.Dense(5, "relu", kernel_initializer="he_normal", kernel_regularizer="l2")])
    model = keras.Sequential([inner, keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), Bare(object())])
    found = {part.kind: part.settings for part in keras_parts(model)}
    assert list(found) == ["Dense", "BatchNormalization", "Dropout", "Bare"]
    assert found["Dense"]["kernel_initializer"] == "HeNormal"
    assert found["Dense"]["kernel_regularizer"] == "L2(l2=0.01)"
    assert found["Dropout"] == {"rate": 0.5}
    assert found["Bare"] == {}


def test_both_are_in_the_log(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    model = keras.Sequential([keras.layers.Dense(2, "relu"), keras.layers.Dropout(0.25), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], verbose=0, callbacks=[DeadUnitsCallback(tmp_path / "keras", every=1)])
    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.25), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with watch(net, tmp_path / "torch", optimizer=optimizer, every=1):
        net(torch.tensor(x)).sum().backward()
        optimizer.step()
    runs = deadunits_tb.load(tmp_path)
    assert [part.kind for part in runs["keras"].info.model] == ["Dense", "Dropout", "Dense"]
    assert [(part.kind, part.settings.get("p")) for part in runs["torch"].info.model] == [
        ("Linear", None), ("Dropout", 0.25), ("Linear", None),
    ]  # fmt: skip

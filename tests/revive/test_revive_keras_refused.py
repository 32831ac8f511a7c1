"""What cannot be revived in Keras is said, and where the user may help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.keras import revive
from revive_keras_zoo import DEAD, batch, kill, mlp, residual, value, vectors


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = L.Dense(8, "relu", name="hidden"), L.Dense(3, name="head")

    def call(self, x: Any) -> Any:
        return self.head(self.hidden(x))


def two_producers() -> keras.Model:
    x = vectors()
    head = L.Dense(3, name="head")
    return keras.Model(x, L.Add()([head(L.Dense(8, "relu", name="hidden")(x)), head(L.Dense(8)(x))]))


def frozen_head() -> keras.Model:
    model = mlp()
    model.layers[1].trainable = False
    return model


REFUSED: dict[str, tuple[Callable[[], keras.Model], str, str]] = {
    "residual stream": (residual, "outer", "residual stream"),
    "consumer of others": (two_producers, "hidden", "head also takes in other units"),
    "output": (lambda: keras.Sequential([vectors(), L.Dense(8, name="hidden")]), "hidden", "the model's output"),
    "LayerNormalization": (
        lambda: keras.Sequential([vectors(), L.Dense(8, name="hidden"), L.LayerNormalization(), L.ReLU(), L.Dense(3)]),
        "hidden", "mixes them",
    ),
    "softmax": (lambda: keras.Sequential([vectors(), L.Dense(8, "softmax", name="hidden"), L.Dense(3)]), "hidden",
                "softmax mixes"),
    "no initializer": (lambda: keras.Sequential([keras.Input((5, 6)), L.LSTM(8, name="hidden"), L.Dense(3)]), "hidden",
                       "no known initializer for single units of LSTM"),
    "frozen head": (frozen_head, "hidden", "is frozen: they would stay disconnected"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_revived_is_said_and_nothing_is_changed(case: str) -> None:
    make, layer, reason = REFUSED[case]
    model = make()
    before = [value(variable) for variable in model.variables]
    with pytest.raises(InvalidArgumentError, match=rf"layer '{layer}' cannot be revived: .*{reason}"):
        revive(model, {layer: DEAD}, sample=batch(model))
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(value(variable), old)


def test_the_user_may_say_where_units_go() -> None:
    keras.utils.set_random_seed(0)
    model = Subclassed()
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    model(x)
    kill(model)
    with pytest.raises(InvalidArgumentError, match=r"not part of one functional .*next=\{'hidden'"):
        revive(model, {"hidden": DEAD}, sample=x)
    before = value(model(x))
    revive(model, {"hidden": DEAD}, next={"hidden": "head"}, sample=x)
    np.testing.assert_allclose(value(model(x)), before, rtol=1e-5, atol=1e-6)
    assert not value(model.head.kernel)[DEAD].any()
    with pytest.raises(UnknownNameError, match="there is no layer 'haed'"):
        revive(model, {"hidden": DEAD}, next={"hidden": "haed"}, sample=x)

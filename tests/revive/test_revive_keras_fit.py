"""Revival in ``fit``: by the records of a monitor, without ever breaking training."""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np
import pytest

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.keras import DeadUnitsCallback, ReviveCallback
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.revivals import revivals
from revive_keras_zoo import DEAD, batch, kill, mlp, residual, set_part, value


def data(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    x = batch(model, 3, 1280)
    return x, (x.sum(axis=1) > 0).astype(int)


def fit(tmp_path: pathlib.Path, *, epochs: int, **arguments: Any) -> tuple[keras.Model, Any, ReviveCallback]:
    keras.utils.set_random_seed(0)
    model = mlp()
    kill(model, [1, 4, 5])
    model.compile(keras.optimizers.Adam(0.003), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    units = DeadUnitsCallback(tmp_path, every=1)
    callback = ReviveCallback(units, layers=["hidden"], seed=0, **arguments)
    x, y = data(model)
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[units, callback])
    return model, units, callback


def test_units_are_revived_in_fit_and_the_log_says_so(tmp_path: pathlib.Path) -> None:
    _, units, callback = fit(tmp_path, epochs=7, cool_down=30)  # epochs of 20 steps
    first, second = callback.plans
    assert (first.step, len(first.layers[0].units), first.layers[0].found) == (59, 2, 3)
    assert (second.step, len(second.layers[0].units), second.layers[0].found) == (99, 1, 1)
    assert sorted(first.layers[0].units + second.layers[0].units) == [1, 4, 5]
    run = RunReader(LocalDataProvider(tmp_path)).history(".")
    assert not units._monitor.errors
    one, two = revivals(run)
    assert (one.event.step, one.event.units, one.event.policy) == (
        59, first.layers[0].units, "dead units, at most 25 % of a layer"
    )  # fmt: skip
    assert one.later[-1].alive == 2
    assert two.sentence.endswith("1 of 1 alive 40 steps later")


def test_a_dry_run_changes_nothing(tmp_path: pathlib.Path) -> None:
    weights = []
    for name, arguments in {"dry": {"dry_run": True}, "none": {"every": 10_000}}.items():
        model, _, callback = fit(tmp_path / name, epochs=3, **arguments)
        weights.append([value(variable) for variable in model.variables])
        if name == "dry":
            assert [str(plan)[:7] for plan in callback.plans] == ["step 59"]
            assert not any(plan.done for plan in callback.plans)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not revivals(RunReader(LocalDataProvider(tmp_path / "dry")).history("."))


def test_it_revives_between_batches_too(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, callback = fit(tmp_path, epochs=3, every=7, max_share=1, verbose=1)
    assert [(plan.step, plan.layers[0].units) for plan in callback.plans] == [(55, (1, 4, 5))]
    assert "revived 3 of 3 found in hidden (8 units)" in capsys.readouterr().out


def test_saturated_units_are_revived_on_request(tmp_path: pathlib.Path) -> None:
    keras.utils.set_random_seed(0)
    model = mlp("tanh")
    set_part(model.layers[0].bias, DEAD, 50)
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    units = DeadUnitsCallback(tmp_path, every=1)
    x, y = data(model)
    blind = ReviveCallback(units, layers=["hidden"], states=["saturated"], dry_run=True)
    callback = ReviveCallback(units, layers=["hidden"], states=["saturated"], sample=x[:64])
    model.fit(x, y, batch_size=64, epochs=2, verbose=0, callbacks=[units, blind, callback])
    assert callback.plans[0].layers[0].units == tuple(DEAD)
    assert units._monitor.counts["hidden"] == {"active": 8}
    assert not blind.plans  # what they send is not known without a sample


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"every": 0}, "every must be a whole number from 1"),
        ({"seed": -1}, "seed"),
        ({"layers": "hidden"}, "layers must be a list"),
        ({"states": ["frozen"]}, "'frozen' cannot be revived"),
        ({"max_share": 0}, "max_share"),
        ({"initializer": "he_norml"}, "initializer must be None"),
    ],
)
def test_wrong_arguments_raise_at_once(tmp_path: pathlib.Path, arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidArgumentError, match=error):
        ReviveCallback(DeadUnitsCallback(tmp_path), **arguments)
    with pytest.raises(InvalidArgumentError, match="takes the DeadUnitsCallback of the same fit, not str"):
        ReviveCallback("runs")


@pytest.mark.parametrize(
    ("arguments", "optimizer", "error"),
    [
        ({"layers": ["hiden"]}, "sgd", "there is no layer 'hiden'. Did you mean 'hidden'"),
        ({"layers": ["outer"]}, "sgd", "layer 'outer' cannot be revived"),
        ({}, "adagrad", "what Adagrad remembers .* SGD, Adam, AdamW, RMSprop"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(
    tmp_path: pathlib.Path, arguments: dict[str, Any], optimizer: str, error: str
) -> None:
    model = residual()
    model.compile(optimizer, "mse")
    units = DeadUnitsCallback(tmp_path)
    with pytest.raises(InvalidArgumentError, match=error):
        model.fit(batch(model), np.zeros((32, 3)), verbose=0, callbacks=[units, ReviveCallback(units, **arguments)])


def test_without_its_monitor_in_the_fit_training_goes_on(tmp_path: pathlib.Path) -> None:
    model = mlp()
    model.compile("sgd", "mse")
    callback = ReviveCallback(DeadUnitsCallback(tmp_path))
    with pytest.warns(UserWarning, match="its DeadUnitsCallback is not part of this fit"):
        history = model.fit(batch(model), np.zeros((32, 3)), epochs=3, verbose=0, callbacks=[callback])
    assert len(history.history["loss"]) == 3

"""Revival in Keras: the function stays, the units are new, the optimizer remembers nothing of them; and in ``fit``."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.keras import DeadUnitsCallback, ReviveCallback, revive
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.revivals import revivals
from deadunits_tb.taps.keras.private import optimizer_slots

DEAD = [1, 4]
WORK = [0, 2, 3, 5, 6, 7]
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True),
    "adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


def vectors() -> Any:
    return keras.Input((6,))


def mlp(function: str = "relu") -> keras.Model:
    return keras.Sequential([vectors(), L.Dense(8, function, name="hidden"), L.Dense(8, "relu"), L.Dense(3)])


def cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            *(L.Conv2D(8, 3, padding="same", name="hidden"), L.BatchNormalization(name="bn"), L.ReLU()),
            *(L.Dropout(0.3), L.MaxPooling2D(), L.Conv2D(8, 3, activation="relu"), L.Flatten(), L.Dense(3)),
        ]
    )


def flat() -> keras.Model:
    conv = L.Conv2D(8, 3, activation="relu", name="hidden")
    return keras.Sequential([keras.Input((4, 4, 2)), conv, L.Flatten(), L.Dense(3)])


def depthwise() -> keras.Model:
    conv = L.Conv2D(8, 3, activation="relu", name="hidden")
    return keras.Sequential(
        [keras.Input((6, 6, 2)), conv, L.DepthwiseConv2D(2, depth_multiplier=2), L.GlobalAveragePooling2D(), L.Dense(3)]
    )


def recurrent() -> keras.Model:
    return keras.Sequential([keras.Input((5, 6)), L.Dense(8, "relu", name="hidden"), L.GRU(4), L.Dense(3)])


def residual() -> keras.Model:
    """A block whose inner units are its own, shared by two calls; those of the stream are not."""
    x = inputs = vectors()
    stem, hidden, outer = L.Dense(8, name="stem"), L.Dense(8, "relu", name="hidden"), L.Dense(8, name="outer")
    x = stem(x)
    for _ in range(2):
        x = L.Add()([x, outer(hidden(x))])
    return keras.Model(inputs, L.Dense(3)(x))


def nested() -> keras.Model:
    x = vectors()
    inner = keras.Sequential([keras.Input((6,)), L.Dense(8, name="hidden"), L.ReLU(), L.Dense(5)])
    return keras.Model(x, L.Dense(3)(inner(x)))


MODELS = {"mlp": mlp, "cnn": cnn, "flat": flat, "depthwise": depthwise, "recurrent": recurrent, "residual": residual,
          "nested": nested}  # fmt: skip


def named(model: keras.Model, name: str) -> Any:
    return next(layer for layer in model._flatten_layers() if layer.name == name)


def batch(model: keras.Model, seed: int = 0, examples: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(examples, *model.input_shape[1:])).astype("float32")


def set_part(variable: keras.Variable, units: list[int], value: float) -> None:
    values = keras.ops.convert_to_numpy(variable).copy()
    values[..., units] = value
    variable.assign(values)


def kill(model: keras.Model, units: list[int] = DEAD) -> None:
    """Units that no input can wake: their normalisation or bias holds them down."""
    held = [layer for layer in model.layers if layer.name == "bn"]
    set_part(held[0].beta if held else named(model, "hidden").bias, units, -100.0)


def trained(make: Callable[[], keras.Model], optimizer: str = "adam") -> keras.Model:
    keras.utils.set_random_seed(0)
    model = make()
    kill(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](), loss, run_eagerly=True)  # tracing takes longer than so few steps
    x = batch(model)
    model.fit(x, np.arange(len(x)) % 3, batch_size=16, verbose=0)
    return model


def value(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


@pytest.mark.parametrize("name", MODELS)
def test_the_function_stays_and_the_units_live(name: str) -> None:
    model = trained(MODELS[name])
    x = batch(model, 99)
    hidden = named(model, "hidden")
    before, kernel = value(model(x)), value(hidden.kernel)
    plan = revive(model, {"hidden": DEAD}, sample=batch(model, 1))
    assert plan.layers[0].units == tuple(DEAD)
    np.testing.assert_allclose(value(model(x)), before, rtol=1e-5, atol=1e-6)
    assert (value(hidden.kernel)[..., DEAD] != kernel[..., DEAD]).any(axis=tuple(range(kernel.ndim - 1))).all()
    np.testing.assert_array_equal(value(hidden.kernel)[..., WORK], kernel[..., WORK])
    assert not value(hidden.bias)[DEAD].any()
    assert "call" not in vars(hidden)
    again = value(hidden.kernel)
    model.fit(x, np.arange(len(x)) % 3, batch_size=8, verbose=0)
    assert (value(hidden.kernel) != again)[..., DEAD].any(axis=tuple(range(kernel.ndim - 1))).all()  # they learn


def test_a_batch_normalisation_is_as_if_new_and_training_mode_stays_too() -> None:
    model = trained(cnn)
    bn = named(model, "bn")
    x = batch(model, 99)
    seeds = next(layer for layer in model.layers if isinstance(layer, L.Dropout)).seed_generator.state
    state = value(seeds)
    keras.utils.set_random_seed(1)  # of which dropout draws where Keras runs on torch
    before = value(model(x, training=True))
    revive(model, {"hidden": DEAD}, sample=x)
    for variable, new in ((bn.gamma, 1), (bn.beta, 0), (bn.moving_mean, 0), (bn.moving_variance, 1)):
        assert (value(variable)[DEAD] == new).all()
        assert (value(variable)[WORK] != new).all()
    seeds.assign(state)
    keras.utils.set_random_seed(1)
    np.testing.assert_allclose(value(model(x, training=True)), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_the_optimizer_remembers_nothing_of_them(optimizer_name: str) -> None:
    model = trained(mlp, optimizer_name)
    hidden, head = model.layers[:2]
    optimizer = model.optimizer
    everything = [*hidden.weights, *head.weights]
    before = [{name: value(slot) for name, slot in optimizer_slots(optimizer, v).items()} for v in everything]
    assert all(before)
    iterations = int(value(optimizer.iterations))
    revive(model, {"hidden": DEAD}, sample=batch(model))
    assert int(value(optimizer.iterations)) == iterations
    masks = [np.zeros(v.shape, bool) for v in everything]
    masks[0][:, DEAD] = masks[1][DEAD] = masks[2][DEAD] = True
    for variable, old, new in zip(everything, before, masks, strict=True):
        for kind, slot in optimizer_slots(optimizer, variable).items():
            now = value(slot)
            np.testing.assert_array_equal(now[~new], old[kind][~new], err_msg=f"{variable.path} {kind}")
            if kind == "model_variables_moving_average":
                np.testing.assert_array_equal(now[new], value(variable)[new])
            elif kind in ("velocities", "velocity_hats") and optimizer_name != "rmsprop":
                np.testing.assert_allclose(now[new], old[kind][~new].mean() if new.any() else now[new], rtol=1e-5)
            else:
                assert not now[new].any(), (variable.path, kind)


def test_the_first_steps_after_a_late_revival_are_not_longer_than_those_of_adam() -> None:
    rate = 1e-3
    model = mlp()
    optimizer = keras.optimizers.Adam(rate)
    variables = model.trainable_variables
    optimizer.build(variables)
    gradients = [keras.ops.ones_like(v) for v in variables]
    for _ in range(15):
        optimizer.apply(gradients)
    optimizer.iterations.assign(100_000)  # as late as can be
    for variable in variables:
        optimizer_slots(optimizer, variable)["velocities"].assign(np.ones(variable.shape))
    model.compile(optimizer)
    revive(model, {"hidden": DEAD}, sample=batch(model))
    for step in range(40):
        before = value(model.layers[0].kernel)
        optimizer.apply(gradients)
        moved = np.abs(value(model.layers[0].kernel) - before)[:, DEAD].max()
        assert moved <= rate * 1.01, step
    assert moved > 0.9 * rate


@pytest.mark.parametrize("function", ["tanh", "sigmoid", "leaky_relu"])
@pytest.mark.parametrize(
    "make", [mlp, *(pytest.param(make, marks=pytest.mark.slow) for make in (flat, depthwise, recurrent))]
)
def test_what_a_constant_unit_sends_moves_into_the_next_bias(make: Callable[[], keras.Model], function: str) -> None:
    keras.utils.set_random_seed(0)
    model = make()
    hidden = named(model, "hidden")
    hidden.activation = keras.activations.get(function)
    set_part(hidden.kernel, DEAD, 0)
    set_part(hidden.bias, DEAD, 3)
    x = batch(model)
    before = value(model(x))
    revive(model, {"hidden": DEAD}, sample=batch(model, 1, 8))
    assert not value(hidden.bias)[DEAD].any()
    np.testing.assert_allclose(value(model(x)), before, rtol=1e-5, atol=2e-6)


def test_two_layers_at_once_and_the_weights_between_their_units_are_new() -> None:
    model = trained(mlp)
    second = model.layers[1]
    set_part(second.bias, [0, 3], -100)
    x = batch(model, 9)
    before = value(model(x))
    revive(model, {"hidden": DEAD, second: [0, 3]}, sample=x)
    np.testing.assert_allclose(value(model(x)), before, rtol=1e-5, atol=1e-6)
    kernel = value(second.kernel)
    assert kernel[:, [0, 3]].all()
    assert not kernel[DEAD][:, [1, 2]].any()


def test_initializers_draw_anew_each_time_and_by_seed_the_same() -> None:
    kernels = []
    for seed in (1, 1, 2, None):
        keras.utils.set_random_seed(0)
        model = mlp()
        revive(model, {"hidden": range(8)}, sample=batch(model), seed=seed)
        kernels.append(value(model.layers[0].kernel))
    first, same, other, free = kernels
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()
    assert (other != free).all()
    fixed = keras.Sequential(
        [vectors(), L.Dense(8, "relu", kernel_initializer=keras.initializers.HeNormal(seed=3)), L.Dense(3)]
    )
    born = value(fixed.layers[0].kernel)
    revive(fixed, {fixed.layers[0].name: range(8)}, sample=batch(fixed))
    assert (value(fixed.layers[0].kernel) != born).all()  # not what failed already


@pytest.mark.parametrize(
    ("initializer", "function", "spread"),
    [("he", "tanh", (2 / 64) ** 0.5), ("auto", "relu", (2 / 64) ** 0.5), ("auto", "tanh", (2 / 128) ** 0.5),
     (None, "relu", (2 / 128) ** 0.5), ("he_uniform", "relu", (2 / 64) ** 0.5)],
)  # fmt: skip
def test_initializers(initializer: Any, function: str, spread: float) -> None:
    model = keras.Sequential([keras.Input((64,)), L.Dense(64, function, name="hidden"), L.Dense(3)])
    revive(model, {"hidden": range(64)}, sample=batch(model), initializer=initializer, seed=0)
    assert float(value(model.layers[0].kernel).std()) == pytest.approx(spread, rel=0.05)


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

"""Revival in Keras: the function stays, the units are new, the optimizer remembers nothing of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from deadunits_tb.keras import revive
from deadunits_tb.taps.keras.private import optimizer_slots
from revive_keras_zoo import (
    DEAD,
    MODELS,
    OPTIMIZERS,
    WORK,
    batch,
    cnn,
    depthwise,
    flat,
    mlp,
    named,
    recurrent,
    set_part,
    trained,
    value,
    vectors,
)


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

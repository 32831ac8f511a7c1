"""The host side of a loop in JAX: what it writes, when it observes, and what it refuses."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import deadunits_tb
from deadunits_tb import MonitorWarning, Thresholds
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.jax import (
    DeadUnitsWriter,
    Layer,
    init_statistics,
    observe,
    observe_gradients,
    observe_inputs,
    observe_weights,
)
from deadunits_tb.units import UnitState
from jax_zoo import batch, mlp, training_step

LAYERS = {"layer": Layer(3)}


@jax.jit
def filled(statistics: Any, z: Any) -> Any:
    return observe(statistics, "layer", jax.nn.relu, z)[1]


def values(step: int = 0) -> Any:
    return np.random.default_rng(step).normal(size=(8, 3)).astype(np.float32)


def test_a_run(tmp_path: pathlib.Path) -> None:
    network = mlp()
    network.params["b0"][[1, 4]] = -1e3
    step, state = training_step(network.loss, optax.sgd(0.1)), optax.sgd(0.1).init(network.params)
    params = network.params
    thresholds = {"dead_examples": 64, "unknown_examples": 32, "confirm_examples": 32}
    with DeadUnitsWriter(tmp_path, network.layers, params=params, every=2, thresholds=thresholds) as writer:
        for i in range(20):
            statistics = writer.begin(i)
            assert (statistics is None) == (i % 2 == 1)
            params, state, statistics, _ = step(params, state, statistics, *batch(network, i))
            writer.write(i, statistics, params=params, learning_rate=0.1)
        writer.flush()
        assert writer.dead_fraction == 2 / 44
    run = deadunits_tb.load(tmp_path)["."]
    first = run.layers["first"]
    assert first.steps.tolist() == list(range(0, 20, 2))
    assert [at for at, state in enumerate(first.states[-1]) if state == UnitState.DEAD] == [1, 4]
    record = run.records[-1]
    assert (record.learning_rate, record.errors, record.interval) == (0.1, (), 2)
    assert np.isfinite(record.loss)
    assert record.inputs is not None
    info = first.info
    assert (info.framework, info.witness, info.fan_in, info.weight_delta) == ("jax", "pre_activation", 10, "exact")
    assert run.layers["head"].info.role == "output"


def test_by_default_the_writer_chooses_when_to_observe(tmp_path: pathlib.Path) -> None:
    observed = []
    with DeadUnitsWriter(tmp_path, LAYERS, max_overhead=0.001) as writer:
        for i in range(3000):
            statistics = writer.begin(i)
            if statistics is not None:
                observed.append(i)
                writer.write(i, filled(statistics, np.tile(values(i), (50, 1))))
    assert observed[:3] == [0, 1, 2]
    assert len(observed) < 1500


def test_steps_may_rise_by_more_than_one(tmp_path: pathlib.Path) -> None:
    """As where a call runs ten of them: those are observed that come next."""
    with DeadUnitsWriter(tmp_path, LAYERS, every=25) as writer:
        for i in range(9, 100, 10):
            statistics = writer.begin(i)
            writer.write(i, None if statistics is None else filled(statistics, values(i)))
    assert deadunits_tb.load(tmp_path)["."].layers["layer"].steps.tolist() == [9, 39, 69, 99]


def test_statistics_of_ones_own_may_span_several_steps(tmp_path: pathlib.Path) -> None:
    with DeadUnitsWriter(tmp_path, LAYERS) as writer:
        for i in range(0, 20, 5):
            statistics = init_statistics(LAYERS)
            for j in range(5):
                statistics = filled(statistics, values(i + j))
            writer.write(i + 4, statistics)
    run = deadunits_tb.load(tmp_path)["."]
    assert run.layers["layer"].steps.tolist() == [4, 9, 14, 19]
    assert run.records[-1].examples == 40


def test_a_step_that_does_not_give_statistics_back_is_said_once(tmp_path: pathlib.Path) -> None:
    writer = DeadUnitsWriter(tmp_path, LAYERS, every=1)
    writer.begin(0)
    with pytest.warns(MonitorWarning, match=r"step 0 was given statistics"):
        assert writer.begin(1) is None
    assert writer.begin(2) is None
    writer.close()


def test_a_failure_of_ours_does_not_reach_the_training(tmp_path: pathlib.Path) -> None:
    writer = DeadUnitsWriter(tmp_path, LAYERS, every=1)
    statistics = filled(writer.begin(0), values())
    for leaf in jax.tree.leaves(statistics):  # as if the user had donated them to another step
        leaf.delete()
    writer.write(0, statistics)
    with pytest.warns(MonitorWarning, match="stopped monitoring and training goes on"):
        assert writer.begin(1) is None
    writer.write(1, None)
    writer.close()


def test_layers_that_cannot_be_watched_are_recorded(tmp_path: pathlib.Path) -> None:
    from deadunits_tb.jax import FoundLayers

    layers = FoundLayers(LAYERS)
    layers.skipped = {"other": "used in a loop"}
    with DeadUnitsWriter(tmp_path, layers) as writer:
        writer.write(0, filled(writer.begin(0), values()))
    [skipped] = deadunits_tb.load(tmp_path)["."].records[-1].skipped
    assert (skipped.layer, skipped.reason) == ("other", "used in a loop")


def test_none_is_handed_on() -> None:
    output, statistics = observe(None, "layer", jnp.tanh, values())
    assert statistics is None
    np.testing.assert_array_equal(output, jnp.tanh(values()))
    assert observe(None, "layer", None, 3)[0] == 3
    assert observe_gradients(None, None) is observe_inputs(None, values()) is observe_weights(None, {}) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s: observe(s, "hiden", jax.nn.relu, values()), "no layer 'hiden'.*Known: 'layer'"),
        (lambda s: observe(s, "layer", jax.nn.relu, np.ones((8, 4))), r"3 units along axis -1, .* shape \(8, 4\)"),
        (lambda s: observe(s, "layer", jax.nn.relu, np.ones(3)), "batched=False"),
        (lambda s: observe(s, "layer", lambda z: z[:, :2], values()), "3 units along axis -1"),
        (lambda s: observe(s, "layer", jax.nn.relu, values(), mask=np.ones(7)), "mask of layer 'layer' has shape"),
        (lambda s: observe({}, "layer", jax.nn.relu, values()), "statistics must be what init_statistics"),
        (lambda s: observe_gradients(s, {}), "gradients must be those of the loss with respect to these statistics"),
        (lambda s: observe_gradients(s, init_statistics({"other": Layer(2)})), "not those of other"),
        (lambda s: init_statistics({}), "layers must map names to Layer"),
        (lambda s: init_statistics({"a": 64}), "layers must map names to Layer"),
        (lambda s: Layer(0), "units must be a whole number from 1"),
        (lambda s: Layer(3, "rellu"), "no activation function 'rellu'.*Did you mean 'relu'"),
        (lambda s: Layer(3, weights="w"), "weights must be a function of your parameters"),
        (lambda s: Layer(3, role="in"), "role must be"),
    ],
)
def test_what_is_wrong_is_said_at_once(wrong: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        wrong(init_statistics(LAYERS))


def test_an_unknown_layer_is_a_lookup_error() -> None:
    with pytest.raises(UnknownNameError):
        observe(init_statistics(LAYERS), "hiden", jax.nn.relu, values())


def test_the_writer_refuses_what_it_cannot_write(tmp_path: pathlib.Path) -> None:
    with DeadUnitsWriter(tmp_path, LAYERS) as writer:
        with pytest.raises(InvalidArgumentError, match=r"other layers \(other\) than this writer's \(layer\)"):
            writer.write(0, init_statistics({"other": Layer(3)}))
        with pytest.raises(InvalidArgumentError, match=r"call write\(\) outside of it"):
            jax.jit(lambda z: writer.write(0, filled(init_statistics(LAYERS), z)))(values())
        with pytest.raises(InvalidArgumentError, match="not a dict"):
            writer.write(0, {})  # type: ignore[arg-type]
        stacked = jax.vmap(lambda z: filled(init_statistics(LAYERS), z))(np.stack([values()] * 2))
        with pytest.raises(InvalidArgumentError, match="an axis too many"):
            writer.write(0, stacked)
        writer.write(3, filled(init_statistics(LAYERS), values()))
        with pytest.raises(InvalidArgumentError, match="step 2 comes after step 3"):
            writer.begin(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every must be a whole number"),
        ({"max_overhead": 2}, "max_overhead must be above 0"),
        ({"thresholds": 3}, "thresholds must be"),
        ({"params": {"v": 1}}, "weights of layer 'a' are not in the parameters"),
        ({"params": {"w": np.ones((3, 4))}}, r"3 units, and its weights have shape \(3, 4\).*weight_unit_axis"),
    ],
)
def test_wrong_arguments_raise_before_training(arguments: Any, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        DeadUnitsWriter(tmp_path / "run", {"a": Layer(3, weights=lambda params: params["w"])}, **arguments)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_forgets_the_statistics_is_told_so() -> None:
    from deadunits_tb.jax import value_and_grad

    with pytest.raises(InvalidArgumentError, match="must return the statistics"):
        value_and_grad(lambda params, statistics: (params.sum(), None))(jnp.ones(3), init_statistics(LAYERS))


def test_thresholds_act_while_observing() -> None:
    limits = Thresholds(saturated_derivative=0.5)
    z = jnp.asarray([[0.5, 1.5, 0.0]])
    counts = [
        observe(init_statistics({"layer": Layer(3, "tanh")}, thresholds=chosen), "layer", jnp.tanh, z)[1]
        .layers["layer"]["saturated"]
        .tolist()
        for chosen in (None, limits)
    ]
    assert counts == [[0, 0, 0], [0, 1, 0]]


def test_importing_imports_no_other_framework() -> None:
    program = "import sys, deadunits_tb.jax; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"tensorflow", "keras", "torch", "flax", "optax", "equinox"} & {name.split(".")[0] for name in loaded}

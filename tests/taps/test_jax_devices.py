"""Two devices, or two processes, give the statistics of one on the same batch, however a step is spread over them."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

import deadunits_tb
from deadunits_tb.certificate import Certainty
from deadunits_tb.reading.log_directory import LogDirectory

PROGRAM = """
import jax, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from deadunits_tb.jax import *
from deadunits_tb.taps.jax.writer import step_observation
import jax.numpy as jnp

assert len(jax.devices()) == 2
random = np.random.default_rng(0)
params = {"w": random.normal(size=(5, 8)).astype("f4"), "v": random.normal(size=(8, 3)).astype("f4")}
params["w"][:, 2] = 0  # a unit that never fires
x, y = random.normal(size=(12, 5)).astype("f4"), random.integers(0, 3, 12)
layers = {"hidden": Layer(8, weights=lambda p: p["w"], inputs=5), "head": Layer(3, "tanh", role="output")}
start = init_statistics(layers)

def loss(params, statistics, x, y, axis_name=None):
    a, statistics = observe(statistics, "hidden", jax.nn.relu, x @ params["w"], axis_name=axis_name, inputs=x)
    b, statistics = observe(statistics, "head", jnp.tanh, a @ params["v"], axis_name=axis_name)
    return optax.softmax_cross_entropy_with_integer_labels(b, y).mean(), statistics

def plain(params, statistics, x, y):
    (value, statistics), gradients = value_and_grad(loss)(params, statistics, x, y)
    return observe_weights(statistics, params, gradients)

def alone(params, statistics, x, y):
    each = lambda *args: loss(*args, axis_name="devices")
    return value_and_grad(each, axis_name="devices")(params, statistics, x, y)[0][1]

mesh = Mesh(np.array(jax.devices()), ("devices",))
halves = lambda array: array.reshape(2, 6, *array.shape[1:])
share = lambda array: jax.device_put(array, NamedSharding(mesh, P("devices")))
specs = (P(), P(), P("devices"), P("devices"))
shard_map = lambda check: jax.shard_map(alone, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check)
WAYS = {
    "jit": lambda: jax.jit(plain)(params, start, share(x), share(y)),
    "pmap": lambda: jax.pmap(alone, axis_name="devices", in_axes=(None, None, 0, 0), out_axes=None)(
        params, start, halves(x), halves(y)
    ),
    "shard_map": lambda: jax.jit(shard_map(True))(params, start, x, y),
    "shard_map_unchecked": lambda: jax.jit(shard_map(False))(params, start, x, y),
}
wanted = step_observation(jax.device_get(jax.jit(plain)(params, start, x, y)))
for way, run in WAYS.items():
    statistics = jax.device_get(run())
    for field, end in (("inputs_low", x.min(0)), ("inputs_high", x.max(0))):
        np.testing.assert_array_equal(statistics.layers["hidden"][field], end, field)
    found = step_observation(statistics)
    np.testing.assert_allclose(found.loss, wanted.loss, rtol=1e-5)
    for name in layers:
        one, other = found.layers[name], wanted.layers[name]
        assert (one.examples, one.positions) == (other.examples, other.positions) == (12, 12)
        for field in ("fired_examples", "fired_positions", "min", "max"):
            np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-6, err_msg=field)
        for field in ("mean", "squares", "sum_abs", "gradient_squares"):
            truth = getattr(other, field)
            close = {"rtol": 2e-5, "atol": 1e-6 * abs(truth).max()}
            np.testing.assert_allclose(getattr(one, field), truth, err_msg=field, **close)
    assert found.layers["hidden"].gradient_squares[2] == 0 == found.layers["hidden"].squares[2]
    if way == "jit":
        weights = [seen.layers["hidden"].weights.gradient for seen in (found, wanted)]
        np.testing.assert_allclose(*weights, rtol=1e-5)
    print(way)
"""


@pytest.fixture(scope="module")
def same() -> list[str]:
    """The ways that gave the same, in a process with two devices."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    print(done.stderr[-3000:])
    return done.stdout.split()


@pytest.mark.parametrize("way", ["jit", "pmap", "shard_map", "shard_map_unchecked"])
def test_two_devices_equal_one(way: str, same: list[str]) -> None:
    assert way in same


PROCESS = """
import sys, jax, numpy as np, optax
directory, address, count, index = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if count > 1:
    jax.distributed.initialize(address, count, index)
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import jax.numpy as jnp
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.jax import *

assert jax.process_count() == count
random = np.random.default_rng(0)
params = {"w": random.normal(size=(5, 8)).astype("f4"), "v": random.normal(size=(8, 3)).astype("f4")}
params["w"][:, 2] = -1  # the inputs are above zero: dead for certain
layers = {"hidden": Layer(8, weights=lambda p: p["w"], inputs=5), "head": Layer(3, "tanh", role="output")}

def loss(params, statistics, x, y):
    a, statistics = observe(statistics, "hidden", jax.nn.relu, x @ params["w"], inputs=x)
    b, statistics = observe(statistics, "head", jnp.tanh, a @ params["v"])
    return optax.softmax_cross_entropy_with_integer_labels(b, y).mean(), statistics

mesh = Mesh(np.array(jax.devices()), ("devices",))
everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("devices"))

def step(params, statistics, x, y):
    (value, statistics), gradients = value_and_grad(loss)(params, statistics, x, y)
    new = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)
    return new, observe_weights(statistics, params, gradients, new)

step = jax.jit(step, out_shardings=everywhere)
params = jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(everywhere, leaf), params)
if count > 1:
    try:
        DeadUnitsWriter(directory, layers)
        raise SystemExit("every was not asked for")
    except InvalidArgumentError as error:
        assert "give every" in str(error)
limits = {"dead_examples": 48, "unknown_examples": 12, "confirm_examples": 12}
with DeadUnitsWriter(directory, layers, params=params, every=1, thresholds=limits) as writer:
    for i in range(6):
        x, y = random.uniform(0.1, 2, (12, 5)).astype("f4"), random.integers(0, 3, 12)
        share = slice(index * 12 // count, (index + 1) * 12 // count)
        x, y = (jax.make_array_from_process_local_data(split, array[share]) for array in (x, y))
        params, statistics = step(params, writer.begin(i), x, y)
        writer.write(i, statistics, params=params)
"""


@pytest.mark.slow
def test_of_two_processes_the_first_one_writes_what_one_would(tmp_path: pathlib.Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROCESS, str(tmp_path / name), address, str(count), str(index)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, count, index in (("alone", 1, 0), ("first", 2, 0), ("second", 2, 1))
    ]
    try:
        said = [process.communicate(timeout=280)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert not (tmp_path / "second").exists()
    one, two = (deadunits_tb.load(tmp_path / name)["."] for name in ("alone", "first"))
    assert [record.examples for record in two.records] == [12] * 6
    assert two.records[-1].errors == ()
    for name, layer in one.layers.items():
        for statistic in layer.statistics:
            # Of tanh, what counts as firing goes by the batch here and by the record before there: both far below.
            np.testing.assert_allclose(
                two.layers[name].statistic(statistic), layer.statistic(statistic), rtol=0.01, atol=1e-5
            )
    held = [LogDirectory(tmp_path / name).history(".").layers["hidden"].certificates(-1) for name in ("alone", "first")]
    for certificates in held:
        assert certificates is not None
        assert certificates.units.tolist() == held[0].units.tolist()
        np.testing.assert_allclose(certificates.bound, held[0].bound, rtol=0.01)
        assert certificates.of(2).certainty == Certainty.CERTAIN

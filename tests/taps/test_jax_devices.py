"""Two devices give the statistics of one on the same batch, however a step is spread over them."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import jax, numpy as np, optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from deadunits_tb.jax import *
from deadunits_tb.taps.jax.writer import step_observation
import jax.numpy as jnp

assert len(jax.devices()) == 2
random = np.random.default_rng(0)
params = {"w": random.normal(size=(5, 8)).astype("f4"), "v": random.normal(size=(8, 3)).astype("f4")}
params["w"][:, 2] = 0  # a unit that never fires
x, y = random.normal(size=(12, 5)).astype("f4"), random.integers(0, 3, 12)
layers = {"hidden": Layer(8, weights=lambda p: p["w"]), "head": Layer(3, "tanh", role="output")}
start = init_statistics(layers)

def loss(params, statistics, x, y, axis_name=None):
    a, statistics = observe(statistics, "hidden", jax.nn.relu, x @ params["w"], axis_name=axis_name)
    b, statistics = observe(statistics, "head", jnp.tanh, a @ params["v"], axis_name=axis_name)
    return optax.softmax_cross_entropy_with_integer_labels(b, y).mean(), statistics

def plain(params, statistics, x, y):
    (value, statistics), gradients = value_and_grad(loss)(params, statistics, x, y)
    return observe_weights(statistics, params, gradients)

def spread(params, statistics, x, y):
    each = lambda *args: loss(*args, axis_name="devices")
    (value, statistics), gradients = value_and_grad(each, axis_name="devices")(params, statistics, x, y)
    return statistics, value

mesh = Mesh(np.array(jax.devices()), ("devices",))
halves = lambda array: array.reshape(2, 6, *array.shape[1:])
share = lambda array: jax.device_put(array, NamedSharding(mesh, P("devices")))
if sys.argv[1] == "jit":
    found = jax.jit(plain)(params, start, share(x), share(y))
elif sys.argv[1] == "pmap":
    found, _ = jax.pmap(spread, axis_name="devices", in_axes=(None, None, 0, 0), out_axes=(None, 0))(
        params, start, halves(x), halves(y)
    )
else:
    check = sys.argv[1] == "shard_map"
    specs = (P(), P(), P("devices"), P("devices"))
    one = lambda *args: spread(*args)[0]
    found = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check))(params, start, x, y)
found = step_observation(jax.device_get(found))
wanted = step_observation(jax.device_get(jax.jit(plain)(params, start, x, y)))
np.testing.assert_allclose(found.loss, wanted.loss, rtol=1e-5)
for name in layers:
    one, other = found.layers[name], wanted.layers[name]
    assert (one.examples, one.positions) == (other.examples, other.positions) == (12, 12)
    for field in ("fired_examples", "fired_positions", "min", "max"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-6, err_msg=field)
    for field in ("mean", "squares", "sum_abs", "gradient_squares"):
        truth = getattr(other, field)
        np.testing.assert_allclose(getattr(one, field), truth, rtol=2e-5, atol=1e-6 * abs(truth).max(), err_msg=field)
assert found.layers["hidden"].gradient_squares[2] == 0 == found.layers["hidden"].squares[2]
if sys.argv[1] == "jit":
    np.testing.assert_allclose(
        found.layers["hidden"].weights.gradient, wanted.layers["hidden"].weights.gradient, rtol=1e-5
    )
print("same")
"""


@pytest.mark.parametrize("way", ["jit", "pmap", "shard_map", "shard_map unchecked"])
def test_two_devices_equal_one(way: str, tmp_path: pathlib.Path) -> None:
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, way],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["same"]

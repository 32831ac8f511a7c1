"""Two replicas, and two workers, are watched as one process with the whole batch; training is the same to the last bit.

TensorFlow allows one strategy a process, so each training runs in processes of its own.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

import deadunits_tb
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.taps.tensorflow.distributed import check_strategy

HERE = pathlib.Path(__file__).parent
STATISTICS = (
    *("active_fraction", "active_positions", "mean", "mean_abs", "std", "min", "max", "gradient"),
    *("weight_gradient", "update_ratio", "drift", "norm_in"),
)


def started(what, directory, **environment):
    python_path = os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, HERE / "tensorflow_replicas.py", what, directory],
        env=os.environ | {"PYTHONPATH": python_path} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(*processes):
    try:
        said = [process.communicate(timeout=280)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def assert_same_numbers(one, other):
    with np.load(one) as first, np.load(other) as second:
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def assert_same_record(one, other):
    """Of two replicas and of one process; weights drift apart by rounding, as gradients are added in another order."""
    assert list(one.layers) == list(other.layers)
    assert [record.examples for record in one.records] == [record.examples for record in other.records] == [8] * 4
    for mine, theirs in zip(one.records, other.records, strict=True):
        assert mine.errors == ()
        np.testing.assert_allclose(mine.loss, theirs.loss, rtol=1e-5)
        np.testing.assert_allclose(mine.inputs.std, theirs.inputs.std, rtol=1e-5)
    for name, layer in other.layers.items():
        for statistic in STATISTICS:
            np.testing.assert_allclose(
                one.layers[name].statistic(statistic), layer.statistic(statistic), rtol=0.01, atol=1e-5
            )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["fit", "loop"])
def test_two_replicas_are_one_batch(what, tmp_path):
    finished(started(what, tmp_path))
    assert_same_numbers(tmp_path / "plain.npz", tmp_path / "watched.npz")
    assert_same_record(*(deadunits_tb.load(tmp_path / name)["."] for name in ("watched", "alone")))


@pytest.mark.slow
def test_two_workers_are_one_batch_and_one_that_fails_stops_nobody(tmp_path):
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    configurations = [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": at}}) for at in range(2)
    ]
    alone = started("loop", tmp_path)
    said = finished(alone, *(started("worker", tmp_path, TF_CONFIG=each) for each in configurations))
    for number in range(2):
        with np.load(tmp_path / f"plain{number}.npz") as plain:
            for name in ("watched", "broken"):
                with np.load(tmp_path / f"{name}{number}.npz") as watched:
                    for key in plain.files[:-1]:  # the last is the share of dead units
                        np.testing.assert_array_equal(plain[key], watched[key], err_msg=f"{name} {key}")
    assert_same_record(*(deadunits_tb.load(tmp_path / name)["."] for name in ("watched0", "alone")))
    assert not (tmp_path / "watched1").exists(), "only the chief writes"
    broken = deadunits_tb.load(tmp_path / "broken0")["."]
    assert "step aside" in broken.records[-1].errors[0]
    assert broken.layers["conv"].steps.tolist() == [0, 1]
    assert "injected" in said[2]


@pytest.mark.parametrize("kind", ["ParameterServerStrategyV2", "TPUStrategyV2", "CentralStorageStrategy"])
def test_other_strategies_are_refused_with_the_reason(kind):
    """By their names: none of them can be made here, but for the last."""
    if kind == "CentralStorageStrategy":
        strategy = tf.distribute.experimental.CentralStorageStrategy(["CPU:0"])
    else:
        strategy = type(kind, (), {})()
    with pytest.raises(InvalidArgumentError, match=f"under {kind} cannot be watched"):
        check_strategy(strategy, several_workers=True)


def test_fit_on_several_workers_is_refused_with_what_to_do():
    """Keras 3.15 cannot do it itself on TensorFlow 2.21; a loop can."""
    extended = types.SimpleNamespace(worker_devices=["CPU:0"])
    kind = type("CollectiveAllReduceStrategy", (), {"num_replicas_in_sync": 2, "extended": extended})
    with pytest.raises(InvalidArgumentError, match="write the loop with"):
        check_strategy(kind(), several_workers=False)
    check_strategy(kind(), several_workers=True)

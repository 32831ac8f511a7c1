"""Each network of the demo ends as its name promises; the truth is an exhaustive pass over the data."""

from __future__ import annotations

import io
import pathlib
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

import deadunits_tb
from deadunits_tb import demo
from deadunits_tb.errors import InvalidArgumentError, LogDirectoryError
from deadunits_tb.units import Level, UnitState

NAMES = ("healthy", "learning_rate_too_high", "badly_initialized", "saturated_tanh", "frozen_layer")


def outputs(model: Any, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """Output of each hidden layer for every image, ``[images, units]``."""
    found = {}
    for layer in model.layers[:-1]:
        images = found[layer.name] = np.asarray(layer(images))
    return found


@dataclass(frozen=True)
class Trained:
    network: demo.Network
    before: dict[str, npt.NDArray[np.float32]]
    after: dict[str, npt.NDArray[np.float32]]
    accuracy: float
    run: Any

    def silent(self, layer: str, when: str = "after") -> npt.NDArray[np.bool_]:
        """``[units]``: never fires on any image."""
        return np.asarray((getattr(self, when)[layer] <= 0).all(axis=0))

    def states(self, layer: str) -> npt.NDArray[np.uint8]:
        """``[units]`` state codes of the last record."""
        return np.asarray(self.run.layers[layer].states[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    log_dir = tmp_path_factory.mktemp("demo")
    found = {}
    for network in demo.networks():
        images, _ = demo.digits(network.scaling)
        logs: list[dict[str, float]] = []
        before = outputs(network.build(), images)
        model = demo.train(network, log_dir, logs.append)
        assert len(logs) == network.epochs
        found[network.name] = network, before, outputs(model, images), logs[-1]["accuracy"]
    runs = deadunits_tb.load(log_dir)
    return {name: Trained(*parts, runs[name]) for name, parts in found.items()}


def test_the_five_networks() -> None:
    assert tuple(network.name for network in demo.networks()) == NAMES


def test_healthy_learns_and_no_layer_is_at_alarm_level(trained: dict[str, Trained]) -> None:
    healthy = trained["healthy"]
    assert healthy.accuracy > 0.98
    assert all(healthy.silent(layer).mean() < 0.02 for layer in healthy.after)
    assert [finding for finding in healthy.run.findings if finding.level is Level.ALARM] == []


def test_units_die_during_training_where_the_learning_rate_is_too_high(trained: dict[str, Trained]) -> None:
    run = trained["learning_rate_too_high"]
    assert not any(run.silent(layer, "before").any() for layer in run.before)
    assert run.silent("hidden_2").mean() > 0.5
    assert run.accuracy < 0.5


def test_most_units_are_born_dead_where_initialization_is_bad(trained: dict[str, Trained]) -> None:
    run = trained["badly_initialized"]
    born = run.silent("hidden_1", "before")
    assert born.mean() > 0.5
    assert run.silent("hidden_1")[born].all(), "no gradient reaches them, so they stay dead"


def test_tanh_saturates_on_unscaled_pixels(trained: dict[str, Trained]) -> None:
    run = trained["saturated_tanh"]
    for when in (run.before, run.after):
        at_bound = (1 - when["hidden_1"] ** 2 < 0.01).mean(axis=0)
        assert (at_bound > 0.95).mean() > 0.9


def test_the_frozen_layer_does_not_move_and_the_rest_learns(trained: dict[str, Trained]) -> None:
    run = trained["frozen_layer"]
    np.testing.assert_array_equal(run.before["hidden_1"], run.after["hidden_1"])
    assert run.accuracy > 0.9
    assert (run.states("hidden_1") == UnitState.FROZEN).all()


@pytest.mark.parametrize("name", NAMES)
def test_verdicts_agree_with_the_exhaustive_pass(name: str, trained: dict[str, Trained]) -> None:
    """No unit that fires on more than 1 % of the images is called dead; none that was silent for long is missed."""
    run = trained[name]
    for layer, output in run.after.items():
        if run.run.layers[layer].info.activation_function != "relu" or name == "frozen_layer":
            continue
        dead = run.states(layer) == UnitState.DEAD
        assert not (dead & ((output > 0).mean(axis=0) > 0.01)).any()
        # 40 records of at least 97 images: more than the 3,000 that the rule asks for.
        long_silent = (run.run.layers[layer].statistic("active_fraction")[-40:] == 0).all(axis=0)
        assert (run.silent(layer) & long_silent & ~dead).sum() == 0


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("learning_rate_too_high", "learning_rate_too_high"),
        ("badly_initialized", "poor_initialization"),
        ("saturated_tanh", "unscaled_data"),
    ],
)
def test_the_cause_is_found(name: str, cause: str, trained: dict[str, Trained]) -> None:
    assert cause in [finding.cause for finding in trained[name].run.findings if finding.level is Level.ALARM]


def test_a_second_demo_replaces_the_first(tmp_path: pathlib.Path) -> None:
    healthy = demo.networks()[0]
    once = demo.Network(healthy.name, healthy.story, healthy.scaling, healthy.optimizer, healthy.hidden, epochs=1)
    for _ in range(2):
        demo.train(once, tmp_path, lambda logs: None)
    run = deadunits_tb.load(tmp_path)["healthy"]
    steps = run.layers["hidden_1"].steps
    assert len(np.unique(steps)) == len(steps)
    assert steps[-1] < 18


def test_a_log_directory_that_cannot_be_written_is_said_before_training(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogDirectoryError, match="cannot write to"):
        demo.train_all(tmp_path / "file" / "runs", Console(file=io.StringIO()))


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    code = f"""
import pathlib, rich.console, deadunits_tb.demo as demo
demo.serve(pathlib.Path({str(tmp_path)!r}), None, rich.console.Console(force_terminal=False))
"""
    process = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "http" in line:
            yield process, line.split()[-1]
            break
    process.kill()
    process.wait()
    process.stdout.close()


def test_serving_prints_the_address_of_the_tab_and_ends_with_ctrl_c(served: tuple[subprocess.Popen[str], str]) -> None:
    process, address = served
    assert address.endswith("#dead_units")
    plugins = address.partition("#")[0] + "data/plugins_listing"
    with urllib.request.urlopen(plugins, timeout=90) as answer:
        assert b"dead_units" in answer.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0


def test_a_port_that_is_taken_is_said_before_training(tmp_path: pathlib.Path) -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidArgumentError, match=f"port {port} cannot be used"):
            demo.run(tmp_path, port=port)
    assert list(tmp_path.iterdir()) == []

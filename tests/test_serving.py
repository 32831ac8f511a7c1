"""The plugin in real ``tensorboard`` processes, with and without the Rust data server."""

from __future__ import annotations

import importlib.metadata
import pathlib

import numpy as np
import pytest

from board import Board
from deadunits_tb import DeadUnitsWriter
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.observation import StepObservation
from deadunits_tb.capture.reductions import observe_arrays
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.run_record import RunInfo
from deadunits_tb.serving.routes import ROUTES
from deadunits_tb.units import LayerInfo

RECORDS = 1000
UNITS = 300
HOSTILE = 'a/b <script>alert("1")</script> ü & co?=%2e#'
PREFIX = "/some/prefix"


def test_the_plugin_is_installed() -> None:
    names = {point.name: point.value for point in importlib.metadata.entry_points(group="tensorboard_plugins")}
    assert names.get("dead_units") == "deadunits_tb.serving.loader:DeadUnitsLoader", "install the package first"


def write(log_dir: pathlib.Path, steps: int) -> RunHistory:
    """A layer whose units fall silent one after the other, a record at each step; gives what is in the file."""
    info = LayerInfo("wide", "Dense", 0, UNITS, "relu", witness="pre_activation")
    monitor = Monitor(
        log_dir, RunInfo(layers=(info,)), every=1, total_steps=steps - 50
    )  # a run said to be shorter keeps every record to its end
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(8, 64, UNITS))
    for step in range(steps):
        activations = np.maximum(noise[step % 8] - 9 * (np.arange(UNITS) < step // 10), 0)
        gradients = noise[(step + 1) % 8] * (activations > 0)
        seen = observe_arrays(activations, activation_function="relu", gradients=gradients)
        assert seen is not None
        monitor.observe(step, lambda seen=seen: StepObservation({"wide": seen}, loss=1.0), learning_rate=0.1)
        if step % 16 == 0:
            monitor.flush()  # on a busy machine records would otherwise be dropped
    monitor.close()
    return RunReader(LocalDataProvider(log_dir)).history(".")


def observe(writer: DeadUnitsWriter, steps: range, layer: str = "hidden") -> None:
    for step in steps:
        values = np.maximum(np.random.default_rng(step).normal(size=(64, 5)), 0)
        writer.observe(step, layer, values, gradients=values)


@pytest.mark.parametrize("load_fast", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_a_log_directory_that_fills(load_fast: str, tmp_path: pathlib.Path) -> None:
    flags = (f"--load_fast={load_fast}", "--reload_interval=1", f"--path_prefix={PREFIX}")
    with Board(tmp_path, *flags) as board:
        assert board.url.endswith(PREFIX)
        nothing_yet(board)
        written = write(tmp_path / "long", RECORDS)
        assert written.records_written == RECORDS
        board.wait_for_records("long", written.records_written)
        every_record_is_shown(board, written)
        many_runs(board, tmp_path)
        every_route_answers(board, tmp_path)
        a_run_that_grows(board, tmp_path)
        errors_are_sentences(board)
        assert "Traceback" not in board.said()


def nothing_yet(board: Board) -> None:
    assert board.data("runs").json == {"runs": [], "notes": []}
    listed = board.get("/data/plugins_listing").json["dead_units"]
    assert listed["enabled"] is False
    assert listed["tab_name"] == "Dead Units"
    assert listed["loading_mechanism"] == {
        "type": "IFRAME",
        "module_path": f"{PREFIX}/data/plugin/dead_units/index.js",
    }
    module = board.data("index.js")
    assert module.headers["Content-Type"].startswith("text/javascript")
    assert b"render" in module.body


def every_record_is_shown(board: Board, written: RunHistory) -> None:
    assert board.get("/data/plugins_listing").json["dead_units"]["enabled"] is True
    overview, records = board.data("overview", run="long").json, written.records_written
    assert (overview["records"], overview["records_written"], overview["dropped"]) == (records, records, 0)
    assert overview["notes"] == []
    layer = board.data("layer", run="long", layer="wide").json
    truth = written.layer("wide")
    assert layer["steps"] == truth.steps.tolist()
    assert len(truth) == records
    assert all(layer["recorded"])
    assert layer["states"]["dead"] == int((truth.states()[-1] == 8).sum()) > 90
    tiles = [board.data("tile", run="long", layer="wide", what="states", tile=tile) for tile in (0, 1)]
    shown = np.concatenate([np.frombuffer(tile.body, np.uint8).reshape(-1, records) for tile in tiles])
    np.testing.assert_array_equal(shown.T, truth.states())
    tile = board.data("tile", run="long", layer="wide", what="gradient", tile=1)
    bits = np.frombuffer(tile.body, "<u2").astype(np.uint32).reshape(-1, records)
    np.testing.assert_array_equal((bits << 16).view(np.float32).T, truth.statistic("gradient")[:, 256:])


def every_route_answers(board: Board, log_dir: pathlib.Path) -> None:
    with DeadUnitsWriter(log_dir / "other") as writer:
        observe(writer, range(12), "wide")
    board.wait_for_records("other", 12)
    version = next(run for run in board.data("runs").json["runs"] if run["run"] == "long")["version"]
    asked = {
        "run": "long", "layer": "wide", "what": "mean", "order": "death", "statistic": "mean", "unit": 3,
        "level": 1, "version": version, "other": "other", "thresholds": "dead_examples:5000",
    }  # fmt: skip
    for route in ROUTES:
        parameters = {name: asked[name] for name in route.parameters if name in asked}
        answer = board.data(route.path[1:], **parameters)
        assert answer.status == 200, (route.path, answer.body)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        kept = "max-age=31536000" in answer.headers["Cache-Control"]
        assert kept == ("version" in route.parameters), route.path


def many_runs(board: Board, log_dir: pathlib.Path) -> None:
    names = [f"many/run {number}" for number in range(1, 13)] + ["ü <b>"]
    for name in names:
        with DeadUnitsWriter(log_dir / name) as writer:
            observe(writer, range(12), HOSTILE)
    for name in names:
        board.wait_for_records(name, 12)
    assert [run["run"] for run in board.data("runs").json["runs"]] == ["long", *names]
    overview = board.data("overview", run="ü <b>").json
    assert [layer["layer"] for layer in overview["layers"]] == [HOSTILE]
    assert board.data("unit", run="ü <b>", layer=HOSTILE, unit=0).json["layer"] == HOSTILE
    assert HOSTILE.replace('"', '""') in board.data("export", run="ü <b>").body.decode()


def a_run_that_grows(board: Board, log_dir: pathlib.Path) -> None:
    where = {"run": "growing", "layer": "hidden", "what": "states"}
    with DeadUnitsWriter(log_dir / "growing") as writer:
        observe(writer, range(30))
        writer.flush()
        board.wait_for_records("growing", 30)
        before = board.data("overview", run="growing").json["version"]
        kept = board.data("tile", **where, version=before)
        assert len(kept.body) == 5 * 30
        assert kept.headers["Dead-Units-Version"] == before
        observe(writer, range(30, 70))
        writer.flush()
        board.wait_for_records("growing", 70)
        after = board.data("overview", run="growing").json["version"]
        assert after != before
        late = board.data("tile", **where, version=before)
        assert late.body == kept.body  # a request under way when the run grew
        unknown = board.data("tile", **where, version="of yesterday")
        assert len(unknown.body) == 5 * 70
        assert unknown.headers["Dead-Units-Version"] == after
        assert "max-age" not in unknown.headers["Cache-Control"]


def errors_are_sentences(board: Board) -> None:
    answer = board.data("layer", run="long", layer="wider")
    assert answer.status == 404
    assert answer.body.decode() == "Not found: there is no layer 'wider'. Did you mean 'wide'? Known: 'wide'."
    assert board.data("overview").status == 400
    assert board.get("/data/plugin/dead_units/overview?run=long", method="POST").status == 405

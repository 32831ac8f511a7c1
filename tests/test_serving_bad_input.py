"""What a URL may get wrong: always a 4xx with one sentence, never a trace, never a guess."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING

import event_files
from board import DATA, Application
from deadunits_tb import DeadUnitsWriter
from deadunits_tb.serving.routes import ROUTES

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Application:
    log_dir = tmp_path_factory.mktemp("log")
    with DeadUnitsWriter(log_dir / "mlp") as writer:
        for step in range(10):
            values = np.maximum(np.random.default_rng(step).normal(size=(64, 300)), 0)
            writer.observe(step, "hidden", values, gradients=values)
    return Application(log_dir)


LAYER = {"run": "mlp", "layer": "hidden"}
TILE = {**LAYER, "what": "states"}
CASES: list[tuple[str, dict[str, Any], int, str]] = [
    ("overview", {}, 400, "the parameter 'run' is missing"),
    ("overview", {"run": "mpl"}, 404, "there is no run 'mpl'. Did you mean 'mlp'? Known: 'mlp'."),
    ("overview", {"run": ""}, 404, "there is no run ''"),
    ("overview", {"run": HOSTILE}, 404, f"there is no run '{HOSTILE}'"),
    ("layer", {"run": "mlp"}, 400, "the parameter 'layer' is missing"),
    ("layer", {"run": "mlp", "layer": "hiden"}, 404, "there is no layer 'hiden'. Did you mean 'hidden'?"),
    ("layer", {"run": "mlp", "layer": "../../etc/passwd"}, 404, "there is no layer"),
    ("tile", LAYER, 400, "the parameter 'what' is missing"),
    ("tile", {**LAYER, "what": "state"}, 404, "there is no statistic 'state'"),
    ("tile", {**LAYER, "what": "norm_out"}, 404, "'norm_out (not recorded for this layer)'"),
    ("tile", {**TILE, "order": "death "}, 400, "there is no order 'death '. Did you mean 'death'?"),
    ("tile", {**TILE, "level": 2}, 400, "the parameter 'level' must be from 0 to 1, not '2'"),
    ("tile", {**TILE, "level": -1}, 400, "must be from 0 to 1"),
    ("tile", {**TILE, "level": 1, "tile": 1}, 400, "the parameter 'tile' must be from 0 to 0, not '1'"),
    ("tile", {**TILE, "tile": 2}, 400, "must be from 0 to 1"),
    ("tile", {**TILE, "tile": "one"}, 400, "the parameter 'tile' must be a whole number, not 'one'"),
    ("tile", {**TILE, "tile": "1.0"}, 400, "must be a whole number"),
    ("tile", {**TILE, "tile": "9" * 5000}, 400, "the parameter 'tile' must be a whole number, not '9999"),
    ("tile", {**TILE, "tile": "1e3"}, 400, "must be a whole number"),
    ("order", {**LAYER, "order": "random"}, 400, "there is no order 'random'"),
    ("distribution", LAYER, 400, "the parameter 'statistic' is missing"),
    ("distribution", {**LAYER, "statistic": "grad"}, 404, "there is no statistic 'grad'"),
    ("distribution", {**LAYER, "statistic": "mean", "bins": 7}, 400, "'bins' must be from 8 to 200, not '7'"),
    ("distribution", {**LAYER, "statistic": "mean", "bins": 201}, 400, "'bins' must be from 8 to 200"),
    ("unit", LAYER, 400, "the parameter 'unit' is missing"),
    ("unit", {**LAYER, "unit": 300}, 400, "the parameter 'unit' must be from 0 to 299, not '300'"),
    ("unit", {**LAYER, "unit": -1}, 400, "must be from 0 to 299"),
    ("unit", {**LAYER, "unit": ""}, 400, "'unit' must be a whole number, not ''"),
    ("units", {**LAYER, "first": 5, "last": 4}, 400, "the parameter 'last' must be from 5 to 299, not '4'"),
    ("units", {**LAYER, "state": "dead,undead"}, 400, "there is no state 'undead'. Did you mean 'dead'?"),
    ("units", {**LAYER, "limit": 0}, 400, "'limit' must be from 1 to 10000"),
    ("export", {"run": "mlp", "layer": "x"}, 404, "there is no layer 'x'"),
    ("events", {**LAYER, "limit": 0}, 400, "'limit' must be from 1 to 200000"),
    ("compare", {"run": "mlp"}, 400, "the parameter 'other' is missing"),
    ("compare", {"run": "mlp", "other": "mlp"}, 400, "a run does not differ from itself: 'mlp'"),
    ("compare", {"run": "mlp", "other": "mpl"}, 404, "there is no run 'mpl'. Did you mean 'mlp'?"),
]


@pytest.mark.parametrize(("route", "parameters", "status", "sentence"), CASES)
def test_wrong_parameters(
    board: Application, route: str, parameters: dict[str, Any], status: int, sentence: str
) -> None:
    answer = board.data(route, **parameters)
    text = answer.body.decode()
    assert (answer.status, sentence in text) == (status, True), text
    assert answer.headers["Content-Type"].startswith("text/plain")  # so that markup in it stays text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "\n" not in text
    assert len(text) < 600


THRESHOLDS = [
    ("dead_example:3", "there is no threshold 'dead_example'. Did you mean 'dead_examples'?"),
    ("dead_examples", "threshold dead_examples must be a number, not ''"),
    ("dead_examples:many", "threshold dead_examples must be a number, not 'many'"),
    ("dead_examples:0", "must be between 1 and"),
    ("dead_examples:-3", "must be between 1 and"),
    ("dead_examples:nan", "must be a finite number"),
    ("dead_examples:inf", "must be a finite number"),
    ("dead_examples:1e999", "must be a finite number"),
    ("dead_examples:300.5", "must be whole"),
    ("dead_examples:10", "must not be below unknown_examples"),
    ("dead_examples:5000,dead_examples:6000", "threshold 'dead_examples' is given twice"),
    ("dying_share:0.5", "must be between 0 and 0.1"),
    ("dead_examples:5000,", "there is no threshold ''"),
    (HOSTILE, "there is no threshold '<script>"),
    ("x" * 3000, "there is no threshold 'xxx"),
    ("fired_scale:0.5", "fired_scale"),
]

ROUTES_WITH_THRESHOLDS = [
    route.path[1:] for route in ROUTES if "thresholds" in route.parameters and "other" not in route.parameters
]
"""Of one run; of two, see ``test_comparison``."""


@pytest.mark.parametrize("route", ROUTES_WITH_THRESHOLDS)
@pytest.mark.parametrize(("thresholds", "sentence"), THRESHOLDS)
def test_wrong_thresholds(board: Application, route: str, thresholds: str, sentence: str) -> None:
    answer = board.data(route, **TILE, order="death", unit=0, thresholds=thresholds)
    assert (answer.status, sentence in answer.body.decode()) == (400, True), answer.body
    assert len(answer.body) < 600


def test_thresholds_that_act_while_judging_are_taken(board: Application) -> None:
    answer = board.data("layer", **LAYER, thresholds="dead_examples:300,dying_share:0.05")
    assert answer.json["verdicts"] == "recomputed"
    assert answer.json["thresholds"]["dead_examples"] == 300
    same = board.data("layer", **LAYER, thresholds="dead_examples:3000")
    assert same.json["verdicts"] == "written"  # they are the writer's own


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["runs", "tile", "index.js"])
def test_only_get_and_head(board: Application, method: str, path: str) -> None:
    answer = board.get(f"{DATA}/{path}", method=method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["runs", "index.js", "tile?run=mlp&layer=hidden&what=states"])
def test_head_has_the_headers_and_no_body(board: Application, path: str) -> None:
    answer = board.get(f"{DATA}/{path}", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Type"] == board.get(f"{DATA}/{path}").headers["Content-Type"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/nothing",
        "/static/index.js",
        "/../../plugin.py",
        "/index.js/",
        "/%2e%2e/plugin.py",
        "/plugin.py",
        "/runs/x",
    ],
)
def test_no_path_of_the_client_reaches_a_file(board: Application, path: str) -> None:
    answer = board.get(DATA + path)
    assert answer.status == 404 or (path == "/index.js/" and b"render" in answer.body)  # TensorBoard drops the slash


def test_unknown_parameters_are_ignored(board: Application) -> None:
    assert board.data("layer", **LAYER, colour="red", unit="x").status == 200


def test_the_first_of_two_equal_parameters_counts(board: Application) -> None:
    assert board.get(f"{DATA}/layer?run=mlp&layer=hidden&layer=other").status == 200


def test_bytes_that_are_no_utf8(board: Application) -> None:
    answer = board.get(f"{DATA}/overview?run=%ff%fe")
    assert answer.status == 404
    answer.body.decode("utf-8")


def test_what_strangers_wrote_under_our_name_is_said_and_left_out(tmp_path: pathlib.Path) -> None:
    with DeadUnitsWriter(tmp_path / "mlp") as writer:
        writer.observe(0, "hidden", np.ones((32, 4)))
    junk = [b"", b"{", b"[" * 100_000, b'{"version": 99}', b"\xff\xfe", b'{"version": NaN}', b" " * 5_000_000]

    def add_junk(event: Event) -> Iterator[Event]:
        yield event
        for number, content in enumerate(junk if event.summary.value else []):
            strange = Event(step=1, wall_time=1.0)
            value = strange.summary.value.add(
                tag=f"<b>{number}", tensor=TensorProto(dtype=DT_STRING, string_val=[b"x"])
            )
            value.metadata.data_class = DATA_CLASS_TENSOR
            value.metadata.plugin_data.plugin_name = "dead_units"
            value.metadata.plugin_data.content = content
            yield strange

    event_files.rewrite(event_files.event_file(tmp_path / "mlp"), add_junk)
    board = Application(tmp_path)
    listed = board.data("runs").json
    assert [run["run"] for run in listed["runs"]] == ["mlp"]
    overview = board.data("overview", run="mlp").json
    assert overview["records"] == 1
    said = " ".join([*listed["notes"], *overview["notes"]])
    assert "version 99" in said
    assert len(said) < 20_000
    assert board.data("layer", run="mlp", layer="hidden").status == 200


def test_a_file_cut_off_in_the_middle_shows_what_came_before(tmp_path: pathlib.Path) -> None:
    with DeadUnitsWriter(tmp_path / "mlp") as writer:
        for step in range(20):
            writer.observe(step, "hidden", np.maximum(np.random.default_rng(step).normal(size=(32, 40)), 0))
    (file,) = (tmp_path / "mlp" / "dead_units").iterdir()
    whole = file.read_bytes()
    for share in (0.3, 0.6, 0.9):
        file.write_bytes(whole[: int(len(whole) * share)])
        board = Application(tmp_path)
        found = board.data("layer", run="mlp", layer="hidden").json
        assert 0 < found["records"] < 20
        overview = board.data("overview", run="mlp").json
        assert abs(overview["records"] - found["records"]) <= 1
        assert board.data("tile", run="mlp", layer="hidden", what="mean").status == 200

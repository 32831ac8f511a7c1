"""What the routes answer, against the histories that the reader gives."""

from __future__ import annotations

import csv
import io
import pathlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from board import DATA, Application
from deadunits_tb import DeadUnitsWriter, UnitState
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.judging import rejudge
from deadunits_tb.reading.ordering import row_order
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.record import from_bfloat16_bits

UNITS = 300
STEPS = 80
LAYER = {"run": "mlp", "layer": "hidden"}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Application:
    """Units 0 to 39 die one after the other, unit 50 turns NaN for one step, a tanh layer joins late."""
    log_dir = tmp_path_factory.mktemp("log")
    with DeadUnitsWriter(log_dir / "mlp") as writer:
        for step in range(STEPS):
            rng = np.random.default_rng(step)
            values = np.maximum(rng.normal(size=(256, UNITS)) - 9 * (np.arange(UNITS) < step - 20), 0)
            values[0, 50] = np.nan if step == 33 else 1
            gradients = rng.normal(size=values.shape) * (values > 0)
            writer.context(step, learning_rate=0.1, loss=float("nan") if step == 79 else 80.0 - step)
            writer.observe(step, "hidden", values, gradients=gradients, weights=rng.normal(size=(4, UNITS)))
            if step >= 40:
                writer.observe(step, "late", np.tanh(rng.normal(size=(256, 3))), activation_function="tanh")
            if step % 16 == 0:
                writer.flush()  # on a busy machine records would otherwise be dropped
    return Application(log_dir)


@pytest.fixture(scope="module")
def run(board: Application) -> RunHistory:
    return RunReader(board.provider).history("mlp")


@pytest.fixture(scope="module")
def layer(run: RunHistory) -> LayerHistory:
    return run.layer("hidden")


def test_overview(board: Application, run: RunHistory, layer: LayerHistory) -> None:
    found = board.data("overview", run="mlp").json
    assert [entry["layer"] for entry in found["layers"]] == ["hidden", "late"]
    assert found["steps"] == list(range(STEPS))
    assert found["loss"] == [80.0 - step for step in range(79)] + [None]  # NaN is null
    assert set(found["learning_rate"]) == {0.1}
    hidden, late = found["layers"]
    dead = int((layer.states()[-1] == UnitState.DEAD).sum())
    assert hidden["states"]["dead"] == dead > 20
    assert found["totals"]["dead"] == dead
    assert found["totals"]["active"] == hidden["states"]["active"] + 3
    assert str(dead) in found["headline"]
    flagged = [s for s, code in zip(layer.since()[-1], layer.states()[-1], strict=True) if UnitState(code).flagged]
    assert hidden["onset_step"] == min(flagged)
    columns = np.array(list(hidden["strip"].values()))
    assert columns.shape == (len(hidden["strip"]), STEPS)
    assert (columns.sum(axis=0) == UNITS).all()
    assert hidden["strip"]["non_finite"][33] == 1  # for one record
    late_columns = np.array(list(late["strip"].values())).sum(axis=0)
    assert (late_columns[:40] == 0).all()
    assert (late_columns[40:] == 3).all()
    assert late["onset_step"] is None


def test_overview_with_other_thresholds(board: Application, run: RunHistory) -> None:
    asked = {"thresholds": "dead_examples:100000"}
    found = board.data("overview", run="mlp", **asked).json
    assert found["verdicts"] == "recomputed"
    assert found["writer_thresholds"]["dead_examples"] == 3000
    assert found["thresholds"]["dead_examples"] == 100_000
    assert "dead" not in found["totals"]
    states, _ = rejudge(run.layer("hidden"), run.info.thresholds.replace(dead_examples=100_000))
    expected = Counter(UnitState(code).label for code in states[-1])
    assert found["layers"][0]["states"] == dict(expected)
    strip = found["layers"][0]["strip"]
    assert strip["dying"][-1] == expected["dying"]
    assert board.data("overview", run="mlp").json["verdicts"] == "written"


def test_layer(board: Application, layer: LayerHistory) -> None:
    found = board.data("layer", **LAYER).json
    assert found["steps"] == layer.steps.tolist()
    assert found["levels"] == 2
    for label, counts in found["counts"].items():
        assert counts == (layer.states() == UnitState[label.upper()]).sum(axis=1).tolist()
    assert sum(np.array(list(found["counts"].values()))).tolist() == [UNITS] * STEPS
    assert found["statistics"] == list(layer.statistics)
    assert found["level"] == "ok"  # 13 % of the units are dead, fewer than the share that is more than chance
    assert board.data("layer", **LAYER, thresholds="warning_share:0.1").json["level"] == "warning"


@pytest.mark.parametrize("order", ["index", "death", "severity", "similarity"])
def test_orders_and_tiles(board: Application, layer: LayerHistory, order: str) -> None:
    expected = row_order(order, layer.states(), layer.since()[-1], layer.statistic("active_fraction"))  # type: ignore[arg-type]
    rows = np.frombuffer(board.data("order", **LAYER, order=order).body, "<u4")
    assert rows.tolist() == expected.tolist()
    tiles = [board.data("tile", **LAYER, what="states", order=order, tile=tile).body for tile in (0, 1)]
    shown = np.frombuffer(b"".join(tiles), np.uint8).reshape(UNITS, STEPS)
    np.testing.assert_array_equal(shown, layer.states()[:, rows].T)
    tiles = [board.data("tile", **LAYER, what="mean", order=order, tile=tile).body for tile in (0, 1)]
    bits = np.frombuffer(b"".join(tiles), "<u2").reshape(UNITS, STEPS)
    np.testing.assert_array_equal(from_bfloat16_bits(bits), layer.statistic("mean")[:, rows].T)


def test_rows_in_the_order_of_another_layer(tmp_path: pathlib.Path) -> None:
    """Of two runs side by side one lends its order, so that a row shows the same unit in both."""
    rng = np.random.default_rng(0)
    for name, dead in (("one", [5, 2]), ("two", [7])):
        with DeadUnitsWriter(tmp_path / name) as writer:
            for step in range(30):
                values = np.maximum(rng.normal(size=(256, 8)), 0)
                values[:, dead] = 0
                writer.observe(step, "a" if name == "one" else "b", values)
                writer.observe(step, "small", values[:, :3])
    both = Application(tmp_path)
    asked = {"run": "two", "layer": "b", "order": "death"}
    lent = {**asked, "like": "one", "like_layer": "a"}
    own = np.frombuffer(both.data("order", run="one", layer="a", order="death").body, "<u4")
    rows = np.frombuffer(both.data("order", **lent).body, "<u4")
    assert rows.tolist() == own.tolist() != np.frombuffer(both.data("order", **asked).body, "<u4").tolist()
    assert [unit["unit"] for unit in both.data("units", **lent).json["units"]] == own.tolist()
    tile = np.frombuffer(both.data("tile", **lent, what="states").body, np.uint8).reshape(8, 30)
    assert np.flatnonzero(tile[:, -1] == UnitState.DEAD).tolist() == np.flatnonzero(own == 7).tolist()
    versions = {entry["run"]: entry["version"] for entry in both.data("runs").json["runs"]}
    kept = {**lent, "version": versions["two"]}
    assert "no-cache" in both.data("order", **kept).headers["Cache-Control"], "the order may still change"
    assert "max-age" in both.data("order", **kept, like_version=versions["one"]).headers["Cache-Control"]
    refused = both.data("order", **{**lent, "like_layer": "small"})
    assert refused.status == 400
    assert "'b' has 8 units and 'small' of run 'one' 3" in refused.body.decode()


def test_tiles_of_level_1(board: Application, layer: LayerHistory) -> None:
    body = board.data("tile", **LAYER, what="states", level=1).body
    worst, share = np.frombuffer(body, np.uint8).reshape(2, UNITS // 4, STEPS)
    assert worst[0, -1] == UnitState.DEAD
    assert share[0, -1] == 255
    assert worst[12, 33] == UnitState.NON_FINITE  # units 48 to 51
    assert share[12, 33] == 64  # a quarter, rounded up


def test_tiles_with_other_thresholds(board: Application, layer: LayerHistory) -> None:
    thresholds = layer.thresholds.replace(dead_examples=300)
    states, _ = rejudge(layer, thresholds)
    assert (states != layer.states()).any()
    body = board.data("tile", **LAYER, what="states", thresholds="dead_examples:300").body
    np.testing.assert_array_equal(np.frombuffer(body, np.uint8).reshape(256, STEPS), states[:, :256].T)


def test_distribution(board: Application, layer: LayerHistory) -> None:
    found = board.data("distribution", **LAYER, statistic="gradient", bins=20).json
    assert found["steps"] == layer.steps.tolist()
    assert len(found["edges"]) == 21
    values = layer.statistic("gradient")
    assert found["zeros"] == (values == 0).sum(axis=1).tolist()
    assert found["zeros"][-1] > 20
    inside = np.sum(found["counts"], axis=1) + found["below"] + found["above"]
    assert (inside + found["zeros"] + found["non_finite"] == UNITS).all()
    median = [np.quantile(row[np.isfinite(row)], 0.5) for row in values.astype(np.float64)]
    np.testing.assert_allclose(found["quantiles"]["p50"], median, rtol=1e-3)
    mean = board.data("distribution", **LAYER, statistic="mean").json
    assert mean["non_finite"][33] == 1


def test_unit(board: Application, layer: LayerHistory) -> None:
    found = board.data("unit", **LAYER, unit=5).json
    assert (found["state"], found["level"], found["rule"]) == ("dead", "alarm", "dead")
    assert found["since_step"] == layer.since()[-1, 5] == 26
    assert found["states"] == layer.states()[:, 5].tolist()
    assert found["last_active_step"] == [layer.evidence(r).last_active_step[5] for r in range(STEPS)]
    assert found["examples_since_active"][-1] == 256 * 54
    assert found["examples"] == 256 * 54
    assert 0 < found["rate_upper_bound"] < 1e-3
    assert found["born"] is False
    assert [t["to"] for t in found["transitions"]][-1] == "dead"
    for name in layer.statistics:
        np.testing.assert_allclose(np.array(found["statistics"][name], float), layer.statistic(name)[:, 5], rtol=2e-3)
        known = [row[~np.isnan(row)] for row in layer.statistic(name)]
        median = [np.median(row) if len(row) else np.nan for row in known]
        np.testing.assert_allclose(np.array(found["layer_median"][name], float), median, rtol=2e-3)
    assert found["lines"]["active_fraction"] == [{"threshold": "dying_share", "value": 0.01}]
    small = 0.025 * np.mean(layer.statistic("mean_abs")[-1], dtype=np.float64)
    assert found["lines"]["mean_abs"][0]["value"] == pytest.approx(small)


def test_neighbours_of_a_unit(board: Application, layer: LayerHistory) -> None:
    flagged = [unit for unit, code in enumerate(layer.states()[-1]) if UnitState(code).flagged]
    for unit in (0, 5, flagged[-1], UNITS - 1):
        found = board.data("unit", **LAYER, unit=unit).json
        assert found["previous_flagged"] == max([f for f in flagged if f < unit], default=None)
        assert found["next_flagged"] == min([f for f in flagged if f > unit], default=None)


def test_values_that_json_does_not_know_are_null(board: Application) -> None:
    found = board.data("unit", **LAYER, unit=50).json
    assert found["statistics"]["mean"][33] is None
    assert found["statistics"]["mean"][32] is not None
    assert found["layer_median"]["mean"][33] is not None  # one unit's NaN hides no other


def test_units(board: Application, layer: LayerHistory) -> None:
    states = layer.states()[-1]
    rows = row_order("severity", layer.states(), layer.since()[-1])
    found = board.data("units", **LAYER, first=10, last=99, state="dead,dying", order="severity", limit=7).json
    matching = [row for row in range(10, 100) if states[rows[row]] in (UnitState.DEAD, UnitState.DYING)]
    assert (found["total"], found["matching"], len(found["units"])) == (UNITS, len(matching), 7)
    assert [unit["row"] for unit in found["units"]] == matching[:7]
    assert [unit["unit"] for unit in found["units"]] == rows[matching[:7]].tolist()
    one = found["units"][0]
    alone = board.data("unit", **LAYER, unit=one["unit"]).json
    for key in ("state", "since_step", "examples", "rate_upper_bound", "born", "why"):
        assert one[key] == alone[key], key
    assert one["statistics"]["mean"] == layer.statistic("mean")[-1, one["unit"]]
    assert len(board.data("units", **LAYER).json["units"]) == UNITS


def test_export(board: Application, layer: LayerHistory) -> None:
    answer = board.data("export", run="mlp")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="dead_units.csv"'
    lines = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert len(lines) == UNITS + 3
    assert [line["layer"] for line in lines[-3:]] == ["late"] * 3
    assert lines[-1]["norm_in"] == ""  # no weights were recorded of that layer
    assert [line["state"] for line in lines[:UNITS]] == [UnitState(code).label for code in layer.states()[-1]]
    assert float(lines[7]["norm_in"]) == layer.statistic("norm_in")[-1, 7]
    only = board.data("export", **LAYER, thresholds="dead_examples:100000").body.decode()
    assert len(only.splitlines()) == UNITS + 1
    assert ",dead,alarm," not in only


def test_urls_with_the_present_version_are_immutable(board: Application, run: RunHistory) -> None:
    where: dict[str, Any] = {**LAYER, "what": "states"}
    assert "no-cache" in board.data("tile", **where).headers["Cache-Control"]
    assert "no-cache" in board.data("tile", **where, version="1.2").headers["Cache-Control"]
    kept = board.data("tile", **where, version=run.version)
    assert kept.headers["Cache-Control"] == "private, max-age=31536000"
    assert kept.headers["Dead-Units-Version"] == run.version
    assert kept.headers["Content-Encoding"] == "gzip"
    distribution = {**LAYER, "statistic": "std"}
    assert "max-age" in board.data("distribution", **distribution, version=run.version).headers["Cache-Control"]
    assert "no-cache" in board.data("distribution", **distribution).headers["Cache-Control"]  # the same from the cache


def test_a_client_without_gzip(board: Application) -> None:
    path = f"{DATA}/tile?run=mlp&layer=hidden&what=states"
    plain = board.get(path, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert plain.body == board.get(path).body


def test_many_threads_get_the_same(board: Application) -> None:
    asked = [("tile", {**LAYER, "what": "states", "order": "similarity", "thresholds": f"dead_examples:{500 + n % 3}"})
             for n in range(24)]  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: board.data(one[0], **one[1]).body, asked))
    for n, body in enumerate(answers):
        assert body == answers[n % 3]


def test_an_empty_log_directory(tmp_path: pathlib.Path) -> None:
    empty = Application(tmp_path)
    assert empty.data("runs").json == {"runs": [], "notes": []}
    assert empty.data("overview", run="x").status == 404
    assert empty.data("glossary").status == 200


def test_the_log_directory_itself_is_a_run_under_a_path_prefix(tmp_path: pathlib.Path) -> None:
    with DeadUnitsWriter(tmp_path) as writer:
        writer.observe(0, "only", np.ones((4, 2)))
    board = Application(tmp_path, path_prefix="/pre")
    assert board.get("/data/plugin/dead_units/runs").status == 404
    assert [r["run"] for r in board.get("/pre/data/plugin/dead_units/runs").json["runs"]] == ["."]
    assert board.get("/pre/data/plugin/dead_units/overview", run=".").json["records"] == 1
    assert board.get("/pre/experiment/17/data/plugin/dead_units/overview", run=".").json["records"] == 1

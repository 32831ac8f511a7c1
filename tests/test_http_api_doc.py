"""``docs/http_api.md`` describes exactly the routes that exist, and its samples have the keys of real answers."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest

from board import Application
from deadunits_tb import DeadUnitsWriter
from deadunits_tb.serving.routes import ROUTES

SHARED = ("run", "layer", "thresholds", "order", "like", "like_layer", "like_version", "version")
KEYED_BY_DATA = {
    "thresholds", "writer_thresholds", "states", "totals", "strip", "counts", "statistics", "layer_median", "lines",
    "optimizer", "versions", "presets", "presets[]", "certainty",
}  # fmt: skip
"""Objects whose keys are names of states, statistics or thresholds, not words of the API."""
MAY_BE_EMPTY = {
    "errors", "skipped", "notes", "findings", "thresholds", "ruled_out", "optimizer", "presets[]", "revivals",
    "could_move", "only_first", "only_second",
}  # fmt: skip


@pytest.fixture(scope="module")
def text(root: pathlib.Path) -> str:
    return (root / "docs" / "http_api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sections(text: str) -> dict[str, tuple[list[str], str]]:
    """Route to its parameters and the text of its section."""
    found = re.split(r"^## `(.+?)`$", text, flags=re.MULTILINE)[1:]
    routes = {}
    for heading, body in zip(found[::2], found[1::2], strict=True):
        path, _, query = heading.partition("?")
        routes["/" + path] = [name.rstrip("=") for name in query.split("&") if name], body
    return routes


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Application:
    """A log with a unit that dies, one that is born dead, and a finding."""
    log_dir = tmp_path_factory.mktemp("documented")
    rng = np.random.default_rng(0)
    with DeadUnitsWriter(log_dir / "run") as writer:
        for step in range(40):
            alive = rng.normal(size=(256, 12)) + 0.5
            alive[:, :7] = np.where(step >= 20, -1, alive[:, :7])
            alive[:, 7] = -1
            activations = np.maximum(alive, 0)
            gradients = rng.normal(size=activations.shape) * (activations > 0)
            writer.context(step, learning_rate=0.1, loss=1.0, inputs=alive)
            writer.observe(step, "hidden", activations, gradients=gradients, weights=rng.normal(size=(5, 12)))
    with DeadUnitsWriter(log_dir / "other") as writer:
        for step in range(3):
            writer.context(step, learning_rate=0.2, loss=1.0)
            writer.observe(step, "hidden", np.maximum(rng.normal(size=(256, 12)), 0))
    return Application(log_dir)


def test_every_route_and_parameter_is_documented_and_no_other(sections: dict[str, tuple[list[str], str]]) -> None:
    assert {path: parameters for path, (parameters, _) in sections.items()} == {
        route.path: list(route.parameters) for route in ROUTES
    }


def test_parameters_are_explained(text: str, sections: dict[str, tuple[list[str], str]]) -> None:
    for route in ROUTES:
        for name in route.parameters:
            explained = f"| `{name}` |" if name in SHARED else f"`{name}"
            assert explained in (text if name in SHARED else sections[route.path][1]), f"{route.path}: {name}"


def test_every_route_has_one_line_of_description() -> None:
    for route in ROUTES:
        assert route.description.endswith(".")
        assert "\n" not in route.description


PARAMETERS: dict[str, dict[str, Any]] = {
    "/runs": {},
    "/overview": {"run": "run"},
    "/layer": {"run": "run", "layer": "hidden"},
    "/distribution": {"run": "run", "layer": "hidden", "statistic": "gradient"},
    "/unit": {"run": "run", "layer": "hidden", "unit": 3},
    "/units": {"run": "run", "layer": "hidden", "state": "dead"},
    "/events": {"run": "run", "layer": "hidden"},
    "/compare": {"run": "run", "other": "other"},
    "/glossary": {},
}
"""Of the routes that answer in JSON."""


@pytest.mark.parametrize("path", PARAMETERS)
def test_samples_have_the_keys_of_real_answers(
    path: str, sections: dict[str, tuple[list[str], str]], board: Application
) -> None:
    sample = json.loads("\n".join(line for line in sections[path][1].splitlines() if line.startswith("    ")))
    answer = board.data(path[1:], **PARAMETERS[path])
    assert answer.status == 200, answer.body
    assert compare(sample, answer.json, path) > 3


def test_binary_and_csv_routes_have_no_sample_and_no_json(board: Application) -> None:
    where = {"run": "run", "layer": "hidden"}
    for path in {route.path for route in ROUTES} - PARAMETERS.keys():
        answer = board.data(path[1:], **where, what="states", level=0, tile=0)
        assert answer.status == 200
        assert answer.headers["Content-Type"].split(";")[0] in ("application/octet-stream", "text/csv")


def compare(sample: Any, real: Any, where: str) -> int:
    """Compare keys and kinds of values; returns how many values were compared."""
    if isinstance(sample, dict):
        assert isinstance(real, dict), where
        name = where.rpartition(".")[2]
        if name in KEYED_BY_DATA:
            assert real or name in MAY_BE_EMPTY, f"{where} is empty"
            if not real:
                return 0
            return 1 + compare(next(iter(sample.values())), next(iter(real.values())), f"{where}[]")
        assert sorted(sample) == sorted(real), where
        return sum(compare(sample[key], real[key], f"{where}.{key}") for key in sample)
    if isinstance(sample, list):
        assert isinstance(real, list), where
        if not real or not sample:
            assert where.rpartition(".")[2] in MAY_BE_EMPTY, f"{where} is empty"
            return 0
        return compare(sample[0], real[0], f"{where}[]")
    numbers = (int, float)
    if sample is None or real is None:
        return 1
    assert type(sample) is type(real) or (isinstance(sample, numbers) and isinstance(real, numbers)), where
    return 1

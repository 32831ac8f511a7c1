"""Two runs side by side: what corresponds, what differs, and whether chance explains it."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from click.testing import CliRunner

import deadunits_tb
from board import Application
from deadunits_tb import DeadUnitsWriter
from deadunits_tb.cli import main
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.reading.comparison import Comparison, compare, comparison_json
from deadunits_tb.reading.comparison_words import Verdict
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.layer_comparison import SPREAD, Side, chance_of, corrected
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.matching import match
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.recipe import Difference, differences
from deadunits_tb.run_record import ModelPart, RunInfo
from event_files import simulated, write_run

BATCH, STEPS = 256, 16


def plant(log_dir: pathlib.Path, layers: Mapping[str, tuple[int, int]], *, steps: int = STEPS, loss: float = 1.0,
          first: int = 0, batch: int = BATCH) -> RunHistory:  # fmt: skip
    """A run whose layers have so many units, of which so many are dead from the start."""
    with DeadUnitsWriter(log_dir) as writer:
        for step in range(first, first + steps):
            rng = np.random.default_rng(step)
            writer.context(step, loss=loss, learning_rate=0.1)
            for name, (units, dead) in layers.items():
                values = np.maximum(rng.normal(size=(batch, units)), 0)
                values[:, :dead] = 0
                gradients = rng.normal(size=values.shape) * (values > 0)
                writer.observe(step, name, values, gradients=gradients)
    return read(log_dir)


def read(log_dir: pathlib.Path) -> RunHistory:
    return RunReader(LocalDataProvider(log_dir.parent)).history(log_dir.name)


def test_a_difference_that_chance_does_not_make_speaks_for_dying_units(tmp_path: pathlib.Path) -> None:
    first = plant(tmp_path / "plain", {"hidden_1": (128, 41), "hidden_2": (64, 5)}, loss=1.2)
    second = plant(tmp_path / "other", {"hidden_1": (128, 3), "hidden_2": (64, 6)}, loss=0.3, steps=20)
    found = compare(first, second)
    assert (found.verdict, found.step, found.losses) == ("for", STEPS - 1, (1.2, 0.3))
    assert found.sentence == (
        "in 'other' 3 of 128 units of hidden_1 are dead at step 15, in 'plain' 41: "
        "the difference speaks for dying units in hidden_1"
    )
    assert [layer.differs for layer in found.layers] == [True, False]
    said = " ".join(found.details)
    assert "the run with fewer of them also learns better" in said
    assert "'other' goes on to step 19" in said
    assert "does not say what the model is made of" in said
    assert found.layers[0].shares[0][-1] is None  # the first run has ended there
    assert found.layers[0].shares[1][-1] == pytest.approx(3 / 128, abs=1e-6)
    turned = compare(second, first)
    assert turned.sentence == found.sentence
    assert [layer.chance for layer in turned.layers] == [layer.chance for layer in found.layers]


@pytest.mark.parametrize(
    ("first", "second", "verdict", "words"),
    [
        ((128, 20), (128, 24), "none", "no difference that chance would not make: at step 15 20 of 128 units"),
        ((128, 0), (128, 0), "none", "no unit of either run is dead, dying, or in another alarm state"),
        ((128, 10), (256, 200), "for", "in 'a' 10 of 128 units of h are dead at step 15, in 'b' 200 of 256"),
        ((4, 0), (4, 3), "none", "no difference that chance would not make"),
    ],
)
def test_verdicts(tmp_path: pathlib.Path, first: tuple[int, int], second: tuple[int, int], verdict: Verdict,
                  words: str) -> None:  # fmt: skip
    found = compare(plant(tmp_path / "a", {"h": first}), plant(tmp_path / "b", {"h": second}))
    assert found.verdict == verdict
    assert words in found.sentence


def test_opposite_differences_are_mixed(tmp_path: pathlib.Path) -> None:
    first = plant(tmp_path / "a", {"one": (128, 90), "two": (128, 0)})
    second = plant(tmp_path / "b", {"one": (128, 0), "two": (128, 60)})
    found = compare(first, second)
    assert found.verdict == "mixed"
    assert "in two it is the other way round" in found.sentence


def test_too_few_examples_cannot_be_told(tmp_path: pathlib.Path) -> None:
    first, second = (
        plant(tmp_path / name, {"h": (8, 4)}, steps=steps, batch=64) for name, steps in (("a", 16), ("b", 1))
    )
    found = compare(first, second)
    assert found.step == 0
    assert found.verdict == "unknown"
    assert "no unit of 'a' and 'b' can be judged at step 0" in found.sentence
    json.dumps(comparison_json(found), allow_nan=False)


def test_what_does_not_match_is_listed(tmp_path: pathlib.Path) -> None:
    first = plant(tmp_path / "a", {"one": (8, 0), "two": (8, 0), "old": (8, 0)})
    second = plant(tmp_path / "b", {"two": (16, 0), "new": (8, 0), "one": (8, 0)})
    found = compare(first, second)
    assert [(layer.layer, layer.matched) for layer in found.layers] == [("one", "name"), ("two", "name")]
    assert (found.only_first, found.only_second) == (("old",), ("new",))
    alone = plant(tmp_path / "c", {"other": (9, 0)})
    with pytest.raises(InvalidArgumentError, match=r"no layer in common.*'a' has one, two and old, and 'c' has other"):
        compare(first, alone)
    late = plant(tmp_path / "late", {"one": (8, 0)}, first=100)
    with pytest.raises(InvalidArgumentError, match="'late' begins only after the other has ended, at step 15"):
        compare(first, late)


def test_layers_that_a_dropout_has_shifted_match_by_place(tmp_path: pathlib.Path) -> None:
    """Among them 6, which names another layer in each: by name alone unlike layers would be compared."""
    first = plant(tmp_path / "a", {"0": (8, 0), "2": (8, 0), "4": (8, 0), "6": (8, 0)})
    second = plant(tmp_path / "b", {"0": (8, 0), "3": (8, 0), "6": (8, 0), "9": (8, 0)})
    pairs = [("0", "0", "name"), ("2", "3", "place"), ("4", "6", "place"), ("6", "9", "place")]
    assert list(match(first.layers, second.layers).pairs) == pairs
    other = plant(tmp_path / "c", {"0": (8, 0), "3": (16, 0), "6": (8, 0), "9": (8, 0)})
    assert list(match(first.layers, other.layers).pairs) == [("0", "0", "name"), ("6", "6", "name")]


def side(troubled: int, judged: int) -> Side:
    return Side(judged, judged, troubled, {})


def test_chance_is_that_of_drawing_with_such_a_spread() -> None:
    """Against drawing: shares that vary between runs as a beta distribution makes them vary."""
    units, share, runs = 128, 0.3, 20_000
    within = (SPREAD - 1) / (units - 1)  # correlation of units of one run that gives that spread
    rng = np.random.default_rng(0)
    shares = rng.beta(share * (1 / within - 1), (1 - share) * (1 / within - 1), size=(2, runs))
    first, second = rng.binomial(units, shares)
    called = [
        chance_of(side(a, units), side(b, units)) < 0.05 for a, b in zip(first[:4000], second[:4000], strict=True)
    ]
    assert 0.02 < np.mean(called) < 0.06
    assert chance_of(side(0, 5), side(0, 9)) == 1
    assert math.isnan(chance_of(side(0, 0), side(1, 9)))


@pytest.mark.parametrize(
    ("chances", "wanted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.01, 1.0, 1.0], [0.01, 1.0, 1.0]),  # without any trouble a layer could not have differed
        ([0.9, 0.8], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm(chances: Sequence[float], wanted: Sequence[float]) -> None:
    assert corrected(chances) == pytest.approx(wanted)


def made(log_dir: pathlib.Path, optimizer: Mapping[str, str | float], parts: Sequence[ModelPart]) -> RunHistory:
    layers = simulated(8, 3)
    write_run(log_dir, layers, RunInfo("torch", optimizer=optimizer, layers=tuple(layers), model=tuple(parts)))
    return read(log_dir)


def test_what_was_made_differently(tmp_path: pathlib.Path) -> None:
    linear, drop = ModelPart("0", "Linear", {"out_features": 8.0}), ModelPart("1", "Dropout", {"p": 0.5})
    norm = ModelPart("2", "BatchNorm1d", {"eps": 1e-5})
    adam = {"class": "Adam", "lr": 0.1, "weight_decay": 0.0, "eps": 1e-8, "fused": 0.0}
    plain = made(tmp_path / "plain", adam, [linear])

    def against(optimizer: Mapping[str, str | float], *parts: ModelPart) -> list[Difference]:
        log_dir = tmp_path / f"other_{len(list(tmp_path.iterdir()))}"
        return differences(plain, made(log_dir, optimizer, parts), [])

    assert against(adam, linear) == []
    assert against(adam | {"fused": 1.0}, linear) == []
    assert against(adam, linear, drop) == [Difference("Dropout", "none", "1, with p 0.5", "dropout")]
    assert against(adam, linear, norm) == [Difference("BatchNorm1d", "none", "1", "normalisation")]
    decayed = adam | {"weight_decay": 0.01}
    assert against(decayed, linear) == [Difference("weight decay", "none", "0.01", "weight decay")]
    assert against(adam, ModelPart("0", "Linear", {"out_features": 16.0})) == [
        Difference("Linear, out features", "8", "16")
    ]
    assert against({"class": "SGD", "lr": 0.1, "momentum": 0.9}, linear) == [Difference("optimizer", "Adam", "SGD")]
    assert against({}, linear) == []  # an optimizer that is not known is no difference


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two log directories: one with three runs, one with one."""
    root = tmp_path_factory.mktemp("logs")
    for name, dead in (("many/plain", 41), ("many/other", 3), ("many/third", 4), ("one/plain", 2)):
        plant(root / name, {"hidden": (128, dead)})
    return root


@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [
        (["many", "--run", "plain", "--run", "other"], "plain", "other"),
        (["many", "--run", "^th", "--run", "^pl"], "third", "plain"),
        (["many", "one", "--run", "plain"], "many/plain", "one/plain"),
        (["one", "many", "--run", "plain", "--run", "third"], "one/plain", "many/third"),
        (["one", "many/third"], "one/plain", "many/third"),
    ],
)
def test_the_command_finds_the_runs(
    logs: pathlib.Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], first: str, second: str
) -> None:
    monkeypatch.chdir(logs)
    answer = CliRunner().invoke(main, ["compare", *arguments, "--json"])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert (found["first"], found["second"]) == (first, second)
    assert set(found) == set(Comparison.__slots__)


def test_the_route_compares_under_other_thresholds(logs: pathlib.Path) -> None:
    board = Application(logs / "many")
    asked = {"run": "plain", "other": "other"}
    assert board.data("compare", **asked).json["verdict"] == "for"
    found = board.data("compare", **asked, thresholds="dead_examples:100000").json
    assert found["layers"][0]["first"]["states"] == {"active": 87, "dying": 41}
    answer = board.data("compare", **asked, thresholds="dead_examples:many")
    assert (answer.status, b"must be a number" in answer.body) == (400, True)


def test_in_python(logs: pathlib.Path) -> None:
    runs = deadunits_tb.load(logs / "many")
    assert runs.compare("plain", "other").verdict == "for"
    assert runs["plain"].layers["hidden"].events.of(3) == [("born_dead", 0)]
    with pytest.raises(InvalidArgumentError, match="a run does not differ from itself: 'plain'"):
        runs.compare("plain", "plain")
    with pytest.raises(UnknownNameError, match="there is no run 'plane'"):
        runs.compare("plain", "plane")


def test_the_command_for_people(logs: pathlib.Path) -> None:
    answer = CliRunner().invoke(main, ["compare", str(logs / "many"), "--run", "plain", "--run", "other"])
    said = " ".join(answer.output.split())
    assert "speaks for dying units in 'other' 3 of 128 units of hidden are dead" in said
    assert "hidden dead 41 of 128 32 % 3 of 128 2.3 %" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one"], "holds one run, 'plain', and a comparison takes two: name a directory above both, or a second one"),
        (["many"], "which runs are to be compared? Name both with --run twice. Known: 'other', 'plain' and 'third'"),
        (["many", "--run", "plain"], "Name a second one with another --run"),
        (["many", "--run", "plain", "--run", "plain"], "'plain' is named twice: a run does not differ from itself"),
        (["many", "many", "--run", "plain"], "'plain' is named twice"),
        (["many", "one"], "'many' holds 3 runs: choose with --run"),
        (["many", "--run", "plain", "--run", "th", "--run", "o"], "two runs are compared, not 3"),
        (["many", "--run", "plain", "--run", "nothing"], "there is no run that matches 'nothing'"),
        (["many", "--run", "plain", "--run", "(("], "'((' is no regular expression"),
        (["many", "--run", "plain", "--run", "[oh]"], "'[oh]' matches 2 runs, and one is wanted: 'other' and 'third'"),
        (["absent", "one"], "absent"),
    ],
)
def test_the_command_says_what_is_wrong(
    logs: pathlib.Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(logs)
    answer = CliRunner().invoke(main, ["compare", *arguments])
    assert answer.exit_code == 2
    assert words in answer.output
    assert answer.output.count("\n") == 1

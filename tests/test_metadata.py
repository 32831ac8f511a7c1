"""Metadata round-trip, and whatever a stranger writes under our name is refused with one sentence."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadunits_tb import metadata
from deadunits_tb.errors import FormatError, FutureVersionError
from deadunits_tb.metadata import MAX_UNITS, UNIT_BLOCK, TagInfo
from deadunits_tb.run_record import ModelPart, RunInfo
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo

counts = st.integers(0, 2**63 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]))
layers = st.builds(
    LayerInfo,
    name=names,
    kind=names,
    order=st.integers(0, 10**6),
    units=st.integers(1, MAX_UNITS),
    activation_function=st.none() | names,
    fan_in=st.none() | counts,
    fan_out=st.none() | counts,
    role=st.sampled_from(["hidden", "output"]),
    framework=names,
    witness=st.sampled_from(["pre_activation", "output", "none"]),
    tokens=st.booleans(),
    weight_delta=st.sampled_from(["exact", "projection", "none"]),
)
numbers = st.floats(allow_nan=False)
facts = st.dictionaries(names, names.filter(lambda text: text not in ("NaN", "Infinity", "-Infinity")) | numbers)
runs = st.builds(
    RunInfo,
    framework=names,
    versions=st.dictionaries(names, names),
    optimizer=facts,
    thresholds=st.builds(Thresholds, dead_examples=st.integers(256, 2**53), dead_gradient=st.floats(0, 1)),
    layers=st.lists(layers, unique_by=lambda layer: layer.name, max_size=2).map(tuple),
    every=st.none() | st.integers(1, 10**9),
    model=st.lists(st.builds(ModelPart, names, names, facts), max_size=3).map(tuple),
)
LAYER = LayerInfo("dense", "Dense", 3, 40_000, "relu")


def content(info: TagInfo) -> bytes:
    return metadata.make(info).plugin_data.content


def changed(**changes: object) -> bytes:
    """Metadata of a states tag with some keys changed; None removes one."""
    values = json.loads(content(TagInfo("states", LAYER, 0, UNIT_BLOCK)))
    for key, value in changes.items():
        target = values["layer"] if key in ("name", "order", "role", "tokens") else values
        target[key] = value
        if value is None:
            del target[key]
    return json.dumps(values).encode()


@given(layers, st.sampled_from(["states", "statistics"]), counts, counts, st.data())
def test_a_layer_tag_comes_back(layer, kind, block, session, data):
    start = data.draw(st.integers(0, layer.units - 1))
    stop = data.draw(st.integers(start + 1, min(layer.units, start + UNIT_BLOCK)))
    statistics = ("active_fraction", "of_the_future") if kind == "statistics" else ()
    info = TagInfo(kind, layer, start, stop, block, statistics, session=session)
    assert metadata.parse(content(info)) == info


@given(runs, counts)
@settings(max_examples=50)
def test_a_summary_tag_comes_back(run, block):
    info = TagInfo("summary", run=run, block=block)
    assert metadata.parse(content(info)) == info


def test_the_metadata_say_whose_tensors_they_are():
    made = metadata.make(TagInfo("states", LAYER, 0, 5))
    assert made.plugin_data.plugin_name == "dead_units"
    assert made.data_class == 2  # DATA_CLASS_TENSOR: without it no tag is ever readable
    assert json.loads(made.plugin_data.content)["version"] == metadata.VERSION


def test_tags_differ_wherever_their_content_does():
    infos = [
        TagInfo("states", LAYER, 0, 5),
        TagInfo("statistics", LAYER, 0, 5, statistics=("mean",)),
        TagInfo("statistics", LAYER, 0, 5, statistics=("mean", "std")),
        TagInfo("states", LAYER, 5, 10),
        TagInfo("states", LAYER, 0, 5, block=1),
        TagInfo("states", LAYER, 0, 5, session=1),
        TagInfo("states", dataclasses.replace(LAYER, name="other"), 0, 5),
        TagInfo("states", dataclasses.replace(LAYER, activation_function="gelu"), 0, 5),
        TagInfo("summary", run=RunInfo()),
    ]
    assert len({metadata.tag_name(info) for info in infos}) == len(infos)


@given(layers)
def test_tags_are_short_and_safe_whatever_the_layer_is_called(layer):
    tag = metadata.tag_name(TagInfo("statistics", layer, 0, 1, 7, ("mean",), session=2**52))
    assert len(tag) < 80
    assert set(tag) <= set("abcdefghijklmnopqrstuvwxyz0123456789/-.")


def test_a_later_major_version_is_refused_and_says_what_to_do():
    with pytest.raises(FutureVersionError, match=r"version 2, .* reads up to 1: update deadunits_tb"):
        metadata.parse(changed(version=2))
    # Also where nothing else can be understood any more.
    with pytest.raises(FutureVersionError):
        metadata.parse(b'{"version": 3}')


def test_a_later_minor_version_is_read():
    values = json.loads(content(TagInfo("summary", run=RunInfo())))
    values["new"] = {"deep": [1, 2]}
    values["run"]["thresholds"]["threshold_of_the_future"] = 7
    values["run"]["new"] = None
    assert metadata.parse(json.dumps(values).encode()).run == RunInfo()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": None}, "no 'version'"),
        ({"version": "1"}, "'version' is '1', not a whole number"),
        ({"version": 0}, "'version' is 0"),
        ({"kind": "pictures"}, "'kind' is 'pictures'"),
        ({"layer": None}, "no 'layer'"),
        ({"layer": 7}, "'layer' is 7, not an object"),
        ({"name": 7}, "'name' is 7, not a string"),
        ({"order": -1}, "'order' is -1"),
        ({"role": "boss"}, "'role' is 'boss', not one of hidden, output"),
        ({"tokens": 1}, "'tokens' is 1, not true or false"),
        ({"units": [0]}, "'units' must be"),
        ({"units": [5, 5]}, "'units' must be"),
        ({"units": [-1, 5]}, "'units' must be"),
        ({"units": [0, UNIT_BLOCK + 1]}, "'units' must be"),
        ({"units": [39_999, 40_001]}, "within the 40,000 units"),
        ({"units": ["0", "5"]}, "'units' must be"),
        ({"statistics": ["mean"]}, "names the statistics"),
        ({"block": 1.5}, "'block' is 1.5"),
        ({"block": 2**64}, "'block' is"),
    ],
)
def test_what_is_not_ours_is_refused(changes, reason):
    with pytest.raises(FormatError, match=r"^metadata of a tag") as caught:
        metadata.parse(changed(**changes))
    assert reason in str(caught.value)


def test_a_layer_cannot_claim_more_units_than_any_layer_has():
    values = json.loads(changed())
    values["layer"]["units"] = 2**40
    with pytest.raises(FormatError, match="'units' is 1099511627776"):
        metadata.parse(json.dumps(values).encode())


@pytest.mark.parametrize("threshold", ["many", -1, "NaN", [3000], 1e300])
def test_thresholds_that_nobody_could_set_are_refused_or_ignored(threshold):
    values = json.loads(content(TagInfo("summary", run=RunInfo())))
    values["run"]["thresholds"]["dead_examples"] = threshold
    data = json.dumps(values).encode()
    if isinstance(threshold, list):
        assert metadata.parse(data).run.thresholds == Thresholds()
    else:
        with pytest.raises(FormatError, match="threshold dead_examples"):
            metadata.parse(data)


def test_optimizer_settings_may_be_infinite():
    run = metadata.parse(content(TagInfo("summary", run=RunInfo(optimizer={"clip": math.inf})))).run
    assert run.optimizer == {"clip": math.inf}


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_format_errors(data):
    with pytest.raises(FormatError):
        metadata.parse(data)


@pytest.mark.parametrize(
    ("tensorboard_run", "run"),
    [
        ("dead_units", "."),
        ("mlp/dead_units", "mlp"),
        ("a/b/dead_units", "a/b"),
        (".", "."),
        ("mlp", "mlp"),
        ("mlp/dead_units/more", "mlp/dead_units/more"),
        ("my_dead_units", "my_dead_units"),
        ("a\\b\\dead_units", "a/b"),
    ],
)
def test_a_run_is_called_by_the_directory_that_the_user_named(tensorboard_run, run):
    assert metadata.run_name(tensorboard_run) == run

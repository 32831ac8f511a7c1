"""Whatever lies in an event file: what can be shown is shown, what was left out is said, and nothing is raised."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import re
import resource
import time
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING, DT_UINT16

import deadunits_tb
import event_files
from deadunits_tb import codec, metadata
from deadunits_tb.cli import main
from deadunits_tb.metadata import PLUGIN_NAME, TagInfo
from deadunits_tb.reading.judging import rejudge
from deadunits_tb.reading.log_directory import LogDirectory
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.reading.report import print_report
from deadunits_tb.reading.run_api import Run
from deadunits_tb.run_record import RunInfo
from deadunits_tb.tfrecord import frame
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo
from event_files import CONTEXT, PROVIDERS, provider, simulated, write_run

LAYERS = {**simulated(20, 30, name="first"), **simulated(8, 30, name="second", order=1, seed=1)}


@pytest.fixture
def event_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """Of a whole run, ``run`` in the log directory ``tmp_path``."""
    return write_run(tmp_path / "run", LAYERS)


def everything(log_dir: pathlib.Path) -> tuple[list[Run], list[str]]:
    """Look at all there is in every way there is.

    Returns:
        The runs, and what was left out.
    """
    runs = deadunits_tb.load(log_dir)
    for run in runs.values():
        run.flagged()
        assert isinstance(run.findings, list)
        for layer in run.layers.values():
            assert layer.states.shape == layer.since.shape == (len(layer.steps), layer.units)
            for name in layer.statistics:
                assert layer.statistic(name).shape == layer.states.shape
    result = CliRunner().invoke(main, ["report", str(log_dir), "--json"])
    if runs:
        assert result.exit_code == 0, result.exception
        assert [run["run"] for run in json.loads(result.stdout, parse_constant=pytest.fail)["runs"]] == list(runs)
        print_report(log_dir, Console(file=io.StringIO()))
    else:
        assert result.exit_code == 2
    return list(runs.values()), [*runs.notes, *(note for run in runs.values() for note in run.notes)]


def test_a_truncated_file_gives_what_is_before_the_cut(event_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data = event_file.read_bytes()
    for share in (0.2, 0.5, 0.9, 0.999):
        event_file.write_bytes(data[: int(share * len(data))])
        (run,), notes = everything(tmp_path)
        assert 0 < len(run.layers["first"].steps) <= share * 30 + 1
        assert any("no whole record" in note for note in notes)


def test_a_file_of_a_few_bytes_is_no_run(event_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data = event_file.read_bytes()
    for size in (0, 1, 11, 12, 30):
        event_file.write_bytes(data[:size])
        assert everything(tmp_path)[0] == []


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_costs_at_most_what_it_touches(
    seed: int, event_file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(event_file.read_bytes())
    whole = everything(tmp_path)[0][0].layers["first"]
    place = int(random.integers(len(data)))
    data[place] ^= 1 << int(random.integers(8))
    event_file.write_bytes(data)
    runs, notes = everything(tmp_path)
    assert notes
    for run in runs:
        for layer in run.layers.values():
            if layer.name == "first":
                kept = np.isin(whole.steps, layer.steps)
                assert np.array_equal(whole.states[kept], layer.states)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_inside_good_frames_are_found_by_the_decoders(
    seed: int, event_file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Checksums only help against disks: here they are right, and the content is not."""
    random = np.random.default_rng(seed)

    def damage(event: Event) -> Iterable[Event]:
        for value in event.summary.value:
            if value.tensor.dtype == DT_STRING and random.random() < 0.3:
                content = bytearray(value.tensor.string_val[0])
                content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
                value.tensor.string_val[0] = bytes(content)
            if value.HasField("metadata") and random.random() < 0.3:
                content = bytearray(value.metadata.plugin_data.content)
                if content:
                    content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
                value.metadata.plugin_data.content = bytes(content)
        yield event

    event_files.rewrite(event_file, damage)
    _, notes = everything(tmp_path)
    assert notes


@pytest.mark.parametrize("seed", range(40))
def test_nonsense_that_decodes_is_shown_without_a_crash(
    seed: int, event_file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Even what compression guards may be wrong: then numbers are absurd, and so is the report, but there is one."""
    random = np.random.default_rng(seed)

    def damage(event: Event) -> Iterable[Event]:
        for value in event.summary.value:
            if value.tensor.dtype == DT_STRING and random.random() < 0.5:
                content = bytearray(zlib.decompress(value.tensor.string_val[0]))
                for place in random.integers(len(content), size=3):
                    content[place] ^= 1 << int(random.integers(8))
                value.tensor.string_val[0] = zlib.compress(bytes(content))
            elif value.tensor.dtype == DT_UINT16:
                value.tensor.tensor_content = random.bytes(len(value.tensor.tensor_content))
        yield event

    event_files.rewrite(event_file, damage)
    runs, _ = everything(tmp_path)
    assert [run.name for run in runs] == ["run"]
    for layer in LogDirectory(tmp_path).history("run").layers.values():
        assert rejudge(layer, Thresholds(dead_examples=500))[0].shape == layer.states().shape


def value(tag: str, content: bytes, tensor: TensorProto, plugin: str = PLUGIN_NAME) -> Summary.Value:
    """A value whose metadata may be anything."""
    about = SummaryMetadata(data_class=DATA_CLASS_TENSOR)
    about.plugin_data.plugin_name = plugin
    about.plugin_data.content = content
    return Summary.Value(tag=tag, tensor=tensor, metadata=about)


def append(path: pathlib.Path, *values: Summary.Value, step: int = 5) -> None:
    """Add an event to a file."""
    event = Event(step=step, wall_time=1.0, summary=Summary(value=values))
    with path.open("ab") as stream:
        stream.write(frame(event.SerializeToString()))


def text(payload: bytes) -> TensorProto:
    return TensorProto(dtype=DT_STRING, string_val=[payload])


FIRST = next(iter(LAYERS))
DEEP = b'{"version":1,"kind":"states","layer":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001
HUGE = b'{"version":1,"kind":"states","x":"' + b"a" * 2**23 + b'"}'
STATES = metadata.make(TagInfo("states", FIRST, 0, 20)).plugin_data.content
BOMB = zlib.compress(bytes(2**28), 9)
STRANGERS = {
    "no metadata": (b"", text(b"hello"), "is not strict JSON"),
    "a proto": (b"\x08\x01\x12\x05dense", text(b"hello"), "is not strict JSON"),
    "a list": (b"[1]", text(b"hello"), "not a JSON object"),
    "NaN": (b'{"version":NaN}', text(b"hello"), "NaN is no JSON number"),
    "no version": (b"{}", text(b"hello"), "has no 'version'"),
    "a later version": (b'{"version":2,"kind":"fashions"}', text(b"x"), "format version 2, .* update deadunits_tb"),
    "a version that is text": (b'{"version":"1"}', text(b"hello"), "'version' is '1', not a whole number"),
    "another kind": (b'{"version":1,"kind":"fashions"}', text(b"hello"), "'kind' is 'fashions'"),
    "deep": (DEEP, text(b"hello"), "nested too deeply|not strict JSON"),
    "huge": (HUGE, text(b"hello"), "bytes long; at most"),
    "more digits than a number has": (b'{"version":' + b"9" * 10**6 + b"}", text(b"x"), "a number of 1000000 digits"),
    "units beyond reason": (
        STATES.replace(b'"units":20', b'"units":99999999999'), text(b"x"), "'units' is 99999999999, not between",
    ),
    "no bytes of ours": (STATES, text(b"hello"), "layer 'first': 1 record left out: states"),
    "a bomb": (STATES, text(BOMB), "would unpack to more than"),
    "a bomb in the summary": (
        metadata.make(TagInfo("summary", run=RunInfo())).plugin_data.content,
        text(BOMB),
        "the run's summary: 1 record left out: a summary would unpack to more than",
    ),
    "NaN in the summary": (
        metadata.make(TagInfo("summary", run=RunInfo())).plugin_data.content,
        text(zlib.compress(b'{"step":5,"wall_time":NaN}')),
        "NaN is no JSON number",
    ),
    "numbers instead of bytes": (STATES, TensorProto(dtype=DT_FLOAT, float_val=[1.0]), "left out"),
    "a shape beyond memory": (
        STATES.replace(b'"kind":"states"', b'"kind":"statistics","statistics":["mean"]'),
        TensorProto(dtype=DT_UINT16, tensor_content=b"12"),
        "left out",
    ),
}  # fmt: skip


@contextlib.contextmanager
def modest() -> Iterator[None]:
    """Neither much memory nor much time."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize("case", STRANGERS)
def test_what_strangers_write_under_our_name_is_left_out_and_said(
    case: str, event_file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    content, tensor, sentence = STRANGERS[case]
    if case == "a shape beyond memory":
        for size in (2**20, 2**20):
            tensor.tensor_shape.dim.add(size=size)
    append(event_file, value("strange", content, tensor))
    with modest():
        (run,), notes = everything(tmp_path)
    for info, records in LAYERS.items():
        assert np.array_equal(run.layers[info.name].states, [record.states for record in records])
    assert len([note for note in notes if re.search(sentence, note)]) == 1, notes


def test_a_directory_with_nothing_but_strangers_says_what_it_holds(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    append(path, *(value(f"tag{i}", b"{}", text(b"")) for i in range(500)))
    runs, notes = everything(tmp_path)
    assert runs == []
    assert notes == ["run '.': 500 tags left out: metadata of a tag has no 'version'"]


def test_notes_have_an_end(event_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    append(event_file, *(value(f"t{i}", b'{"version":%d}' % (i + 2), text(b"")) for i in range(500)))
    _, notes = everything(tmp_path)
    assert len(notes) < 50
    assert any("more of the like" in note for note in notes)


@pytest.mark.parametrize("kind", PROVIDERS)
def test_a_strange_tag_hides_nothing(kind: str, event_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    big = TensorProto(dtype=DT_UINT16, tensor_content=b"12")
    for size in (3, 5):
        big.tensor_shape.dim.add(size=size)
    append(
        event_file,
        value("one", b"{}", text(b"")),
        value("two", b'{"version":7}', text(b"")),
        value("three", STATES, big),
        value("four", STATES, text(b"hello")),
        value("five", STATES, TensorProto(dtype=DT_FLOAT, float_val=[1.0, 2.0])),
    )
    with provider(kind, tmp_path) as source:
        reader = RunReader(source)
        assert [summary.run for summary in reader.runs(CONTEXT)] == ["run"]
        assert any("format version 7" in note for note in reader.notes(CONTEXT))
        run = reader.history("run", CONTEXT)
        for info, records in LAYERS.items():
            assert np.array_equal(run.layers[info.name].states(), [record.states for record in records])
            assert run.layers[info.name].recorded.all()
        assert [note for note in run.notes if "left out" in note]


NAMES = [
    "a/b/c",
    " two  words ",
    "größe ☠ 层",
    "<script>alert(1)</script>",
    "../../etc",
    "",
    "[red]x[/]",
    "a\x00b\x1b[2J",
    "%s{}",
]


@pytest.mark.parametrize("kind", PROVIDERS)
def test_names_are_only_names(kind: str, tmp_path: pathlib.Path) -> None:
    layers = {}
    for order, name in enumerate(NAMES):
        ((info, records),) = simulated(4, 3, name="x", order=order).items()
        layers[dataclasses.replace(info, name=name)] = [dataclasses.replace(record, layer=name) for record in records]
    write_run(tmp_path / "ru n/größe", layers)
    with provider(kind, tmp_path) as source:
        run = RunReader(source).history("ru n/größe", CONTEXT)
        assert list(run.layers) == NAMES
        assert [run.layers[name].info.name for name in NAMES] == NAMES
    assert list(everything(tmp_path)[0][0].layers) == NAMES


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_metadata_of_ours_with_anything_in_its_place_is_refused_or_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    junk = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
    kind = data.draw(st.sampled_from(["states", "statistics", "summary"]))
    info = {
        "states": TagInfo("states", FIRST, 0, 20),
        "statistics": TagInfo("statistics", FIRST, 0, 20, statistics=("mean", "std")),
        "summary": TagInfo("summary", run=RunInfo(layers=tuple(LAYERS))),
    }[kind]
    content = json.loads(metadata.make(info).plugin_data.content)
    part = data.draw(st.sampled_from([content, *(v for v in content.values() if isinstance(v, dict))]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(junk)
    directory = tmp_path_factory.mktemp("junk")
    path = write_run(directory, {FIRST: LAYERS[FIRST][:3]})
    record = LAYERS[FIRST][0]
    payload = {
        "states": text(codec.encode_states(record, 0, 20)),
        "statistics": TensorProto(dtype=DT_UINT16, tensor_content=bytes(80)),
        "summary": text(codec.encode_run(event_files.simulated_records.run_record(record))),
    }[kind]
    append(path, value("strange", json.dumps(content).encode(), payload), step=record.window.step)
    everything(directory)


def test_a_layer_that_claims_millions_of_units_costs_no_memory(tmp_path: pathlib.Path) -> None:
    path = write_run(tmp_path, LAYERS)
    vast = LayerInfo("vast", "Dense", 9, metadata.MAX_UNITS, "relu")
    ((_, records),) = simulated(10, 40).items()
    session = int("".join(path.name.split(".")[3:5]))
    about = metadata.make(TagInfo("states", vast, 0, 10, session=session)).plugin_data.content
    for record in records:
        append(path, value("vast", about, text(codec.encode_states(record, 0, 10))), step=record.window.step)
    with modest():
        directory = LogDirectory(tmp_path)
        run = directory.history(".")
        assert run.layers["first"].states().shape == (30, 20)
        assert any("to save memory" in note for note in run.notes)
        assert len(run.layers["vast"]) <= 8

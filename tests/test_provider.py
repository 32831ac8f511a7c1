"""Runs come back as they were written, through every data provider; and nothing is read twice."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import pathlib
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event

import event_files
from deadunits_tb.capture.recorder import Recorder
from deadunits_tb.errors import UnknownNameError
from deadunits_tb.metadata import RECORD_BLOCK, UNIT_BLOCK
from deadunits_tb.reading.history import LayerHistory
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.record import LayerRecord
from deadunits_tb.run_record import RunInfo
from deadunits_tb.units import UnitState
from event_files import CONTEXT, PROVIDERS, provider, simulated, write, write_run

LAYERS = {
    **simulated(30, 2 * RECORD_BLOCK + 50, name="first"),
    **simulated(7, 2 * RECORD_BLOCK + 50, name="second", order=1, seed=1),
}


class Counting(LocalDataProvider):
    """Counts how often each tag is read."""

    def __init__(self, logdir: pathlib.Path) -> None:
        self.reads: collections.Counter[str] = collections.Counter()
        super().__init__(logdir)

    def read_tensors(self, ctx: Any = None, **arguments: Any) -> Any:
        (tag,) = arguments["run_tag_filter"].tags
        self.reads[tag] += 1
        return super().read_tensors(ctx, **arguments)


def assert_same(history: LayerHistory, records: Sequence[LayerRecord]) -> None:
    assert history.steps.tolist() == [record.window.step for record in records]
    assert np.array_equal(history.states(), [record.states for record in records])
    assert np.array_equal(history.since(), [record.since for record in records])
    for index in (0, len(records) // 2, -1):
        read, written = history.record(index), records[index]
        assert read.layer == written.layer
        assert read.window == written.window
        assert read.memory.equals(written.memory)
        for column in dataclasses.fields(written.evidence):
            assert np.array_equal(getattr(read.evidence, column.name), getattr(written.evidence, column.name))
        assert read.statistics is not None
        assert written.statistics is not None
        assert read.statistics.names == written.statistics.names
        assert np.array_equal(read.statistics.values, written.statistics.values)
    for name in ("active_fraction", "update_ratio"):
        assert np.array_equal(history.statistic(name), [record.statistics.get(name) for record in records])  # type: ignore[union-attr]
    assert history.recorded.all()


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("runs")
    write_run(directory / "sweep" / "mlp", LAYERS)
    return directory


@pytest.mark.parametrize("kind", PROVIDERS)
def test_every_record_is_there(kind: str, log_dir: pathlib.Path) -> None:
    with provider(kind, log_dir) as source:
        reader = RunReader(source)
        (summary,) = reader.runs(CONTEXT)
        assert (summary.run, summary.layers, summary.records) == ("sweep/mlp", 2, 2 * RECORD_BLOCK + 50)
        run = reader.history("sweep/mlp", CONTEXT)
        assert run.version == summary.version
        assert list(run.layers) == ["first", "second"]
        assert [record.step for record in run.records] == run.layers["first"].steps.tolist()
        assert run.records[7].counts["first"] == tuple(np.bincount(run.layers["first"].states()[7], minlength=12))
        assert run.records_written == 2 * RECORD_BLOCK + 50
        for info, records in LAYERS.items():
            assert run.layers[info.name].info == info
            assert_same(run.layers[info.name], list(records))
        assert list(run.notes) == []


@pytest.mark.parametrize("kind", PROVIDERS)
def test_a_wide_layer_comes_in_ranges_of_units(kind: str, tmp_path: pathlib.Path) -> None:
    layers = simulated(UNIT_BLOCK + 1000, 3)
    write_run(tmp_path, layers)
    with provider(kind, tmp_path) as source:
        reader = RunReader(source)
        assert [summary.run for summary in reader.runs(CONTEXT)] == ["."]
        ((info, records),) = layers.items()
        assert_same(reader.history(".", CONTEXT).layers[info.name], list(records))


@pytest.mark.parametrize("kind", PROVIDERS)
def test_a_rewound_run_goes_on_from_where_it_was_taken_up(kind: str, tmp_path: pathlib.Path) -> None:
    before, after = simulated(5, 40), simulated(5, 30, seed=3)
    write_run(tmp_path / "run", before)
    recorder = Recorder(tmp_path / "run", RunInfo(layers=tuple(after)))
    write(recorder, after, first=20)
    recorder.close()
    ((_, old),), ((_, new),) = before.items(), after.items()
    taken_up = new[20].window.step
    expected = [record for record in old if record.window.step < taken_up] + list(new[20:])
    with provider(kind, tmp_path) as source:
        run = RunReader(source).history("run", CONTEXT)
        assert_same(run.layers["dense"], expected)
        assert [record.step for record in run.records] == [record.window.step for record in expected]


@pytest.mark.parametrize("kind", PROVIDERS)
def test_of_two_writers_the_later_one_wins_from_its_first_step_on(kind: str, tmp_path: pathlib.Path) -> None:
    first, second = simulated(5, 30), simulated(5, 30, seed=3)
    recorders = [Recorder(tmp_path, RunInfo(layers=tuple(layers))) for layers in (first, second)]
    for start in range(0, 30, 10):
        for recorder, layers in zip(recorders, (first, second), strict=True):
            write(recorder, layers, first=start, stop=start + 10)
    for recorder in recorders:
        recorder.close()
    begins = next(iter(second.values()))[0].window.step
    kept = [record for record in next(iter(first.values())) if record.window.step < begins]
    with provider(kind, tmp_path) as source:
        assert_same(RunReader(source).history(".", CONTEXT).layers["dense"], [*kept, *next(iter(second.values()))])


@pytest.mark.parametrize("kind", PROVIDERS)
def test_a_run_that_a_later_one_hides_is_said(kind: str, tmp_path: pathlib.Path) -> None:
    hidden, shown = simulated(5, 40), simulated(5, 30, seed=3)
    write_run(tmp_path / "run", hidden)
    write_run(tmp_path / "run", shown)
    ((_, records),) = shown.items()
    with provider(kind, tmp_path) as source:
        reader = RunReader(source)
        (summary,) = reader.runs(CONTEXT)
        run = reader.history("run", CONTEXT)
        assert summary.last_step == run.last_step == records[-1].window.step
        assert_same(run.layers["dense"], list(records))
    (note,) = run.notes
    assert re.match(
        r"an earlier run in the same directory, begun 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC, is hidden with ", note
    )
    assert note.endswith("Give each run a log directory of its own")
    if kind != "python":  # which drops them itself
        first, last = (next(iter(hidden.values()))[at].window.step for at in (0, -1))
        assert f"40 records of steps {first:,} to {last:,}: a later run began again at step {first:,}." in note


def test_runs_come_in_natural_order_by_the_directory_that_the_user_named(tmp_path: pathlib.Path) -> None:
    for name in ("run10", "run2", "a/b"):
        write_run(tmp_path / name, simulated(3, 2))
    reader = RunReader(LocalDataProvider(tmp_path))
    assert [summary.run for summary in reader.runs()] == ["a/b", "run2", "run10"]
    assert reader.notes() == []


def test_a_listing_reads_at_most_one_point_of_a_run(log_dir: pathlib.Path) -> None:
    source = Counting(log_dir)
    reader = RunReader(source)
    first, second = reader.runs(), reader.runs()
    assert first == second
    assert source.reads.total() == 1
    assert next(iter(source.reads)).startswith("summary")


def test_closed_blocks_are_never_read_again(tmp_path: pathlib.Path) -> None:
    layers = simulated(5, RECORD_BLOCK + 30)
    recorder = Recorder(tmp_path, RunInfo(layers=tuple(layers)))
    write(recorder, layers, stop=RECORD_BLOCK + 10)
    source = Counting(tmp_path)
    reader = RunReader(source)
    old = reader.history(".")
    assert len(old.layers["dense"]) == RECORD_BLOCK + 10
    old.layers["dense"].statistic("mean")
    assert set(source.reads.values()) == {1}
    assert reader.history(".") is old

    write(recorder, layers, first=RECORD_BLOCK + 10)
    source.reload()
    source.reads.clear()
    new = reader.history(".")
    assert new.version != old.version
    assert all(tag.split("/")[-1].endswith(".1") or ".1/" in tag for tag in source.reads)
    assert source.reads.total() == 2  # states and summary of the open block; its statistics were not asked for
    assert_same(new.layers["dense"], next(iter(layers.values())))
    assert len(old.layers["dense"].states()) == RECORD_BLOCK + 10
    recorder.close()


def test_threads_share_one_reading(log_dir: pathlib.Path) -> None:
    source = Counting(log_dir)
    reader = RunReader(source)
    together = threading.Barrier(8)

    def read(_: int) -> Any:
        together.wait()
        run = reader.history("sweep/mlp")
        return run, run.layers["first"].statistic("mean").sum()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read, range(8)))
    assert len({id(run) for run, _ in results}) == 1
    assert len({total for _, total in results}) == 1
    assert set(source.reads.values()) == {1}


def test_without_room_for_arrays_everything_still_comes(log_dir: pathlib.Path) -> None:
    run = RunReader(LocalDataProvider(log_dir), cache_bytes=0).history("sweep/mlp")
    for info, records in LAYERS.items():
        assert_same(run.layers[info.name], list(records))


def test_an_unknown_run_is_said_with_those_that_exist(log_dir: pathlib.Path) -> None:
    reader = RunReader(LocalDataProvider(log_dir))
    with pytest.raises(UnknownNameError, match=r"there is no run 'sweep/mpl'. Did you mean 'sweep/mlp'\?"):
        reader.history("sweep/mpl")
    with pytest.raises(UnknownNameError):
        reader.history("sweep/mlp/dead_units")


def test_a_run_that_is_gone_is_forgotten(tmp_path: pathlib.Path) -> None:
    path = write_run(tmp_path / "run", simulated(3, 2))
    source = LocalDataProvider(tmp_path)
    reader = RunReader(source)
    assert reader.history("run").layers
    path.unlink()
    source.reload()
    assert reader.runs() == []
    with pytest.raises(UnknownNameError):
        reader.history("run")


def test_a_missing_range_of_units_is_unknown_and_said(tmp_path: pathlib.Path) -> None:
    layers = simulated(UNIT_BLOCK + 10, 3)
    path = write_run(tmp_path, layers)

    def without_the_second(event: Event) -> list[Event]:
        kept = [value for value in event.summary.value if f"/{UNIT_BLOCK}/" not in value.tag]
        del event.summary.value[:]
        event.summary.value.extend(kept)
        return [event]

    event_files.rewrite(path, without_the_second)
    run = RunReader(LocalDataProvider(tmp_path)).history(".")
    layer, ((_, records),) = run.layers["dense"], layers.items()
    assert np.array_equal(layer.states()[:, :UNIT_BLOCK], [record.states[:UNIT_BLOCK] for record in records])
    assert (layer.states()[:, UNIT_BLOCK:] == UnitState.UNKNOWN).all()
    assert layer.evidence(-1).last_active_step[UNIT_BLOCK:].tolist() == [-1] * 10
    assert not layer.recorded.any()
    assert layer.statistic_at(-1) is None
    assert list(run.notes) == [f"layer 'dense': nothing is known of units {UNIT_BLOCK:,} to {UNIT_BLOCK + 9:,}"]

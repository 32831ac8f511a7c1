"""What is recorded is in the file: all of it, within the budget, and never at the cost of the training."""

import dataclasses
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.data.provider import RunTagFilter

import event_files
import simulated_records
from deadunits_tb import codec, metadata
from deadunits_tb.capture import recorder as recorder_module
from deadunits_tb.capture.record_file import RecordFile
from deadunits_tb.capture.recorder import Recorder
from deadunits_tb.errors import LogDirectoryError
from deadunits_tb.metadata import PLUGIN_NAME, RECORD_BLOCK, UNIT_BLOCK
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.run_record import RunInfo, RunRecord
from deadunits_tb.units import STATISTICS
from test_event_file import room_for

ALL = 10**9


def records_of(units, records, **options):
    return list(simulated_records.simulate(units, records, **options))


def write(recorder, records, infos=None):
    """Hand over records as fast as they are taken."""
    infos = infos or {"dense": simulated_records.layer(records[0].units)}
    for record in records:
        recorder.write(simulated_records.run_record(record), [record], infos)
        recorder.flush()


def points(provider, run="dead_units"):
    """Kind to tag infos and points, in order of blocks."""
    listed = provider.list_tensors(event_files.CONTEXT, experiment_id="", plugin_name=PLUGIN_NAME)[run]
    found = defaultdict(list)
    for tag, series in listed.items():
        info = metadata.parse(series.plugin_content)
        wanted = RunTagFilter(runs=[run], tags=[tag])
        data = provider.read_tensors(
            event_files.CONTEXT, experiment_id="", plugin_name=PLUGIN_NAME, downsample=ALL, run_tag_filter=wanted
        )
        found[info.kind].append((info, data[run][tag]))
    for tags in found.values():
        tags.sort(key=lambda pair: (pair[0].session, pair[0].block, pair[0].unit_start))
    return found


@pytest.mark.parametrize("kind", event_files.PROVIDERS)
def test_a_thousand_records_written_are_a_thousand_records_read(kind, tmp_path):
    info, records = next(iter(event_files.simulated(48, 1000).items()))
    event_files.write_run(tmp_path, {info: records}, RunInfo(layers=(info,), framework="numpy"))
    with event_files.provider(kind, tmp_path) as provider:
        found = points(provider)
    for tags in found.values():
        assert [len(data) for _, data in tags] == [256, 256, 256, 232]
        assert [point.step for _, data in tags for point in data] == [record.window.step for record in records]
    states = [codec.decode_states(point.numpy.item(), tag.units) for tag, data in found["states"] for point in data]
    for block, record in zip(states, records, strict=True):
        np.testing.assert_array_equal(block.states, record.states)
        assert block.memory.equals(record.memory)
        assert block.window == record.window
    numbers = [
        codec.decode_statistics(point.numpy, tag.statistics, tag.units)
        for tag, data in found["statistics"]
        for point in data
    ]
    for statistics, record in zip(numbers, records, strict=True):
        assert statistics.names == record.statistics.names == tuple(s.name for s in STATISTICS)
        np.testing.assert_array_equal(statistics.values, record.statistics.values)
    tag, data = found["summary"][0]
    assert tag.run.framework == "numpy"
    assert codec.decode_run(data[9].numpy.item(), [layer.name for layer in tag.run.layers]).counts == {
        "dense": tuple(np.bincount(records[9].states, minlength=12))
    }


def test_metadata_come_with_the_first_event_of_each_tag_alone(tmp_path):
    path = event_files.write_run(tmp_path, event_files.simulated(8, RECORD_BLOCK + 5))
    with_metadata = Counter(
        value.tag
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.HasField("metadata")
    )
    assert len(with_metadata) == 2 * 3 + 1  # two blocks of states, statistics and summary, and a scalar
    assert set(with_metadata.values()) == {1}


def test_a_wide_layer_is_cut_into_ranges_of_units(tmp_path):
    units = UNIT_BLOCK + 100
    (record,) = records_of(units, 1)
    with_recorder = Recorder(tmp_path, RunInfo())
    write(with_recorder, [record])
    with_recorder.close()
    found = points(LocalDataProvider(tmp_path))
    for kind in ("states", "statistics"):
        assert [(tag.unit_start, tag.unit_stop) for tag, _ in found[kind]] == [(0, UNIT_BLOCK), (UNIT_BLOCK, units)]


def test_the_dead_fraction_is_a_plain_scalar(tmp_path):
    info, records = next(iter(event_files.simulated(50, 60).items()))
    recorder = Recorder(tmp_path, RunInfo())
    event_files.write(recorder, {info: records})
    recorder.scalar("dead_units/dense", 0.25, 7)
    recorder.close()
    with event_files.provider("python", tmp_path) as provider:
        read = provider.read_scalars(event_files.CONTEXT, experiment_id="", plugin_name="scalars", downsample=ALL)
    series = read["dead_units"]["dead_units/dead_fraction"]
    assert [point.step for point in series] == [record.window.step for record in records]
    assert series[-1].value == pytest.approx(np.mean(records[-1].states == 8))
    assert [(point.step, point.value) for point in read["dead_units"]["dead_units/dense"]] == [(7, 0.25)]


def test_layers_seen_later_and_layers_of_which_more_is_learned(tmp_path):
    first, second = records_of(6, 2)
    known = simulated_records.layer(6)
    learned = dataclasses.replace(known, activation_function="gelu")
    other = simulated_records.layer(6, "later", 1)
    recorder = Recorder(tmp_path, RunInfo(layers=(known,)))
    write(recorder, [first], {"dense": known})
    later = dataclasses.replace(second, layer="later")
    infos = {"dense": learned, "later": other}
    recorder.write(simulated_records.run_record(second, later), [second, later], infos)
    recorder.close()
    found = points(LocalDataProvider(tmp_path))
    assert {tag.layer for tag, _ in found["states"]} == {known, learned, other}
    tag, data = found["summary"][0]
    names = [layer.name for layer in tag.run.layers]
    assert names == ["dense"]
    assert set(codec.decode_run(data[1].numpy.item(), names).counts) == {"dense", "later"}


@pytest.mark.parametrize("share", [0.3, 0.1, 0.03])
def test_statistics_thin_out_so_that_the_run_stays_within_its_budget(tmp_path, share):
    records = records_of(200, 300)
    full = sum(2 * record.statistics.values.size for record in records) * 2048 // len(records)
    states = sum(len(codec.encode_states(record, 0, 200)) + 500 for record in records) * 2048 // len(records)
    budget = int(full * share) + states
    recorder = Recorder(tmp_path, RunInfo(), max_bytes=budget)
    write(recorder, records)
    recorder.close()
    found = points(LocalDataProvider(tmp_path))
    kept = [point.step // 80 - 1 for _, data in found["statistics"] for point in data]
    assert kept[0] == 0
    assert 3 <= len(kept) < len(records)
    gaps = np.diff(kept)
    assert (np.diff(gaps) >= 0).all()  # it only ever becomes sparser
    assert set(gaps.tolist()) <= {1, 2, 4, 8, 16, 32, 64, 128}
    assert recorder.statistics_interval == gaps[-1] or recorder.statistics_interval > len(records) - kept[-1]
    assert sum(len(data) for _, data in found["states"]) == len(records)
    assert recorder.bytes_written == sum(path.stat().st_size for path in (tmp_path / "dead_units").iterdir())
    assert not recorder.failures
    said = [codec.decode_run(point.numpy.item(), ["dense"]) for _, data in found["summary"] for point in data]
    assert said[-1].statistics_interval == recorder.statistics_interval


def test_an_ample_budget_thins_nothing(tmp_path):
    records = records_of(20, 30)
    recorder = Recorder(tmp_path, RunInfo())
    write(recorder, records)
    recorder.close()
    assert recorder.statistics_interval == 1
    assert [len(data) for _, data in points(LocalDataProvider(tmp_path))["statistics"]] == [30]


def test_when_the_budget_is_used_up_states_end_before_summaries(tmp_path):
    budget = 60_000
    recorder = Recorder(tmp_path, RunInfo(), max_bytes=budget)
    write(recorder, records_of(100, 600))
    recorder.close()
    found = points(LocalDataProvider(tmp_path))
    states, summaries = (sum(len(data) for _, data in found[kind]) for kind in ("states", "summary"))
    assert "statistics" not in found
    assert 0 < states < summaries < 600
    assert recorder.bytes_written <= budget
    assert recorder.dropped == 600 - summaries
    assert recorder.failures == (
        "the budget of 60,000 bytes is used up: only summaries are recorded from now on",
        f"cannot write to {str(tmp_path / 'dead_units')!r}: "
        "the budget of 60,000 bytes is used up: nothing more is recorded",
    )


def test_the_budget_counts_what_earlier_sessions_wrote(tmp_path):
    for _ in range(2):
        recorder = Recorder(tmp_path, RunInfo(), max_bytes=10**6)
        write(recorder, records_of(10, 3))
        recorder.close()
    assert recorder.bytes_written == sum(path.stat().st_size for path in (tmp_path / "dead_units").iterdir())


def test_a_full_disk_costs_records_and_nothing_else(tmp_path):
    records = records_of(30, 20)
    recorder = Recorder(tmp_path, RunInfo())
    write(recorder, records[:8])
    with room_for(recorder.bytes_written + 700):
        write(recorder, records[8:14])
    write(recorder, records[14:])
    recorder.close()
    assert recorder.dropped == 6
    (failure,) = recorder.failures
    assert failure == f"cannot write to {str(tmp_path / 'dead_units')!r}: File too large"
    provider = LocalDataProvider(tmp_path)
    assert provider.notes == []
    steps = [record.window.step for record in records[:8] + records[14:]]
    found = points(provider)
    for tags in found.values():
        assert [point.step for _, data in tags for point in data] == steps
    assert codec.decode_run(found["summary"][0][1][-1].numpy.item(), ["dense"]).dropped == 6


def test_a_log_directory_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogDirectoryError, match=r"cannot write to log directory '.*dead_units'"):
        Recorder(tmp_path / "file", RunInfo())


def test_nothing_is_left_of_a_recorder_that_recorded_nothing(tmp_path):
    Recorder(tmp_path, RunInfo()).close()
    assert not list((tmp_path / "dead_units").iterdir())


def test_training_does_not_wait_for_a_disk_that_does_not_answer(tmp_path, monkeypatch):
    answers = threading.Event()
    write_through = RecordFile.write

    def wait(self, *arguments):
        answers.wait()
        return write_through(self, *arguments)

    monkeypatch.setattr(RecordFile, "write", wait)
    (record,) = records_of(10, 1)
    recorder = Recorder(tmp_path, RunInfo())
    start = time.perf_counter()
    for step in range(recorder_module.QUEUE_RECORDS + 20):
        recorder.write(RunRecord(step, 1.0, 1, 1, 1), [record], {"dense": simulated_records.layer(10)})
    assert time.perf_counter() - start < 5
    lost = recorder.dropped
    assert 19 <= lost <= 20  # one is in the hands of the thread
    assert recorder.failures == (
        f"records come faster than {str(tmp_path / 'dead_units')!r} takes them: some are lost",
    )
    answers.set()
    recorder.close()
    summaries = [point.step for _, data in points(LocalDataProvider(tmp_path))["summary"] for point in data]
    assert summaries == list(range(len(summaries)))
    assert len(summaries) + lost == recorder_module.QUEUE_RECORDS + 20


def test_waiting_records_hold_a_bounded_amount_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "QUEUE_BYTES", 10_000)
    answers = threading.Event()
    monkeypatch.setattr(RecordFile, "write", lambda *_: answers.wait() and None)
    (record,) = records_of(50, 1)  # 8,400 bytes
    recorder = Recorder(tmp_path, RunInfo())
    for _ in range(5):
        recorder.write(simulated_records.run_record(record), [record], {})
    assert recorder.dropped >= 3
    answers.set()
    recorder.close()


def test_whatever_goes_wrong_while_encoding_is_said_once(tmp_path):
    (record,) = records_of(5, 1)
    wrong = dataclasses.replace(record, layer="nobody knows it")
    recorder = Recorder(tmp_path, RunInfo())
    infos = {"dense": simulated_records.layer(5)}
    for one in (record, wrong, wrong):
        recorder.write(simulated_records.run_record(record), [one], infos)
    recorder.close()
    assert recorder.dropped == 2
    assert len(recorder.failures) == 1
    assert "nobody knows it" in recorder.failures[0]
    assert [len(data) for _, data in points(LocalDataProvider(tmp_path))["states"]] == [1]


def test_after_close_nothing_is_recorded_and_nothing_raised(tmp_path):
    (record,) = records_of(5, 1)
    recorder = Recorder(tmp_path, RunInfo())
    write(recorder, [record])
    recorder.close()
    recorder.close()
    size = recorder.bytes_written
    start = time.perf_counter()
    write(recorder, [record])
    recorder.scalar("tag", 1.0, 1)
    recorder.flush()
    assert time.perf_counter() - start < 5
    assert recorder.bytes_written == size


def run_script(body, log_dir):
    """A fresh Python that records ten records, and then ends as the body says."""
    script = """
        import os, signal, sys
        sys.path.insert(0, {tests!r})
        import simulated_records
        from deadunits_tb.capture.recorder import Recorder
        from deadunits_tb.run_record import RunInfo

        recorder = Recorder({log_dir!r}, RunInfo())
        records = list(simulated_records.simulate(20, 30))
        def write(some):
            for record in some:
                recorder.write(simulated_records.run_record(record), [record], {{"dense": simulated_records.layer(20)}})
        write(records[:10])
    """
    source = textwrap.dedent(script).format(tests=str(event_files.pathlib.Path(__file__).parent), log_dir=str(log_dir))
    return subprocess.run([sys.executable, "-c", source + textwrap.dedent(body)], timeout=120, check=False)


def summaries(log_dir):
    return [point.step // 80 for _, data in points(LocalDataProvider(log_dir))["summary"] for point in data]


def test_at_exit_everything_is_written(tmp_path):
    assert run_script("", tmp_path).returncode == 0
    assert summaries(tmp_path) == list(range(1, 11))


def test_what_was_flushed_survives_a_kill(tmp_path):
    run_script("recorder.flush(); os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert summaries(tmp_path) == list(range(1, 11))


def test_a_forked_child_writes_nothing(tmp_path):
    body = """
        child = os.fork()
        write(records[10:])
        recorder.flush()
        recorder.close()
        if child == 0:
            sys.exit(0)  # through all exit handlers
        assert os.waitpid(child, 0)[1] == 0
    """
    assert run_script(body, tmp_path).returncode == 0
    assert summaries(tmp_path) == list(range(1, 31))
    assert LocalDataProvider(tmp_path).notes == []


def test_urls_are_flushed_by_time_and_at_the_end(monkeypatch):
    pytest.importorskip("tensorflow")
    url = "ram://recorder/mlp"
    records = records_of(5, 6)
    recorder = Recorder(url, RunInfo())
    write(recorder, records)
    recorder.close()
    assert recorder.failures == ()
    provider = LocalDataProvider("ram://recorder")
    assert [run.run_name for run in provider.list_runs()] == ["mlp/dead_units"]
    assert [len(data) for _, data in points(provider, "mlp/dead_units")["states"]] == [6]

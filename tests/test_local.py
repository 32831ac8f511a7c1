"""The local provider says what TensorBoard's own says of whole files, and of damaged ones shows what can be shown."""

import io
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_UNKNOWN
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING, DT_UINT16
from tensorboard.data.provider import RunTagFilter

import event_files
from deadunits_tb.capture.recorder import Recorder
from deadunits_tb.errors import InvalidArgumentError, LogDirectoryError
from deadunits_tb.metadata import PLUGIN_NAME, TagInfo, make
from deadunits_tb.reading import event_directory
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.run_record import RunInfo
from deadunits_tb.tfrecord import frame, read_frames

ALL = 10**9


def tensors(provider, downsample=ALL, **chosen):
    """Everything that can be read, in a form that compares."""
    wanted = RunTagFilter(**chosen) if chosen else None
    arguments = {"experiment_id": "", "plugin_name": PLUGIN_NAME, "run_tag_filter": wanted}
    read = provider.read_tensors(event_files.CONTEXT, downsample=downsample, **arguments)
    return {
        run: {tag: [(p.step, p.wall_time, p.numpy.dtype, p.numpy.tolist()) for p in data] for tag, data in tags.items()}
        for run, tags in read.items()
    }


def steps(provider):
    """Run to tag to steps."""
    return {run: {tag: [p[0] for p in data] for tag, data in tags.items()} for run, tags in tensors(provider).items()}


def event(step=1, tag="tag", *, mine=True, wall_time=1.0, **tensor):
    """A framed event of a stranger, by default one that we could have written."""
    message = Event(step=step, wall_time=wall_time)
    value = message.summary.value.add(tag=tag)
    if mine:
        value.metadata.CopyFrom(make(TagInfo("summary", run=RunInfo())))
    for size in tensor.pop("shape", ()):
        value.tensor.tensor_shape.dim.add(size=size)
    value.tensor.MergeFrom(TensorProto(**(tensor or {"dtype": DT_STRING, "string_val": [b"payload"]})))
    return frame(message.SerializeToString())


def put(directory: pathlib.Path, *frames: bytes, name="events.out.tfevents.1") -> pathlib.Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    with path.open("ab") as stream:
        stream.write(b"".join(frames))
    return path


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory) -> pathlib.Path:
    """Two runs, one of them resumed, and the log directory itself a run."""
    top = tmp_path_factory.mktemp("logs")
    for at, run in enumerate(("", "a", "b/c d ü")):
        event_files.write_run(top / run, event_files.simulated(9, 30, seed=at))
    recorder = Recorder(top / "a", RunInfo())
    event_files.write(recorder, event_files.simulated(9, 40, seed=5), first=30)
    recorder.close()
    return top


def test_it_says_what_tensorboards_own_provider_says(log_dir):
    mine = LocalDataProvider(log_dir)
    assert mine.notes == []
    with event_files.provider("python", log_dir) as theirs:
        assert tensors(mine) == tensors(theirs)
        some = {"runs": ["a/dead_units"], "tags": list(tensors(mine)["a/dead_units"])[:2]}
        assert tensors(mine, **some) == tensors(theirs, **some)
        assert len(tensors(mine, **some)["a/dead_units"]) == 2
        listed = [
            provider.list_tensors(event_files.CONTEXT, experiment_id="", plugin_name=PLUGIN_NAME)
            for provider in (mine, theirs)
        ]
        assert listed[0] == listed[1]
        runs = [list(p.list_runs(event_files.CONTEXT, experiment_id="")) for p in (mine, theirs)]
        names = [{run.run_name: run.start_time for run in some} for some in runs]
        assert names[0] == names[1]
        assert set(names[0]) == {"dead_units", "a/dead_units", "b/c d ü/dead_units"}


def test_other_plugins_have_nothing_here(log_dir):
    provider = LocalDataProvider(log_dir)
    assert provider.list_tensors(plugin_name="histograms") == {}
    assert provider.read_tensors(plugin_name="histograms", downsample=5) == {}
    assert provider.list_scalars(plugin_name="scalars") == {}
    assert provider.list_plugins() == [PLUGIN_NAME]
    assert provider.experiment_metadata().data_location == str(log_dir)


@pytest.mark.parametrize("downsample", [0, 1, 2, 7, 29, 30, 31])
def test_downsampling_keeps_the_last_point_and_is_the_same_for_tags_with_the_same_steps(log_dir, downsample):
    provider = LocalDataProvider(log_dir)
    whole, sampled = tensors(provider)["dead_units"], tensors(provider, downsample)["dead_units"]
    for tag, data in sampled.items():
        assert len(data) == min(downsample, 30)
        assert [point for point in whole[tag] if point in data] == data
        assert data[-1:] == (whole[tag][-1:] if downsample else [])
    assert len({tuple(point[0] for point in data) for data in sampled.values()}) == 1


@pytest.mark.parametrize("downsample", [None, -1, 1.5, "5"])
def test_downsample_must_be_a_number_of_points(log_dir, downsample):
    with pytest.raises(InvalidArgumentError, match="downsample must be a number of points"):
        LocalDataProvider(log_dir).read_tensors(plugin_name=PLUGIN_NAME, downsample=downsample)


def test_a_growing_run_is_read_on_from_where_it_was(tmp_path, monkeypatch):
    layers = event_files.simulated(9, 30)
    recorder = Recorder(tmp_path, RunInfo())
    event_files.write(recorder, layers, stop=20)
    provider = LocalDataProvider(tmp_path)
    before = recorder.bytes_written
    read = []

    def noting(stream, start, size):
        read.append(start)
        return read_frames(stream, start, size)

    monkeypatch.setattr(event_directory, "read_frames", noting)
    provider.reload()
    assert read == []  # nothing has changed: no file is opened
    event_files.write(recorder, layers, first=20)
    recorder.close()
    provider.reload()
    assert read == [before]
    assert tensors(provider) == tensors(LocalDataProvider(tmp_path))


def test_a_run_that_is_gone_is_gone_and_a_new_one_is_there(tmp_path):
    event_files.write_run(tmp_path / "one", event_files.simulated(4, 3))
    provider = LocalDataProvider(tmp_path)
    (tmp_path / "one").rename(tmp_path / "two")
    provider.reload()
    assert list(steps(provider)) == ["two/dead_units"]


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = put(tmp_path, event(1), event(2), event(3))
    provider = LocalDataProvider(tmp_path)
    path.write_bytes(event(7))
    provider.reload()
    assert steps(provider) == {".": {"tag": [7]}}


def test_an_older_file_that_turns_up_later_takes_its_place(tmp_path):
    put(tmp_path, event(5), name="events.out.tfevents.2")
    provider = LocalDataProvider(tmp_path)
    put(tmp_path, event(4), event(5, string_val=[b"older"], dtype=DT_STRING), name="events.out.tfevents.1")
    provider.reload()
    assert [(p[0], p[3]) for p in tensors(provider)["."]["tag"]] == [(4, b"payload"), (5, b"payload")]


def test_of_points_at_one_step_the_last_wins(tmp_path):
    put(tmp_path, event(1), event(2), event(2, dtype=DT_STRING, string_val=[b"last"]))
    assert [(p[0], p[3]) for p in tensors(LocalDataProvider(tmp_path))["."]["tag"]] == [(1, b"payload"), (2, b"last")]


def test_what_a_later_session_makes_void_is_kept_as_by_the_data_server(tmp_path):
    event_files.write_run(tmp_path, event_files.simulated(9, 30))
    event_files.write_run(tmp_path, event_files.simulated(9, 20))
    mine = LocalDataProvider(tmp_path)
    assert {len(data) for data in tensors(mine)["dead_units"].values()} == {30, 20}
    with event_files.provider("rust", tmp_path) as theirs:
        assert tensors(mine) == tensors(theirs)


def test_tags_under_our_name_that_are_not_marked_as_tensors_are_said(tmp_path):
    def unmarked(tag):
        message = Event.FromString(next(read_frames(io.BytesIO(event(1, tag)), 0, 10**6)).payload)
        message.summary.value[0].metadata.data_class = DATA_CLASS_UNKNOWN
        return frame(message.SerializeToString())

    path = put(tmp_path, unmarked("a"), event(1), unmarked("b"), unmarked("b"), event(2, "other", mine=False))
    provider = LocalDataProvider(tmp_path)
    assert steps(provider) == {".": {"tag": [1]}}
    assert provider.notes == [
        f"{path}: 2 tags under our plugin's name not marked as tensors (data_class) were left out, as by TensorBoard"
    ]
    with event_files.provider("python", tmp_path) as theirs:
        assert steps(theirs) == {".": {"tag": [1]}}


def test_the_metadata_of_a_tag_are_those_of_its_first_point(tmp_path):
    put(tmp_path, event(1, mine=False), event(2))
    put(tmp_path / "run", event(1), event(2, mine=False))
    assert steps(LocalDataProvider(tmp_path)) == {"run": {"tag": [1, 2]}}


STRANGE = {
    "numbers": {"dtype": DT_FLOAT, "float_val": [1.0]},
    "two strings": {"dtype": DT_STRING, "string_val": [b"a", b"b"], "shape": (2,)},
    "no string": {"dtype": DT_STRING},
    "a shape of terabytes": {"dtype": DT_UINT16, "tensor_content": b"ab", "shape": (2**20, 2**20)},
    "a shape of less than nothing": {"dtype": DT_UINT16, "tensor_content": b"ab", "shape": (-1, -1)},
    "one dimension": {"dtype": DT_UINT16, "tensor_content": b"ab", "shape": (1,)},
    "too few bytes": {"dtype": DT_UINT16, "tensor_content": b"abc", "shape": (1, 2)},
    "no time": {"wall_time": float("nan")},
    "a step before the first": {"step": -5},
}


@pytest.mark.parametrize("tensor", STRANGE.values(), ids=STRANGE)
def test_tensors_of_strangers_under_our_name_are_left_out_and_counted(tmp_path, tensor):
    path = put(tmp_path, event(1), event(**{"step": 2, **tensor}), event(3))
    provider = LocalDataProvider(tmp_path)
    assert steps(provider) == {".": {"tag": [1, 3]}}
    assert provider.notes == [f"{path}: 1 tensors under our plugin's name were not written by us and were left out"]


@pytest.mark.parametrize("cut", [1, 11, 12, 13, 40])
def test_a_cut_tail_is_said_and_read_when_it_is_whole(tmp_path, cut):
    tail = event(2)
    path = put(tmp_path, event(1), tail[:cut])
    provider = LocalDataProvider(tmp_path)
    assert steps(provider) == {".": {"tag": [1]}}
    (note,) = provider.notes
    assert note == f"{path}: the last {cut} bytes are no whole record: still being written, or cut off"
    put(tmp_path, tail[cut:])
    provider.reload()
    assert steps(provider) == {".": {"tag": [1, 2]}}
    assert provider.notes == []


def test_a_damaged_record_hides_no_other(tmp_path):
    damaged = bytearray(event(2))
    damaged[20] ^= 1
    path = put(tmp_path, event(1), bytes(damaged), event(3))
    provider = LocalDataProvider(tmp_path)
    assert steps(provider) == {".": {"tag": [1, 3]}}
    assert provider.notes == [f"{path}: 1 damaged records were left out"]


def test_a_record_that_is_no_event_hides_no_other(tmp_path):
    """With a checksum that is right: it kills TensorBoard's own Python loader, for all runs."""
    put(tmp_path, event(1), frame(b"\xff\xff\xffgarbage"), event(3))
    provider = LocalDataProvider(tmp_path)
    assert steps(provider) == {".": {"tag": [1, 3]}}
    assert "1 damaged records" in provider.notes[0]


def test_behind_a_damaged_length_the_file_ends_and_others_go_on(tmp_path):
    damaged = bytearray(event(2))
    damaged[0] ^= 1
    path = put(tmp_path / "one", event(1), bytes(damaged), event(3))
    put(tmp_path / "two", event(1), event(2))
    provider = LocalDataProvider(tmp_path)
    assert steps(provider) == {"one": {"tag": [1]}, "two": {"tag": [1, 2]}}
    note = f"{path}: the record at byte {len(event(1))} does not say how long it is: what follows is lost"
    assert provider.notes == [note]
    put(tmp_path / "one", event(4))
    provider.reload()
    assert steps(provider)["one"] == {"tag": [1]}
    assert provider.notes == [note]


@given(st.data())
@settings(max_examples=60)
def test_no_damage_raises(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("damaged")
    whole = bytearray(event(1) + event(2) + event(3, dtype=DT_UINT16, tensor_content=b"abcd", shape=(1, 2)))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    put(directory, bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    provider = LocalDataProvider(directory)
    for tags in steps(provider).values():
        for found in tags.values():
            assert found == sorted(set(found))


def test_files_that_are_no_event_files_are_not_opened(tmp_path):
    put(tmp_path, b"not an event file", name="notes.txt")
    put(tmp_path, b"", name="events.out.tfevents.1.profile-empty")
    provider = LocalDataProvider(tmp_path)
    assert list(provider.list_runs()) == []
    assert provider.notes == []


def test_a_file_that_is_not_there_after_all_is_said_and_read_later(tmp_path):
    put(tmp_path / "whole", event(1))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "events.out.tfevents.1").symlink_to(tmp_path / "later")
    provider = LocalDataProvider(tmp_path)
    assert list(steps(provider)) == ["whole"]
    (note,) = provider.notes
    assert "linked/events.out.tfevents.1: cannot be read: " in note
    assert "No such file" in note
    put(tmp_path, event(1), name="later")
    provider.reload()
    assert set(steps(provider)) == {"linked", "whole"}
    assert provider.notes == []


def test_a_file_that_fails_while_it_is_read_is_said_and_tried_again(tmp_path, monkeypatch):
    path = put(tmp_path, event(1))
    with monkeypatch.context() as patched:
        patched.setattr(event_directory, "_open", lambda *_: (_ for _ in ()).throw(OSError("the server has gone")))
        provider = LocalDataProvider(tmp_path)
    assert provider.notes == [f"{path}: cannot be read: the server has gone"]
    provider.reload()
    assert steps(provider) == {".": {"tag": [1]}}
    assert provider.notes == []


def test_links_to_runs_are_followed_and_circles_are_not(tmp_path):
    put(tmp_path / "logs" / "run", event(1))
    put(tmp_path / "elsewhere", event(2))
    (tmp_path / "logs" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "logs" / "run" / "circle").symlink_to(tmp_path / "logs")
    assert steps(LocalDataProvider(tmp_path / "logs")) == {"linked": {"tag": [2]}, "run": {"tag": [1]}}


def test_a_log_directory_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogDirectoryError, match=r"'.*nowhere' does not exist"):
        LocalDataProvider(tmp_path / "nowhere")
    with pytest.raises(LogDirectoryError, match="is a file: give its directory"):
        LocalDataProvider(tmp_path / "file")
    with pytest.raises(LogDirectoryError):
        LocalDataProvider("unknown-scheme://somewhere")


def test_an_empty_log_directory_is_no_error(tmp_path):
    provider = LocalDataProvider(tmp_path)
    assert (provider.notes, list(provider.list_runs()), tensors(provider)) == ([], [], {})


def test_urls_go_through_tensorboards_file_layer():
    pytest.importorskip("tensorflow")
    recorder = Recorder("ram://local/a/b", RunInfo())
    layers = event_files.simulated(4, 6)
    event_files.write(recorder, layers, stop=3)
    provider = LocalDataProvider("ram://local/")
    assert list(steps(provider)) == ["a/b/dead_units"]
    event_files.write(recorder, layers, first=3)
    recorder.close()
    provider.reload()
    assert {len(found) for found in steps(provider)["a/b/dead_units"].values()} == {6}
    with pytest.raises(LogDirectoryError, match="does not exist"):
        LocalDataProvider("ram://nowhere")


def test_records_come_as_arrays_of_their_own(log_dir):
    provider = LocalDataProvider(log_dir)
    for data in provider.read_tensors(plugin_name=PLUGIN_NAME, downsample=2)["dead_units"].values():
        for point in data:
            assert isinstance(point.numpy, np.ndarray)
            assert point.numpy.dtype in (np.dtype(object), np.dtype(np.uint16))

"""Event files are unique, begin with their session, and hold whole records whatever the disk does."""

import contextlib
import os
import resource

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.util.tensor_util import make_ndarray

from deadunits_tb.capture.event_file import EventFile, scalar_metadata, value_event
from deadunits_tb.errors import LogDirectoryError
from deadunits_tb.metadata import TagInfo, make
from deadunits_tb.run_record import RunInfo


@pytest.fixture
def new_file():
    """Make an event file that is closed after the test."""
    with contextlib.ExitStack() as stack:

        def make_file(directory) -> EventFile:
            file = EventFile(str(directory))
            stack.callback(file.close)
            return file

        yield make_file


def events(path):
    return list(LegacyEventFileLoader(str(path)).Load())


@contextlib.contextmanager
def room_for(file_bytes):
    """No file may grow beyond so many bytes: what a full disk does, to half of a record and all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_begins_with_its_version_and_its_session(tmp_path):
    file = EventFile(str(tmp_path / "run"))
    file.start(40, 5.0)
    file.start(50, 6.0)
    file.write(value_event(40, 7.0, "tag", 0.5, scalar_metadata()))
    file.close()
    version, start, value = events(file.path)
    assert version.file_version == "brain.Event:2"
    assert (start.session_log.status, start.step, start.wall_time) == (SessionLog.START, 40, 5.0)
    assert (value.step, value.wall_time, value.summary.value[0].tag) == (40, 7.0, "tag")


@pytest.mark.parametrize(
    "value",
    [b"bytes\0of\xffall kinds", np.arange(6, dtype=np.uint16).reshape(2, 3), 0.25],
    ids=["bytes", "bits", "number"],
)
def test_tensorboard_reads_each_kind_of_value(tmp_path, value):
    file = EventFile(str(tmp_path))
    metadata = make(TagInfo("summary", run=RunInfo()))
    file.start(1, 1.0)
    file.write(value_event(1, 1.0, "tag", value, metadata))
    file.write(value_event(2, 1.0, "tag", value, None))
    file.close()
    *_, first, second = events(file.path)
    assert first.summary.value[0].metadata == metadata
    assert not second.summary.value[0].HasField("metadata")
    np.testing.assert_array_equal(make_ndarray(second.summary.value[0].tensor), np.array(value))


def test_names_are_unique_and_sort_by_time(tmp_path, new_file):
    files = [new_file(tmp_path) for _ in range(5)]
    paths = [file.path for file in files]
    assert paths == sorted(set(paths))
    assert all("tfevents" in path for path in paths)
    assert [file.session for file in files] == sorted({file.session for file in files})


def test_a_session_comes_after_all_earlier_ones_even_if_the_clock_went_back(tmp_path, new_file):
    (tmp_path / "events.out.tfevents.4000000000.000007.host.1").write_bytes(b"")
    later = new_file(tmp_path)
    assert later.session == 4_000_000_000_000_008
    assert "4000000000.000008" in later.path


def test_what_was_there_before_is_counted_and_left_alone(tmp_path):
    before = tmp_path / "events.out.tfevents.1.old"
    before.write_bytes(b"12345")
    file = EventFile(str(tmp_path))
    file.start(0, 0.0)
    file.close()
    assert file.others == 5
    assert before.read_bytes() == b"12345"


def test_a_file_without_a_session_does_not_stay(tmp_path):
    EventFile(str(tmp_path)).close()
    assert not list(tmp_path.iterdir())


def test_writes_reach_the_disk_at_once(tmp_path, new_file):
    file = new_file(tmp_path)
    file.start(0, 0.0)
    file.write(value_event(1, 1.0, "tag", 1.0, None))
    assert len(events(file.path)) == 3


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_cannot_be_is_refused_at_once(tmp_path, name):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(LogDirectoryError, match=r"cannot write to log directory '.*file") as caught:
        EventFile(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_half_a_record_is_taken_back_when_the_disk_is_full(tmp_path, new_file):
    file = new_file(tmp_path)
    file.start(0, 0.0)
    size = file.size
    with room_for(size + 100), pytest.raises(OSError, match="File too large"):
        file.write(value_event(1, 1.0, "tag", bytes(1000), None))
    assert (file.size, file.broken) == (size, False)
    file.write(value_event(2, 1.0, "tag", b"fits", None))
    assert [event.step for event in events(file.path)] == [0, 0, 2]


def test_a_file_that_cannot_be_mended_is_said_to_be_broken(tmp_path, new_file):
    file = new_file(tmp_path)
    file.start(0, 0.0)
    stream = file._file._stream
    full = os.open("/dev/full", os.O_WRONLY)  # takes nothing, and cannot be cut
    os.dup2(full, stream.fileno())
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        file.write(b"data")
    assert file.broken


def test_urls_go_through_tensorboards_file_layer():
    tf = pytest.importorskip("tensorflow")
    file = EventFile("ram://event_file/run")
    file.start(3, 1.0)
    file.write(value_event(3, 1.0, "tag", b"payload", None))
    file.close()
    assert file.remote
    assert tf.io.gfile.listdir("ram://event_file/run") == [file.path.rpartition("/")[2]]
    assert [event.step for event in events(file.path)] == [0, 3, 3]
    empty = EventFile("ram://event_file/run")
    empty.close()
    assert empty.others == file.size
    assert not tf.io.gfile.exists(empty.path)

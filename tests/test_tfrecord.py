"""Frames are those of TensorBoard's own reader, and damage to one hides no other where its length is whole."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.summary.writer.record_writer import RecordWriter

from deadunits_tb.errors import FormatError
from deadunits_tb.tfrecord import frame, read_frames

payloads = st.lists(st.binary(max_size=300), max_size=5)


def read(data: bytes, start: int = 0) -> list[bytes | None]:
    stream = io.BytesIO(data)
    stream.seek(start)
    return [one.payload for one in read_frames(stream, start, len(data))]


@given(payloads)
def test_payloads_come_back(written):
    assert read(b"".join(map(frame, written))) == written


def test_frames_are_those_of_tensorboards_writer():
    stream = io.BytesIO()
    RecordWriter(stream).write(b"some payload")
    assert frame(b"some payload") == stream.getvalue()


def test_tensorboards_reader_reads_them(tmp_path):
    written = [b"", b"a", bytes(range(256)) * 100]
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(b"".join(map(frame, written)))
    assert list(RawEventFileLoader(str(path)).Load()) == written


def test_reading_goes_on_where_it_stopped():
    data = frame(b"one") + frame(b"two") + frame(b"three")
    stops = [one.stop for one in read_frames(io.BytesIO(data), 0, len(data))]
    assert stops[-1] == len(data)
    assert read(data, stops[0]) == [b"two", b"three"]


@given(payloads.filter(len), st.data())
def test_a_cut_tail_is_left_for_later(written, data):
    whole = b"".join(map(frame, written))
    cut = data.draw(st.integers(len(whole) - len(frame(written[-1])), len(whole) - 1))
    assert read(whole[:cut]) == written[:-1]


def test_a_damaged_payload_hides_no_other():
    data = bytearray(frame(b"one") + frame(b"two") + frame(b"three"))
    data[len(frame(b"one")) + 12] ^= 1
    assert read(bytes(data)) == [b"one", None, b"three"]


def test_behind_a_damaged_length_nothing_can_be_found():
    data = bytearray(frame(b"one") + frame(b"two"))
    at = len(frame(b"one"))
    data[at] ^= 1
    frames = read_frames(io.BytesIO(bytes(data)), 0, len(data))
    assert next(frames).payload == b"one"
    with pytest.raises(FormatError, match=f"the record at byte {at} does not say how long it is"):
        next(frames)

"""A second reader, written from docs/format.md alone: struct, zlib, json. It must read what the codec writes."""

import dataclasses
import itertools
import json
import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings

import event_files
import simulated_records
from deadunits_tb import codec, metadata
from deadunits_tb.codec import StatesBlock
from deadunits_tb.metadata import RECORD_BLOCK, UNIT_BLOCK, TagInfo
from deadunits_tb.record import Evidence, LayerRecord, Memory, Window
from deadunits_tb.run_record import EVENT_UNITS, MODEL_PARTS, InputSummary, ModelPart, RunEvent, RunInfo, RunRecord
from deadunits_tb.units import LayerInfo, UnitState
from test_codec import UNITS, certificates, layer_records

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
EVIDENCE = [
    "observations_since_active",
    "last_active_step",
    "examples_since_active",
    "tokens_since_active",
    "examples_without_signal",
    "reference",
]
MEMORY = ["state", "since", "pending", "pending_records", "pending_examples", "pending_since"]


def signed(number):
    return (number + 2**63) % 2**64 - 2**63


class SecondReader:
    """Reads a `states` payload with nothing but the standard library."""

    def __init__(self, payload, units):
        self.body = zlib.decompress(payload)
        fields = "step first_step wall_time examples positions observations examples_seen contiguous_examples"
        fields += " dataset_examples run_moves flags stride batch classes"
        layout = "<qqdqqqqqqdBqqI"
        self.header = dict(zip(fields.split(), struct.unpack_from(layout, self.body), strict=True))
        self.at = struct.calcsize(layout)
        classes = self.header["classes"]
        index = self.column(units)
        table = self.restore([self.column(classes) for _ in range(14)])
        assert self.at == len(self.body)
        self.columns = [[row[at] for at in index] for row in table]

    def column(self, length):
        width, low = struct.unpack_from("<Bq", self.body, self.at)
        raw = self.body[self.at + 9 : self.at + 9 + width * length]
        self.at += 9 + len(raw)
        return [signed(low + sum(raw[byte * length + i] << 8 * byte for byte in range(width))) for i in range(length)]

    def restore(self, stored):
        step, stride, batch = (self.header[name] for name in ("step", "stride", "batch"))
        rows = []
        running = 0
        for v in zip(*stored, strict=True):
            running += v[0]
            last_active = signed(step - (v[1] + stride * running))
            examples = v[2] + batch * running
            held, held_since = v[8] + v[6], step - v[9]
            if v[6] != 8:
                expected = held_since
            else:
                expected = last_active + 1 if last_active >= 0 else self.header["first_step"]
            row = [running, last_active, examples, v[3] + examples, v[4] + examples, v[5], v[6], v[7] + expected]
            row += [held, held_since, v[10] + held, v[11], v[12], step - v[13]]
            rows.append([signed(number) for number in row])
        return list(zip(*rows, strict=True))


def assert_agrees(second: SecondReader, block: StatesBlock) -> None:
    evidence, memory = second.columns[:6], second.columns[8:]
    for name, column in zip(EVIDENCE, evidence, strict=True):
        assert getattr(block.evidence, name).tolist() == column, name
    for name, column in zip(MEMORY, memory, strict=True):
        assert getattr(block.memory, name).tolist() == column, name
    assert block.states.tolist() == second.columns[6]
    assert block.since.tolist() == second.columns[7]
    for field in dataclasses.fields(Window):
        flags = {"trainable": second.header["flags"] & 1, "from_start": second.header["flags"] & 2}
        found = bool(flags[field.name]) if field.name in flags else second.header[field.name]
        assert repr(getattr(block.window, field.name)) == repr(found), field.name


@given(layer_records())
@settings(max_examples=60)
def test_the_second_reader_reads_states(record):
    payload = codec.encode_states(record, 0, record.units)
    assert_agrees(SecondReader(payload, record.units), codec.decode_states(payload, record.units))


def test_the_second_reader_reads_certificates():
    @given(certificates())
    @settings(max_examples=60)
    def reads(held):
        body = zlib.decompress(codec.encode_certificates(held, 0, UNITS))
        *header, units, length = struct.unpack_from("<qqqIH", body)
        assert header == [held.step, held.since, held.observations]
        reader = SecondReader.__new__(SecondReader)
        reader.body, reader.at = body, 30 + length
        assert body[30 : reader.at].decode() == held.reason
        columns = [reader.column(units) for _ in range(4)] if units else [[]] * 4
        assert reader.at == len(body)
        assert list(itertools.accumulate(columns[0])) == held.units.tolist()
        assert columns[1] == held.movers.tolist()
        for column, numbers in zip(columns[2:], (held.bound, held.rise), strict=True):
            assert [struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in column] == numbers.tolist()
        for unit, mover, bound, rise in zip(held.units.tolist(), *columns[1:], strict=True):
            numbers = [struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in (bound, rise)]
            word = "could recover" if numbers[1] > 0 else "dead for certain" if numbers[0] < 0 else "silent so far"
            found = held.of(unit)
            assert found.certainty.value == word
            assert found.movers == mover & 31

    reads()


def test_the_second_reader_reads_a_simulated_training():
    for record in simulated_records.simulate(60, 30, lowest_rate=0.02):
        payload = codec.encode_states(record, 0, 60)
        assert_agrees(SecondReader(payload, 60), codec.decode_states(payload, 60))


def test_the_second_reader_reads_a_file(tmp_path):
    """Frames, metadata, summary and statistics, from the bytes of the file to the numbers."""
    layers = event_files.simulated(7, 3)
    ((info, records),) = layers.items()
    data = event_files.write_run(tmp_path, layers).read_bytes()
    found, tags, at = [], {}, 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        event = event_files.Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "dead_units":
                tags[value.tag] = json.loads(value.metadata.plugin_data.content)
            if value.tag in tags:
                found.append((event.step, tags[value.tag], value.tensor))
    assert {about["version"] for _, about, _ in found} == {1}
    for kind in ("summary", "states", "statistics"):
        mine = [(step, about, tensor) for step, about, tensor in found if about["kind"] == kind]
        assert [step for step, _, _ in mine] == [record.window.step for record in records]
        for (_, about, tensor), record in zip(mine, records, strict=True):
            if kind == "summary":
                summary = json.loads(zlib.decompress(tensor.string_val[0]))
                names = [layer["name"] for layer in about["run"]["layers"]]
                assert {names[layer]: len(counts) for layer, counts in summary["counts"]} == {"dense": len(UnitState)}
                assert summary["step"] == record.window.step
                continue
            assert about["units"] == [0, 7]
            assert about["layer"] == dataclasses.asdict(info)
            if kind == "states":
                assert SecondReader(tensor.string_val[0], 7).columns[6] == record.states.tolist()
                continue
            bits = struct.unpack(f"<{len(about['statistics']) * 7}H", tensor.tensor_content)
            numbers = [struct.unpack("<f", struct.pack("<I", b << 16))[0] for b in bits]
            assert tuple(about["statistics"]) == record.statistics.names
            assert numbers == record.statistics.values.ravel().tolist()


def test_the_second_reader_reads_events():
    event = RunEvent(7, "revived", "dense", 2, (0, 5), "dead units")
    summary = json.loads(zlib.decompress(codec.encode_run(RunRecord(9, 2.0, 3, 4, 5, events=(event,)))))
    (read,) = summary["events"]
    assert read == {**dataclasses.asdict(event), "units": [0, 5]}
    assert "events" not in json.loads(zlib.decompress(codec.encode_run(RunRecord(9, 2.0, 3, 4, 5))))


def example_record() -> LayerRecord:
    """The one that the page describes in words."""

    def integers(*values):
        return np.array(values, np.int64)

    silent = integers(0, 0, 384, 0)
    evidence = Evidence(silent, silent, integers(0, 0, 6, 0), silent, integers(100, 100, 40, 100), integers(0, 0, 0, 0))
    states, zeros = integers(0, 0, 8, 0), integers(0, 0, 0, 0)
    memory = Memory(states, integers(10, 10, 90, 10), states, zeros, zeros, integers(90, 90, 90, 90))
    window = Window(100, 0, 1.7e9, 64, 64, 1, 704, run_moves=0.001)
    return LayerRecord("dense", window, None, evidence, memory, states.astype(np.uint8), integers(10, 10, 41, 10))


def test_the_example_is_what_the_codec_writes():
    block = re.search(r"### An example.*?```\n(.*?)```", PAGE, re.DOTALL)
    dumped = [re.match(r"(?:[0-9a-f]{2} {1,2})*[0-9a-f]{2}(?=   |$)", line) for line in block[1].splitlines()]
    example = bytes.fromhex("".join(match[0] for match in dumped))
    assert zlib.decompress(codec.encode_states(example_record(), 0, 4)) == example


def test_the_example_says_what_its_bytes_mean():
    block = codec.decode_states(codec.encode_states(example_record(), 0, 4), 4)
    assert block.evidence.last_active_step.tolist() == [100, 100, 40, 100]
    assert block.since.tolist() == [10, 10, 41, 10]
    assert block.memory.since.tolist() == [10, 10, 90, 10]


@pytest.mark.parametrize(
    "kind", [LayerInfo, RunInfo, ModelPart, RunRecord, RunEvent, InputSummary, Window, Evidence, Memory]
)
def test_every_field_is_described(kind):
    described = " ".join(re.findall(r"`[^`]*`", PAGE))
    for field in dataclasses.fields(kind):
        assert re.search(rf"\b{field.name}\b", described), (
            f"docs/format.md does not describe {kind.__name__}.{field.name}"
        )


def test_every_key_that_is_written_is_described():
    layer = LayerInfo("dense", "Dense", 0, 5)
    metas = [
        TagInfo("summary", run=RunInfo(layers=(layer,), model=(ModelPart("0", "Dropout", {"p": 0.5}),))),
        TagInfo("states", layer, 0, 5),
        TagInfo("statistics", layer, 0, 5, 0, ("mean",)),
    ]
    run_record = RunRecord(1, 2.0, 3, 4, 5, events=(RunEvent(1, "revived", "dense", 1, (3,), "dead"),))
    written = [json.loads(metadata.make(meta).plugin_data.content) for meta in metas]
    written += [
        written[0]["run"],
        written[0]["run"]["model"][0],
        written[1]["layer"],
        json.loads(zlib.decompress(codec.encode_run(run_record))),
    ]
    written += written[-1]["events"]
    for values in written:
        for key in values:
            assert f"`{key}`" in PAGE, f"docs/format.md does not describe {key}"


def test_numbers_and_names_on_the_page_are_those_of_the_code():
    for state in UnitState:
        assert re.search(rf"\b{state.value} {state.label}\b", PAGE)
    assert f"{UNIT_BLOCK:,} units" in PAGE
    assert f"at most {RECORD_BLOCK} records" in PAGE
    assert f"{metadata.MAX_UNITS:,}" in PAGE
    assert f"at most {MODEL_PARTS:,}, also those without units" in PAGE
    assert f"the first {EVENT_UNITS:,} of them" in PAGE
    assert f'plugin_name = "{metadata.PLUGIN_NAME}"' in PAGE

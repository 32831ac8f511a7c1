"""Records come back exactly, take few bytes, and damage is refused before it costs memory."""

import contextlib
import dataclasses
import json
import math
import statistics
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import simulated_records
from deadunits_tb import codec
from deadunits_tb.certificate import Certificates, round_up
from deadunits_tb.codec.classes import find_classes
from deadunits_tb.errors import FormatError
from deadunits_tb.record import Evidence, LayerRecord, Memory, Statistics, Window, round_bfloat16
from deadunits_tb.run_record import EVENT_UNITS, InputSummary, RunEvent, RunRecord, Skipped
from deadunits_tb.units import STATISTICS, UnitState

LOW, HIGH = -(2**63), 2**63 - 1
counts = st.integers(0, HIGH)
anywhere = st.one_of(st.integers(LOW, HIGH), st.integers(-2, 300), st.sampled_from([LOW, HIGH, 0, 2**31, 2**32]))
windows = st.builds(
    Window,
    step=anywhere,
    first_step=anywhere,
    wall_time=st.floats(allow_nan=False, allow_infinity=False),
    examples=counts,
    positions=counts,
    observations=counts,
    examples_seen=counts,
    contiguous_examples=counts,
    dataset_examples=counts,
    trainable=st.booleans(),
    run_moves=st.floats(),
    from_start=st.booleans(),
)


@st.composite
def layer_records(draw):
    units = draw(st.integers(1, 30))

    def column(elements=anywhere):
        # Units that share their values are what the codec is made for; units that do not must survive as well.
        fill = draw(st.one_of(st.none(), elements))
        fill = st.nothing() if fill is None else st.just(fill)
        return draw(st_numpy.arrays(np.int64, units, elements=elements, fill=fill))

    state = st.integers(0, len(UnitState) - 1)
    memory = Memory(column(state), column(), column(state), column(), column(), column())
    evidence = Evidence(*(column() for _ in range(6)))
    states = column(state).astype(np.uint8)
    return LayerRecord("layer", draw(windows), None, evidence, memory, states, column())


def assert_same(block: codec.StatesBlock, record: LayerRecord, units: slice = slice(None)) -> None:
    ours, theirs = dataclasses.asdict(block.window), dataclasses.asdict(record.window)
    moves = ours.pop("run_moves"), theirs.pop("run_moves")
    assert ours == theirs
    assert moves[0] == moves[1] or all(map(math.isnan, moves))
    for part in ("evidence", "memory"):
        for field in dataclasses.fields(getattr(record, part)):
            found = getattr(getattr(block, part), field.name)
            assert found.dtype == np.int64
            np.testing.assert_array_equal(found, getattr(getattr(record, part), field.name)[units], field.name)
    assert block.states.dtype == np.uint8
    np.testing.assert_array_equal(block.states, record.states[units])
    np.testing.assert_array_equal(block.since, record.since[units])


@given(layer_records())
@settings(max_examples=60)
def test_states_come_back_exactly(record):
    assert_same(codec.decode_states(codec.encode_states(record, 0, record.units), record.units), record)


@given(layer_records(), st.data())
@settings(max_examples=40)
def test_a_range_of_units_comes_back_exactly(record, data):
    start = data.draw(st.integers(0, record.units - 1))
    stop = data.draw(st.integers(start + 1, record.units))
    block = codec.decode_states(codec.encode_states(record, start, stop), stop - start)
    assert_same(block, record, slice(start, stop))


def test_simulated_training_comes_back_exactly():
    for record in simulated_records.simulate(300, 40):
        assert_same(codec.decode_states(codec.encode_states(record, 0, 300), 300), record)


def test_units_that_share_a_hash_are_not_taken_for_one(monkeypatch):
    monkeypatch.setattr("deadunits_tb.codec.classes._FACTOR", np.uint64(0))  # now all do
    columns = np.random.default_rng(0).integers(-5, 5, (14, 50)) * 2**40
    classes, index = find_classes(columns)
    np.testing.assert_array_equal(classes[:, index], columns)


@given(st_numpy.arrays(np.int64, st.tuples(st.integers(1, 14), st.integers(1, 20)), elements=anywhere))
def test_classes_hold_every_unit(columns):
    classes, index = find_classes(columns)
    np.testing.assert_array_equal(classes[:, index], columns)


@given(st_numpy.arrays(np.int64, st.tuples(st.integers(1, 14), st.integers(1, 20)), elements=st.integers(-9, 2**20)))
def test_classes_are_distinct_and_sorted(columns):
    columns[0] %= 1000
    classes, _ = find_classes(columns)
    assert classes.shape[1] == len(set(map(tuple, columns.T.tolist())))
    assert (classes[0, 1:] >= classes[0, :-1]).all()


@pytest.mark.parametrize("units", [128, 512, 4096])
def test_states_stay_within_half_a_byte_for_each_unit(units):
    """97 % healthy, last active here and there within the window; 3 % die, at random places and times."""
    records = list(simulated_records.simulate(units, 100))[50:]
    assert any(np.count_nonzero(record.states == UnitState.DEAD) for record in records)
    sizes = [len(codec.encode_states(record, 0, units)) for record in records]
    assert statistics.median(sizes) <= 0.5 * units + 120  # of the 200 bytes for a layer, the event takes 80


def test_a_healthy_layer_costs_next_to_nothing():
    *_, record = simulated_records.simulate(16384, 5, dying=0, lowest_rate=1.0)
    assert len(codec.encode_states(record, 0, 16384)) < 120


bfloats = st.floats(width=32).map(lambda value: float(round_bfloat16(np.array([value]))[0]))


@given(st.sets(st.sampled_from(STATISTICS), min_size=1), st.integers(1, 20), st.data())
def test_statistics_come_back_exactly(chosen, units, data):
    names = tuple(s.name for s in STATISTICS if s in chosen)
    values = data.draw(st_numpy.arrays(np.float32, (len(names), units), elements=bfloats))
    start = data.draw(st.integers(0, units - 1))
    bits = codec.encode_statistics(Statistics(names, values), start, units)
    assert bits.dtype == np.uint16
    assert bits.nbytes == 2 * len(names) * (units - start)
    back = codec.decode_statistics(bits, names, units - start)
    assert back.names == names
    np.testing.assert_array_equal(back.values, values[:, start:])


def test_statistics_of_a_later_version_are_left_out():
    bits = codec.encode_statistics(Statistics(("mean", "std"), np.array([[1, 2], [3, 4]], np.float32)), 0, 2)
    back = codec.decode_statistics(bits, ("of_the_future", "std"), 2)
    assert back.names == ("std",)
    np.testing.assert_array_equal(back.values, [[3, 4]])


@pytest.mark.parametrize(
    "tensor",
    [np.zeros((2, 3), np.float32), np.zeros((1, 3), np.uint16), np.zeros((2, 4), np.uint16), np.zeros(6, np.uint16)],
)
def test_statistics_of_another_type_or_shape_are_refused(tensor):
    with pytest.raises(FormatError, match=r"not uint16 \(2, 3\)"):
        codec.decode_statistics(tensor, ("mean", "std"), 3)


UNITS = 40


@st.composite
def certificates(draw):
    units = np.array(sorted(draw(st.sets(st.integers(0, UNITS - 1)))), np.int64)
    bounds = st.floats(width=32, allow_nan=False).map(lambda value: float(round_up(np.array([value]))[0]))
    numbers = [draw(st_numpy.arrays(np.float32, len(units), elements=bounds)) for _ in range(2)]
    movers = draw(st_numpy.arrays(np.uint8, len(units)))
    reason = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    return Certificates(draw(anywhere), draw(anywhere), draw(counts), units, *numbers, movers, reason)


@given(certificates(), st.integers(0, UNITS - 1))
def test_certificates_come_back_exactly_in_parts(held, cut):
    parts = [(0, cut), (cut, UNITS)] if cut else [(0, UNITS)]
    found = [
        (start, codec.decode_certificates(codec.encode_certificates(held, start, stop), stop - start))
        for start, stop in reversed(parts)
    ]
    back = Certificates.joined(found)
    for field in dataclasses.fields(Certificates):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(held, field.name), field.name)
    for unit in range(UNITS):
        assert (back.of(unit) is None) == (unit not in held.units)


@given(st_numpy.arrays(np.float64, 20, elements=st.floats()))
def test_a_bound_is_rounded_up_and_stays_near(values):
    rounded = round_up(values)
    finite = np.isfinite(values)
    assert (rounded[finite] >= values[finite]).all()
    near = finite & (np.abs(values) > 1e-30) & (np.abs(values) < 1e30)
    np.testing.assert_allclose(rounded[near], values[near], rtol=2**-7)
    assert (rounded[np.isnan(values)] == np.inf).all()
    np.testing.assert_array_equal(round_up(rounded), rounded)


@given(certificates(), st.data())
def test_damaged_certificates_are_refused(held, data):
    body = bytearray(zlib.decompress(codec.encode_certificates(held, 0, UNITS)))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        back = codec.decode_certificates(zlib.compress(bytes(body)), UNITS)
    except FormatError:
        return
    assert (np.diff(back.units) > 0).all()
    assert not len(back.units) or 0 <= back.units[0] <= back.units[-1] < UNITS
    assert not np.isnan(back.bound).any()


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
optional = st.none() | st.floats()
events = st.builds(
    RunEvent, st.integers(-1, HIGH), names, names, counts, st.lists(counts, max_size=5).map(tuple), names
)
run_records = st.builds(
    RunRecord,
    step=counts,
    wall_time=st.floats(allow_nan=False, allow_infinity=False),
    examples=counts,
    observations=counts,
    optimizer_steps=counts,
    learning_rate=optional,
    loss=optional,
    inputs=st.none() | st.builds(InputSummary, st.floats(), st.floats(), st.floats(), st.floats()),
    overhead=optional,
    overhead_seconds=st.floats(),
    opening_seconds=optional,
    interval=counts,
    records_written=counts,
    dropped=counts,
    statistics_interval=st.integers(1, HIGH),
    errors=st.lists(names, max_size=3).map(tuple),
    skipped=st.lists(st.builds(Skipped, names, names), max_size=3).map(tuple),
    counts=st.dictionaries(names, st.lists(counts, min_size=12, max_size=12).map(tuple), max_size=4),
    events=st.lists(events, max_size=3).map(tuple),
)


@given(run_records, st.lists(names, unique=True, max_size=3))
@settings(max_examples=60)
def test_a_run_record_comes_back(record, layer_names):
    back = codec.decode_run(codec.encode_run(record, layer_names), layer_names)
    assert repr(back) == repr(record)  # NaN is not equal to itself, but looks the same


def test_a_run_record_takes_whatever_number_it_is_given():
    numbers = {"loss": np.float32(0.5), "learning_rate": np.float16(0.25)}
    record = RunRecord(np.int64(3), np.float64(1), np.int32(2), 1, 1, **numbers)
    back = codec.decode_run(codec.encode_run(record))
    assert (back.step, back.loss, back.learning_rate) == (3, 0.5, 0.25)


def states_of(units=8):
    *_, record = simulated_records.simulate(units, 3, lowest_rate=0.01)
    return codec.encode_states(record, 0, units)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_format_errors(data):
    for decode in (lambda: codec.decode_states(data, 8), lambda: codec.decode_run(data)):
        with pytest.raises(FormatError):
            decode()


@given(st.data())
@settings(max_examples=200)
def test_damage_within_raises_format_errors_or_gives_states_that_can_be_judged(data):
    body = bytearray(zlib.decompress(states_of()))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.one_of(st.just(len(body)), st.integers(0, len(body))))]
    with contextlib.suppress(FormatError):
        block = codec.decode_states(zlib.compress(bytes(body)), 8)
        for codes in (block.states, block.memory.state, block.memory.pending):
            assert codes.max() < len(UnitState)
        assert math.isfinite(block.window.wall_time)


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
def test_cut_or_continued_states_are_refused(cut):
    whole = states_of()
    with pytest.raises(FormatError, match=r"^states"):
        codec.decode_states(whole[:cut], 8)
    with pytest.raises(FormatError, match="do not end where they should"):
        codec.decode_states(whole + b"x", 8)
    with pytest.raises(FormatError):
        codec.decode_states(zlib.compress(zlib.decompress(whole) + b"x"), 8)


@pytest.mark.parametrize("units", [1, 7, 9, 4096])
def test_states_of_another_number_of_units_are_refused(units):
    with pytest.raises(FormatError):
        codec.decode_states(states_of(8), units)


@pytest.mark.parametrize("decode", [lambda data: codec.decode_states(data, 8), codec.decode_run])
def test_a_bomb_is_not_unpacked(decode):
    bomb = zlib.compress(bytes(2**26))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="would unpack to more than"):
            decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step": None}, "'step' is None"),
        ({"step": -1}, "'step' is -1"),
        ({"wall_time": "NaN"}, "'wall_time' is 'NaN'"),
        ({"loss": "much"}, "'loss' is 'much'"),
        ({"inputs": [1, 2, 3]}, "'inputs' must hold lists of 4"),
        ({"inputs": {}}, "'inputs' is an object"),
        ({"errors": "one"}, "'errors' is 'one'"),
        ({"errors": [1]}, "errors"),
        ({"skipped": [["layer"]]}, "'skipped' must hold lists of 2"),
        ({"counts": [["layer", [1]]]}, "'counts' must hold lists of 12"),
        ({"counts": [["layer", [-1] * 12]]}, "-1"),
        ({"counts": [[0, [1] * 12]]}, "counts"),
        ({"counts": [[None, [1] * 12]]}, "counts"),
        ({"counts": 5}, "'counts' is 5"),
        ({"events": [{"step": 1}]}, "kind"),
        ({"events": [["revived"]]}, "an object"),
        (
            {"events": [{"step": 1, "kind": "revived", "layer": "a", "count": 1, "units": [0] * (EVENT_UNITS + 1)}]},
            "an event names 1,025 units",
        ),
    ],
)
def test_a_run_record_with_a_wrong_value_is_refused(changes, reason):
    values = json.loads(zlib.decompress(codec.encode_run(RunRecord(1, 2.0, 3, 4, 5))))
    with pytest.raises(FormatError, match=r"^a summary") as caught:
        codec.decode_run(zlib.compress(json.dumps(values | changes).encode()))
    assert reason in str(caught.value)


def test_what_watching_takes_after_the_opening() -> None:
    record = RunRecord(9, 0.0, 1, 1, 1, overhead=0.03, overhead_seconds=3.0, opening_seconds=2.0)
    assert record.steady_overhead == pytest.approx(1 / 98)
    assert dataclasses.replace(record, opening_seconds=None).steady_overhead == 0.03
    assert dataclasses.replace(record, overhead=1.0, overhead_seconds=2.0).steady_overhead is None

"""Records to bytes and back, exactly. ``docs/format.md`` describes the bytes for everyone else.

Every decoder takes its bytes from a stranger: it raises :class:`~deadunits_tb.errors.FormatError` for whatever is
damaged, and never unpacks more than the declared count of units can need.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deadunits_tb import strict_json
from deadunits_tb.errors import FormatError
from deadunits_tb.record import (
    Byte,
    Evidence,
    Int,
    LayerRecord,
    Memory,
    Statistics,
    Window,
    from_bfloat16_bits,
    to_bfloat16_bits,
)
from deadunits_tb.run_record import InputSummary, RunRecord, Skipped
from deadunits_tb.strict_json import Fields
from deadunits_tb.units import STATISTIC_BY_NAME, UnitState

Bits = npt.NDArray[np.uint16]

MAX_RUN_RECORD = 4 * 2**20
"""Bytes that the record of a run unpacks to at most."""

_HEADER = struct.Struct("<qqdqqqqqqdBqqI")
_TRAINABLE, _FROM_START = 1, 2
_COLUMN = struct.Struct("<Bq")
_WIDTHS = (0, 1, 2, 4, 8)
_COLUMNS = 14
_MIX = np.random.default_rng(0).integers(2**64, size=_COLUMNS, dtype=np.uint64) | np.uint64(1)


@dataclass(frozen=True, slots=True)
class StatesBlock:
    """What :func:`encode_states` wrote, of ``units`` units: all of a :class:`LayerRecord` but name and statistics."""

    window: Window
    evidence: Evidence
    memory: Memory
    states: Byte
    since: Int


def encode_states(record: LayerRecord, unit_start: int, unit_stop: int) -> bytes:
    """Pack the states and the carried integers of a range of units.

    Units fall into few *classes*: the same state, the same counters. So the bytes hold a table of classes and, for each
    unit, the number of its class. In the table, what follows from other columns in most records is stored as the
    difference from that.

    Args:
        record: The record.
        unit_start: First unit.
        unit_stop: One after the last.
    """
    units = slice(unit_start, unit_stop)
    evidence, memory, window = record.evidence, record.memory, record.window
    columns = np.stack(
        [
            evidence.observations_since_active[units],
            evidence.last_active_step[units],
            evidence.examples_since_active[units],
            evidence.tokens_since_active[units],
            evidence.examples_without_signal[units],
            evidence.reference[units],
            record.states[units],
            record.since[units],
            memory.state[units],
            memory.since[units],
            memory.pending[units],
            memory.pending_records[units],
            memory.pending_examples[units],
            memory.pending_since[units],
        ],
        dtype=np.int64,
    )
    first, index = _classes(columns)
    table, stride, batch = _difference(columns[:, first], window)
    header = _HEADER.pack(
        window.step,
        window.first_step,
        window.wall_time,
        window.examples,
        window.positions,
        window.observations,
        window.examples_seen,
        window.contiguous_examples,
        window.dataset_examples,
        window.run_moves,
        _TRAINABLE * window.trainable | _FROM_START * window.from_start,
        stride,
        batch,
        len(first),
    )
    body = b"".join([header, _pack_column(index), *map(_pack_column, table)])
    # Class numbers are runs and noise: for those, run lengths and Huffman codes alone give fewer bytes in less time.
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return packer.compress(body) + packer.flush()


def decode_states(data: bytes, units: int) -> StatesBlock:
    """Unpack :func:`encode_states`.

    Args:
        data: The bytes of one record of a ``states`` tag.
        units: How many units the tag covers, as its metadata says.

    Raises:
        FormatError: The bytes are damaged, or hold another number of units.
    """
    limit = _HEADER.size + (_COLUMNS + 1) * (_COLUMN.size + 8 * units)
    body = _Body(_unpack(data, limit, "states"), _HEADER)
    *_, stride, batch, classes = body.header
    if not 1 <= classes <= units:
        raise FormatError(f"states of {units} units name {classes} classes")
    index = body.column(units)
    if index.min() < 0 or index.max() >= classes:
        raise FormatError("states name a class that is not in their table")
    table = np.stack([body.column(classes) for _ in range(_COLUMNS)])
    body.end()
    window = _window(body.header)
    columns = _restore(table, window, stride, batch)[:, index]
    observations, last_active, examples, tokens, without_signal, reference, states, since, *memory = columns
    for codes in (states, memory[0], memory[2]):
        if codes.min() < 0 or codes.max() >= len(UnitState):
            raise FormatError("states hold a code that is no state of this version")
    evidence = Evidence(examples, tokens, observations, without_signal, last_active, reference)
    return StatesBlock(window, evidence, Memory(*memory), states.astype(np.uint8), since)


def encode_statistics(statistics: Statistics, unit_start: int, unit_stop: int) -> Bits:
    """The bfloat16 bits of a range of units, ``uint16 [statistics, units]``.

    Not the tensor type bfloat16: TensorBoard reads no such tensor.
    """
    return to_bfloat16_bits(statistics.values[:, unit_start:unit_stop])


def decode_statistics(bits: npt.NDArray[Any], names: Sequence[str], units: int) -> Statistics:
    """Undo :func:`encode_statistics`.

    Args:
        bits: The tensor of one record of a ``statistics`` tag.
        names: Of its rows, as the tag's metadata says. Rows of statistics that this version does not know are left out.
        units: How many units the tag covers.

    Raises:
        FormatError: The tensor has another type or shape.
    """
    if bits.dtype != np.uint16 or bits.shape != (len(names), units):
        raise FormatError(f"statistics are {bits.dtype} {bits.shape}, not uint16 ({len(names)}, {units})")
    known = [row for row, name in enumerate(names) if name in STATISTIC_BY_NAME]
    values = from_bfloat16_bits(bits if len(known) == len(names) else bits[known])
    return Statistics(tuple(names[row] for row in known), values)


def encode_run(record: RunRecord, layer_names: Sequence[str] = ()) -> bytes:
    """Pack the facts of a run at one record.

    Args:
        record: The record.
        layer_names: Of the layers in the metadata of the tag, in order. Counts refer to them by number, and to any
            other layer by name.
    """
    number = {name: place for place, name in enumerate(layer_names)}
    inputs, loss = record.inputs, record.loss
    values = {
        "step": int(record.step),
        "wall_time": float(record.wall_time),
        "examples": int(record.examples),
        "observations": int(record.observations),
        "optimizer_steps": int(record.optimizer_steps),
        "learning_rate": _json_number(record.learning_rate),
        "loss": _json_number(loss),
        "inputs": inputs and [_json_number(v) for v in (inputs.mean, inputs.std, inputs.min, inputs.max)],
        "overhead": _json_number(record.overhead),
        "overhead_seconds": _json_number(record.overhead_seconds),
        "interval": int(record.interval),
        "records_written": int(record.records_written),
        "dropped": int(record.dropped),
        "statistics_interval": int(record.statistics_interval),
        "errors": list(record.errors),
        "skipped": [[skipped.layer, skipped.reason] for skipped in record.skipped],
        "counts": [[number.get(name, name), [int(n) for n in counts]] for name, counts in record.counts.items()],
    }
    return zlib.compress(strict_json.dumps(values))


def decode_run(data: bytes, layer_names: Sequence[str] = ()) -> RunRecord:
    """Unpack :func:`encode_run`.

    Args:
        data: The bytes of one record of a ``summary`` tag.
        layer_names: As for :func:`encode_run`.

    Raises:
        FormatError: The bytes are damaged, too many, or not such a record.
    """
    what = "a summary"
    body = _unpack(data, MAX_RUN_RECORD, what)
    fields = strict_json.loads(body, limit=MAX_RUN_RECORD, what=what)
    return RunRecord(
        step=fields.whole("step"),
        wall_time=fields.number("wall_time", finite=True),
        examples=fields.whole("examples"),
        observations=fields.whole("observations"),
        optimizer_steps=fields.whole("optimizer_steps"),
        learning_rate=fields.number("learning_rate", None),
        loss=fields.number("loss", None),
        inputs=_input_summary(fields.array("inputs", None)),
        overhead=fields.number("overhead", None),
        overhead_seconds=fields.number("overhead_seconds", 0.0),
        interval=fields.whole("interval", 1),
        records_written=fields.whole("records_written", 1),
        dropped=fields.whole("dropped", 0),
        statistics_interval=fields.whole("statistics_interval", 1, low=1),
        errors=fields.texts("errors"),
        skipped=tuple(Skipped(*_items(pair, 2, "skipped").texts("")) for pair in fields.array("skipped", [])),
        counts=dict(_layer_counts(pair, layer_names) for pair in fields.array("counts", [])),
    )


def _window(header: tuple[Any, ...]) -> Window:
    step, first_step, wall_time, *counts, run_moves, flags, _, _, _ = header
    if not math.isfinite(wall_time) or min(counts) < 0:
        raise FormatError("states cover a window with a negative count or no wall time")
    examples, positions, observations, examples_seen, contiguous_examples, dataset_examples = counts
    return Window(
        step=step,
        first_step=first_step,
        wall_time=wall_time,
        examples=examples,
        positions=positions,
        observations=observations,
        examples_seen=examples_seen,
        contiguous_examples=contiguous_examples,
        dataset_examples=dataset_examples,
        trainable=bool(flags & _TRAINABLE),
        run_moves=run_moves,
        from_start=bool(flags & _FROM_START),
    )


def _classes(columns: Int) -> tuple[Int, Int]:
    """Group equal columns of ``[columns, units]``.

    Returns:
        ``[classes]`` a unit of each class, sorted by the first row, and ``[units]`` the class of each unit.
    """
    varying = columns[(columns != columns[:, :1]).any(axis=1)]
    # Sorting one hash is many times faster than sorting whole columns. Should two columns share it, no two are grouped.
    key = _MIX[: len(varying)] @ varying.view(np.uint64)
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    if (varying[:, first][:, index] != varying).any():
        first = index = np.arange(columns.shape[1])
    order = np.argsort(columns[0, first], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[index]


def _difference(table: Int, window: Window) -> tuple[Int, int, int]:
    """Store each column of the table as its difference from what it mostly follows from; arithmetic is modulo 2**64."""
    observations, last_active, examples, tokens, without_signal, reference, states, since, *memory = table
    state, held_since, pending, pending_records, pending_examples, pending_since = memory
    age = window.step - last_active
    longest = max(int(observations[-1]), 1)  # the table is sorted by it
    stride, batch = int(age[-1]) // longest, int(examples[-1]) // longest
    stored = [
        np.diff(observations, prepend=0),
        age - stride * observations,
        examples - batch * observations,
        tokens - examples,
        without_signal - examples,
        reference,
        states,
        since - _expected_since(states, last_active, held_since, window),
        state - states,
        window.step - held_since,
        pending - state,
        pending_records,
        pending_examples,
        window.step - pending_since,
    ]
    return np.stack(stored), stride, batch


def _restore(table: Int, window: Window, stride: int, batch: int) -> Int:
    """Undo :func:`_difference`."""
    steps, age, examples, tokens, without_signal, reference, states, since, *memory = table
    state, held_since, pending, pending_records, pending_examples, pending_since = memory
    observations = np.cumsum(steps)
    last_active = window.step - (age + stride * observations)
    examples = examples + batch * observations
    held_since = window.step - held_since
    state = state + states
    return np.stack(
        [
            observations,
            last_active,
            examples,
            tokens + examples,
            without_signal + examples,
            reference,
            states,
            since + _expected_since(states, last_active, held_since, window),
            state,
            held_since,
            pending + state,
            pending_records,
            pending_examples,
            window.step - pending_since,
        ]
    )


def _expected_since(states: Int, last_active: Int, held_since: Int, window: Window) -> Int:
    """Where a state began if nothing changed: the step after the last firing for dead units."""
    silent_since = np.where(last_active >= 0, last_active + 1, window.first_step)
    return np.where(states == UnitState.DEAD, silent_since, held_since)


def _pack_column(values: Int) -> bytes:
    """Smallest value, then what each is beyond it, in as few bytes as all need: all lowest bytes first."""
    low = values.min()
    beyond = (values - low).view(np.uint64)
    largest = int(beyond.max())
    width = next(width for width in _WIDTHS if largest < 1 << 8 * width)
    planes = b""
    if width:
        planes = beyond.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T.tobytes()
    return _COLUMN.pack(width, low) + planes


class _Body:
    """Reads unpacked bytes from front to end."""

    def __init__(self, data: bytes, header: struct.Struct) -> None:
        self._data = data
        self._at = 0
        self.header = self._read(header)

    def column(self, length: int) -> Int:
        """``int64 [length]``, undoing :func:`_pack_column`."""
        width, low = self._read(_COLUMN)
        if width not in _WIDTHS:
            raise FormatError(f"states hold a column of width {width}")
        if not width:
            return np.full(length, low, np.int64)
        stop = self._at + width * length
        if stop > len(self._data):
            raise FormatError("states end within a column")
        planes = np.frombuffer(self._data, np.uint8, width * length, self._at).reshape(width, length)
        self._at = stop
        beyond = np.ascontiguousarray(planes.T).view(f"<u{width}")[:, 0]
        values: Int = beyond.astype(np.uint64).view(np.int64) + low
        return values

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise FormatError(f"states hold {len(self._data) - self._at} bytes too many")

    def _read(self, layout: struct.Struct) -> tuple[Any, ...]:
        if self._at + layout.size > len(self._data):
            raise FormatError("states end too early")
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values


def _unpack(data: bytes, limit: int, what: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise FormatError(f"{what}: {error}") from None
    if len(body) > limit:
        raise FormatError(f"{what} would unpack to more than {limit:,} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise FormatError(f"{what}: the compressed bytes do not end where they should")
    return bytes(body)


def _json_number(value: float | None) -> float | str | None:
    return None if value is None else strict_json.number(float(value))


def _items(value: object, length: int, what: str) -> Fields:
    """A list of a known length, under the empty key."""
    if not isinstance(value, list) or len(value) != length:
        raise FormatError(f"a summary: {what!r} must hold lists of {length}")
    return Fields({"": value}, f"a summary: {what}")


def _input_summary(values: list[object] | None) -> InputSummary | None:
    if values is None:
        return None
    _items(values, 4, "inputs")
    return InputSummary(*(Fields({"": value}, "a summary: inputs").number("") for value in values))


def _layer_counts(pair: object, layer_names: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    layer, counts = _items(pair, 2, "counts").array("")
    field = Fields({"": layer}, "a summary: counts")
    name = field.text("") if isinstance(layer, str) else layer_names[field.whole("", high=len(layer_names) - 1)]
    return name, _items(counts, len(UnitState), "counts").wholes("")

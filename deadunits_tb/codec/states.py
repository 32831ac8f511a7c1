"""States and carried integers of the units of a layer, in a few tenths of a byte for each unit."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from deadunits_tb.codec.classes import find_classes
from deadunits_tb.codec.columns import Body, most_bytes, pack_columns
from deadunits_tb.codec.compression import unpack
from deadunits_tb.errors import FormatError
from deadunits_tb.record import Byte, Evidence, Int, LayerRecord, Memory, Window
from deadunits_tb.units import UnitState

_HEADER = struct.Struct("<qqdqqqqqqdBqqI")
_TRAINABLE, _FROM_START = 1, 2
(
    _OBSERVATIONS,
    _LAST_ACTIVE,
    _EXAMPLES,
    _TOKENS,
    _WITHOUT_SIGNAL,
    _REFERENCE,
    _STATE,
    _SINCE,
    _HELD,
    _HELD_SINCE,
    _PENDING,
    _PENDING_RECORDS,
    _PENDING_EXAMPLES,
    _PENDING_SINCE,
) = range(14)
_COLUMNS = 14
"""Of each unit, in this order; the last six are what :class:`Memory` holds."""


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
    columns = np.empty((_COLUMNS, unit_stop - unit_start), np.int64)
    for row, values in zip(columns, _columns(record), strict=True):
        row[:] = values[unit_start:unit_stop]
    window = record.window
    classes, index = find_classes(columns)
    table, stride, batch = _difference(classes, window)
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
        classes.shape[1],
    )
    body = b"".join([header, *pack_columns(index[np.newaxis]), *pack_columns(table)])
    # Class numbers are runs and noise: for those, run lengths and Huffman codes alone give fewer bytes in less time.
    packer = zlib.compressobj(6, zlib.DEFLATED, wbits=13, memLevel=8, strategy=zlib.Z_RLE)
    return packer.compress(body) + packer.flush()


def decode_states(data: bytes, units: int) -> StatesBlock:
    """Unpack :func:`encode_states`.

    Args:
        data: The bytes of one record of a ``states`` tag.
        units: How many units the tag covers, as its metadata says.

    Raises:
        FormatError: The bytes are damaged, or hold another number of units.
    """
    limit = _HEADER.size + (_COLUMNS + 1) * most_bytes(units)
    body = Body(unpack(data, limit, "states"), _HEADER)
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
    codes = columns[[_STATE, _HELD, _PENDING]]
    if codes.min() < 0 or codes.max() >= len(UnitState):
        raise FormatError("states hold a code that is no state of this version")
    evidence = Evidence(
        examples_since_active=columns[_EXAMPLES],
        tokens_since_active=columns[_TOKENS],
        observations_since_active=columns[_OBSERVATIONS],
        examples_without_signal=columns[_WITHOUT_SIGNAL],
        last_active_step=columns[_LAST_ACTIVE],
        reference=columns[_REFERENCE],
    )
    return StatesBlock(window, evidence, Memory(*columns[_HELD:]), columns[_STATE].astype(np.uint8), columns[_SINCE])


def _columns(record: LayerRecord) -> tuple[Int | Byte, ...]:
    """Everything that is stored of each unit, in the order of the format."""
    evidence, memory = record.evidence, record.memory
    return (
        evidence.observations_since_active,
        evidence.last_active_step,
        evidence.examples_since_active,
        evidence.tokens_since_active,
        evidence.examples_without_signal,
        evidence.reference,
        record.states,
        record.since,
        memory.state,
        memory.since,
        memory.pending,
        memory.pending_records,
        memory.pending_examples,
        memory.pending_since,
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


def _difference(classes: Int, window: Window) -> tuple[Int, int, int]:
    """Store each row as its difference from what it mostly follows from; arithmetic is modulo 2**64.

    Returns:
        The rows to store, and steps and examples from one observation to the next, on average over the longest silence.
    """
    observations, examples = classes[_OBSERVATIONS], classes[_EXAMPLES]
    age = window.step - classes[_LAST_ACTIVE]
    longest = max(int(observations[-1]), 1)  # the classes are sorted by it
    stride, batch = int(age[-1]) // longest, int(examples[-1]) // longest
    table = classes.copy()
    table[_OBSERVATIONS, 1:] -= observations[:-1]
    table[_LAST_ACTIVE] = age - stride * observations
    table[_EXAMPLES] -= batch * observations
    table[_TOKENS] -= examples
    table[_WITHOUT_SIGNAL] -= examples
    table[_SINCE] -= _expected_since(classes, window)
    table[_HELD] -= classes[_STATE]
    table[_HELD_SINCE] = window.step - classes[_HELD_SINCE]
    table[_PENDING] -= classes[_HELD]
    table[_PENDING_SINCE] = window.step - classes[_PENDING_SINCE]
    return table, stride, batch


def _restore(table: Int, window: Window, stride: int, batch: int) -> Int:
    """Undo :func:`_difference`."""
    classes: Int = table.copy()
    classes[_OBSERVATIONS] = observations = np.cumsum(table[_OBSERVATIONS])
    classes[_LAST_ACTIVE] = window.step - (table[_LAST_ACTIVE] + stride * observations)
    classes[_EXAMPLES] += batch * observations
    classes[_TOKENS] += classes[_EXAMPLES]
    classes[_WITHOUT_SIGNAL] += classes[_EXAMPLES]
    classes[_HELD] += classes[_STATE]
    classes[_HELD_SINCE] = window.step - table[_HELD_SINCE]
    classes[_SINCE] += _expected_since(classes, window)
    classes[_PENDING] += classes[_HELD]
    classes[_PENDING_SINCE] = window.step - table[_PENDING_SINCE]
    return classes


def _expected_since(classes: Int, window: Window) -> Int:
    """Where a state began if nothing changed: the step after the last firing for dead units."""
    last_active = classes[_LAST_ACTIVE]
    silent_since = np.where(last_active >= 0, last_active + 1, window.first_step)
    since: Int = np.where(classes[_STATE] == UnitState.DEAD, silent_since, classes[_HELD_SINCE])
    return since

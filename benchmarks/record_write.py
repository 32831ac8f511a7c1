"""What a record costs to encode and write, and how many bytes it takes; TensorBoard's own writer beside it.

    python benchmarks/record_write.py [--units 4096] [--rounds 300]

Timed is the recorder's own path, in one thread: encode, frame, write, flush. All variants take turns in every round,
each with the next of a series of simulated records.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from rich.console import Console
from rich.table import Table
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING, DT_UINT16
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from deadunits_tb import codec
from deadunits_tb.capture.event_file import EventFile, value_event
from deadunits_tb.capture.record_file import RecordFile
from deadunits_tb.metadata import TagInfo, tag_name
from deadunits_tb.record import LayerRecord
from deadunits_tb.run_record import RunInfo
from deadunits_tb.units import STATISTICS
from simulated_records import layer, run_record, simulate

Write = Callable[[LayerRecord], None]

AMPLE = 2**40
"""A budget of bytes that never thins anything."""
WARM_UP = 20
RECORDS = 200


def whole_record(directory: str, units: int) -> Write:
    """Everything: states, statistics, summary and scalar, as the recorder's thread writes them."""
    info = layer(units)
    file = RecordFile(directory, RunInfo(layers=(info,)), AMPLE)
    return lambda record: void(file.write(run_record(record), [record], {info.name: info}), file.flush())


def states_only(directory: str, units: int) -> Write:
    """The same without statistics, as where the budget has thinned them."""
    write = whole_record(directory, units)
    return lambda record: write(dataclasses.replace(record, statistics=None))


def statistics_only(directory: str, units: int) -> Write:
    """One event with the statistics."""
    file, tag = EventFile(directory), tag_name(TagInfo("statistics", layer(units)))

    def write(record: LayerRecord) -> None:
        bits = codec.encode_statistics(record.statistics, 0, units)
        file.write(value_event(record.window.step, record.window.wall_time, tag, bits, None))

    return write


def tensorboard_writer(directory: str, units: int) -> Write:
    """The same two tensors through TensorBoard's EventFileWriter. Encoding is not timed: they are kept from before."""
    writer, encoded = EventFileWriter(directory), {}

    def write(record: LayerRecord) -> None:
        states, bits = encoded[record.window.step]
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in bits.shape])
        tensors = {
            "states": TensorProto(dtype=DT_STRING, string_val=[states]),
            "statistics": TensorProto(dtype=DT_UINT16, tensor_shape=shape, tensor_content=bits.tobytes()),
        }
        for tag, tensor in tensors.items():
            summary = Summary(value=[Summary.Value(tag=tag, tensor=tensor)])
            writer.add_event(Event(wall_time=record.window.wall_time, step=record.window.step, summary=summary))
        writer.flush()

    def prepare(record: LayerRecord) -> None:
        if record.window.step not in encoded:
            tensors = codec.encode_states(record, 0, units), codec.encode_statistics(record.statistics, 0, units)
            encoded[record.window.step] = tensors

    write.prepare = prepare
    return write


def void(*_: object) -> None:
    """Nothing, whatever was done on the way."""


VARIANTS: dict[str, tuple[Callable[[str, int], Write], str]] = {
    "record: states, statistics, summary": (whole_record, "0.8"),
    "record without statistics": (states_only, ""),
    "statistics alone": (statistics_only, "0.15"),
    "TensorBoard's EventFileWriter, same tensors": (tensorboard_writer, ""),
}


def times(units: int, rounds: int) -> dict[str, list[float]]:
    """Variant to sorted milliseconds."""
    records = list(simulate(units, RECORDS))
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as directory:
        writes = {name: make(f"{directory}/{at}", units) for at, (name, (make, _)) in enumerate(VARIANTS.items())}
        for round_number in range(WARM_UP + rounds):
            record = records[round_number % RECORDS]
            for name, write in writes.items():
                if hasattr(write, "prepare"):
                    write.prepare(record)
                start = time.perf_counter()
                write(record)
                if round_number >= WARM_UP:
                    found[name].append((time.perf_counter() - start) * 1e3)
    return {name: sorted(values) for name, values in found.items()}


def sizes(units: int, dying: float, lowest_rate: float) -> tuple[float, int, float]:
    """Median bytes of states for each unit, their frame, and bytes of statistics for each statistic and unit."""
    states, frames, numbers = [], [], []
    tag, info = tag_name(TagInfo("states", layer(units), session=time.time_ns() // 1000)), layer(units)
    for record in islice(simulate(units, RECORDS, dying=dying, lowest_rate=lowest_rate), RECORDS // 2, None):
        data, bits = codec.encode_states(record, 0, units), codec.encode_statistics(record.statistics, 0, units)
        states.append(len(data) / units)
        frames.append(len(value_event(record.window.step, record.window.wall_time, tag, data, None)) - len(data))
        event = value_event(record.window.step, record.window.wall_time, tag + "/12345678", bits, None)
        numbers.append(len(event) / len(STATISTICS) / info.units)
    return statistics.median(states), int(statistics.median(frames)), statistics.median(numbers)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    console = Console(width=120)

    table = Table(title=f"Milliseconds to write a record of {options.units:,} units, {len(STATISTICS)} statistics")
    for column in ("", "median", "10 % to 90 %", "least", "limit"):
        table.add_column(column, justify="left" if not column else "right")
    for name, found in times(options.units, options.rounds).items():
        low, high = found[len(found) // 10], found[len(found) * 9 // 10]
        spread = f"{low:.3f} to {high:.3f}"
        table.add_row(name, f"{statistics.median(found):.3f}", spread, f"{found[0]:.3f}", VARIANTS[name][1])
    console.print(table)

    table = Table(title="Bytes of a record")
    for column in (
        "units",
        "dying",
        "firing rates from",
        "states / unit",
        "frame / layer",
        "statistics / unit / statistic",
    ):
        table.add_column(column, justify="right")
    for units in (128, 512, 4096, 16384):
        for dying, lowest_rate in ((0, 0.5), (0.03, 0.2), (0.03, 0.05)):
            states, frame, numbers = sizes(units, dying, lowest_rate)
            cells = f"{units:,}", f"{dying:.0%}", f"{lowest_rate:.0%}", f"{states:.3f}", str(frame), f"{numbers:.3f}"
            table.add_row(*cells)
    table.add_row("limit", "", "", "0.5, and 200", "for each layer", "2.02")
    console.print(table)


if __name__ == "__main__":
    main()

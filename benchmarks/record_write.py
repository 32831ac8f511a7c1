"""What a record costs to encode and write, and how many bytes it takes; TensorBoard's own writer beside it.

    python benchmarks/record_write.py [--units 4096] [--rounds 300]

Timed is the recorder's own path, in one thread: encode, frame, write, flush. The variants take turns, a few writes
each, with the next of a series of simulated records, in which 3 % of the units die. As in training, a record was made
just before it is written, not read from far memory: each write gets a copy of its own.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.types_pb2 import DT_STRING, DT_UINT16
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from deadunits_tb import codec
from deadunits_tb.capture.event_file import EventFile, value_event
from deadunits_tb.capture.record_file import RecordFile
from deadunits_tb.codec import Bits
from deadunits_tb.metadata import TagInfo, tag_name
from deadunits_tb.record import LayerRecord
from deadunits_tb.run_record import RunInfo, RunRecord
from deadunits_tb.units import STATISTICS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulated_records import layer, run_record, simulate

AMPLE = 2**40
"""A budget of bytes that never thins anything."""
WARM_UP = 20
BURST = 10
"""Writes of one variant in a row."""
RECORDS = 200


@dataclass(frozen=True)
class Subject:
    """A record to write, and what the variants that do not encode are given."""

    record: LayerRecord
    run_record: RunRecord
    states: bytes
    statistics: Bits


Write = Callable[[Subject], None]


def subjects(units: int) -> list[Subject]:
    """Records of one simulated training."""
    return [
        Subject(
            record,
            run_record(record),
            codec.encode_states(record, 0, units),
            codec.encode_statistics(record.statistics, 0, units),
        )
        for record in simulate(units, RECORDS)
        if record.statistics is not None
    ]


def just_made(subject: Subject) -> Subject:
    """A copy that lies in fresh memory."""
    return copy.deepcopy(subject)


def whole_record(directory: str, units: int) -> Write:
    """States, statistics, summary and scalar, as the recorder's thread writes them."""
    info = layer(units)
    file = RecordFile(directory, RunInfo(layers=(info,)), AMPLE)

    def write(subject: Subject) -> None:
        file.write(subject.run_record, [subject.record], {info.name: info})
        file.flush()

    return write


def without_statistics(directory: str, units: int) -> Write:
    """The same where the budget has thinned the statistics out."""
    write = whole_record(directory, units)

    def write_states(subject: Subject) -> None:
        write(dataclasses.replace(subject, record=dataclasses.replace(subject.record, statistics=None)))

    return write_states


def statistics_alone(directory: str, units: int) -> Write:
    """One event with the statistics."""
    file, tag = EventFile(directory), tag_name(TagInfo("statistics", layer(units), 0, units))

    def write(subject: Subject) -> None:
        window = subject.record.window
        bits = codec.encode_statistics(subject.record.statistics, 0, units)
        file.write(value_event(window.step, window.wall_time, tag, bits, None))
        file.flush()

    return write


def tensorboards_writer(directory: str, units: int) -> Write:
    """The same two tensors through TensorBoard's EventFileWriter; they were encoded before."""
    writer = EventFileWriter(directory)

    def write(subject: Subject) -> None:
        event = Event(wall_time=subject.record.window.wall_time, step=subject.record.window.step)
        states = event.summary.value.add(tag="states").tensor
        states.dtype = DT_STRING
        states.string_val.append(subject.states)
        statistics = event.summary.value.add(tag="statistics").tensor
        statistics.dtype = DT_UINT16
        for size in subject.statistics.shape:
            statistics.tensor_shape.dim.add(size=size)
        statistics.tensor_content = subject.statistics.tobytes()
        writer.add_event(event)
        writer.flush()

    return write


VARIANTS: dict[str, tuple[Callable[[str, int], Write], str]] = {
    "record: states, statistics, summary": (whole_record, "0.8"),
    "record without statistics": (without_statistics, ""),
    "statistics alone": (statistics_alone, "0.15"),
    "TensorBoard's EventFileWriter, encoded before": (tensorboards_writer, ""),
}


def times(units: int, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Variant to sorted milliseconds, on the clock and on the processor."""
    records = subjects(units)
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in VARIANTS}
    with tempfile.TemporaryDirectory() as directory:
        writes = {name: make(f"{directory}/{at}", units) for at, (name, (make, _)) in enumerate(VARIANTS.items())}
        for turn in range((WARM_UP + rounds) // BURST):
            for name, write in writes.items():
                for number in range(turn * BURST, (turn + 1) * BURST):
                    subject = just_made(records[number % RECORDS])
                    clock, processor = time.perf_counter(), time.process_time()
                    write(subject)
                    found[name][0].append((time.perf_counter() - clock) * 1e3)
                    found[name][1].append((time.process_time() - processor) * 1e3)
    return {name: (sorted(clock[WARM_UP:]), sorted(processor[WARM_UP:])) for name, (clock, processor) in found.items()}


def sizes(units: int, dying: float, lowest_rate: float) -> tuple[float, float, float]:
    """Median bytes of states for each unit, of their frame, and of statistics for each statistic and unit."""
    info, session = layer(units), time.time_ns() // 1000
    states_tag = tag_name(TagInfo("states", info, 0, units, session=session))
    names = tuple(statistic.name for statistic in STATISTICS)
    statistics_tag = tag_name(TagInfo("statistics", info, 0, units, statistics=names, session=session))
    states, frames, numbers = [], [], []
    for record in list(simulate(units, RECORDS, dying=dying, lowest_rate=lowest_rate))[RECORDS // 2 :]:
        window = record.window
        data, bits = codec.encode_states(record, 0, units), codec.encode_statistics(record.statistics, 0, units)
        states.append(len(data) / units)
        frames.append(len(value_event(window.step, window.wall_time, states_tag, data, None)) - len(data))
        numbers.append(len(value_event(window.step, window.wall_time, statistics_tag, bits, None)) / bits.size)
    return statistics.median(states), statistics.median(frames), statistics.median(numbers)


def table(title: str, *columns: str) -> Table:
    """An empty table with its numbers to the right."""
    made = Table(title=title)
    for column in columns:
        made.add_column(column, justify="right" if column else "left")
    return made


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    console = Console(width=110)

    title = f"Milliseconds to write a record of {options.units:,} units and {len(STATISTICS)} statistics"
    timed = table(title, "", "median", "10 % to 90 %", "least", "processor", "limit")
    for name, (clock, processor) in times(options.units, options.rounds).items():
        spread = f"{clock[len(clock) // 10]:.3f} to {clock[len(clock) * 9 // 10]:.3f}"
        medians = [f"{statistics.median(values):.3f}" for values in (clock, processor)]
        timed.add_row(name, medians[0], spread, f"{clock[0]:.3f}", medians[1], VARIANTS[name][1])
    console.print(timed)

    sized = table(
        "Bytes of a record", "units", "dying", "rates from", "states / unit", "frame", "statistics / unit / one"
    )
    for units in (128, 512, 4096, 16384):
        for dying, lowest_rate in ((0.0, 0.5), (0.03, 0.2), (0.03, 0.05)):
            states, frame, numbers = sizes(units, dying, lowest_rate)
            mix = f"{units:,}", f"{dying:.0%}", f"{lowest_rate:.0%}"
            sized.add_row(*mix, f"{states:.3f}", f"{frame:.0f}", f"{numbers:.3f}")
    sized.add_row("limit", "", "", "0.5, and 200", "a layer", "2.02")
    console.print(sized)


if __name__ == "__main__":
    main()

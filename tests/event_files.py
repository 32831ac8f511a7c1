"""Runs on disk, written by the real recorder, read through each of the data providers that there are."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.data import server_ingester
from tensorboard.util import grpc_util

import simulated_records
from deadunits_tb.capture.recorder import Recorder
from deadunits_tb.metadata import PLUGIN_NAME
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.record import LayerRecord
from deadunits_tb.run_record import RunInfo
from deadunits_tb.tfrecord import frame, read_frames
from deadunits_tb.units import LayerInfo

PROVIDERS = ("local", "python", "rust")
CONTEXT = context.RequestContext()

Layers = Mapping[LayerInfo, Sequence[LayerRecord]]
"""Layer to its records, as many for each."""


def simulated(units: int, records: int, *, name: str = "dense", order: int = 0, seed: int = 0) -> Layers:
    """A layer whose units fire at random, and of which some die."""
    info = simulated_records.layer(units, name, order)
    found = simulated_records.simulate(units, records, seed=seed)
    return {info: [dataclasses.replace(record, layer=name) for record in found]}


def write(recorder: Recorder, layers: Layers, *, first: int = 0, stop: int | None = None) -> None:
    """Hand over records, slowly enough that none is lost, and wait until readers see them."""
    infos = {info.name: info for info in layers}
    for number, records in enumerate(list(zip(*layers.values(), strict=True))[first:stop], start=first + 1):
        run_record = dataclasses.replace(simulated_records.run_record(*records), records_written=number)
        recorder.write(run_record, records, infos)
        if number % 16 == 0:
            recorder.flush()
    recorder.flush()
    assert not recorder.failures


def write_run(log_dir: pathlib.Path, layers: Layers, run: RunInfo | None = None, **options: Any) -> pathlib.Path:
    """Write a whole run.

    Returns:
        Its event file.
    """
    recorder = Recorder(log_dir, run or RunInfo(layers=tuple(layers)), **options)
    write(recorder, layers)
    recorder.close()
    return event_file(log_dir)


def event_file(log_dir: pathlib.Path) -> pathlib.Path:
    """The newest event file of a run."""
    return max((log_dir / "dead_units").glob("events.out.tfevents.*"))


def rewrite(path: pathlib.Path, change: Callable[[Event], Iterable[Event]]) -> None:
    """Replace each event of a file by what a function makes of it."""
    with path.open("rb") as stream:
        events = [Event.FromString(one.payload) for one in read_frames(stream, 0, path.stat().st_size) if one.payload]
    path.write_bytes(b"".join(frame(new.SerializeToString()) for event in events for new in change(event)))


@contextlib.contextmanager
def provider(kind: str, log_dir: pathlib.Path) -> Iterator[Any]:
    """A data provider over all event files below a directory: ours, TensorBoard's in Python, or its data server."""
    if kind == "local":
        yield LocalDataProvider(log_dir)
    elif kind == "python":
        multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: 0})
        multiplexer.AddRunsFromDirectory(str(log_dir))
        multiplexer.Reload()
        yield data_provider.MultiplexerDataProvider(multiplexer, str(log_dir))
    else:
        ingester = server_ingester.SubprocessServerDataIngester(
            server_ingester.get_server_binary(),
            str(log_dir),
            reload_interval=0,
            channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
            samples_per_plugin={PLUGIN_NAME: 0},
        )
        with warnings.catch_warnings():  # it forgets its process on purpose: that ends with the pipe to it
            warnings.simplefilter("ignore", ResourceWarning)
            ingester.start()
        yield _loaded(ingester.data_provider, log_dir)
        ingester._stdin_handle.close()


def _loaded(server: Any, log_dir: pathlib.Path, seconds: float = 30) -> Any:
    """Wait until the server, which reads in the background, has read what there is to read."""
    wanted = _newest(LocalDataProvider(log_dir))
    until = time.monotonic() + seconds
    # It keeps what a later session made void, so it may have more.
    while any(tag not in (seen := _newest(server)) or seen[tag] < newest for tag, newest in wanted.items()):
        assert time.monotonic() < until, f"the data server did not read everything: {seen} of {wanted}"
        time.sleep(0.05)
    return server


def _newest(source: Any) -> dict[tuple[str, str], tuple[int, float]]:
    listed = source.list_tensors(CONTEXT, experiment_id="", plugin_name=PLUGIN_NAME)
    return {
        (run, tag): (series.max_step, series.max_wall_time)
        for run, tags in listed.items()
        for tag, series in tags.items()
    }

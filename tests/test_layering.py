"""Imports point down only, and frameworks stay in their own modules; read from the sources, so lazy imports count."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deadunits_tb"

FRAMEWORKS = {
    "tensorflow": "tensorflow",
    "keras": "keras",
    "tf_keras": "keras",
    "torch": "torch",
    "lightning": "lightning",
    "pytorch_lightning": "lightning",
    "transformers": "transformers",
    "jax": "jax",
    "flax": "jax",
    "optax": "jax",
}
"""Import name to the word in the names of the modules that may import it."""

LAYERS = (
    {"errors", "native", "rates", "strict_json"},
    {"units"},
    {"thresholds"},
    {"certificate", "record", "run_record", "verdicts"},
    {"metadata", "codec", "tfrecord"},
    {"capture", "reading"},
    {"taps", "gate"},
    {
        "glossary",
        "serving",
        "revive",
        "cli",
        "demo",
        "keras",
        "torch",
        "tensorflow",
        "jax",
        "lightning",
        "transformers",
    },
    {"__init__", "__main__"},
)
"""From the bottom up. A module imports from its own layer or from below; capture and reading do not know each other."""
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: pathlib.Path) -> Iterator[tuple[str, bool]]:
    """Each imported module and whether the import runs when the module itself is imported."""

    def walk(node: ast.AST, eager: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for other in child.orelse:
                    yield from walk(other, eager)
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, eager) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path.name}:{child.lineno}: write absolute imports"
                yield child.module or "", eager
                yield from ((f"{child.module}.{alias.name}", eager) for alias in child.names)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, eager and not inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


def part(module: str) -> str:
    """The part of the package that a module belongs to: ``capture`` for ``deadunits_tb.capture.monitor``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    here = part(module)
    assert here in HEIGHT, f"{module}: say in LAYERS where {here} belongs"
    for target, _ in imports(MODULES[module]):
        there = part(target)
        if not target.startswith("deadunits_tb.") or there not in HEIGHT:
            continue
        assert HEIGHT[there] <= HEIGHT[here], f"{module} imports {target}, which stands above it"
        assert (here, there) != ("taps", "reading"), f"{module} imports {target}: writing knows nothing of reading"
        if HEIGHT[here] == HEIGHT["capture"]:
            assert there == here or HEIGHT[there] < HEIGHT[here], (
                f"{module} imports {target}: they must not know each other"
            )


@pytest.mark.parametrize("module", MODULES)
def test_frameworks_stay_in_their_own_modules(module: str) -> None:
    own_words = set(module.replace(".", "_").split("_"))
    own_words |= {"torch"} if own_words & {"lightning", "transformers"} else set()  # which stand on it
    for target, _ in imports(MODULES[module]):
        word = FRAMEWORKS.get(target.split(".")[0])
        if word is not None and module != "deadunits_tb.demo":
            assert word in own_words, f"{module} imports {target}: only modules named after {word} may"


@pytest.mark.parametrize("module", MODULES)
def test_tensorboard_is_imported_by_writer_reader_and_serving_only(module: str) -> None:
    if part(module) in {"metadata", "reading", "serving", "cli", "demo"} or module == "deadunits_tb.capture.event_file":
        return
    for target, _ in imports(MODULES[module]):
        assert not target.startswith("tensorboard"), f"{module} imports {target}"


def test_the_entry_point_imports_only_the_plugin_base() -> None:
    """An ImportError there is fatal for the user's whole TensorBoard."""
    eager = {target for target, eager in imports(MODULES["deadunits_tb.serving.loader"]) if eager}
    foreign = {name for name in eager if not name.startswith(("__future__", "tensorboard.plugins.base_plugin"))}
    assert all(name.split(".")[0] in {"argparse", "typing", "collections", "tensorboard"} for name in foreign), foreign
    assert not {name for name in foreign if name.startswith("tensorboard.") and name != "tensorboard.plugins"}, foreign


def test_the_walk_sees_what_it_forbids(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("import numpy\ndef late():\n    from torch import nn\nif TYPE_CHECKING:\n    import jax\n")
    assert list(imports(source)) == [("numpy", True), ("torch", False), ("torch.nn", False)]

"""The public names exist, are loaded when first used, and importing the package costs nothing."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deadunits_tb

HEAVY = ("numpy", "tensorboard", "tensorflow", "keras", "torch", "jax", "google.protobuf", "rich", "click")


@pytest.mark.parametrize("name", deadunits_tb.__all__)
def test_every_public_name_exists_where_it_is_said_to_be(name):
    value = getattr(deadunits_tb, name)
    home = deadunits_tb._HOME.get(name, "errors")
    if name != "__version__":
        assert value is getattr(importlib.import_module(f"deadunits_tb.{home}"), name)
        assert value.__doc__
    assert name in dir(deadunits_tb)


def test_names_are_listed_once_and_the_type_checker_sees_the_same():
    assert sorted(set(deadunits_tb.__all__)) == deadunits_tb.__all__
    source = Path(deadunits_tb.__file__).read_text(encoding="utf-8")
    seen = source.split("if TYPE_CHECKING:")[1].split("__version__")[0]
    imported = {
        name
        for names in re.findall(r"import (?:\(([^)]*)\)|(\w+))", seen)
        for name in re.findall(r"\w+", "".join(names))
    }
    assert imported == set(deadunits_tb.__all__) - {"__version__"}


def test_a_name_that_does_not_exist_lists_those_that_do():
    with pytest.raises(AttributeError, match=r"no attribute 'Writer'; it has .*DeadUnitsWriter"):
        _ = deadunits_tb.Writer


def test_the_version_is_that_of_the_package():
    assert re.fullmatch(r"\d+\.\d+\.\d+", deadunits_tb.__version__)


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def test_importing_the_package_imports_nothing_heavy():
    loaded = run("import sys, deadunits_tb; print(*sys.modules)").split()
    assert not [module for module in loaded if module.startswith(HEAVY)]


def test_writing_arrays_needs_no_framework():
    loaded = run("import sys; from deadunits_tb import DeadUnitsWriter, Thresholds; print(*sys.modules)").split()
    frameworks = ("tensorflow", "keras", "torch", "jax")
    assert not [module for module in loaded if module.split(".")[0] in frameworks]

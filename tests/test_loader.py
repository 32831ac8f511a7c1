"""The entry module: light, and never an error in the user's TensorBoard."""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import types
from collections.abc import Mapping
from typing import Any

import pytest
from tensorboard.plugins import base_plugin

from deadunits_tb.metadata import PLUGIN_NAME
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.serving.loader import DeadUnitsLoader


def fixed(flags: Any) -> Any:
    DeadUnitsLoader().fix_flags(flags)
    return flags


def test_all_records_are_asked_for() -> None:
    assert fixed(argparse.Namespace(samples_per_plugin={})).samples_per_plugin == {PLUGIN_NAME: 0}
    assert fixed(argparse.Namespace(samples_per_plugin={"images": 3})).samples_per_plugin == {
        "images": 3,
        PLUGIN_NAME: 0,
    }


def test_the_users_own_number_wins() -> None:
    assert fixed(argparse.Namespace(samples_per_plugin={PLUGIN_NAME: 50})).samples_per_plugin == {PLUGIN_NAME: 50}


@pytest.mark.parametrize("flags", [argparse.Namespace(), argparse.Namespace(samples_per_plugin=None)])
def test_without_the_flag_it_is_made(flags: argparse.Namespace) -> None:
    assert fixed(flags).samples_per_plugin == {PLUGIN_NAME: 0}


def test_a_mapping_that_cannot_be_changed_is_replaced() -> None:
    flags = argparse.Namespace(samples_per_plugin=types.MappingProxyType({"text": 1}))
    assert fixed(flags).samples_per_plugin == {"text": 1, PLUGIN_NAME: 0}


class _Hostile(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError("no")

    def __iter__(self) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("flags", [None, object(), argparse.Namespace(samples_per_plugin=3), 7])
def test_strange_flags_raise_nothing(flags: Any) -> None:
    fixed(flags)


def test_a_hostile_mapping_raises_nothing() -> None:
    fixed(argparse.Namespace(samples_per_plugin=_Hostile()))


def test_real_flags_of_a_real_tensorboard() -> None:
    from tensorboard import program

    board = program.TensorBoard(plugins=[*_static_plugins(), DeadUnitsLoader])
    board.configure(argv=["tensorboard", "--logdir", "x", "--samples_per_plugin", "images=3"])
    assert board.flags.samples_per_plugin == {"images": 3, PLUGIN_NAME: 0}


def _static_plugins() -> list[Any]:
    from tensorboard import default

    return list(default.get_static_plugins())


def test_it_is_a_loader_that_loads_the_plugin(tmp_path: pathlib.Path) -> None:
    assert issubclass(DeadUnitsLoader, base_plugin.TBLoader)
    plugin = DeadUnitsLoader().load(base_plugin.TBContext(data_provider=LocalDataProvider(tmp_path)))
    assert plugin.plugin_name == PLUGIN_NAME
    assert plugin.data_plugin_names() == (PLUGIN_NAME,)
    assert plugin.is_active() is False
    metadata = plugin.frontend_metadata()
    assert (metadata.tab_name, metadata.es_module_path, metadata.is_ng_component) == ("Dead Units", "/index.js", False)


def test_without_a_data_provider_there_is_no_plugin() -> None:
    assert DeadUnitsLoader().load(base_plugin.TBContext(data_provider=None)) is None


def test_the_entry_module_imports_only_tensorboards_base_class_and_the_standard_library() -> None:
    code = (
        "import sys; import tensorboard.plugins.base_plugin; before = set(sys.modules); "
        "import deadunits_tb.serving.loader; print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = run.stdout.split()
    ours = {name for name in loaded if name.split(".")[0] == "deadunits_tb"}
    assert ours == {"deadunits_tb", "deadunits_tb.serving", "deadunits_tb.serving.loader"}
    foreign = {name.split(".")[0] for name in loaded} - {"deadunits_tb"} - sys.stdlib_module_names
    assert foreign == set()

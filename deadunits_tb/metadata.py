"""Name and version of the plugin, the tags it writes, and the metadata that each tag carries.

This module alone knows them. ``docs/format.md`` describes the format for everyone else.

Tags are short and made of safe characters; names of layers live in the metadata. A tag covers one layer, one range of
units and one range of records of one *session*, that is one event file. So tags of a closed block never change, and
those of a resumed run never mix with those of the run that it goes on from.

**Which records count.** Sort sessions by :attr:`TagInfo.session`. A record is void when a later session begins at its
step or before: the run was rewound. Of several points at one step, the last wins. What a later tag says of a layer
replaces what an earlier one said.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, SummaryMetadata

from deadunits_tb import strict_json
from deadunits_tb.errors import FormatError, FutureVersionError, InvalidArgumentError
from deadunits_tb.run_record import ModelPart, RunInfo
from deadunits_tb.strict_json import Fields
from deadunits_tb.thresholds import SPECS, Thresholds
from deadunits_tb.units import LayerInfo, Role, Witness

PLUGIN_NAME = "dead_units"
DISPLAY_NAME = "Dead Units"
VERSION = 1
"""Major version of the format. Readers refuse a later one and ignore keys that they do not know."""
SUBDIRECTORY = "dead_units"
"""Event files lie here, below the directory that the user names: two in one directory would freeze one another."""

UNIT_BLOCK = 16_384
"""Units in one tag at most: 256 records of 14 statistics are 112 MiB, and TensorBoard's data server answers 256 MiB."""
RECORD_BLOCK = 256
"""Records in one tag at most."""
MAX_UNITS = 2**24
"""Units of one layer at most. More is no layer, but an attempt to make a reader ask for memory."""
MAX_METADATA = 4 * 2**20
"""Bytes of metadata that are read."""

Kind = Literal["states", "statistics", "summary", "certificates"]


@dataclass(frozen=True, slots=True)
class TagInfo:
    """What one tag holds.

    Attributes:
        kind: ``"states"``, ``"statistics"`` and ``"certificates"`` of a layer, or the ``"summary"`` of the run.
        layer: None for a summary.
        unit_start: First unit.
        unit_stop: One after the last.
        block: Number of the range of records within the session, from 0.
        statistics: Names of the rows; empty unless the kind is ``"statistics"``. Names that this version does not
            know are kept, so that the rows can be told apart.
        run: None unless the kind is ``"summary"``. Its layers are those known when the block was begun.
        session: Microseconds since the epoch at which the event file was begun. Orders sessions.
    """

    kind: Kind
    layer: LayerInfo | None = None
    unit_start: int = 0
    unit_stop: int = 0
    block: int = 0
    statistics: tuple[str, ...] = ()
    run: RunInfo | None = None
    session: int = 0

    @property
    def units(self) -> int:
        """How many units the tag covers."""
        return self.unit_stop - self.unit_start


def tag_name(info: TagInfo) -> str:
    """The tag of a block, such as ``"states/3-1a2b3c4d/0/62a1b2c3d4e5f.0"``: unique within a run.

    Readers take what they need from the metadata, never from the tag.
    """
    parts: list[str] = [info.kind]
    if info.layer is not None:
        # All of what is known, not the name alone: a layer of which more is learned later gets tags of its own.
        parts += [f"{info.layer.order}-{_digest(repr(info.layer))}", str(info.unit_start)]
    parts.append(f"{info.session:x}.{info.block}")
    if info.statistics:
        parts.append(_digest(",".join(info.statistics)))
    return "/".join(parts)


def make(info: TagInfo) -> SummaryMetadata:
    """The metadata that the first event of a tag carries."""
    values: dict[str, Any] = {"version": VERSION, "kind": info.kind, "session": info.session, "block": info.block}
    if info.layer is not None:
        values["layer"] = dataclasses.asdict(info.layer)
        values["units"] = [info.unit_start, info.unit_stop]
    if info.statistics:
        values["statistics"] = list(info.statistics)
    if info.run is not None:
        values["run"] = _run_values(info.run)
    metadata = SummaryMetadata(data_class=DATA_CLASS_TENSOR)
    metadata.plugin_data.plugin_name = PLUGIN_NAME
    metadata.plugin_data.content = strict_json.dumps(values)
    return metadata


def parse(content: bytes) -> TagInfo:
    """Read the content of :func:`make`, whoever wrote it.

    Args:
        content: ``plugin_data.content`` of a tag's metadata.

    Raises:
        FutureVersionError: It was written by a later major version.
        FormatError: It is not metadata of ours; the message says why, in one sentence.
    """
    fields = strict_json.loads(content, limit=MAX_METADATA, what="metadata of a tag")
    version = fields.whole("version", low=1)
    if version > VERSION:
        raise FutureVersionError(
            f"this record is of format version {version}, and this version of deadunits_tb reads up to {VERSION}: "
            "update deadunits_tb"
        )
    kind: Kind = fields.choice("kind", get_args(Kind))
    info = TagInfo(kind, block=fields.whole("block"), session=fields.whole("session", 0))
    if kind == "summary":
        return dataclasses.replace(info, run=_parse_run(fields.object("run")))
    layer = _parse_layer(fields.object("layer"))
    start, stop = _parse_units(fields, layer)
    statistics = fields.texts("statistics")
    if (kind == "statistics") != bool(statistics) or len(set(statistics)) != len(statistics):
        raise FormatError(f"metadata of a tag of {kind} names the statistics {statistics!r:.80}")
    return dataclasses.replace(info, layer=layer, unit_start=start, unit_stop=stop, statistics=statistics)


def run_name(tensorboard_run: str) -> str:
    """The run as the user knows it: the directory that they named, ``"."`` for the log directory itself.

    Args:
        tensorboard_run: As TensorBoard names it, such as ``"mlp/dead_units"``.
    """
    head, separator, tail = re.sub(r"\\", "/", tensorboard_run).rpartition("/")
    if tail != SUBDIRECTORY:
        return tensorboard_run
    return head if separator else "."


def _digest(text: str) -> str:
    return hashlib.blake2s(text.encode("utf-8", "replace"), digest_size=4).hexdigest()


def _run_values(run: RunInfo) -> dict[str, Any]:
    return {
        "framework": run.framework,
        "versions": dict(run.versions),
        "optimizer": _settings(run.optimizer),
        "thresholds": run.thresholds.to_dict(),
        "layers": [dataclasses.asdict(layer) for layer in run.layers],
        "every": run.every,
        "model": [{"name": part.name, "kind": part.kind, "settings": _settings(part.settings)} for part in run.model],
    }


def _settings(values: Mapping[str, str | float]) -> dict[str, str | float | None]:
    return {name: v if isinstance(v, str) else strict_json.number(v) for name, v in values.items()}


def _parse_run(fields: Fields) -> RunInfo:
    layers = tuple(_parse_layer(layer) for layer in fields.objects("layers"))
    if len({layer.name for layer in layers}) != len(layers):
        raise FormatError("metadata of a run names a layer twice")
    known = {name: v for name, v in fields.object("thresholds", Fields({}, "")).scalars().items() if name in SPECS}
    try:
        thresholds = Thresholds().replace(**known)  # it checks types and bounds itself
    except InvalidArgumentError as error:
        raise FormatError(f"metadata of a run: {error}") from None
    return RunInfo(
        framework=fields.text("framework"),
        versions=fields.object("versions", Fields({}, "")).strings(),
        optimizer=fields.object("optimizer", Fields({}, "")).scalars(),
        thresholds=thresholds,
        layers=layers,
        every=fields.whole("every", None, low=1),
        model=tuple(
            ModelPart(part.text("name"), part.text("kind"), part.object("settings", Fields({}, "")).scalars())
            for part in fields.objects("model")
        ),
    )


_HINTS = get_type_hints(LayerInfo)


def _parse_layer(fields: Fields) -> LayerInfo:
    return LayerInfo(
        name=fields.text("name"),
        kind=fields.text("kind"),
        order=fields.whole("order"),
        units=fields.whole("units", low=1, high=MAX_UNITS),
        activation_function=fields.text("activation_function", None),
        fan_in=fields.whole("fan_in", None),
        fan_out=fields.whole("fan_out", None),
        role=fields.choice("role", get_args(Role), "hidden"),
        framework=fields.text("framework", "numpy"),
        witness=fields.choice("witness", get_args(Witness), "none"),
        tokens=fields.flag("tokens", False),
        weight_delta=fields.choice("weight_delta", get_args(_HINTS["weight_delta"]), "none"),
    )


def _parse_units(fields: Fields, layer: LayerInfo) -> tuple[int, int]:
    match fields.array("units"):
        case [int(start), int(stop)] if 0 <= start < stop <= layer.units and stop - start <= UNIT_BLOCK:
            return start, stop
        case _:
            raise FormatError(
                f"metadata of a tag: 'units' must be [first, last + 1] within the {layer.units:,} units of the layer, "
                f"at most {UNIT_BLOCK:,} of them"
            )

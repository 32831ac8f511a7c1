"""The facts of a run at one record, as compressed JSON."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from deadunits_tb import strict_json
from deadunits_tb.codec.compression import unpack
from deadunits_tb.errors import FormatError
from deadunits_tb.record import NEVER
from deadunits_tb.run_record import EVENT_UNITS, InputSummary, RunEvent, RunRecord, Skipped
from deadunits_tb.strict_json import Fields
from deadunits_tb.units import UnitState

MAX_RUN_RECORD = 4 * 2**20
"""Bytes that the record of a run unpacks to at most."""


def encode_run(record: RunRecord, layer_names: Sequence[str] = ()) -> bytes:
    """Pack the facts of a run at one record.

    Args:
        record: The record.
        layer_names: Of the layers in the metadata of the tag, in order. Counts refer to them by number, and to any
            other layer by name.
    """
    number = {name: place for place, name in enumerate(layer_names)}
    inputs, loss = record.inputs, record.loss
    values: dict[str, object] = {
        "step": int(record.step),
        "wall_time": float(record.wall_time),
        "examples": int(record.examples),
        "observations": int(record.observations),
        "optimizer_steps": int(record.optimizer_steps),
        "learning_rate": _json_number(record.learning_rate),
        "loss": _json_number(loss),
        "inputs": inputs and [_json_number(v) for v in (inputs.mean, inputs.std, inputs.min, inputs.max)],
        "overhead": _json_number(record.overhead),
        "overhead_seconds": _json_number(record.overhead_seconds),
        "opening_seconds": _json_number(record.opening_seconds),
        "interval": int(record.interval),
        "records_written": int(record.records_written),
        "dropped": int(record.dropped),
        "statistics_interval": int(record.statistics_interval),
        "errors": list(record.errors),
        "skipped": [[skipped.layer, skipped.reason] for skipped in record.skipped],
        "counts": [[number.get(name, name), [int(n) for n in counts]] for name, counts in record.counts.items()],
    }
    if record.events:  # few runs have any
        values["events"] = [
            {
                "step": int(event.step),
                "kind": event.kind,
                "layer": event.layer,
                "count": int(event.count),
                "units": [int(unit) for unit in event.units],
                "policy": event.policy,
            }
            for event in record.events
        ]
    # By default the tables that zlib has to clear cost many times what so few bytes cost to compress.
    packer = zlib.compressobj(6, zlib.DEFLATED, wbits=12, memLevel=5)
    return packer.compress(strict_json.dumps(values)) + packer.flush()


def decode_run(data: bytes, layer_names: Sequence[str] = ()) -> RunRecord:
    """Unpack :func:`encode_run`.

    Args:
        data: The bytes of one record of a ``summary`` tag.
        layer_names: As for :func:`encode_run`.

    Raises:
        FormatError: The bytes are damaged, too many, or not such a record.
    """
    what = "a summary"
    body = unpack(data, MAX_RUN_RECORD, what)
    fields = strict_json.loads(body, limit=MAX_RUN_RECORD, what=what)
    return RunRecord(
        step=fields.whole("step"),
        wall_time=fields.number("wall_time", finite=True),
        examples=fields.whole("examples"),
        observations=fields.whole("observations"),
        optimizer_steps=fields.whole("optimizer_steps"),
        learning_rate=fields.number("learning_rate", None),
        loss=fields.number("loss", None),
        inputs=_input_summary(fields.array("inputs", None)),
        overhead=fields.number("overhead", None),
        overhead_seconds=fields.number("overhead_seconds", 0.0),
        opening_seconds=fields.number("opening_seconds", None),
        interval=fields.whole("interval", 1),
        records_written=fields.whole("records_written", 1),
        dropped=fields.whole("dropped", 0),
        statistics_interval=fields.whole("statistics_interval", 1, low=1),
        errors=fields.texts("errors"),
        skipped=tuple(Skipped(*_items(pair, 2, "skipped").texts("")) for pair in fields.array("skipped", [])),
        counts=dict(_layer_counts(pair, layer_names) for pair in fields.array("counts", [])),
        events=tuple(_event(values) for values in fields.objects("events")),
    )


def _json_number(value: float | None) -> float | str | None:
    return None if value is None else strict_json.number(float(value))


def _items(value: object, length: int, what: str) -> Fields:
    """A list of a known length, under the empty key."""
    if not isinstance(value, list) or len(value) != length:
        raise FormatError(f"a summary: {what!r} must hold lists of {length}")
    return Fields({"": value}, f"a summary: {what}")


def _input_summary(values: list[object] | None) -> InputSummary | None:
    if values is None:
        return None
    _items(values, 4, "inputs")
    return InputSummary(*(Fields({"": value}, "a summary: inputs").number("") for value in values))


def _layer_counts(pair: object, layer_names: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    layer, counts = _items(pair, 2, "counts").array("")
    field = Fields({"": layer}, "a summary: counts")
    name = field.text("") if isinstance(layer, str) else layer_names[field.whole("", high=len(layer_names) - 1)]
    return name, _items(counts, len(UnitState), "counts").wholes("")


def _event(values: Fields) -> RunEvent:
    units = values.wholes("units")
    if len(units) > EVENT_UNITS:
        raise FormatError(f"a summary: an event names {len(units):,} units, more than {EVENT_UNITS:,}")
    return RunEvent(
        step=values.whole("step", low=NEVER),
        kind=values.text("kind"),
        layer=values.text("layer"),
        count=values.whole("count"),
        units=units,
        policy=values.text("policy", ""),
    )

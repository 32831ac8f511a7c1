"""What a request is about: its run, its layer, and the unit in each of its rows."""

from __future__ import annotations

from dataclasses import dataclass

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.ordering import ORDERS
from deadunits_tb.record import Int
from deadunits_tb.serving.histories import Histories
from deadunits_tb.serving.parameters import Query


@dataclass(frozen=True, slots=True)
class Rows:
    """Units in the order that a request asks for.

    Attributes:
        units: ``int64 [units]``: the unit in each row.
        exact: Whether the order is that of the very version that the request names, so that it never changes.
    """

    units: Int
    exact: bool


def run_and_layer(histories: Histories, query: Query) -> tuple[RunHistory, LayerHistory]:
    """The run and the layer that the request names.

    Raises:
        UnknownNameError: There is no such run or layer.
    """
    name = query.text("layer")
    run = histories.run(query)
    return run, run.layer(name)


def rows_of(histories: Histories, query: Query, run: RunHistory, layer: LayerHistory) -> Rows:
    """The layer's units in its own order, or in that of the layer which ``like`` and ``like_layer`` name.

    Two runs side by side must show the same unit in the same row, whichever of them the order comes from.

    Raises:
        InvalidArgumentError: There is no such order, or the other layer has not as many units.
        UnknownNameError: There is no such run or layer.
    """
    order = query.choice("order", ORDERS, ORDERS[0])
    name = query.optional("like")
    if name is None:
        return Rows(histories.order(query, run, layer, order), query.optional("version") == run.version)
    asked = query.replace(
        run=name, layer=query.optional("like_layer") or layer.info.name, version=query.optional("like_version") or ""
    )
    other, like = run_and_layer(histories, asked)
    if like.units != layer.units:
        raise InvalidArgumentError(
            f"{layer.info.name!r} has {layer.units} units and {like.info.name!r} of run {other.run!r} {like.units}: "
            "rows of one cannot have the order of the other"
        )
    exact = query.optional("version") == run.version and asked.optional("version") == other.version
    return Rows(histories.order(asked, other, like, order), exact)

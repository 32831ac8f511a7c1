"""The route table: the one place that knows which routes there are. ``docs/http_api.md`` says what they answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deadunits_tb.serving import compare_handler, handlers, unit_handlers
from deadunits_tb.serving.histories import Histories
from deadunits_tb.serving.parameters import Query
from deadunits_tb.serving.responses import Reply


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes:
        path: Below ``data/plugin/dead_units``.
        handler: Answers it.
        parameters: Names that it reads; others in a URL are ignored.
        description: One line.
    """

    path: str
    handler: Callable[[Histories, Query], Reply]
    parameters: tuple[str, ...]
    description: str


LIKE = ("like", "like_layer", "like_version")
"""Whose order rows have, where not the layer's own."""
ROUTES = (
    Route("/runs", handlers.runs, (), "The runs that hold records of ours."),
    Route("/overview", handlers.overview, ("run", "thresholds"), "One run: headline, layers, findings, data quality."),
    Route("/layer", handlers.layer, ("run", "layer", "thresholds"), "One layer: steps, counts of states, statistics."),
    Route(
        "/tile",
        handlers.tile,
        ("run", "layer", "what", "order", *LIKE, "level", "tile", "thresholds", "version"),
        "256 rows of a heatmap by state or statistic.",
    ),
    Route("/order", handlers.order, ("run", "layer", "order", *LIKE, "thresholds", "version"), "The unit in each row."),
    Route(
        "/distribution",
        handlers.distribution,
        ("run", "layer", "statistic", "bins", "version"),
        "The units of a layer by value of a statistic, over steps.",
    ),
    Route("/unit", unit_handlers.unit, ("run", "layer", "unit", "thresholds"), "Everything known of one unit."),
    Route(
        "/units",
        unit_handlers.units,
        ("run", "layer", "first", "last", "state", "order", *LIKE, "limit", "thresholds"),
        "The units in some rows, with their verdicts.",
    ),
    Route(
        "/events",
        unit_handlers.events,
        ("run", "layer", "limit", "thresholds"),
        "When units of a layer died, and fired again.",
    ),
    Route("/export", unit_handlers.export, ("run", "layer", "thresholds"), "The units of a layer, or of all, as CSV."),
    Route(
        "/compare",
        compare_handler.compare,
        ("run", "other", "thresholds"),
        "Two runs side by side: where more units die, and whether chance explains it.",
    ),
    Route("/glossary", handlers.glossary, (), "What the words mean."),
)

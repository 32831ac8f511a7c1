"""Which layers of two runs correspond."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deadunits_tb.reading.history import LayerHistory

By = Literal["name", "place"]


@dataclass(frozen=True, slots=True)
class Matching:
    """Layers of two runs that correspond, and those that do not.

    Attributes:
        pairs: Name in the first run, name in the second, and how they were found; in the first model's order.
        only_first: Layers of the first run without a counterpart.
        only_second: Layers of the second run without one.
    """

    pairs: tuple[tuple[str, str, By], ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def match(first: Mapping[str, LayerHistory], second: Mapping[str, LayerHistory]) -> Matching:
    """Match layers by name, or by place in the model.

    Where both models have the same kinds and widths of layers in the same order under other names, they match by place:
    a dropout more shifts all later names of a PyTorch ``Sequential``, so that equal names would be of unlike layers.
    """
    ours = {name: layer for name, layer in first.items() if len(layer)}
    theirs = {name: layer for name, layer in second.items() if len(layer)}
    pairs: tuple[tuple[str, str, By], ...]
    if set(ours) != set(theirs) and list(map(_looks, ours.values())) == list(map(_looks, theirs.values())):
        pairs = tuple((a, b, "name" if a == b else "place") for a, b in zip(ours, theirs, strict=True))
    else:
        pairs = tuple((name, name, "name") for name in ours if name in theirs)
    taken_first, taken_second = {a for a, _, _ in pairs}, {b for _, b, _ in pairs}
    return Matching(
        pairs,
        tuple(name for name in first if name not in taken_first),
        tuple(name for name in second if name not in taken_second),
    )


def _looks(layer: LayerHistory) -> tuple[str, int, str]:
    return layer.info.kind, layer.units, layer.info.role

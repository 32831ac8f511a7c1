"""Two runs side by side: how they were made differently, where more units die, and whether chance explains that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.reading.comparison_words import Verdict, details_of, verdict_of
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.layer_comparison import (
    SIGNIFICANCE,
    LayerComparison,
    chance_of,
    corrected,
    curves_of,
    side_at,
    trouble_of,
)
from deadunits_tb.reading.matching import match
from deadunits_tb.reading.phrases import listing
from deadunits_tb.reading.recipe import Difference, differences, loss_at
from deadunits_tb.record import Byte

StatesOf = Callable[[str], Byte]
"""Layer name to ``uint8 [records, units]`` state codes, as judged now."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        first: Name of a run.
        second: Name of the other.
        step: Up to which both have records: there they are compared.
        verdict: Whether the difference speaks for dying units.
        sentence: The verdict in words.
        details: Further sentences.
        differences: What was made differently, as far as the logs know it.
        layers: Those that both have, in the first model's order.
        only_first: Layers without a counterpart in the second run.
        only_second: Layers without a counterpart in the first.
        losses: Of both runs up to that step, None where not recorded.
    """

    first: str
    second: str
    step: int
    verdict: Verdict
    sentence: str
    details: tuple[str, ...]
    differences: tuple[Difference, ...]
    layers: tuple[LayerComparison, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    losses: tuple[float | None, float | None]


def compare(
    first: RunHistory,
    second: RunHistory,
    *,
    names: tuple[str, str] | None = None,
    states_of: tuple[StatesOf, StatesOf] | None = None,
) -> Comparison:
    """Compare two runs at the last step that both have reached.

    Args:
        first: A run.
        second: Another one.
        names: What to call them; their own names if None.
        states_of: The states of their layers; as the writers judged them if None.

    Raises:
        InvalidArgumentError: They have no layer in common, or no step.
    """
    names = names or (first.run, second.run)
    matching = match(first.layers, second.layers)
    if not matching.pairs:
        raise InvalidArgumentError(_nothing_in_common(first, second, names))
    pairs = [(first.layer(a), second.layer(b)) for a, b, _ in matching.pairs]
    step = min(first.last_step, second.last_step)
    late = [name for run, name in ((first, names[0]), (second, names[1])) if run.first_step > step]
    if late:
        raise InvalidArgumentError(
            f"the runs have no step in common: {late[0]!r} begins only after the other has ended, at step {step:,}"
        )
    judge = states_of or (lambda name: first.layers[name].states(), lambda name: second.layers[name].states())
    states = [(judge[0](a), judge[1](b)) for a, b, _ in matching.pairs]
    sides = [
        (side_at(ours, mine, step), side_at(theirs, other, step))
        for (ours, theirs), (mine, other) in zip(pairs, states, strict=True)
    ]
    layers = []
    chances = corrected([chance_of(a, b) for a, b in sides])
    for (a, b, by), pair, own, (x, y), chance in zip(matching.pairs, pairs, states, sides, chances, strict=True):
        info = pair[0].info
        steps, shares = curves_of(pair, own)
        differs = chance < SIGNIFICANCE
        layers.append(
            LayerComparison(a, b, by, info.kind, info.role, x, y, chance, differs, trouble_of(x, y), steps, shares)
        )
    made = tuple(differences(first, second, pairs))
    losses = (loss_at(first, step), loss_at(second, step))
    verdict, sentence = verdict_of(names, step, layers, made)
    return Comparison(
        *names, step, verdict, sentence, tuple(details_of((first, second), names, step, verdict, layers, made, losses)),
        made, tuple(layers), matching.only_first, matching.only_second, losses,
    )  # fmt: skip


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as the command and the HTTP API give it: strict JSON."""
    found = asdict(comparison)
    for layer in found["layers"]:
        layer["chance"] = None if math.isnan(layer["chance"]) else layer["chance"]
    found["losses"] = [loss if loss is not None and math.isfinite(loss) else None for loss in comparison.losses]
    return found


def _nothing_in_common(first: RunHistory, second: RunHistory, names: tuple[str, str]) -> str:
    have = [
        f"{name!r} has {listing(list(run.layers)) or 'none'}" for name, run in zip(names, (first, second), strict=True)
    ]
    return f"the runs have no layer in common, by name or by place: {', and '.join(have)}"

"""What a comparison of two runs comes to, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from deadunits_tb.reading.history import RunHistory
from deadunits_tb.reading.layer_comparison import LayerComparison
from deadunits_tb.reading.phrases import count, listing, measured, percent
from deadunits_tb.reading.recipe import NONE, Difference, Lever

Names = tuple[str, str]
Verdict = Literal["for", "mixed", "none", "unknown"]
"""The difference speaks for dying units; for them in some layers and against them in others; chance explains it; or it
cannot be told."""

LOWER_LOSS = 0.5
"""A loss below this share of another is lower: losses of one recipe differ between seeds by less (measured)."""


def verdict_of(
    names: Names, step: int, layers: Sequence[LayerComparison], made: Sequence[Difference]
) -> tuple[Verdict, str]:
    """Whether the difference speaks for dying units, and one sentence that says so."""
    told = [layer for layer in layers if not math.isnan(layer.chance)]
    if not told:
        empty = [name for name, judged in zip(names, _judged(layers), strict=True) if not judged]
        return "unknown", (
            f"cannot be told: no unit of {listing([repr(name) for name in empty])} can be judged at step {step:,}, too "
            "few examples were seen"
        )
    significant = sorted((layer for layer in told if layer.differs), key=lambda layer: layer.chance)
    if not significant:
        return "none", _by_chance(names, step, told)
    with_words = _with_words(names, made)
    worst = significant[0]
    second_better = worst.second.share < worst.first.share
    better, other = (1, 0) if second_better else (0, 1)
    sides = (worst.first, worst.second)
    sentence = (
        f"{with_words[better]} {sides[better].troubled:,} of {count(sides[better].judged, 'unit')} of {_name(worst)} "
        f"{_are(sides[better].troubled)} {worst.trouble} at step {step:,}, {with_words[other]} "
        f"{sides[other].troubled:,}{_of(sides[other].judged, sides[better].judged)}"
    )
    in_order = [layer for layer in told if layer.differs]
    same = [layer for layer in in_order if (layer.second.share < layer.first.share) == second_better]
    against = [layer for layer in in_order if layer not in same]
    where = listing([_name(layer) for layer in same])
    if against:
        return "mixed", (
            f"{sentence}; in {listing([_name(layer) for layer in against])} it is the other way round: the difference "
            "speaks for dying units in some layers, and against them in others"
        )
    return "for", f"{sentence}: the difference speaks for dying units in {where}"


def details_of(
    runs: tuple[RunHistory, RunHistory],
    names: Names,
    step: int,
    verdict: Verdict,
    layers: Sequence[LayerComparison],
    made: Sequence[Difference],
    losses: tuple[float | None, float | None],
) -> Iterator[str]:
    """What must be known to read the verdict right."""
    significant = [layer for layer in layers if layer.differs]
    if significant:
        chance = min(layer.chance for layer in significant)
        looked = sum(layer.chance < 1 for layer in layers)
        yield (
            f"two runs of one recipe differ so much with a probability of {percent(chance)}, over "
            f"{count(looked, 'layer')} with units in trouble"
        )
    yield from _of_loss(names, verdict, significant, made, losses)
    yield from _of_recipe(runs, names, verdict, made)
    if runs[0].last_step != runs[1].last_step:
        longer = names[0] if runs[0].last_step > runs[1].last_step else names[1]
        last = max(run.last_step for run in runs)
        yield f"compared at step {step:,}, the last that both have; {longer!r} goes on to step {last:,}"
    unjudged = [_name(layer) for layer in layers if layer.first.judged * 2 < layer.first.units]
    unjudged += [_name(layer) for layer in layers if layer.second.judged * 2 < layer.second.units]
    if unjudged and verdict != "unknown":
        few = listing(list(dict.fromkeys(unjudged)))
        yield f"fewer than half of the units of {few} can be judged in one of the runs"


def _by_chance(names: Names, step: int, layers: Sequence[LayerComparison]) -> str:
    most = min(layers, key=lambda layer: layer.chance)
    if not any(layer.first.troubled or layer.second.troubled for layer in layers):
        return f"no difference: at step {step:,} no unit of either run is dead, dying, or in another alarm state"
    first, second = most.first, most.second
    often = "more often than not" if most.chance > 0.5 else f"with a probability of {percent(most.chance)}"
    return (
        f"no difference that chance would not make: at step {step:,} {first.troubled:,} of "
        f"{count(first.judged, 'unit')} of {_name(most)} are {most.trouble} in {names[0]!r}, and in {names[1]!r} "
        f"{second.troubled:,}{_of(second.judged, first.judged)}; two runs of one recipe differ so much {often}"
    )


def _of_loss(
    names: Names,
    verdict: Verdict,
    significant: Sequence[LayerComparison],
    made: Sequence[Difference],
    losses: tuple[float | None, float | None],
) -> Iterator[str]:
    first, second = losses
    if first is None or second is None:
        yield "no loss was recorded in one of the runs: whether fewer dying units help cannot be told"
        return
    told = f"the loss is {measured(first)} in {names[0]!r} and {measured(second)} in {names[1]!r}"
    if any(one.lever == "dropout" for one in made):
        told += "; a training loss under dropout is larger than the network's own: look at examples that were held out"
        yield told
        return
    if not (math.isfinite(first) and math.isfinite(second)) or verdict not in ("for", "none"):
        yield told
        return
    lower = 1 if second < LOWER_LOSS * first else 0 if first < LOWER_LOSS * second else None
    if verdict == "none":
        if lower is not None:
            yield f"{told}: dying units do not explain that"
        else:
            yield f"{told}, hardly a difference either"
        return
    better = 1 if significant[0].second.share < significant[0].first.share else 0
    if lower is None:
        yield f"{told}, hardly a difference: the units that died were not missed"
    elif lower == better:
        yield f"{told}: the run with fewer of them also learns better, so they may well be what held the other back"
    else:
        yield f"{told}: the run with more of them learns better, so they are not what matters most here"


def _of_recipe(
    runs: tuple[RunHistory, RunHistory], names: Names, verdict: Verdict, made: Sequence[Difference]
) -> Iterator[str]:
    unknown = [repr(name) for run, name in zip(runs, names, strict=True) if not run.info.model]
    if unknown:
        yield (
            f"the log of {listing(unknown)} does not say what the model is made of, so dropout and normalisation may "
            "differ unseen"
        )
    if not made:
        yield "the logs know of no difference in how the runs were made, but for seed and data"
    elif len(made) > 1 and verdict in ("for", "mixed"):
        yield f"the runs differ in {count(len(made), 'thing')}: which of them made the difference, two runs cannot tell"
    first, second = (run.info.thresholds.to_dict() for run in runs)
    changed = [name for name in first if first[name] != second[name]]
    if changed:
        yield f"the runs were written with different thresholds: {listing(changed)}"


def _with_words(names: Names, made: Sequence[Difference]) -> Names:
    """How to call the runs: by the one lever that only one of them has, otherwise by name."""
    with_it: dict[Lever, set[int]] = {}
    for one in made:
        if one.lever is not None and NONE in (one.first, one.second):
            with_it.setdefault(one.lever, set()).add(0 if one.second == NONE else 1)
    if len(with_it) != 1:
        return f"in {names[0]!r}", f"in {names[1]!r}"
    ((lever, having),) = with_it.items()
    if len(having) != 1:
        return f"in {names[0]!r}", f"in {names[1]!r}"
    (has,) = having
    said = (f"with {lever} ({names[has]!r})", f"without ({names[1 - has]!r})")
    return (said[0], said[1]) if has == 0 else (said[1], said[0])


def _judged(layers: Sequence[LayerComparison]) -> tuple[int, int]:
    return sum(layer.first.judged for layer in layers), sum(layer.second.judged for layer in layers)


def _name(layer: LayerComparison) -> str:
    name = layer.layer if any(map(str.isalpha, layer.layer)) else f"layer {layer.layer}"
    return name if layer.layer == layer.other else f"{name} ({layer.other})"


def _are(units: int) -> str:
    return "is" if units == 1 else "are"


def _of(judged: int, said: int) -> str:
    """How many units there are, where that is not what was said before."""
    return "" if judged == said else f" of {judged:,}"

"""How two runs were made differently, as far as their logs know it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.reading.phrases import count, listing, measured
from deadunits_tb.run_record import ModelPart

Lever = Literal["dropout", "weight decay", "normalisation"]
"""What regularizes or normalises: an improvement by it can point at dying units."""
Pairs = Sequence[tuple[LayerHistory, LayerHistory]]

NONE = "none"
_RATES = frozenset({"lr", "learning_rate", "initial_lr"})
_NOT_THE_RECIPE = frozenset(
    {"class", "name", "foreach", "fused", "capturable", "differentiable", "jit_compile", "decoupled_weight_decay"}
)
_OFF_AT_ZERO = frozenset({"weight_decay", "momentum", "dampening", "amsgrad", "nesterov", "maximize", "use_ema"})
_FEW = 3
_SAME_BATCH = 1.02
_SAME_INPUTS = 1.2
_SAME_WEIGHTS = 1.2


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two runs differ.

    Attributes:
        what: Such as ``"optimizer"`` or ``"Dropout"``.
        first: In the first run, in words; ``"none"`` where it is not there.
        second: In the second run.
        lever: What it is an instance of, if it regularizes or normalises.
    """

    what: str
    first: str
    second: str
    lever: Lever | None = None


def differences(first: RunHistory, second: RunHistory, pairs: Pairs) -> list[Difference]:
    """Find what differs.

    Args:
        first: A run.
        second: Another one.
        pairs: Layers of both that correspond.
    """
    found = [
        *_model(first.info.model, second.info.model),
        *_optimizer(first.info.optimizer, second.info.optimizer),
        *_texts("learning rate", _rate(first), _rate(second)),
        *_numbers("examples in a batch", _batch(first), _batch(second), _SAME_BATCH),
        *_numbers("size of the inputs (root mean square)", _inputs(first), _inputs(second), _SAME_INPUTS),
        *_layers(pairs),
        *_texts("framework", first.info.framework, second.info.framework),
    ]
    return sorted(found, key=lambda one: one.lever is None)


def loss_at(run: RunHistory, step: int) -> float | None:
    """Median loss of the last records up to a step, a tenth of them or three; None where no loss was recorded."""
    known = [record.loss for record in run.records if record.loss is not None and record.step <= step]
    return statistics.median(known[-max(_FEW, len(known) // 10) :]) if known else None


def _texts(what: str, first: str | None, second: str | None, lever: Lever | None = None) -> Iterator[Difference]:
    if first is not None and second is not None and first != second:
        yield Difference(what, first, second, lever)


def _numbers(what: str, first: float, second: float, same: float) -> Iterator[Difference]:
    """What is measured: small differences are none."""
    low, high = sorted((first, second))
    if math.isfinite(low) and math.isfinite(high) and low >= 0 and high > same * low:
        yield Difference(what, measured(first), measured(second))


def _optimizer(first: Mapping[str, str | float], second: Mapping[str, str | float]) -> Iterator[Difference]:
    if not first or not second:
        return
    yield from _texts("optimizer", str(first.get("class", "")), str(second.get("class", "")))
    alike = first.get("class") == second.get("class")
    names = dict.fromkeys([*first, *second]) if alike else [name for name in first if name in second]
    for name in dict.fromkeys([*names, "weight_decay"]):
        if name not in _RATES | _NOT_THE_RECIPE:
            lever: Lever | None = "weight decay" if name == "weight_decay" else None
            yield from _texts(name.replace("_", " "), _setting(first, name), _setting(second, name), lever)


def _setting(settings: Mapping[str, str | float], name: str) -> str:
    value = settings.get(name)
    if value is None or (value == 0 and name in _OFF_AT_ZERO):
        return NONE
    return value if isinstance(value, str) else f"{value:g}"


def _rate(run: RunHistory) -> str | None:
    rates = [record.learning_rate for record in run.records if record.learning_rate is not None]
    if not rates:
        known = [run.info.optimizer[name] for name in sorted(_RATES) if name in run.info.optimizer]
        return _number(known[0]) if known else None
    return _number(rates[0]) if rates[0] == rates[-1] else f"{_number(rates[0])} to {_number(rates[-1])}"


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _batch(run: RunHistory) -> float:
    sizes = [record.examples / record.observations for record in run.records if record.observations]
    return statistics.median(sizes) if sizes else math.nan


def _inputs(run: RunHistory) -> float:
    sizes = [math.hypot(record.inputs.mean, record.inputs.std) for record in run.records if record.inputs]
    return statistics.median(sizes) if sizes else math.nan


def _layers(pairs: Pairs) -> Iterator[Difference]:
    """Activation functions, and the size of the weights at the first record: initializers leave their mark there."""
    changed: dict[tuple[str, str], list[str]] = {}
    for ours, theirs in pairs:
        functions = (ours.info.activation_function or "unknown", theirs.info.activation_function or "unknown")
        if functions[0] != functions[1]:
            changed.setdefault(functions, []).append(ours.info.name)
    for (first, second), names in changed.items():
        yield Difference(f"activation function of {listing(names)}", first, second)
    sizes = [(ours.info.name, _weights_at_start(ours), _weights_at_start(theirs)) for ours, theirs in pairs]
    other = [(name, a, b) for name, a, b in sizes if min(a, b) > 0 and max(a, b) > _SAME_WEIGHTS * min(a, b)]
    if other:
        ours_told, theirs_told = (
            listing([measured(a) for _, a, _ in other]),
            listing([measured(b) for _, _, b in other]),
        )
        yield Difference(
            f"norm of a unit's first weights in {listing([name for name, _, _ in other])}", ours_told, theirs_told
        )


def _weights_at_start(layer: LayerHistory) -> float:
    """Median over the units of the norm of their incoming weights at the first record; NaN where unknown."""
    found = layer.statistic_at(0)
    norms = found.get("norm_in") if found is not None else None
    return float(np.median(norms)) if norms is not None else math.nan


def _model(first: Sequence[ModelPart], second: Sequence[ModelPart]) -> Iterator[Difference]:
    if not first or not second:
        return
    for kind in dict.fromkeys(part.kind for part in (*first, *second)):
        ours, theirs = ([part for part in parts if part.kind == kind] for parts in (first, second))
        lever = _lever(kind)
        if len(ours) != len(theirs):
            yield Difference(kind, _told(ours), _told(theirs), lever)
            continue
        for name in dict.fromkeys(name for part in (*ours, *theirs) for name in part.settings):
            sides = (_values(ours, name), _values(theirs, name))
            regularizes: Lever | None = "weight decay" if "regularizer" in name else None
            drops: Lever | None = "dropout" if "dropout" in name else None
            yield from _texts(f"{kind}, {name.replace('_', ' ')}", *sides, lever or regularizes or drops)


def _lever(kind: str) -> Lever | None:
    if "Dropout" in kind or "DropPath" in kind or "StochasticDepth" in kind:
        return "dropout"
    return "normalisation" if "Norm" in kind else None


def _told(parts: Sequence[ModelPart]) -> str:
    """``none``, ``2, with p 0.5``."""
    if not parts:
        return NONE
    rates = [name for name in ("p", "rate") if name in parts[0].settings]
    return count(len(parts)) + (f", with {rates[0]} {_values(parts, rates[0])}" if rates else "")


def _values(parts: Sequence[ModelPart], name: str) -> str:
    """The settings of several parts: each value once, where all are the same."""
    values = [_setting(part.settings, name) for part in parts]
    return values[0] if len(set(values)) == 1 else listing(values, limit=8)

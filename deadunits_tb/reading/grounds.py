"""For each state the sentence that explains it, and the numbers that its rule compared."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from deadunits_tb.rates import REFERENCE_SHARE, TELLING_FIRINGS, low_stretch, recent_rate, recent_size, reference_rate
from deadunits_tb.reading.moment import Moment
from deadunits_tb.reading.phrases import count, listing, measured, percent, percent_bound
from deadunits_tb.record import NEVER
from deadunits_tb.units import LOOKUP, UnitState
from deadunits_tb.verdicts import chance_of_loss, judges_silence, recent_examples

Comparison = Literal["at least", "at most", "below", "above", "equal to"]
_HOLDS: Mapping[Comparison, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "below": operator.lt,
    "above": operator.gt,
    "equal to": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Number:
    """A measured number beside the threshold that it was compared with.

    Attributes:
        name: What was measured, in words.
        value: The measured number.
        comparison: How it stands to the threshold.
        threshold: The number it was compared with.
        threshold_name: The field of :class:`Thresholds` behind it, None where the rule knows no threshold.
    """

    name: str
    value: float
    comparison: Comparison
    threshold: float
    threshold_name: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the comparison is true."""
        return _HOLDS[self.comparison](self.value, self.threshold)


Ground = tuple[str, list[Number]]
"""A sentence about a unit, which is its subject, and the numbers in it that the rule compares."""


def ground(moment: Moment, state: UnitState, unit: int) -> Ground:
    """The sentence and the numbers for one unit in one state."""
    return _GROUNDS[state](moment, unit)


def _silence(m: Moment, unit: int) -> str:
    """The part of a sentence that all verdicts on silent units share."""
    silent, quiet = int(m.evidence.examples_since_active[unit]), int(m.quiet[unit])
    sentence = f"did not fire on the last {count(silent, 'example')}"
    if m.info.tokens:
        sentence += f" ({count(int(m.evidence.tokens_since_active[unit]), 'token')})"
    if not m.witnessed:
        at_output = "the gradient was recorded at the output, where zero proves nothing"
        return f"{sentence} (silence alone: {at_output if m.info.witness == 'output' else 'no gradient was recorded'})"
    if quiet == silent:
        return f"{sentence} and received no error signal"
    return f"{sentence} and received no error signal on the last {count(quiet)} of them"


def _without(m: Moment) -> str:
    return "without firing and without error signal" if m.witnessed else "without firing"


def _dead(m: Moment, unit: int) -> Ground:
    t, e, w = m.thresholds, m.evidence, m.window
    quiet, silent = int(m.quiet[unit]), int(e.examples_since_active[unit])
    numbers = [Number(f"examples {_without(m)}", quiet, "at least", t.dead_examples, "dead_examples")]
    passed = ""
    if not numbers[0].holds and m.info.tokens:
        tokens = float(e.tokens_since_active[unit] * (quiet / max(silent, 1)))
        seen = int(e.observations_since_active[unit])
        by_tokens = [
            Number(f"tokens {_without(m)}", tokens, "at least", t.dead_tokens, "dead_tokens"),
            Number("observations without firing", seen, "at least", t.dead_observations, "dead_observations"),
        ]
        numbers = by_tokens if all(n.holds for n in by_tokens) else numbers
    if not numbers[0].holds and w.dataset_examples:
        stretch = min(quiet, w.contiguous_examples)
        numbers = [
            Number("consecutive examples seen without a gap", stretch, "at least", 2 * w.dataset_examples),
            Number(f"examples {_without(m)}", quiet, "at least", t.unknown_examples, "unknown_examples"),
        ]
        passed = f", a complete pass over the {count(w.dataset_examples, 'example')} of the data set among them"
    bound = m.rate_upper_bound(unit)
    sure = f": with 95 % confidence it fires on fewer than {percent_bound(bound)} of examples" if bound else ""
    never = "; it has never fired since training began" if w.from_start and e.last_active_step[unit] == NEVER else ""
    return _silence(m, unit) + passed + sure + never, numbers


def _dying(m: Moment, unit: int) -> Ground:
    """The rule has several parts; the one that is told first is the one that fits the record, if it holds."""
    less = [_firing_less(m, unit, m.value("active_fraction", unit), m.window.examples)]
    if (recent := _recent(m, unit)) > 0:
        less.append(_firing_less(m, unit, recent, recent_examples(m.window, m.thresholds)))
    low_rate, low_examples = low_stretch(m.evidence.reference[unit])
    if low_examples > 0:
        less.append(_firing_less(m, unit, float(low_rate), int(low_examples)))
    silent = [_falling_silent(m, unit)]
    parts = less + silent if m.value("active_fraction", unit) > 0 else silent + less
    return next((part for part in parts if all(number.holds for number in part[1])), parts[0])


def _falling_silent(m: Moment, unit: int) -> Ground:
    t, quiet = m.thresholds, int(m.quiet[unit])
    sentence = _silence(m, unit)
    numbers = [Number(f"examples {_without(m)}", quiet, "at least", t.unknown_examples, "unknown_examples")]
    if m.evidence.last_active_step[unit] != NEVER and _reference(m, unit):
        numbers.append(_by_chance(m, unit, 0.0, quiet))
        sentence += f", {_once(m, unit)}"
    if quiet < t.dead_examples:
        sentence += f"; {count(t.dead_examples)} are needed to call it dead"
    return sentence, numbers


def _firing_less(m: Moment, unit: int, share: float, examples: int) -> Ground:
    t, reference = m.thresholds, _reference(m, unit)
    chance = _by_chance(m, unit, share, examples)
    fired = f"fired on {percent(share)} of" if share > 0 else "did not fire on"
    return (
        f"{fired} the last {count(examples, 'example')}, {_once(m, unit)}: chance alone explains that with a "
        f"probability of at most {measured(chance.value)}",
        [
            Number("share of examples on which it fired", share, "below", t.dying_share, "dying_share"),
            Number(
                "share of its own rate that it lost",
                1 - share / reference if reference else 0.0,
                "at least",
                t.dying_loss,
                "dying_loss",
            ),
            chance,
        ],
    )


def _by_chance(m: Moment, unit: int, share: float, examples: int) -> Number:
    t = m.thresholds
    lost = np.asarray((1 - t.dying_loss) * _reference(m, unit))
    chance = float(chance_of_loss(np.array([share], np.float32), np.asarray(examples), lost)[0])
    return Number("probability of that by chance", chance, "at most", t.dying_significance, "dying_significance")


def _once(m: Moment, unit: int) -> str:
    return f"once it fired on about {percent(_reference(m, unit))} of them"


def _recent(m: Moment, unit: int) -> float:
    """NaN where it was not recorded, because the unit fired often."""
    if m.value("active_fraction", unit) >= REFERENCE_SHARE and not m.evidence.reference[unit]:
        return math.nan
    return float(recent_rate(m.evidence.reference[unit]))


def _reference(m: Moment, unit: int) -> float:
    return float(reference_rate(m.evidence.reference[unit]))


def _sparse(m: Moment, unit: int) -> Ground:
    t, recent, behind = m.thresholds, _recent(m, unit), recent_examples(m.window, m.thresholds)
    return (
        f"fired on about {percent(recent)} of the last {count(behind, 'example')} or so: seldom, but no loss against "
        "its earlier rate that chance could not explain",
        [
            Number("share of recent examples on which it fired", recent, "below", t.dying_share, "dying_share"),
            _rarely_by_chance(m, unit),
        ],
    )


def _rarely_by_chance(m: Moment, unit: int) -> Number:
    t, recent, behind = m.thresholds, _recent(m, unit), recent_examples(m.window, m.thresholds)
    chance = float(chance_of_loss(np.array([recent]), np.asarray(behind), np.array(t.dying_share))[0])
    return Number("probability of that by chance", chance, "at most", t.sparse_significance, "sparse_significance")


def _dormant(m: Moment, unit: int) -> Ground:
    ratio = m.value("mean_abs", unit) / m.mean_abs if m.mean_abs else math.nan
    limit, sentence = m.thresholds.dormant_share, "its mean absolute output is"
    lately, fired = float(recent_size(m.evidence.reference[unit])), m.value("active_fraction", unit) * m.window.examples
    if m.info.relu_like and math.isfinite(lately) and fired < TELLING_FIRINGS:
        ratio, sentence = lately, f"fires so seldom that a record says little of its size; of late {sentence} about"
    return (
        f"{sentence} {percent(ratio)} of the layer's mean",
        [Number("mean absolute output, over the layer's mean", ratio, "at most", limit, "dormant_share")],
    )


def _stagnant(m: Moment, unit: int) -> Ground:
    ratio, limit = m.value("update_ratio", unit), m.thresholds.stagnant_ratio
    change = "did not change at all" if ratio == 0 else f"changed by {measured(ratio)} of their norm"
    others = measured(m.window.run_moves)
    return (
        f"its weights {change} in one optimizer step, while others of the run change by up to {others}",
        [
            Number("update ratio", ratio, "below", limit, "stagnant_ratio"),
            Number("largest update ratio of the run", m.window.run_moves, "above", limit, "stagnant_ratio"),
        ],
    )


def _constant(m: Moment, unit: int) -> Ground:
    low, high, std = (m.value(name, unit) for name in ("min", "max", "std"))
    relative, limit = std / m.scale if m.scale else std, m.thresholds.constant_range
    name = "standard deviation of the output, over the layer's scale"
    between = f"is {measured(low)}" if low == high else f"stays between {measured(low)} and {measured(high)}"
    return (
        f"its output {between} on the last {count(m.window.positions, 'position')}, whatever the input",
        [Number(name, relative, "at most", limit, "constant_range")],
    )


def _saturated(m: Moment, unit: int) -> Ground:
    share, limit = m.value("saturated_fraction", unit), m.thresholds.saturated_share
    return (
        f"at a bound of {m.info.activation_function} on {percent(share)} of the last "
        f"{count(m.window.positions, 'position')}, where hardly any gradient passes",
        [Number("share of positions at a bound", share, "at least", limit, "saturated_share")],
    )


def _disconnected(m: Moment, unit: int) -> Ground:
    share, limit = m.value("active_fraction", unit), m.thresholds.stagnant_ratio
    return (
        f"fires on {percent(share)} of the last {count(m.window.examples, 'example')}, but its outgoing weights are "
        f"all zero, while others of the run change by up to {measured(m.window.run_moves)} in one step",
        [
            Number("norm of the outgoing weights", m.value("norm_out", unit), "equal to", 0.0),
            Number("largest update ratio of the run", m.window.run_moves, "above", limit, "stagnant_ratio"),
        ],
    )


def _non_finite(m: Moment, unit: int) -> Ground:
    values = zip(m.statistics.names, m.statistics.values[:, unit].tolist(), strict=True)
    bad = [f"{name} is {measured(value)}" for name, value in values if not math.isfinite(value)]
    return listing(bad) or "NaN or infinity in its activation, gradient or weights", []


def _unknown(m: Moment, unit: int) -> Ground:
    seen, needed = m.window.examples_seen, m.thresholds.unknown_examples
    if seen < needed:
        return (
            f"only {count(seen, 'example')} seen so far; a verdict needs {count(needed)}",
            [Number("examples seen", seen, "below", needed, "unknown_examples")],
        )
    if m.statistics.names and m.statistics.get("active_fraction") is None:
        return "its activation was not recorded", []
    if m.info.activation_function == LOOKUP:
        return f"was not looked up in any of the {count(seen, 'example')} seen", []
    return f"not enough records so far agree on a verdict ({count(seen, 'example')} seen)", []


def _frozen(m: Moment, unit: int) -> Ground:
    return "its weights are not trainable, so it is not judged", []


def _active(m: Moment, unit: int) -> Ground:
    examples = count(m.window.examples, "example")
    low, high, share = (m.value(name, unit) for name in ("min", "max", "active_fraction"))
    if not judges_silence(m.info):
        if math.isnan(low) or math.isnan(high):
            return "nothing suggests that it is useless", []
        return f"its output went from {measured(low)} to {measured(high)} on the last {examples}", []
    if math.isnan(share):
        return f"last fired within the last {count(int(m.evidence.examples_since_active[unit]) + 1, 'example')}", []
    limit = m.thresholds.dying_share
    if share < limit:
        chance, seen = _rarely_by_chance(m, unit), count(recent_examples(m.window, m.thresholds), "example")
        sentence = f"fired on {percent(share)} of the last {examples}, on about {percent(_recent(m, unit))} of the last"
        return f"{sentence} {seen} or so", [replace(chance, comparison="above")]
    numbers = [Number("share of examples on which it fired", share, "at least", limit, "dying_share")]
    return f"fired on {percent(share)} of the last {examples}", numbers


_GROUNDS: Mapping[UnitState, Callable[[Moment, int], Ground]] = {
    UnitState.ACTIVE: _active,
    UnitState.SPARSE: _sparse,
    UnitState.DORMANT: _dormant,
    UnitState.STAGNANT: _stagnant,
    UnitState.DYING: _dying,
    UnitState.CONSTANT: _constant,
    UnitState.SATURATED: _saturated,
    UnitState.DISCONNECTED: _disconnected,
    UnitState.DEAD: _dead,
    UnitState.NON_FINITE: _non_finite,
    UnitState.UNKNOWN: _unknown,
    UnitState.FROZEN: _frozen,
}

"""Statistics and carried evidence become states: one pure rule set, used while writing and while reading.

The rules stand in :func:`candidates`, from the least to the most severe, each overriding the one before. A candidate
becomes the state of a unit once :func:`confirm` finds that enough records agree.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from deadunits_tb.rates import (
    REFERENCE_SHARE,
    TELLING_FIRINGS,
    has_low_stretch,
    low_stretch,
    recent_rate,
    recent_size,
    reference_rate,
)
from deadunits_tb.record import Byte, Evidence, Float, Int, Memory, Statistics, Window
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import BOUNDED, BY_SEVERITY, LOOKUP, SEVERITY, LayerInfo, UnitState

Mask = npt.NDArray[np.bool_]

CONSTANT_POSITIONS = 8
"""A spread over fewer positions than this says nothing about constancy."""
_HALF = 0.5
_BFLOAT16_STEP = 2.0**-7
"""Largest relative distance of two neighbouring bfloat16 numbers."""
LINGERING = np.isin(
    np.arange(len(UnitState)),
    [UnitState.SPARSE, UnitState.DORMANT, UnitState.DYING, UnitState.CONSTANT, UnitState.SATURATED],
)
"""``bool [states]``: told by a measured share or size alone, so one window of few examples does not end it: a unit that
fires on 0.5 % of examples does so in every third window of 64. What ends the others is a fact: the unit fired, its
weights moved."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """States of one layer at one record.

    Attributes:
        states: ``uint8 [units]`` confirmed states.
        since: ``int64 [units]`` step since which each holds; for dead units the step after the last firing.
        candidates: ``uint8 [units]`` what the record alone says, before confirmation.
        memory: What the next record must remember.
    """

    states: Byte
    since: Int
    candidates: Byte
    memory: Memory


def judge(
    info: LayerInfo,
    window: Window,
    statistics: Statistics,
    evidence: Evidence,
    memory: Memory,
    thresholds: Thresholds,
) -> Verdict:
    """Judge every unit of a layer at one record.

    Args:
        info: The layer.
        window: What the record covers.
        statistics: Rounded statistics, as stored.
        evidence: Counters up to and including this record.
        memory: What confirmation remembers from before this record.
        thresholds: The numbers that decide.

    Returns:
        The states, and the memory for the next record.
    """
    return confirm(candidates(info, window, statistics, evidence, thresholds), window, evidence, memory, thresholds)


def candidates(
    info: LayerInfo, window: Window, statistics: Statistics, evidence: Evidence, thresholds: Thresholds
) -> Byte:
    """Say what one record alone says of each unit.

    Returns:
        ``uint8 [units]`` state codes.
    """
    t = thresholds
    units = len(evidence.last_active_step)
    found = np.full(units, UnitState.ACTIVE, np.uint8)
    finite = finite_units(statistics, units)
    fired = statistics.get("active_fraction")
    if fired is None:
        found[:] = UnitState.UNKNOWN
    elif info.activation_function == LOOKUP:
        return _lookup(window, fired, evidence, finite, t)
    elif judges_silence(info):
        found[_sparse(window, fired, evidence, t)] = UnitState.SPARSE
        found[_dormant(info, window, statistics, fired, evidence, finite, t)] = UnitState.DORMANT
    found[_stagnant(window, statistics, fired, t)] = UnitState.STAGNANT
    if fired is not None:
        if judges_silence(info):
            found[_dying(info, window, fired, statistics, evidence, t)] = UnitState.DYING
        found[_constant(info, window, statistics, fired, finite, t)] = UnitState.CONSTANT
        found[_saturated(info, statistics, t)] = UnitState.SATURATED
        found[_disconnected(info, window, statistics, fired, t)] = UnitState.DISCONNECTED
        if judges_silence(info):
            found[_dead(info, window, statistics, evidence, t)] = UnitState.DEAD
    if window.examples_seen < t.unknown_examples:
        found[:] = UnitState.UNKNOWN
    if not window.trainable:
        found[:] = UnitState.FROZEN
    found[~finite] = UnitState.NON_FINITE
    return found


def judges_silence(info: LayerInfo) -> bool:
    """Whether not firing means anything: there is an activation function, and no output layer's right to be silent."""
    return info.nonlinear and info.activation_function != LOOKUP and (info.role == "hidden" or info.relu_like)


def signal_known(info: LayerInfo, statistics: Statistics) -> bool:
    """Whether the recorded gradient is a witness: it was taken at the pre-activation."""
    return info.witness == "pre_activation" and statistics.get("gradient") is not None


def silent_evidence(info: LayerInfo, statistics: Statistics, evidence: Evidence) -> Int:
    """``int64 [units]`` examples without firing, and without error signal where that is known."""
    if signal_known(info, statistics):
        return np.minimum(evidence.examples_since_active, evidence.examples_without_signal)
    return evidence.examples_since_active


def no_signal(info: LayerInfo, gradient: Float, thresholds: Thresholds) -> Mask:
    """Whether a window's error signal counts as none.

    Args:
        info: The layer; for ReLU-like functions only an exact zero is none.
        gradient: ``[units]`` root mean square at the pre-activation.
        thresholds: For the share of the layer's gradient below which it is none.
    """
    if info.relu_like:
        return np.asarray(gradient == 0)
    usable = gradient[np.isfinite(gradient)].astype(np.float64)
    scale = float(np.sqrt(np.mean(usable**2))) if usable.size else 0.0
    return np.asarray(gradient <= thresholds.dead_gradient * scale)


def layer_scale(statistics: Statistics, finite: Mask) -> float:
    """Root mean square of the layer's activations; of a single unit's mean where the layer has no more."""
    mean, std = statistics.get("mean"), statistics.get("std")
    if mean is None or std is None or not finite.any():
        return 0.0
    power = np.square(mean, dtype=np.float64) + np.square(std, dtype=np.float64)
    return float(np.sqrt(np.mean(power if finite.all() else power[finite])))


def finite_units(statistics: Statistics, units: int) -> Mask:
    """``bool [units]``: no NaN or Inf in anything that was measured."""
    if not len(statistics.values):
        return np.ones(units, bool)
    return np.asarray(np.isfinite(statistics.values).all(axis=0))


def chance_of_loss(
    fired: npt.NDArray[np.floating], examples: npt.NDArray[np.floating] | Int, rate: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Upper bound of the chance to fire as seldom as this, or more seldom, at a given rate.

    The Chernoff bound of the binomial distribution, ``exp(-n KL(q || p))`` for ``q < p``; 1 elsewhere.

    Args:
        fired: ``[units]`` observed share of examples.
        examples: ``[units]`` how many.
        rate: ``[units]`` rate to test against.
    """
    q = fired.astype(np.float64)
    p = np.clip(rate, 1e-300, 1 - 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(q > 0, q * np.log(np.where(q > 0, q, 1) / p), 0.0)
        divergence += np.where(q < 1, (1 - q) * np.log(np.where(q < 1, 1 - q, 1) / (1 - p)), 0.0)
    return np.where(q < p, np.exp(-examples * divergence), 1.0)


def confirm(found: Byte, window: Window, evidence: Evidence, memory: Memory, thresholds: Thresholds) -> Verdict:
    """Turn candidates into states.

    A more severe state than the present one waits until enough records in a row were at least as severe and cover
    enough examples. A milder one is entered at once, but waits just so where the present one is :data:`LINGERING`.
    ``unknown``, ``frozen`` and ``non_finite`` never wait, nor does the first ``active``.
    """
    moving = np.flatnonzero(found != memory.state)  # all others stay as they are, and wait for nothing
    states, held_since = found.copy(), memory.since.copy()
    nothing = np.zeros(len(found), np.int64)
    after = Memory(
        state=memory.state.copy(),
        since=held_since,
        pending=memory.state.copy(),
        pending_records=nothing,
        pending_examples=nothing.copy(),
        pending_since=np.full(len(found), window.step, np.int64),
    )
    if len(moving):
        part = Memory(*(getattr(memory, spec.name)[moving] for spec in fields(Memory)))
        part = _move(found[moving], window, part, thresholds)
        for spec in fields(Memory):
            getattr(after, spec.name)[moving] = getattr(part, spec.name)
        states[moving] = part.state
    silent_since = np.where(evidence.last_active_step >= 0, evidence.last_active_step + 1, window.first_step)
    return Verdict(states, np.where(states == UnitState.DEAD, silent_since, held_since), found, after)


def _move(found: Byte, window: Window, memory: Memory, t: Thresholds) -> Memory:
    """What some units remember after this record."""
    rank, held, waiting = SEVERITY[found], SEVERITY[memory.state], SEVERITY[memory.pending]
    leaves = (rank < held) & LINGERING[memory.state] & (found < UnitState.NON_FINITE)
    at_once = (~leaves & ((rank <= held) | (found == UnitState.ACTIVE))) | (found >= UnitState.NON_FINITE)
    going_on = np.where(leaves, waiting < held, waiting > held)
    agreed = np.where(leaves, np.maximum(waiting, rank), np.minimum(waiting, rank))  # what all of them show
    pending = np.where(going_on, BY_SEVERITY[agreed], found)
    records = np.where(going_on, memory.pending_records + 1, 1)
    examples = np.where(going_on, memory.pending_examples + window.examples, window.examples)
    since = np.where(going_on, memory.pending_since, window.step)
    needed = np.where(pending == UnitState.STAGNANT, max(t.stagnant_records, t.confirm_records), t.confirm_records)
    entered = ~at_once & (records >= needed) & (examples >= t.confirm_examples)
    waits = ~at_once & ~entered

    kept = np.where(memory.state == UnitState.FROZEN, UnitState.UNKNOWN, memory.state)
    states = np.where(at_once, found, np.where(entered, pending, kept)).astype(np.int64)
    changed = states != memory.state
    again = entered & (rank > SEVERITY[states])  # the record is worse still: that waits from now on
    return Memory(
        state=states,
        since=np.where(changed, np.where(entered, since, window.step), memory.since),
        pending=np.where(waits, pending, np.where(again, found, states)).astype(np.int64),
        pending_records=np.where(waits, np.minimum(records, 255), again.astype(np.int64)),
        pending_examples=np.where(waits, examples, np.where(again, window.examples, 0)),
        pending_since=np.where(waits, since, window.step),
    )


def _dormant(
    info: LayerInfo,
    window: Window,
    statistics: Statistics,
    fired: Float,
    evidence: Evidence,
    finite: Mask,
    t: Thresholds,
) -> Mask | slice:
    size = statistics.get("mean_abs")
    if size is None or not finite.any():
        return slice(0, 0)
    mean = float(np.mean(size[finite], dtype=np.float64))
    small = (size <= t.dormant_share * mean) & (mean > 0)
    if info.relu_like:
        few = np.flatnonzero(_seldom(fired, evidence))
        own = evidence.reference[few]
        # A record in which it did not fire says nothing of its size, and in a short one a single firing is large.
        told = fired[few] * window.examples >= TELLING_FIRINGS
        small[few] = np.where(told, small[few], recent_size(own) <= t.dormant_share)
        # One that seldom fires is small on average however strongly it does: sparse, not dormant. Where the examples
        # do not suffice to tell that it fires on more, neither is said.
        recent = recent_rate(own)
        small[few] &= recent - 2 * np.sqrt(recent / recent_examples(window, t)) >= t.dying_share
    return small


def _stagnant(window: Window, statistics: Statistics, fired: Float | None, t: Thresholds) -> Mask | slice:
    ratio = statistics.get("update_ratio")
    if ratio is None or not window.trainable or not window.run_moves > t.stagnant_ratio:
        return slice(0, 0)
    still = np.asarray(ratio < t.stagnant_ratio)
    # A unit that did not fire in the window had nothing to learn from it: a rare one is not stuck between its firings.
    return still if fired is None else still & (fired > 0)


def _lookup(window: Window, fired: Float, evidence: Evidence, finite: Mask, t: Thresholds) -> Byte:
    """Rows of a table: of one never looked up nothing is known, and nothing is wrong with one that seldom is."""
    found = np.where(_sparse(window, fired, evidence, t), UnitState.SPARSE, UnitState.ACTIVE).astype(np.uint8)
    found[(evidence.last_active_step < 0) | (window.examples_seen < t.unknown_examples)] = UnitState.UNKNOWN
    if not window.trainable:
        found[:] = UnitState.FROZEN
    found[~finite] = UnitState.NON_FINITE
    return found


def _seldom(fired: Float, evidence: Evidence) -> Mask:
    """Whether a unit's own rates were recorded: it fired seldom in the record, or of late; or it never has."""
    return np.asarray((fired < REFERENCE_SHARE) | (evidence.reference > 0))


def _sparse(window: Window, fired: Float, evidence: Evidence, t: Thresholds) -> Mask:
    """By the recent rate: a window of 64 examples cannot tell whether a unit fires on 0.5 % or on 3 % of them."""
    rare = _seldom(fired, evidence)
    few = np.flatnonzero(rare)
    if not len(few):
        return rare
    chance = chance_of_loss(
        recent_rate(evidence.reference[few]), np.asarray(recent_examples(window, t)), np.asarray(t.dying_share)
    )
    rare[few] = chance <= t.sparse_significance
    return rare


def recent_examples(window: Window, thresholds: Thresholds) -> int:
    """Examples behind the recent rate: an average over a horizon weighs as much as twice that many examples."""
    return min(window.examples_seen, 2 * thresholds.reference_examples)


def _loses(
    rate: npt.NDArray[np.floating],
    examples: npt.NDArray[np.floating] | Int,
    lost: npt.NDArray[np.float64],
    t: Thresholds,
) -> Mask:
    """Whether so low a rate, on so many examples, says that a unit lost the one that it had."""
    fewer = (rate < t.dying_share) & (rate <= lost)
    return np.asarray(fewer & (chance_of_loss(rate, examples, lost) <= t.dying_significance))


def _dying(
    info: LayerInfo, window: Window, fired: Float, statistics: Statistics, evidence: Evidence, t: Thresholds
) -> Mask:
    quiet = silent_evidence(info, statistics, evidence)
    dying = ((fired < t.dying_share) | (quiet >= t.unknown_examples)) & _seldom(fired, evidence)
    dying |= has_low_stretch(evidence.reference)
    few = np.flatnonzero(dying)  # logarithms for these alone
    if not len(few):
        return dying
    fired, quiet, own = fired[few], quiet[few], evidence.reference[few]
    lost = (1 - t.dying_loss) * reference_rate(own)
    fewer = _loses(fired, np.asarray(window.examples), lost, t)
    recent, behind = recent_rate(own), np.asarray(recent_examples(window, t))
    fewer |= (recent > 0) & (fired < t.dying_share) & _loses(recent, behind, lost, t)
    fewer |= _loses(*low_stretch(own), lost, t)
    silent = quiet >= t.unknown_examples
    never = (evidence.last_active_step[few] < 0) | (lost == 0)  # the latter since a revival
    silent &= never | (chance_of_loss(np.zeros_like(fired), quiet, lost) <= t.dying_significance)
    dying[few] = fewer | silent
    return dying


def _constant(
    info: LayerInfo, window: Window, statistics: Statistics, fired: Float, finite: Mask, t: Thresholds
) -> Mask | slice:
    std, low, high = statistics.get("std"), statistics.get("min"), statistics.get("max")
    if std is None or low is None or high is None or window.positions < CONSTANT_POSITIONS:
        return slice(0, 0)
    spread = t.constant_range * layer_scale(statistics, finite)
    with np.errstate(invalid="ignore"):  # Inf - Inf: such units are non-finite anyway
        rounding = _BFLOAT16_STEP * np.maximum(np.abs(low), np.abs(high))
        flat = (std <= spread) & (high - low <= spread + rounding)
    # What is constant and not silent fires always. A softmax may be silent, too, for a class that is never wanted.
    return flat if info.activation_function in (None, "linear") else flat & (fired >= _HALF)


def _saturated(info: LayerInfo, statistics: Statistics, t: Thresholds) -> Mask | slice:
    share = statistics.get("saturated_fraction")
    if share is None or info.activation_function not in BOUNDED or info.role == "output":
        return slice(0, 0)
    return np.asarray(share >= t.saturated_share)


def _disconnected(info: LayerInfo, window: Window, statistics: Statistics, fired: Float, t: Thresholds) -> Mask | slice:
    outgoing = statistics.get("norm_out")
    if outgoing is None or info.role == "output" or not window.run_moves > t.stagnant_ratio:
        return slice(0, 0)
    return np.asarray((outgoing == 0) & (fired > 0))


def _dead(info: LayerInfo, window: Window, statistics: Statistics, evidence: Evidence, t: Thresholds) -> Mask:
    quiet = silent_evidence(info, statistics, evidence)
    dead = quiet >= t.dead_examples
    if info.tokens:
        silent = np.maximum(evidence.examples_since_active, 1)
        tokens = evidence.tokens_since_active * (quiet / silent)
        dead |= (tokens >= t.dead_tokens) & (evidence.observations_since_active >= t.dead_observations)
    if window.dataset_examples:
        # Any stretch of twice the data set holds one complete pass, however it is shuffled.
        passed = np.minimum(quiet, window.contiguous_examples) >= 2 * window.dataset_examples
        dead |= passed & (quiet >= t.unknown_examples)
    return dead

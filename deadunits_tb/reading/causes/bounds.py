"""Units at a bound of their activation function."""

from __future__ import annotations

from collections.abc import Iterator

from deadunits_tb.reading.causes.case import LayerCase
from deadunits_tb.reading.causes.remedies import better_start, lower_rate, start_in_words
from deadunits_tb.reading.causes.silence import from_data
from deadunits_tb.reading.causes.suspicion import Suspicion
from deadunits_tb.reading.phrases import measured, percent
from deadunits_tb.units import Level, UnitState

_AT_ONCE = 0.5
"""Share of positions at a bound at the first record from which a layer began saturated."""


def saturated(case: LayerCase) -> Iterator[Suspicion]:
    """Saturated units: by the data, by violent steps, or by what the activation function is given."""
    units = case.last == UnitState.SATURATED
    level = case.level(int(units.sum()))
    if not units.any():
        return
    info, onset = case.layer.info, case.onset(units)
    share = percent(case.thresholds.saturated_share)
    fact = f"{case.count(units)} are at a bound of {info.activation_function} on at least {share} of positions"
    unscaled = case.run.unscaled
    if unscaled is not None and unscaled[0] <= onset:
        yield from_data(case, level, onset, fact, unscaled[1])
        return
    if level == Level.INFORMATION:
        return
    began = case.at_start("saturated_fraction")
    from_start = began is not None and float(began[units].mean()) >= _AT_ONCE
    at, peak = case.peak_update(onset)
    if peak >= case.thresholds.violent_update and not from_start:
        yield Suspicion(
            "learning_rate_too_high",
            level,
            (case.name,),
            onset,
            0.85,
            (
                fact,
                case.step_in_words(at, peak),
            ),
            ("initialization: the units were not at a bound at first",) if began is not None else (),
            lower_rate(case.run, at, peak),
        )
        return
    norms = case.at_end("norm_in")
    now = (
        (f"the norm of their incoming weights is {measured(float(norms[units].mean()))}",) if norms is not None else ()
    )
    calm = (f"learning rate: the update ratio stayed at or below {measured(peak)}",) if peak >= 0 else ()
    yield Suspicion(
        "saturating_activation",
        level,
        (case.name,),
        onset,
        0.8 if from_start else 0.7,
        (fact, *(("they were there at the first record already",) if from_start else ()), *start_in_words(case), *now),
        () if from_start else calm,
        (
            f"replace {info.activation_function} by ReLU, or normalise (batch or layer normalisation) before it",
            *better_start(case),
        ),
    )

"""From what was found in an observed step to the fields of its vector, whatever the backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deadunits_tb.capture.packed import Call, Layout
from deadunits_tb.taps.keras.follow import StepTrace, Tap
from deadunits_tb.units import RELU_LIKE


def tap_fields(step: StepTrace) -> dict[str, Any]:
    """What was reduced at each tap, as :mod:`deadunits_tb.capture.packed` names it."""
    fields: dict[str, Any] = {}
    for at, tap in enumerate(_taps(step)):
        fields |= {f"{at}:{name}": values for name, values in tap.activation.items()}
        if tap.gradient is not None:
            fields[f"{at}:gradient"] = tap.gradient
    return fields


def layout_of(step: StepTrace, sizes: Mapping[str, int]) -> Layout:
    """What the numbers of the step's vector mean.

    Args:
        step: Finished.
        sizes: Field to how many numbers, in their order.
    """
    taps = _taps(step)
    return Layout(
        dict(sizes),
        tuple(Call(trail.layer.name, taps.index(trail.tap), trail.layer.trainable) for trail in step.trails),
        frozenset(at for at, tap in enumerate(taps) if tap.function in RELU_LIKE),
    )


def _taps(step: StepTrace) -> list[Tap]:
    return list(dict.fromkeys(trail.tap for trail in step.trails))

"""From what was found in an observed step to the fields of its vector, whatever the backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.packed import Call, Layout
from deadunits_tb.taps.keras.trails import StepTrace, Tap
from deadunits_tb.units import RELU_LIKE


def tap_fields(step: StepTrace) -> dict[str, Any]:
    """What was reduced at each tap, as :mod:`deadunits_tb.capture.packed` names it."""
    fields: dict[str, Any] = {}
    for at, tap in enumerate(taps_of(step)):
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
    taps = taps_of(step)
    return Layout(
        dict(sizes),
        tuple(Call(trail.layer.name, taps.index(trail.tap), trail.layer.trainable) for trail in step.trails),
        frozenset(at for at, tap in enumerate(taps) if tap.function in RELU_LIKE),
    )


def with_weights(
    layout: Layout, numbers: npt.NDArray[np.floating], weights: Mapping[str, npt.NDArray[np.floating]]
) -> tuple[Layout, npt.NDArray[np.floating]]:
    """Add what was fetched of weights, by field, to the vector of a step."""
    sizes = {**layout.sizes, **{name: len(values) for name, values in weights.items()}}
    return Layout(sizes, layout.calls, layout.relu_like), np.concatenate([numbers, *weights.values()])


def taps_of(step: StepTrace) -> list[Tap]:
    """Where units were looked at in a step, in order."""
    return list(dict.fromkeys(trail.tap for trail in step.trails))

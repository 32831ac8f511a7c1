"""Layers with known fates for the browser tests, as arrays for the real writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deadunits_tb import DeadUnitsWriter

EXAMPLES = 256
STEPS = 120
HOSTILE = "block/<script>alert(1)</script> ü & co"
"""A layer name that must stay text, slashes, spaces and all."""


@dataclass(frozen=True)
class Fates:
    """One layer.

    Attributes:
        units: How many.
        function: ``"relu"`` or ``"tanh"``.
        dies: Unit to the first step at which it is silent.
        saturated: Units at the bound from the start.
    """

    units: int
    function: str = "relu"
    dies: Mapping[int, int] | None = None
    saturated: tuple[int, ...] = ()


DYING = {unit: 30 + 2 * unit for unit in range(10)} | {20: 0}
RUNS: dict[str, dict[str, Fates]] = {
    "dying": {
        "hidden_1": Fates(64, dies=DYING),
        "hidden_2": Fates(32, "tanh", saturated=(5,)),
        HOSTILE: Fates(16, dies={3: 50}),
    },
    "healthy": {"hidden_1": Fates(64), "hidden_2": Fates(32)},
    "small": {"hidden_1": Fates(16, dies={3: 20})},
}
STEPS_OF = {"small": 60}
"""Runs that end early."""


def write(writer: DeadUnitsWriter, layers: Mapping[str, Fates], *, first_step: int, steps: int) -> None:
    """Observe each layer at each of the steps."""
    for step in range(first_step, first_step + steps):
        rng = np.random.default_rng(step)
        for name, fates in layers.items():
            before = rng.normal(size=(EXAMPLES, fates.units)).astype(np.float32)
            silent = [unit for unit, since in (fates.dies or {}).items() if step >= since]
            before[:, silent] = -np.abs(before[:, silent]) - 1
            before[:, list(fates.saturated)] += 100
            signal = rng.normal(scale=1e-3, size=before.shape).astype(np.float32)
            after = np.maximum(before, 0) if fates.function == "relu" else np.tanh(before)
            slope = before > 0 if fates.function == "relu" else 1 - after**2
            writer.observe(step, name, after, activation_function=fates.function, gradients=signal * slope)

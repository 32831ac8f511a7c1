"""Steps that are over, on their way to the monitor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from deadunits_tb.capture import packed
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.numbering import StepNumbers
from deadunits_tb.capture.observation import StepObservation, WeightObservation
from deadunits_tb.capture.silent_monitor import SilentMonitor
from deadunits_tb.certificate import Certificates
from deadunits_tb.taps.torch.looking import Look
from deadunits_tb.taps.torch.pack import Packed
from deadunits_tb.taps.torch.step import Seen, StepSums


@dataclass(eq=False, slots=True)
class Finished:
    """An observed step that is over, and may still be told its loss."""

    step: int
    sums: StepSums
    look: Look
    own: float
    seconds: float
    merged: Seen | None = None
    proofs: Callable[[], Mapping[str, Certificates]] | None = None


class HandOver:
    """Gives steps that are over to the monitor, which fetches their numbers when it wants them.

    Args:
        monitor: To be given them.
        numbers: What the steps are called.
        optimized: Whether an optimizer tells when one is over.
    """

    def __init__(self, monitor: Monitor | SilentMonitor, numbers: StepNumbers, *, optimized: bool) -> None:
        self._monitor, self._numbers, self._optimized = monitor, numbers, optimized
        self._looked: dict[str, WeightObservation] = {}
        self._latest: object = None
        self.ending = False
        """Whether what is fetched now is for the last record."""

    def give(self, finished: Finished, seen: Seen, loss: Any) -> None:
        """Give one.

        Args:
            finished: The step.
            seen: What it has shown.
            loss: Of it, None if unknown.
        """
        if isinstance(loss, torch.Tensor):
            loss = loss.detach()
            finished.look.fields["loss"] = loss.float().mean() if loss.dim() else loss.clone()
        elif loss is not None:
            finished.look.numbers["loss"] = float(loss)
        look = finished.look
        calls = tuple(seen.layer_calls)
        ready = Packed(look.numbers | seen.numbers, look.fields | seen.tensors, calls, seen.relu_like)
        finished.sums.close()
        if finished.proofs is not None and isinstance(self._monitor, Monitor):
            self._monitor.proofs.wait(finished.proofs)
        packed_step = self._latest = packed.PackedStep(ready.fetch, self._known_weights)

        def looked() -> StepObservation:
            observation = packed_step()
            observation = observation if self._optimized else _without_zeroed_gradients(observation)
            self._looked |= {name: seen.weights for name, seen in observation.layers.items() if seen.weights}
            return observation

        self._monitor.observe(
            finished.step,
            looked if finished.look.wanted else packed_step,
            number=self._numbers.take(finished.step),
            learning_rate=packed_step.learning_rate,
            seconds=finished.own,
        )
        self._monitor.time(True, finished.seconds)

    def _known_weights(self, step: packed.PackedStep) -> Mapping[str, WeightObservation]:
        return self._looked if self.ending and step is self._latest else {}


def _without_zeroed_gradients(observation: StepObservation) -> StepObservation:
    """Without an optimizer to tell the moment, the weights' gradients may have been set to zero already."""
    seen = [layer.weights for layer in observation.layers.values() if layer.weights is not None]
    if any(weights.gradient is not None and np.any(weights.gradient) for weights in seen):
        return observation
    weights = {
        name: replace(layer.weights, gradient=None) for name, layer in observation.layers.items() if layer.weights
    }
    return packed.with_weights(observation, weights)

"""What is known of the layers that were seen, as the monitor is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.silent_monitor import SilentMonitor
from deadunits_tb.taps.torch.layers import Survey
from deadunits_tb.taps.torch.step import LayerStep, known_consumers
from deadunits_tb.units import LayerInfo, Witness

FRAMEWORK = "torch"


class KnownLayers:
    """Tells the monitor of layers when they are first seen, and when something about them has changed.

    Args:
        monitor: To be told.
        outputs_named: Whether the user has named the output layers; otherwise they are found.
    """

    def __init__(self, monitor: Monitor | SilentMonitor, *, outputs_named: bool) -> None:
        self._monitor = monitor
        self._outputs_named = outputs_named
        self._signature: tuple[Any, ...] = ()
        self.infos: dict[str, LayerInfo] = {}
        """Layer to what is known of it."""

    def scale(self, layer: str) -> float | None:
        """Root mean square of a layer's activations at the last record, None before the first."""
        return self._monitor.scale(layer) if layer in self.infos else None

    def learn(
        self,
        survey: Survey,
        layers: Mapping[tuple[str, str | None], LayerStep],
        methods: Mapping[str, Literal["exact", "projection"]],
        *,
        in_order: bool,
    ) -> None:
        """Take in what one step has shown.

        Args:
            survey: Of the model.
            layers: In the step.
            methods: Layer to how changes of its weights are measured.
            in_order: Whether the layers are in the order in which they were called.
        """
        signature = (survey, len(methods), *(step.signature for step in layers.values()))
        if signature == self._signature:
            return
        self._signature = signature
        by_name: dict[str, list[LayerStep]] = {}
        for step in layers.values():
            by_name.setdefault(step.layer.name, []).append(step)
        names = {name: at for at, name in enumerate(survey.watched)}
        for name in by_name if in_order else sorted(by_name, key=lambda name: names.get(name, len(names))):
            steps = by_name[name]
            info = self._info(survey, name, steps, methods.get(name, "none"))
            if self.infos.get(name) != info:
                self.infos[name] = info
                self._monitor.add_layer(info)
            if any(step.without_gradients for step in steps):
                self._monitor.skip(
                    f"{name} (gradient)",
                    "it runs with gradients disabled, as in reentrant checkpointing, so only its activations are seen",
                )
        for name in survey.watched:
            if name not in self.infos:
                self._monitor.skip(name, "not called in an observed training step")

    def _info(
        self, survey: Survey, name: str, steps: list[LayerStep], method: Literal["exact", "projection", "none"]
    ) -> LayerInfo:
        first, known = steps[0], self.infos.get(name)
        layer, functions = first.layer, {step.function for step in steps}
        witness: Witness = first.witness if any(step.differentiable for step in steps) else "none"
        consumers = known_consumers(steps).get(name)
        return LayerInfo(
            name=name,
            kind=layer.kind,
            order=known.order if known else len(self.infos),
            units=first.sums.units,
            activation_function=first.function if len(functions) == 1 else "custom",
            fan_in=layer.fan_in if known is None or known.fan_in is None else known.fan_in,  # costly to tell
            fan_out=None if consumers is None else sum(one.weights for one in consumers),
            role="output" if layer.is_output or (not self._outputs_named and first.is_output) else "hidden",
            framework=FRAMEWORK,
            witness=witness,
            tokens=survey.tokens and not layer.convolution and any(step.positions for step in steps),
            weight_delta=method,
        )

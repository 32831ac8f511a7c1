"""What is recorded of a run as a whole: once (:class:`RunInfo`) and at every record (:class:`RunRecord`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A layer or module of the model, whether it has units or not: dropout and normalisation are parts, too.

    Attributes:
        name: The framework's own path of it.
        kind: The class, such as ``"Dropout"``.
        settings: What it was made with, as far as that is texts and numbers, such as ``p`` and ``kernel_initializer``.
    """

    name: str
    kind: str
    settings: Mapping[str, str | float] = field(default_factory=dict)


MODEL_PARTS = 2000
"""Parts of a model that are written at most."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Facts of a run that do not change.

    Attributes:
        framework: Such as ``"keras/tensorflow"``.
        versions: Package to version.
        optimizer: Class name, and settings such as ``weight_decay`` and ``momentum``; empty if unknown.
        thresholds: In force while writing.
        layers: Known when the run began, in the model's order.
        every: Observation interval that the user fixed, None where the monitor chooses.
        model: What the model is made of, in its order, at most :data:`MODEL_PARTS`; empty if unknown.
    """

    framework: str = "numpy"
    versions: Mapping[str, str] = field(default_factory=dict)
    optimizer: Mapping[str, str | float] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)
    layers: tuple[LayerInfo, ...] = ()
    every: int | None = None
    model: tuple[ModelPart, ...] = ()


@dataclass(frozen=True, slots=True)
class InputSummary:
    """Of all values fed to the model since the previous record."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """A layer that is not observed, and why, in one sentence."""

    layer: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that was done to units of a layer.

    Attributes:
        step: The last training step before it.
        kind: ``"revived"``; later versions may add others.
        layer: The layer's name.
        count: How many units.
        units: Their indices, ascending; the first :data:`EVENT_UNITS` where there are more.
        policy: What decided, in words.
    """

    step: int
    kind: str
    layer: str
    count: int
    units: tuple[int, ...]
    policy: str = ""


EVENT_UNITS = 1024
"""Units that an event names at most."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Facts of a run at one record: small, so that an overview needs nothing else.

    Attributes:
        step: Optimizer steps since the start of training.
        wall_time: Seconds since the epoch.
        examples: Examples since the previous record.
        observations: Observed steps since the previous record.
        optimizer_steps: All steps since the previous record, observed or not.
        learning_rate: None if unknown.
        loss: None if unknown; may be NaN or Inf, which is a finding.
        inputs: None if the inputs are not numbers.
        overhead: Share of the training time spent by the monitor so far, None where it cannot tell.
        overhead_seconds: The same in seconds, the opening allowance included.
        opening_seconds: What of them the opening took, tracing and compiling included; None if unknown.
        interval: Steps from one observation to the next, at present.
        records_written: Number of this record, from 1.
        dropped: Records lost so far because the writer could not keep up.
        statistics_interval: 1 where every record carries statistics, 2, 4, ... where the byte budget thinned them.
        errors: Messages of the monitor so far, each once.
        skipped: Layers that are not observed.
        counts: Layer to ``[states]`` units in each state, by wire code.
        events: What was done to units since the previous record, and right after this one.
    """

    step: int
    wall_time: float
    examples: int
    observations: int
    optimizer_steps: int
    learning_rate: float | None = None
    loss: float | None = None
    inputs: InputSummary | None = None
    overhead: float | None = None
    overhead_seconds: float = 0.0
    opening_seconds: float | None = None
    interval: int = 1
    records_written: int = 1
    dropped: int = 0
    statistics_interval: int = 1
    errors: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    events: tuple[RunEvent, ...] = ()

    @property
    def steady_overhead(self) -> float | None:
        """Share of the training time after the opening that the monitor spent then, None where it cannot tell."""
        if not self.overhead or self.opening_seconds is None:
            return self.overhead
        rest = self.overhead_seconds / self.overhead - self.opening_seconds
        return max(0.0, self.overhead_seconds - self.opening_seconds) / rest if rest > 0 else None

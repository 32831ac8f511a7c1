"""Every number that decides a verdict, with where it comes from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError


def _threshold(
    default: float, *, low: float, high: float, unit: str, source: str, meaning: str, acts: str = "judging"
) -> Any:
    return field(
        default=default,
        metadata={"low": low, "high": high, "unit": unit, "source": source, "meaning": meaning, "acts": acts},
    )


_COUNT = float(2**53)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers behind the verdicts. Immutable; use :meth:`replace` to change some.

    The metadata of each field gives its meaning, unit, bounds and source, and whether it acts while *judging* (a change
    shows at once in the tab) or while *writing* (it decides what is recorded, so a change needs a new run).

    Raises:
        InvalidArgumentError: A value is not a number, is out of its bounds, or contradicts another.
    """

    unknown_examples: int = _threshold(
        256,
        low=1,
        high=_COUNT,
        unit="examples",
        source="rule of three: silence over 256 examples bounds the firing rate by 1.2 % with 95 % confidence",
        meaning="no verdict on a unit before this many examples were seen",
    )
    dead_examples: int = _threshold(
        3000,
        low=1,
        high=_COUNT,
        unit="examples",
        source="rule of three: 0 of n bounds the rate by 3/n with 95 % confidence; 3,000 gives 0.1 %",
        meaning="consecutive silent examples that make a unit dead",
    )
    dead_tokens: int = _threshold(
        1_000_000,
        low=1,
        high=_COUNT,
        unit="tokens",
        source="a tenth of the 10 million tokens of OpenAI's sparse autoencoders (Gao 2024)",
        meaning="for token models: consecutive silent tokens that make a unit dead",
    )
    dead_observations: int = _threshold(
        100,
        low=1,
        high=_COUNT,
        unit="observations",
        source="tokens of one batch are correlated, so a unit must be silent in many batches",
        meaning="for token models: the silent tokens must come from at least this many observations",
    )
    dead_gradient: float = _threshold(
        1e-6,
        low=0.0,
        high=1.0,
        unit="of the layer's gradient",
        source="relative to the layer's root mean square, far above float32 rounding and far below training",
        meaning="error signal of a silent unit that counts as none (ReLU-like functions: exactly zero)",
    )
    saturated_share: float = _threshold(
        0.95,
        low=0.01,
        high=1.0,
        unit="of positions",
        source="at most one position in twenty still trains the unit",
        meaning="share of positions at a bound that makes a unit saturated",
    )
    constant_range: float = _threshold(
        1e-4,
        low=0.0,
        high=1.0,
        unit="of the layer's scale",
        source="condition S0 of the literature on useless units: a constant value regardless of the input",
        meaning="spread of the output that counts as constant",
    )
    dying_share: float = _threshold(
        0.01,
        low=0.0,
        high=0.1,
        unit="of examples",
        source="SageMaker Debugger, DeadRelu: active on less than 1 %",
        meaning="a unit that fires on fewer examples than this is dying or sparse",
    )
    dying_loss: float = _threshold(
        0.9,
        low=0.1,
        high=0.999,
        unit="of the unit's own reference rate",
        source="a unit that fires ten times less often than it used to has changed, a steady one has not",
        meaning="share of its own firing rate that a dying unit has lost",
    )
    dying_significance: float = _threshold(
        1e-4,
        low=1e-12,
        high=0.1,
        unit="probability",
        source="binomial test, Chernoff bound; a thousand units over a few records give less than one by chance",
        meaning="chance below which a loss of firing rate is not called chance",
    )
    sparse_significance: float = _threshold(
        0.05,
        low=1e-12,
        high=0.5,
        unit="probability",
        source="binomial test, Chernoff bound, at the 95 % confidence of the rule of three",
        meaning="chance below which a low firing rate is not called chance",
    )
    stagnant_ratio: float = _threshold(
        1e-8,
        low=0.0,
        high=1.0,
        unit="update ratio",
        source="SageMaker Debugger, WeightUpdateRatio: below 1e-8",
        meaning="update ratio that counts as no movement",
    )
    stagnant_records: int = _threshold(
        3,
        low=1,
        high=200,
        unit="records",
        source="SageMaker Debugger, UnchangedTensor: three saved steps",
        meaning="consecutive records without movement that make a unit stagnant",
    )
    dormant_share: float = _threshold(
        0.025,
        low=0.0,
        high=1.0,
        unit="of the layer's mean",
        source="ReDo (Sokar 2023): tau = 0.025",
        meaning="mean absolute activation, over the layer's, that makes a unit dormant",
    )
    confirm_records: int = _threshold(
        2,
        low=1,
        high=200,
        unit="records",
        source="2 % flicker would otherwise give 34 transitions per unit in 1,000 records (measured)",
        meaning="consecutive records that must agree before an alarm, a warning or sparse is entered (non_finite: one)"
        ", or a state that is told by a measured share or size is left",
    )
    confirm_examples: int = _threshold(
        256,
        low=1,
        high=_COUNT,
        unit="examples",
        source="as unknown_examples: small batches must not confirm one another",
        meaning="examples that the agreeing records must cover together",
    )
    warning_share: float = _threshold(
        0.2,
        low=0.0,
        high=1.0,
        unit="of a layer's units",
        source="He initialization with Adam leaves 2 to 12 of 64 units dead on digits, five seeds (measured)",
        meaning="share of a layer in one alarm state from which a finding is a warning",
    )
    alarm_share: float = _threshold(
        0.5,
        low=0.0,
        high=1.0,
        unit="of a layer's units",
        source="SageMaker Debugger, DeadRelu: fires above 50 % of a layer",
        meaning="share of a layer in one alarm state from which a finding is an alarm",
    )
    violent_update: float = _threshold(
        0.1,
        low=0.0,
        high=1e6,
        unit="update ratio",
        source="measured on digits: at most 0.06 with Adam at 0.01, deaths from 0.2 (SGD at 2, Adam at 0.1)",
        meaning="update ratio of a layer above which one step may kill its units",
    )
    unscaled_inputs: float = _threshold(
        5.0,
        low=1.0,
        high=1e12,
        unit="root mean square",
        source="standardised inputs have 1; pixels from 0 to 16 have 8, from 0 to 255 over 100",
        meaning="size of the model's inputs from which they count as unscaled",
    )
    fired_scale: float = _threshold(
        1e-3,
        low=0.0,
        high=1.0,
        unit="of the layer's root mean square",
        source="where output is never exactly zero, far below what a following layer can use",
        meaning="absolute output above which a unit without exact zero has fired",
        acts="writing",
    )
    saturated_derivative: float = _threshold(
        0.01,
        low=1e-12,
        high=0.5,
        unit="of the largest derivative",
        source="derivative below 1 % of its maximum; preset sagemaker: below 1e-7",
        meaning="derivative below which a position of a bounded activation function is at its bound",
        acts="writing",
    )
    reference_examples: int = _threshold(
        3000,
        low=1,
        high=_COUNT,
        unit="examples",
        source="as dead_examples",
        meaning="horizon of a unit's recent rate, and so the one over which its reference rate rises",
        acts="writing",
    )
    reference_memory: int = _threshold(
        100_000,
        low=1,
        high=_COUNT,
        unit="examples",
        source="a rate kept for several horizons is the unit's new way of life: sparse, no longer dying",
        meaning="horizon over which a unit's reference rate is forgotten",
        acts="writing",
    )

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            low, high = spec.metadata["low"], spec.metadata["high"]
            whole = isinstance(spec.default, int)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InvalidArgumentError(f"threshold {spec.name} must be a finite number, not {value!r}")
            if not low <= value <= high:
                raise InvalidArgumentError(f"threshold {spec.name} must be between {low:g} and {high:g}, not {value!r}")
            if whole and value != int(value):
                raise InvalidArgumentError(
                    f"threshold {spec.name} counts {spec.metadata['unit']} and must be whole, not {value!r}"
                )
            object.__setattr__(self, spec.name, int(value) if whole else float(value))
        if self.alarm_share < self.warning_share:
            raise InvalidArgumentError(
                f"threshold alarm_share ({self.alarm_share}) must not be below warning_share ({self.warning_share})"
            )
        if self.dead_examples < self.unknown_examples:
            raise InvalidArgumentError(
                f"threshold dead_examples ({self.dead_examples}) must not be below "
                f"unknown_examples ({self.unknown_examples}): a unit would be dead before it may be judged"
            )

    def replace(self, **changes: float) -> Thresholds:
        """Return a copy with some thresholds changed.

        Raises:
            UnknownNameError: There is no such threshold.
            InvalidArgumentError: A value is out of bounds.
        """
        for name in changes:
            if name not in SPECS:
                raise UnknownNameError.of("threshold", name, SPECS)
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, float]:
        """Name to value, in the order of the fields."""
        return {name: getattr(self, name) for name in SPECS}

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Thresholds:
        """Build from a mapping such as :meth:`to_dict` gives; what is absent has its default.

        Raises:
            UnknownNameError: There is no such threshold.
            InvalidArgumentError: A value is out of bounds.
        """
        return cls().replace(**values)


SPECS: dict[str, Mapping[str, Any]] = {
    spec.name: {**spec.metadata, "default": spec.default} for spec in dataclasses.fields(Thresholds)
}
"""Threshold name to its default, bounds, unit, meaning, source, and whether it acts while judging or writing."""

PRESETS: dict[str, Mapping[str, float]] = {
    "default": {},
    "strict": {"dead_examples": 30_000, "dead_tokens": 10_000_000, "dying_significance": 1e-6, "dormant_share": 0.0},
    "redo": {"dormant_share": 0.1},
    "sagemaker": {"saturated_derivative": 1e-7, "saturated_share": 0.5},
}
"""Named sets of changes to the defaults. ``redo`` is the larger tau of Sokar 2023."""

"""One layer's statistics, evidence and states at one step."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from deadunits_tb.certificate import Certificates
from deadunits_tb.units import STATISTIC_BY_NAME, STATISTICS, UnitState

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]
Byte = npt.NDArray[np.uint8]

NEVER = -1
"""Value of a step that did not happen."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a record of one layer covers: scalars.

    Attributes:
        step: Optimizer steps since the start of training at the last observation.
        first_step: The same at the first observation of the run.
        wall_time: Seconds since the epoch.
        examples: Rows of axis 0 since the previous record.
        positions: Examples times all other axes but that of the units, since the previous record.
        observations: Training steps looked at since the previous record.
        examples_seen: Examples since the first observation of the run.
        contiguous_examples: Examples up to now in observed steps without a gap.
        dataset_examples: Examples in one pass over the data, 0 if unknown.
        trainable: Whether the layer's weights are trained.
        run_moves: Largest update ratio of any layer of the run; NaN where weights were not recorded.
        from_start: Whether the first training step of the run's life was observed (not so in a resumed run).
    """

    step: int
    first_step: int
    wall_time: float
    examples: int
    positions: int
    observations: int
    examples_seen: int
    contiguous_examples: int = 0
    dataset_examples: int = 0
    trainable: bool = True
    run_moves: float = float("nan")
    from_start: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """Counters that go on from record to record, up to and including this one. All ``int64 [units]``, exact.

    Attributes:
        examples_since_active: Examples since the unit last fired.
        tokens_since_active: Positions since then.
        observations_since_active: Observations since then.
        examples_without_signal: Examples since the unit last had an error signal.
        last_active_step: Last observed step at which it fired, :data:`NEVER` if none.
        reference: What the unit itself is used to: :func:`rates_code` and :func:`lately_code`; 0 where it fires often,
            or never has.
    """

    examples_since_active: Int
    tokens_since_active: Int
    observations_since_active: Int
    examples_without_signal: Int
    last_active_step: Int
    reference: Int

    @classmethod
    def none(cls, units: int) -> Evidence:
        """Before the first observation."""
        zeros = np.zeros(units, np.int64)
        return cls(zeros, zeros, zeros, zeros, np.full(units, NEVER, np.int64), zeros)


@dataclass(frozen=True, slots=True)
class Memory:
    """What the confirmation of a state remembers from *before* this record. All ``int64 [units]``.

    Attributes:
        state: Confirmed state.
        since: Step since which it holds.
        pending: More severe state that waits for confirmation; equal to ``state`` for none.
        pending_records: Records that agreed on it so far.
        pending_examples: Examples that they cover.
        pending_since: Step of the first of them.
    """

    state: Int
    since: Int
    pending: Int
    pending_records: Int
    pending_examples: Int
    pending_since: Int

    @classmethod
    def none(cls, units: int, step: int) -> Memory:
        """Before the first record: everything unknown."""
        unknown = np.full(units, UnitState.UNKNOWN, np.int64)
        steps, zeros = np.full(units, step, np.int64), np.zeros(units, np.int64)
        return cls(unknown, steps, unknown, zeros, zeros, steps)

    def equals(self, other: Memory) -> bool:
        """Whether every array is equal."""
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))


@dataclass(frozen=True, slots=True)
class Statistics:
    """``float32 [statistics, units]``, exactly representable in bfloat16, with the names of the rows.

    A statistic that was not measured has no row.
    """

    names: tuple[str, ...]
    values: Float

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in STATISTIC_BY_NAME]
        if unknown or self.values.ndim != 2 or len(self.names) != len(self.values):
            raise ValueError(f"statistics {self.names} do not describe values of shape {self.values.shape}")

    def get(self, name: str) -> Float | None:
        """``[units]`` of one statistic, None if it was not measured."""
        return self.values[self.names.index(name)] if name in self.names else None

    @classmethod
    def of(cls, columns: dict[str, npt.NDArray[np.floating]], units: int) -> Statistics:
        """Round measured columns, each ``[units]``, to what is stored. The rows come in the order of ``STATISTICS``."""
        names = tuple(s.name for s in STATISTICS if s.name in columns)
        values = np.empty((len(names), units))  # float32 would make Inf of large numbers and zero of small ones
        for row, name in zip(values, names, strict=True):
            row[:] = columns[name]
        return cls(names, round_bfloat16(values))


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One layer at one step: what was measured, what it carries, and the verdict.

    The states follow from ``window``, ``statistics``, ``evidence`` and ``memory`` alone
    (:func:`deadunits_tb.verdicts.judge`), so a verdict never depends on which other records a reader happens to see.

    Attributes:
        layer: Name of the layer.
        window: What the record covers.
        statistics: None where the byte budget left only the states.
        evidence: Counters up to and including this record.
        memory: What confirmation remembered before this record.
        states: ``uint8 [units]`` codes of :class:`~deadunits_tb.units.UnitState`.
        since: ``int64 [units]`` step since which each state holds.
        certificates: What can be proved of the dead units, None where nobody looked.
    """

    layer: str
    window: Window
    statistics: Statistics | None
    evidence: Evidence
    memory: Memory
    states: Byte
    since: Int
    certificates: Certificates | None = None

    @property
    def units(self) -> int:
        """How many units the record covers."""
        return len(self.states)


def round_bfloat16(values: npt.NDArray[np.floating]) -> Float:
    """Round to the nearest bfloat16, ties to even, kept as float32. Zero, Inf and NaN stay what they are.

    Finite values beyond the largest bfloat16 become the largest, not Inf: an Inf in a record was an Inf in training.
    Values too small for float32 but not zero become the smallest bfloat16, not zero: a zero was a zero.
    """
    values = np.asarray(values)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = values.astype(np.float32, order="C")
    nan = np.isnan(rounded)
    _round_half_even(rounded.view(np.uint32))
    if nan.any():
        rounded[nan] = np.nan
    infinite = np.isinf(rounded)
    if infinite.any():
        lost = infinite & np.isfinite(values)
        rounded[lost] = np.copysign(np.float32(3.3895314e38), values[lost])
    gone = (rounded == 0) & (values != 0)
    if gone.any():
        rounded[gone] = np.copysign(np.float32(9.18355e-41), values[gone])
    return rounded


def to_bfloat16_bits(values: Float) -> npt.NDArray[np.uint16]:
    """The upper half of each float32, rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    if np.bitwise_or.reduce(bits, axis=None) & 0xFFFF:  # not so for what was rounded before, as in every record
        bits = bits.copy()
        _round_half_even(bits)
        bits[np.isnan(values)] = 0x7FC00000
    return (bits >> 16).astype(np.uint16)


def _round_half_even(bits: npt.NDArray[np.uint32]) -> None:
    """Round float32 bits to bfloat16, in place. Wrong for NaN: the carry would make a zero of some."""
    carry = bits >> 16
    carry &= 1
    carry += 0x7FFF
    bits += carry
    bits &= 0xFFFF0000


def from_bfloat16_bits(bits: npt.NDArray[np.uint16]) -> Float:
    """The float32 whose upper half is given."""
    return (bits.astype(np.uint32) << 16).view(np.float32)

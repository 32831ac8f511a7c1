"""Why the units of a layer are as they are: suspicions, layer by layer, each with the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deadunits_tb.reading.history import LayerHistory, RunHistory
from deadunits_tb.record import Byte, Int
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import Level, UnitState

StatesOf = Callable[[str], tuple[Byte, Int]]
"""Layer name to its states ``uint8 [records, units]`` and since-steps ``int64 [records, units]``, as judged now."""

SOUND_UPDATE = 0.01
"""Update ratio that a suggested learning rate aims at: the upper end of what trains well, 0.001 to 0.01."""
LOSS_JUMP = 1.5
"""A loss this many times its first value has jumped."""
GROWTH = 1e3
"""Growth of a layer's gradient that counts as explosion."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A cause that the numbers of one layer speak for. The fields are those of a finding."""

    cause: str
    level: Level
    layer: str
    step: int | None
    confidence: float
    evidence: tuple[str, ...] = ()
    ruled_out: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything that the rules below look at, for one layer."""

    run: RunHistory
    layer: LayerHistory
    states: Byte
    since: Int
    thresholds: Thresholds
    starved_by: str | None

    @property
    def name(self) -> str:
        return self.layer.info.name

    def level(self, units: int) -> Level:
        share = units / self.layer.units
        if share >= self.thresholds.alarm_share:
            return Level.ALARM
        return Level.WARNING if share >= self.thresholds.warning_share else Level.INFORMATION

    def onset(self, units: npt.NDArray[np.bool_]) -> int:
        """Step at which half of these units had got where they are."""
        return int(np.median(self.since[-1][units]))

    def peak_update(self, until: int) -> float:
        """Largest update ratio of the layer's median unit up to a step; NaN where it was not recorded."""
        if "update_ratio" not in self.layer.statistics:
            return float("nan")
        ratios = self.layer.statistic("update_ratio")[self.layer.steps <= until]
        ratios = ratios[np.isfinite(ratios).any(axis=1)]
        return float(np.nanmax(np.nanmedian(ratios, axis=1))) if len(ratios) else float("nan")

    def examples_until(self, step: int) -> int:
        """Examples that were observed up to a step."""
        return self.layer.window(int(np.searchsorted(self.layer.steps, step, side="right")) - 1).examples_seen

    def inputs_size(self) -> tuple[float, str] | None:
        """Root mean square of the model's inputs at the first record that knows them, and a sentence on them."""
        inputs = next((r.inputs for r in self.run.records if r.inputs is not None), None)
        if inputs is None:
            return None
        sentence = (
            f"the inputs range from {inputs.min:g} to {inputs.max:g}, mean {inputs.mean:.3g}, std {inputs.std:.3g}"
        )
        return float(np.hypot(inputs.mean, inputs.std)), sentence

    def unscaled(self) -> str | None:
        """The sentence on the inputs where they are far from standard and the layer is the first to see them."""
        size = self.inputs_size()
        first = all(self.layer.info.order <= other.info.order for other in self.run.layers.values())
        return size[1] if size and first and size[0] > self.thresholds.unscaled_inputs else None

    def bad_inputs(self, until: int) -> int | None:
        """Step of the first record, up to some step, whose inputs hold NaN or infinity; None without any."""
        found = (r.step for r in self.run.records if r.inputs and not np.isfinite([r.inputs.mean, r.inputs.std]).all())
        first = next(found, None)
        return first if first is not None and first <= until else None

    def loss_jump(self) -> float:
        """Largest loss over the first one, 0 where it is not known."""
        losses = [r.loss for r in self.run.records if r.loss is not None]
        if not losses or not losses[0] > 0:
            return 0.0
        return max((loss if np.isfinite(loss) else float("inf")) for loss in losses) / losses[0]


def suspect(run: RunHistory, states_of: StatesOf, thresholds: Thresholds) -> Iterator[Suspicion]:
    """Look at each layer in the model's order.

    Args:
        run: The run.
        states_of: States of each layer.
        thresholds: In force.

    Yields:
        Suspicions. A layer may have several, of different units.
    """
    starved_by = None
    for name, layer in run.layers.items():
        if not len(layer):
            continue
        states, since = states_of(name)
        case = _Case(run, layer, states, since, thresholds, starved_by)
        for rule in (_non_finite, _silent, _saturated, _frozen):
            yield from rule(case)
        if layer.info.role == "hidden" and bool((states[-1] == UnitState.DEAD).all()):
            starved_by = name


def _silent(case: _Case) -> Iterator[Suspicion]:
    """Dead units, and those on the way there that never fired: born so, or killed."""
    last, evidence = case.states[-1], case.layer.evidence(-1)
    never = (evidence.last_active_step < 0) & case.layer.window(-1).from_start
    born = never & ((last == UnitState.DEAD) | (last == UnitState.DYING))
    died = ~never & (last == UnitState.DEAD)
    if not (born | died).any():
        return
    if case.starved_by is not None:
        yield Suspicion(
            "upstream_dead",
            Level.WARNING,
            case.name,
            case.onset(born | died),
            0.8,
            (f"every unit of {case.starved_by}, before {case.name}, is dead: nothing but biases reaches this layer",),
            (),
            (f"mend {case.starved_by} first",),
        )
        return
    if born.any():
        yield from _born(case, born)
    if died.any():
        yield from _died(case, died)


def _born(case: _Case, born: npt.NDArray[np.bool_]) -> Iterator[Suspicion]:
    level = case.level(int(born.sum()))
    first = case.layer.window(-1).first_step
    fact = f"{_count(born)} of {case.name} never fired since the first training step (step {first:,})"
    if (unscaled := case.unscaled()) is not None:
        yield _from_data(case, level, case.onset(born), (fact, unscaled))
        return
    if level == Level.INFORMATION:
        return  # a few units are born dead in healthy networks
    inputs = case.inputs_size()
    yield Suspicion(
        "poor_initialization",
        level,
        case.name,
        first,
        0.95 if level == Level.ALARM else 0.75,
        (fact,),
        (
            "learning rate: the units were silent before the first update",
            *((f"unscaled data: {inputs[1]}",) if inputs and inputs[0] <= case.thresholds.unscaled_inputs else ()),
        ),
        _better_start(case),
    )


def _died(case: _Case, died: npt.NDArray[np.bool_]) -> Iterator[Suspicion]:
    level, onset = case.level(int(died.sum())), case.onset(died)
    peak, jump = case.peak_update(onset), case.loss_jump()
    fact = f"{_count(died)} of {case.name} fired at first and fell silent, half of them by step {onset:,}"
    alive_first = "initialization: these units fired before they died"
    if (unscaled := case.unscaled()) is not None:
        yield _from_data(case, level, onset, (fact, unscaled))
    elif peak >= case.thresholds.violent_update:
        jumped = jump >= LOSS_JUMP
        yield Suspicion(
            "learning_rate_too_high",
            level,
            case.name,
            onset,
            0.95 if jumped else 0.85,
            (
                fact,
                f"one step changed the weights of {case.name} by up to {peak * 100:.0f} % (0.1 % to 1 % trains well)",
                *((f"the loss rose to {jump:.3g} times its first value",) if jumped else ()),
            ),
            (alive_first,),
            (*_lower_rate(case, peak), "warm the learning rate up, or clip gradients by norm"),
        )
    elif level > Level.INFORMATION and (seen := case.examples_until(onset)) <= case.thresholds.dead_examples:
        yield Suspicion(
            "poor_initialization",
            level,
            case.name,
            onset,
            0.6,
            (f"{fact}, {seen:,} examples into training",),
            _calm_updates(peak),
            _better_start(case),
        )
    elif level > Level.INFORMATION:
        yield Suspicion(
            "unclear",
            Level.WARNING,
            case.name,
            onset,
            0.3,
            (fact,),
            (alive_first, *_calm_updates(peak)),
            ("look at the update ratio, gradient and mean of these units around the step of their death",),
        )


def _saturated(case: _Case) -> Iterator[Suspicion]:
    units = case.states[-1] == UnitState.SATURATED
    level = case.level(int(units.sum()))
    if not units.any():
        return
    function = case.layer.info.activation_function
    share = f"at least {case.thresholds.saturated_share * 100:g} % of positions"
    fact = f"{_count(units)} of {case.name} are at a bound of {function} on {share}"
    if (unscaled := case.unscaled()) is not None:
        yield _from_data(case, level, case.onset(units), (fact, unscaled))
    elif level > Level.INFORMATION:
        yield Suspicion(
            "saturating_activation",
            level,
            case.name,
            case.onset(units),
            0.7,
            (fact,),
            (),
            (
                f"replace {function} by ReLU, or normalise before it",
                "Glorot initialization, and a lower learning rate if the norm of the weights grew",
            ),
        )


def _non_finite(case: _Case) -> Iterator[Suspicion]:
    units = case.states[-1] == UnitState.NON_FINITE
    if not units.any():
        return
    fact = f"{_count(units)} of {case.name} have NaN or Inf in activation, gradient or weights"
    if (bad := case.bad_inputs(case.onset(units))) is not None:
        yield Suspicion(
            "non_finite_data",
            Level.ALARM,
            case.name,
            case.onset(units),
            0.95,
            (fact, f"the inputs held NaN or infinity at step {bad:,}, before any unit did or when the first did"),
            ("explosion: what went in was not finite",),
            (
                "find the examples with NaN or infinity in the data and drop or impute them",
                "check what prepares the data: a division by a standard deviation of zero, a logarithm of zero",
            ),
        )
        return
    grew = 0.0
    if "gradient" in case.layer.statistics:
        gradient = np.where(np.isfinite(case.layer.statistic("gradient")), case.layer.statistic("gradient"), np.nan)
        rows = gradient[np.isfinite(gradient).any(axis=1)]
        if len(rows) > 1 and (first := float(np.nanmedian(rows[0]))) > 0:
            grew = float(np.nanmax(rows)) / first
    jump = case.loss_jump()
    exploded = grew >= GROWTH or jump >= LOSS_JUMP
    yield Suspicion(
        "exploding_gradient" if exploded else "unclear",
        Level.ALARM,
        case.name,
        case.onset(units),
        0.8 if exploded else 0.3,
        (
            fact,
            *((f"the gradient grew {grew:.2g}-fold before",) if grew >= GROWTH else ()),
            *((f"the loss rose to {jump:.3g} times its first value",) if jump >= LOSS_JUMP else ()),
        ),
        (),
        (
            "clip gradients by norm",
            *_lower_rate(case, case.peak_update(case.onset(units))),
            "look for NaN or Inf in the data",
        ),
    )


def _frozen(case: _Case) -> Iterator[Suspicion]:
    units = case.states[-1] == UnitState.FROZEN
    if units.any():
        yield Suspicion(
            "frozen_by_user",
            Level.INFORMATION,
            case.name,
            case.onset(units),
            1.0,
            (f"the weights of {case.name} are not trainable",),
            (),
            ("nothing to do if this is meant; otherwise make the layer trainable and compile again",),
        )


def _from_data(case: _Case, level: Level, step: int, evidence: tuple[str, ...]) -> Suspicion:
    return Suspicion(
        "unscaled_data",
        level,
        case.name,
        step,
        0.9,
        evidence,
        (),
        ("standardise the inputs: subtract the mean of each feature and divide by its standard deviation",),
    )


def _better_start(case: _Case) -> tuple[str, ...]:
    bounded = case.layer.info.activation_function in ("tanh", "sigmoid", "softsign")
    initializer = "Glorot (glorot_uniform)" if bounded else "He (he_normal)"
    return (f"initialize {case.name} with {initializer}", "start biases at zero, or slightly above it for ReLU")


def _calm_updates(peak: float) -> tuple[str, ...]:
    return (f"learning rate: the update ratio stayed at or below {peak:.2g}",) if np.isfinite(peak) else ()


def _lower_rate(case: _Case, peak: float) -> tuple[str, ...]:
    """The learning rate at which the peak update would have been sound: updates scale with the rate."""
    rate = next((r.learning_rate for r in case.run.records if r.learning_rate), None)
    if rate is None or not peak > SOUND_UPDATE:
        return ("lower the learning rate",)
    suggested = rate * SOUND_UPDATE / peak
    magnitude = 10.0 ** np.floor(np.log10(suggested))
    return (f"lower the learning rate from {rate:g} to about {np.floor(suggested / magnitude) * magnitude:.1g}",)


def _count(units: npt.NDArray[np.bool_]) -> str:
    return f"{int(units.sum()):,} of {len(units):,} units"

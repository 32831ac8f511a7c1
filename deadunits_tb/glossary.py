"""What the words mean, for the tab's help and the documentation: states, statistics, thresholds, presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deadunits_tb.thresholds import PRESETS, SPECS, Thresholds
from deadunits_tb.units import STATISTICS, UnitState


@dataclass(frozen=True, slots=True)
class StateText:
    """One state in plain words.

    Attributes:
        rule: When a unit is in the state. ``{name}`` stands for the threshold of that name.
        means: What that says about the unit.
        not_: What it does not say.
        thresholds: The thresholds that the rule reads, in the order of its sentence.
    """

    rule: str
    means: str
    not_: str
    thresholds: tuple[str, ...] = ()

    def rule_with(self, thresholds: Thresholds) -> str:
        """The rule with the numbers in force."""
        return self.rule.format_map({name: number(value) for name, value in thresholds.to_dict().items()})


STATES: Mapping[UnitState, StateText] = {
    UnitState.ACTIVE: StateText(
        rule="No other rule applies.",
        means="The unit fires, its output varies, and training reaches it.",
        not_="It does not say that the unit is useful, only that nothing shows it to be useless.",
    ),
    UnitState.SPARSE: StateText(
        rule="Fired on fewer than {dying_share} of the recent examples (see Evidence), which chance explains with a "
        "probability of at most {sparse_significance}, and lost no rate that it had before.",
        means="The unit answers to few inputs, steadily: a detector of something rare. Sparse autoencoders and experts "
        "live here.",
        not_="It is not on its way out: a unit that used to fire far more often is dying, not sparse.",
        thresholds=("dying_share", "sparse_significance"),
    ),
    UnitState.DORMANT: StateText(
        rule="The mean absolute output is at most {dormant_share} of the layer's mean (of late, see Evidence, for a "
        "ReLU in a record in which it seldom fires), and it is no ReLU that fires on fewer than {dying_share} of the "
        "recent examples: that is small on average however strongly it fires.",
        means="The unit fires, but so weakly beside its neighbours that it contributes next to nothing.",
        not_="It is measured against its own layer, so a layer that is small as a whole has no dormant units. It still "
        "receives an error signal and may come back by itself.",
        thresholds=("dormant_share", "dying_share"),
    ),
    UnitState.STAGNANT: StateText(
        rule="The weights are trainable and other weights of the run move, yet the update ratio stayed below "
        "{stagnant_ratio} at {stagnant_records} records in a row, in each of which the unit fired.",
        means="Training no longer changes the unit.",
        not_="It is not frozen by you: the optimizer may change it and does not. In a run where nothing moves, such as "
        "one with a learning rate of zero, no unit is called stagnant.",
        thresholds=("stagnant_ratio", "stagnant_records"),
    ),
    UnitState.DYING: StateText(
        rule="Fired on fewer than {dying_share} of the examples of a record, of the recent ones, or of those since its "
        "rate fell (see Evidence), and lost at least {dying_loss} of its own earlier rate, which chance explains with "
        "a probability of at most {dying_significance}; or silent and without error signal on at least "
        "{unknown_examples} examples, more than chance explains and not yet enough for dead.",
        means="The unit is falling silent. There may be time to act.",
        not_="It is not yet dead, and many a unit recovers. A unit that always fired seldom is sparse, not dying.",
        thresholds=("dying_share", "dying_loss", "dying_significance", "unknown_examples"),
    ),
    UnitState.CONSTANT: StateText(
        rule="Between its smallest and its largest output lies at most {constant_range} of the layer's scale, and the "
        "unit fires, on half of the examples at least. In a layer without activation function also where it is always "
        "zero.",
        means="The unit says the same whatever the input: it is a bias in disguise.",
        not_="It is not silent. It adds a fixed value to the next layer, so removing it alone changes the output.",
        thresholds=("constant_range",),
    ),
    UnitState.SATURATED: StateText(
        rule="On at least {saturated_share} of all positions the activation function is so close to a bound that its "
        "derivative is below {saturated_derivative} of its largest.",
        means="The unit works as a switch, and hardly any gradient passes through it, so it learns very slowly.",
        not_="Only functions with a bound, such as tanh and sigmoid, saturate. A gate of a recurrent layer may do so "
        "on purpose.",
        thresholds=("saturated_share", "saturated_derivative"),
    ),
    UnitState.DISCONNECTED: StateText(
        rule="Fires, but every outgoing weight is zero while the rest of the run trains, and every consumer is known.",
        means="Nothing reads what the unit says, so it cannot matter to the output.",
        not_="Where not every consumer of a layer is known this is never claimed. Outgoing weights that only start at "
        "zero are trained, and leave this state with the first update.",
    ),
    UnitState.DEAD: StateText(
        rule="Did not fire on at least {dead_examples} examples in a row (for token models: on {dead_tokens} tokens "
        "from at least {dead_observations} observations; with a small data set of known length: on a stretch that "
        "surely holds one complete pass), and received no error signal over them (other than ReLU-like functions: "
        "at most {dead_gradient} of the layer's).",
        means="The unit is silent for everything it was shown, and training no longer reaches it, so it stays silent "
        "unless something else changes: its inputs, weight decay, or you.",
        not_="It is not an accusation: healthy networks have some. Silence on the examples seen bounds the firing "
        "rate, it does not prove zero. Where no gradient was recorded the verdict rests on silence alone, and says so.",
        thresholds=("dead_examples", "dead_tokens", "dead_observations", "dead_gradient"),
    ),
    UnitState.NON_FINITE: StateText(
        rule="NaN or infinity in an activation, gradient or weight of the unit. Entered at once.",
        means="Numbers have overflowed or are undefined. From here training usually ruins the whole network.",
        not_="Steps that a loss scaler skips on purpose are not counted. It is rarely the unit's own fault: look for "
        "the layer and the step where it began.",
    ),
    UnitState.UNKNOWN: StateText(
        rule="Fewer than {unknown_examples} examples were seen since the run began, or no activation was recorded.",
        means="Too little was seen to judge.",
        not_="It is no sign of trouble, and no sign of health either.",
        thresholds=("unknown_examples",),
    ),
    UnitState.FROZEN: StateText(
        rule="The weights of the layer are not trainable.",
        means="You, or the library, told training to leave the unit alone. It is not judged.",
        not_="It is neither good nor bad: a frozen unit may still be silent.",
    ),
}
"""Every state in plain words."""


def number(value: float) -> str:
    """A threshold as people write it: ``3,000``, ``0.025``, ``1e-06``."""
    return f"{int(value):,}" if value == int(value) and abs(value) >= 1 else f"{value:g}"


def glossary() -> dict[str, Any]:
    """All words as plain values, for JSON."""
    return {
        "states": [
            {
                "code": int(state),
                "label": state.label,
                "level": state.level.label,
                "rule": text.rule_with(Thresholds()),
                "means": text.means,
                "not": text.not_,
                "thresholds": list(text.thresholds),
            }
            for state, text in sorted(STATES.items())
        ],
        "statistics": [
            {"name": s.name, "signal": s.signal, "meaning": s.meaning, "signed": s.signed} for s in STATISTICS
        ],
        "thresholds": [
            {"name": name, **spec, "whole": isinstance(spec["default"], int)} for name, spec in SPECS.items()
        ],
        "presets": {name: dict(changes) for name, changes in PRESETS.items()},
    }

"""The causes that a finding may name, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CauseText:
    """One cause in plain words.

    Attributes:
        when: The numbers that speak for it.
        not_: What it does not say, or is often mistaken for.
    """

    when: str
    not_: str


CAUSES: Mapping[str, CauseText] = {
    "poor_initialization": CauseText(
        "A share of a layer never fired since the first training step. As many units fire on every example as chance "
        "lets be silent on every one, because the signs of fresh weights are drawn evenly: more silent ones than that "
        "are due to the initialization. Also: units that fell silent within the first examples although the weights "
        "hardly moved, or gradients and activations that grow or shrink by orders of magnitude from layer to layer at "
        "the first record, with weights much larger or smaller than He or Glorot initialization makes them.",
        "Some units born dead are no fault: below the share of a warning nothing is said. Where chance alone explains "
        "the silent units the finding says so and is no alarm, unless the whole layer is dead.",
    ),
    "learning_rate_too_high": CauseText(
        "Units died or saturated after one step had changed the weights of their layer violently (see "
        "`violent_update`), or the loss rose above its first value and stayed there while the weights moved like that.",
        "It is not named where the inputs are unscaled or the initial weights far too large: these make a sound "
        "learning rate violent.",
    ),
    "learning_rate_too_low": CauseText(
        "Every layer's update ratio stays below a tenth of the 1e-3 that is usual while a network learns, the weights "
        "are as freshly drawn (equal norms), and after a hundred steps or more the loss has hardly fallen.",
        "Not named during warm-up, in the tail of a schedule, in a run that has converged, or in fine-tuning: there "
        "the loss has fallen before, or the weights are not fresh.",
    ),
    "vanishing_gradient": CauseText(
        "The error signal shrinks a thousandfold or more, layer by layer, from the last hidden layer to the first, "
        "and the loss hardly falls.",
        "A gradient that shrinks with depth in a network that learns is not named.",
    ),
    "exploding_gradient": CauseText(
        "Gradient or loss grew by orders of magnitude during a run that had begun soundly, and units became NaN or "
        "infinite, or died.",
        "Where the run never began soundly the cause is the learning rate, the initialization or the data.",
    ),
    "saturating_activation": CauseText(
        "A share of a layer is at a bound of its activation function, and neither the data nor a violent update "
        "explains it.",
        "An output layer may saturate: it is not judged.",
    ),
    "unscaled_data": CauseText(
        "The model's inputs are far from standard (see `unscaled_inputs`), reach the first layer like that, and units "
        "died or saturated.",
        "Unscaled inputs alone are no finding, nor are inputs that a layer of the model scales.",
    ),
    "insufficient_data": CauseText(
        "The training loss has fallen to a hundredth of its first value, in a network that has more weights than the "
        "data set has examples; where the length of the data set is recorded.",
        "Training loss alone cannot tell whether a network has learned or knows the examples by heart: this is "
        "information, with a low confidence. Only the loss on examples that were held out can tell.",
    ),
    "upstream_dead": CauseText(
        "Units are silent in a layer that follows a layer whose units are all dead: nothing but biases reaches it.",
        "The layer itself is not to blame.",
    ),
    "weight_decay": CauseText(
        "The norm of the incoming weights had shrunk steadily, to half or less, *before* the units fell silent or "
        "constant, while the steps were calm.",
        "A norm that shrinks after a death is a consequence, not a cause, and is not named.",
    ),
    "constant_output_head": CauseText(
        "The output layer is a softmax over one unit, whose output is always 1; or no layer has received any gradient "
        "since the first step.",
        "A sigmoid over one unit is fine.",
    ),
    "frozen_by_user": CauseText(
        "The weights of the layer are not trainable.",
        "It is information, not an accusation.",
    ),
    "pruned": CauseText(
        "The incoming weights of units became exactly zero, or all their outgoing weights are.",
        "It is information, not an accusation. Weights that are all zero from the start are poor initialization.",
    ),
    "non_finite_data": CauseText(
        "The inputs held NaN or infinity, before any unit did or when the first did.",
        "Overflow inside the network has other causes.",
    ),
    "unclear": CauseText(
        "Units died or are not finite, and none of the above fits the numbers.",
        "It does not say that nothing is wrong.",
    ),
}
"""Every cause by name."""

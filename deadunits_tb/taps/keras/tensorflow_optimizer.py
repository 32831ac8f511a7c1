"""What an optimizer of Keras on TensorFlow says of itself, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from deadunits_tb.taps.keras import private as keras_private


def optimizer_fields(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """What an optimizer says of itself before its step."""
    fields: dict[str, Any] = {}
    source = keras_private.learning_rate_source(optimizer)
    if isinstance(source, keras.optimizers.schedules.LearningRateSchedule):
        fields["learning_rate"] = source(optimizer.iterations)
    elif isinstance(source, keras.Variable):  # a function of the user's may count its calls: it is not called
        fields["learning_rate"] = tf.identity(source.value)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        built = optimizer.built  # its first step makes the variable, and scales by the initial value
        fields["scale"] = tf.identity(optimizer.dynamic_scale.value if built else optimizer.initial_scale)
        fields["skipped"] = tf.identity(optimizer.iterations.value)
    elif optimizer.loss_scale_factor is not None:
        fields["scale"] = tf.constant(float(optimizer.loss_scale_factor))
    return fields


def gradients_by_variable(
    optimizer: keras.optimizers.Optimizer,
    grads: list[Any],
    variables: list[Any] | None,
    belongs: Callable[[Any], bool],
) -> dict[int, Any]:
    """The gradients that an optimizer is given, by ``id`` of the variable.

    Args:
        optimizer: Of Keras.
        grads: In the order of the variables.
        variables: None for those that it was built for.
        belongs: Whether a gradient can be looked at here.
    """
    return {
        id(getattr(variable, "value", variable)): gradient
        for variable, gradient in zip(variables or keras_private.optimizer_variables(optimizer), grads, strict=False)
        if gradient is not None and belongs(gradient)
    }

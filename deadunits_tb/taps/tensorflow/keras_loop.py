"""Begin to watch a Keras model in a loop of the user's own: what was given is checked, and said where it is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from deadunits_tb.capture import arguments
from deadunits_tb.capture.alarms import Alarm
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.silent_monitor import SilentMonitor
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.run_record import RunInfo
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.layers import survey
from deadunits_tb.taps.keras.parts import model_parts, optimizer_facts
from deadunits_tb.taps.tensorflow.distributed import check_strategy, worker
from deadunits_tb.taps.tensorflow.keras_loop_step import LoopStep
from deadunits_tb.taps.tensorflow.keras_loop_tap import LoopTap, is_watched
from deadunits_tb.thresholds import Thresholds


def check_model(model: Any) -> None:
    """Find out whether a model can be watched.

    Raises:
        InvalidArgumentError: It cannot.
        MissingDependencyError: This version of Keras cannot be watched.
    """
    if not isinstance(model, keras.Model):
        raise InvalidArgumentError(
            f"model must be a Keras model, not {type(model).__name__}: from a tf.Module or functions of your own, "
            "write arrays with DeadUnitsWriter"
        )
    if keras.backend.backend() != "tensorflow":
        raise InvalidArgumentError(
            f"Keras runs on {keras.backend.backend()!r}, where no tf.GradientTape records: set the environment "
            "variable KERAS_BACKEND to tensorflow"
        )
    keras_private.check_version()
    check_strategy(model.distribute_strategy, several_workers=True)
    if is_watched(model):
        raise InvalidArgumentError(
            f"the model {model.name!r} is being watched already: close that monitor before you begin another"
        )


def checked_optimizers(model: keras.Model, given: Any) -> list[keras.optimizers.Optimizer]:
    """The optimizers that train a model.

    Args:
        model: The model.
        given: One, several, or None for that which the model was compiled with.

    Raises:
        InvalidArgumentError: It is something else, it trains another model, or it is needed and missing.
    """
    if given is None:
        given = getattr(model, "optimizer", None)
    optimizers = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    own = {id(variable) for variable in model.variables}
    for optimizer in optimizers:
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise InvalidArgumentError(
                f"optimizer must be an optimizer of Keras, or a list of them, not {type(optimizer).__name__}"
            )
        trained = keras_private.optimizer_variables(optimizer) if optimizer.built else []
        if trained and own and not any(id(variable) in own for variable in trained):
            raise InvalidArgumentError(
                f"the optimizer {optimizer.name!r} was built for other weights than those of {model.name!r}: "
                "give the one that trains this model"
            )
    if not optimizers and any(layer.compute_dtype == "float16" for layer in keras_private.sublayers(model)):
        raise InvalidArgumentError(
            "the model computes in float16, whose gradients are scaled: give the optimizer, which knows the scale"
        )
    return optimizers


def checked_layers(layers: Any) -> tuple[Any, ...] | None:
    """The layers to watch, None for all.

    Raises:
        InvalidArgumentError: They are no list of names and layers.
    """
    return arguments.checked_layers(layers, keras.Layer)


def watching(
    model: keras.Model,
    optimizers: Sequence[keras.optimizers.Optimizer],
    chosen: Sequence[str | keras.Layer] | None,
    thresholds: Thresholds,
    log_dir: str | os.PathLike[str],
    *,
    every: int | None,
    max_overhead: float,
    max_bytes: int,
    initial_step: int,
    on_alarm: Callable[[Alarm], object] | None,
) -> LoopTap:
    """Begin to watch; the arguments are those of :func:`deadunits_tb.tensorflow.watch`, checked."""
    if keras_private.is_built(model):
        survey(model, chosen)  # what is wrong there is said before there is a file
    run = RunInfo(
        framework=LoopStep.framework,
        versions={"keras": keras.__version__, **LoopStep.versions},
        optimizer=optimizer_facts(optimizers[0] if optimizers else None),
        thresholds=thresholds,
        every=every,
        model=model_parts(model),
    )
    monitor: Any = SilentMonitor()
    if worker(model.distribute_strategy) == 0:
        monitor = Monitor(
            log_dir,
            run,
            every=every,
            max_overhead=max_overhead,
            max_bytes=max_bytes,
            initial_step=initial_step,
            on_alarm=on_alarm,
        )
    tap = LoopTap(model, optimizers, chosen, thresholds, monitor, initial_step, every=every)
    tap.begin()
    return tap

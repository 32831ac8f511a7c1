"""What to do, said for the run at hand: its learning rate, its optimizer, its framework's own names."""

from __future__ import annotations

import math

import numpy as np

from deadunits_tb.reading.causes.case import LayerCase, RunCase
from deadunits_tb.reading.phrases import measured

SOUND_UPDATE = 0.01
"""Update ratio that a lower learning rate aims at: the upper end of what trains well, 0.001 to 0.01."""
USUAL_UPDATE = 1e-3
"""Update ratio that a higher learning rate aims at."""
_ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Nadam", "Lion", "Adafactor", "LAMB", "Muon")


def lower_rate(run: RunCase, step: int, peak: float) -> tuple[str, ...]:
    """The learning rate at which the largest update would have been sound, and what else calms the steps."""
    rate = run.rate(step)
    if rate is None or not peak > SOUND_UPDATE:
        first = "lower the learning rate by a factor of ten"
    else:
        first = f"lower the learning rate from {rate:g} to about {_one_digit(rate * SOUND_UPDATE / peak)}"
    return (first, *clip(run), *warm_up(run), *adaptive(run))


def higher_rate(run: RunCase, update: float) -> tuple[str, ...]:
    """The learning rate at which the layers would move as usual."""
    rate = run.rate()
    if not rate or not update > 0:
        return ("raise the learning rate by a factor of ten", *adaptive(run))
    factor = min(USUAL_UPDATE / update, 1000.0)
    return (f"raise the learning rate from {rate:g} to about {_one_digit(rate * factor)}", *adaptive(run))


def clip(run: RunCase) -> tuple[str, ...]:
    """How gradients are clipped, unless they are."""
    settings, framework = run.run.info.optimizer, run.run.info.framework
    if any(settings.get(name) for name in ("clipnorm", "global_clipnorm", "clipvalue")):
        return ()
    if framework.startswith(("keras", "tensorflow")):
        return (f"clip gradients by norm: global_clipnorm=1.0 in {run.optimizer or 'the optimizer'}",)
    if framework.startswith("torch"):
        return (
            "clip gradients by norm: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) before optimizer.step()",
        )
    return ("clip gradients by norm, to 1.0 say",)


def warm_up(run: RunCase) -> tuple[str, ...]:
    """Warm the learning rate up, unless the run did."""
    rates = [record.learning_rate for record in run.run.records if record.learning_rate]
    warmed = len(rates) > 1 and rates[0] < 0.5 * max(rates)
    return () if warmed else ("warm the learning rate up over the first few hundred steps",)


def adaptive(run: RunCase) -> tuple[str, ...]:
    """Name an adaptive optimizer, unless there is one already."""
    if any(name.lower() in run.optimizer.lower() for name in _ADAPTIVE):
        return ()
    instead = f" instead of {run.optimizer}" if run.optimizer else ""
    return (f"use an adaptive optimizer (Adam, RMSprop or AdaGrad){instead}",)


def better_start(case: LayerCase) -> tuple[str, ...]:
    """The initialization that suits the layer's activation function, in the framework's words."""
    info, framework = case.layer.info, case.run.run.info.framework
    kind = "Glorot" if case.bounded else "He"
    if framework.startswith(("keras", "tensorflow")):
        spelled = f'kernel_initializer="{"glorot_uniform" if case.bounded else "he_normal"}"'
    elif framework.startswith("torch"):
        if case.bounded:
            spelled = "torch.nn.init.xavier_uniform_(layer.weight)"
        else:
            spelled = 'torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")'
    elif framework.startswith("jax"):
        spelled = f"jax.nn.initializers.{'glorot_uniform' if case.bounded else 'he_normal'}()"
    else:
        spelled = f"a standard deviation of {case.usual_norm / math.sqrt(info.fan_in):.2g}" if info.fan_in else ""
    how = f": {spelled}" if spelled else ""
    bias = "start its biases at zero" + ("" if case.bounded else ", or slightly above it")
    return (f"initialize {case.name} with {kind} initialization for {info.activation_function}{how}", bias)


def start_in_words(case: LayerCase) -> tuple[str, ...]:
    """The initializer in use, as far as the norm of the weights tells."""
    norms = case.at_start("norm_in")
    if norms is None or math.isnan(case.size_at_start):
        return ()
    kind = "Glorot" if case.bounded else "He"
    return (
        f"the incoming weights of {case.name} began with a norm of {measured(float(np.median(norms)))} a unit; "
        f"{kind} initialization gives about {measured(case.usual_norm)}",
    )


def _one_digit(value: float) -> str:
    magnitude = 10.0 ** math.floor(math.log10(value))
    return f"{max(1.0, math.floor(value / magnitude * (1 + 1e-9))) * magnitude:.1g}"

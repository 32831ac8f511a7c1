"""Every statistic by plain loops in float64: slow, obvious, and independent of the code under test."""

from __future__ import annotations

import math

SATURATED = {
    "tanh": lambda y, s: 1 - y * y < s,
    "sigmoid": lambda y, s: 4 * y * (1 - y) < s,
    "softsign": lambda y, s: (1 - abs(y)) ** 2 < s,
    "hard_sigmoid": lambda y, s: y <= 0 or y >= 1,
    "hard_tanh": lambda y, s: y <= -1 or y >= 1,
    "relu6": lambda y, s: y >= 6,
}


def of_unit(batches, *, fires, function=None, share=0.01, gradients=None):
    """The statistics of one unit over some batches.

    Args:
        batches: Each a list of examples, each a list of the positions that count.
        fires: Whether an output is one of a unit that fires.
        function: Name of the activation function.
        share: Of the largest derivative below which a position is saturated.
        gradients: Like ``batches``; None for a batch without.
    """
    examples = [[float(y) for y in example] for batch in batches for example in batch if len(example)]
    outputs = [y for example in examples for y in example]
    n = len(outputs)
    mean = math.fsum(outputs) / n
    result = {
        "active_fraction": sum(any(fires(y) for y in example) for example in examples) / len(examples),
        "active_positions": sum(fires(y) for y in outputs) / n,
        "mean": mean,
        "mean_abs": math.fsum(abs(y) for y in outputs) / n,
        "std": math.sqrt(math.fsum((y - mean) ** 2 for y in outputs) / n),
        "min": min(outputs),
        "max": max(outputs),
    }
    if function in SATURATED:
        result["saturated_fraction"] = sum(SATURATED[function](y, share) for y in outputs) / n
    slopes = [float(g) for batch in gradients or () if batch is not None for example in batch for g in example]
    if slopes:
        result["gradient"] = math.sqrt(math.fsum(g * g for g in slopes) / len(slopes))
    return result


def examples_of(array, unit, mask=None):
    """``[examples, positions, units]`` (and a mask ``[examples, positions]``) as lists of the positions of one unit."""
    return [
        [array[e, p, unit] for p in range(array.shape[1]) if mask is None or mask[e, p]] for e in range(array.shape[0])
    ]

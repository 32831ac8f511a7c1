"""Names of activation functions, and from which output on a bounded one counts as saturated.

Saturation is judged by the *output*, which is at hand on every framework, although it is defined by the derivative: for
each bounded function the derivative is a function of the output.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.units import BOUNDED, RELU_LIKE

CUSTOM = "custom"
"""Name to give for a function of one's own."""

NAMES = (
    CUSTOM,
    "linear",
    *sorted(RELU_LIKE),
    *sorted(BOUNDED - RELU_LIKE),
    *("leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hard_silu", "softplus"),
    *("log_sigmoid", "exponential", "softmax", "log_softmax", "sparsemax", "glu", "maxout", "tanh_shrink"),
    *("soft_shrink", "hard_shrink", "sparse_plus", "squareplus", "sparse_sigmoid"),
)
"""Names of activation functions in the field's own words."""

_ALIASES = {
    "identity": "linear",
    "none": "linear",
    "swish": "silu",
    "hard_swish": "hard_silu",
    "logistic": "sigmoid",
    "relu_squared": "squared_relu",
    "relu2": "squared_relu",
    "exp": "exponential",
    "thresholded_relu": "threshold",
}


def field_name(name: str) -> str | None:
    """The field's own name of an activation function that a framework calls differently.

    Args:
        name: Such as ``"ReLU"``, ``"LeakyReLU"``, ``"Swish"`` or ``"hardtanh"``.

    Returns:
        Such as ``"relu"``, ``"leaky_relu"``, ``"silu"``, ``"hard_tanh"``; None for a function that we do not know.
    """
    return _BY_TIGHT_NAME.get(_tight(name))


def known_name(name: str) -> str:
    """As :func:`field_name`, for a name that a user gave.

    Raises:
        UnknownNameError: There is no such function.
    """
    found = field_name(name)
    if found is None:
        raise UnknownNameError.of("activation function", name, NAMES)
    return found


def output_limits(name: str | None, derivative: float) -> tuple[float, float]:
    """Outputs from which on a function is saturated: at most the first, or at least the second.

    Args:
        name: Of the activation function.
        derivative: Share of the largest derivative below which a position is at a bound.

    Returns:
        ``(lower, upper)``, each a float32 and to be compared inclusively; ``-inf`` and ``inf`` where there is no bound.
        ``relu6`` has none below: there it is silent, which is another thing.

    Raises:
        InvalidArgumentError: ``derivative`` is not above 0 and below 1.
    """
    if not 0 < derivative < 1:
        raise InvalidArgumentError(f"the derivative share must be above 0 and below 1, not {derivative!r}")
    limits = _LIMITS.get(name or "")
    return limits(derivative) if limits else (-math.inf, math.inf)


def _symmetric(share: Callable[[float], float], guess: float, derivative: float) -> tuple[float, float]:
    upper = _first(guess, derivative, share)
    return -upper, upper


def _first(guess: float, derivative: float, share: Callable[[float], float]) -> float:
    """The float32 nearest to ``guess``, from below, whose share of the derivative is below the wanted one."""
    limit = np.nextafter(np.float32(guess), np.float32(0))
    while share(float(limit)) >= derivative and limit < 1:
        limit = np.nextafter(limit, np.float32(1))
    return float(limit)


def _sigmoid(derivative: float) -> tuple[float, float]:
    root = math.sqrt(1 - derivative)
    lower = np.float32(derivative / (2 * (1 + root)))  # (1 - root) / 2 without cancellation
    while _sigmoid_share(float(lower)) >= derivative:
        lower = np.nextafter(lower, np.float32(0))
    return float(lower), _first((1 + root) / 2, derivative, _sigmoid_share)


def _sigmoid_share(y: float) -> float:
    return 4 * y * (1 - y)


_LIMITS: Mapping[str, Callable[[float], tuple[float, float]]] = {
    "tanh": lambda s: _symmetric(lambda y: 1 - y * y, math.sqrt(1 - s), s),
    "sigmoid": _sigmoid,
    "softsign": lambda s: _symmetric(lambda y: (1 - y) ** 2, 1 - math.sqrt(s), s),
    "hard_sigmoid": lambda s: (0.0, 1.0),
    "hard_tanh": lambda s: (-1.0, 1.0),
    "relu6": lambda s: (-math.inf, 6.0),
}


def _tight(name: str) -> str:
    return re.sub("[_ -]", "", name).lower()


_BY_TIGHT_NAME = {_tight(key): value for key, value in [*zip(NAMES, NAMES, strict=True), *_ALIASES.items()]}

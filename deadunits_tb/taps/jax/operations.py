"""What single operations, as JAX traces them, do to units: hand them on, or be their activation function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jax.extend import core

from deadunits_tb.capture.activation_functions import field_name
from deadunits_tb.taps.jax.private import function_name

Shape = tuple[int, ...]

_HANDS_ON = frozenset(
    {
        *("add", "add_any", "sub", "mul", "div", "neg", "select_n", "convert_element_type", "copy", "copy_p", "name"),
        *("stop_gradient", "optimization_barrier", "reduce_precision", "sharding_constraint", "clamp", "pow", "square"),
        *("reduce_window_max", "reduce_window_sum", "reduce_window_min", "reduce_window", "sqrt", "exp", "integer_pow"),
    }
)
NO_FUNCTION = frozenset({"linear", "softmax", "log_softmax", "exponential", "glu"})
_PRIMITIVES = {"tanh": "tanh", "logistic": "sigmoid"}
_LONGEST_GATE = 16
_GATE = dict.fromkeys(("mul", "add", "sub", "div", "neg", "integer_pow", "square", "convert_element_type", "sqrt")) | {
    **dict.fromkeys(("tanh", "erf", "erfc"), "gelu"),
    "logistic": "silu",
}
"""Operations in functions like GELU, to the name of the function that they are typical of."""


def gate(eqns: Sequence[Any], number: int, value: Any) -> tuple[str | None, int]:
    """Recognise functions that JAX writes out as a value times something of that value: GELU, SiLU.

    Args:
        eqns: Of the traced function.
        number: Of the first of them that takes the value.
        value: The variable.

    Returns:
        Name of the function, and how many operations it is; None and 0 if there is no such function.
    """
    made: list[Any] = [value]
    curved: list[Any] = []  # of them what depends on a function
    seen = None
    for length, eqn in enumerate(eqns[number : number + _LONGEST_GATE], 1):
        takes = [atom for atom in eqn.invars if not isinstance(atom, core.Literal)]
        name = eqn.primitive.name
        if name not in _GATE or not all(_among(atom, made) for atom in takes):
            break
        bent = [_among(atom, curved) for atom in takes]
        if name == "mul" and bent in ([True, False], [False, True]):
            return seen, length
        seen = _GATE[name] or seen
        if any(bent) or _GATE[name]:
            curved += eqn.outvars
        made += eqn.outvars
    return None, 0


def _among(atom: Any, variables: Sequence[Any]) -> bool:
    return any(atom is variable for variable in variables)


def function_of(eqn: Any) -> str | None:
    """Name of the activation function that an operation may be, None for others."""
    name = eqn.primitive.name
    if name in ("jit", "pjit", "custom_jvp_call", "custom_vjp_call"):
        return field_name(function_name(eqn))
    if name == "max" and any(
        isinstance(atom, core.Literal) and not atom.aval.shape and atom.val == 0 for atom in eqn.invars
    ):
        return "relu"
    return _PRIMITIVES.get(name)


def moved_axes(
    eqn: Any, before: tuple[int, ...], shape: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Which axis of the parameter each axis is, after an operation; None where that is lost."""
    if eqn.primitive.name == "transpose":
        return tuple(axes[axis] for axis in eqn.params["permutation"])
    return axes if eqn.primitive.name in _HANDS_ON and before == shape else None


def moved_units(eqn: Any, before: Shape, shape: Shape, axes: Shape) -> Shape | None:
    """Where the units are after an operation; None where that is lost."""
    name = eqn.primitive.name
    if name == "transpose":
        permutation = list(eqn.params["permutation"])
        return tuple(permutation.index(axis) for axis in axes)
    if name == "broadcast_in_dim":
        moved = tuple(eqn.params["broadcast_dimensions"][axis] for axis in axes)
        return moved if all(shape[new] == before[old] for new, old in zip(moved, axes, strict=True)) else None
    if name in ("reshape", "squeeze", "expand_dims"):
        return _reshaped(before, shape, axes)
    if name not in _HANDS_ON or len(before) != len(shape):
        return None
    return axes if all(shape[axis] == before[axis] for axis in axes) else None


def _reshaped(before: Shape, shape: Shape, axes: Shape) -> Shape | None:
    if list(axes) != list(range(axes[0], axes[0] + len(axes))):
        return None
    outside, units = math.prod(before[: axes[0]]), math.prod(before[axis] for axis in axes)
    for start in range(len(shape)):
        for end in range(start + 1, len(shape) + 1):
            if math.prod(shape[:start]) == outside and math.prod(shape[start:end]) == units and shape[start] != 1:
                return tuple(range(start, end)) if units > 1 else None
    return None

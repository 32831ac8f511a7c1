"""What stands between the product of a layer and its activation function: by it a bound holds, or nothing is proved.

The bound of a dead unit needs ``inputs @ weights + biases`` and a function that is exactly silent up to zero. In
between may be what leaves values as they are or picks some (reshapes, casts, max-pooling), and then what leaves their
signs (dropout, mean-pooling). Of everything else the reason is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jax.extend import core

from deadunits_tb.taps.jax.inputs import precision

Shape = tuple[int, ...]

LOST = "more than its biases, dropout and pooling stands between it and its activation function"
COMPUTED = "its weights are computed from parameters, and are none themselves"
SEVERAL = "it is followed by different things in different calls"

SAME = frozenset(
    {
        *("convert_element_type", "copy", "copy_p", "name", "stop_gradient", "optimization_barrier"),
        *("sharding_constraint", "reshape", "squeeze", "expand_dims", "transpose", "broadcast_in_dim"),
    }
)
"""Operations that leave each value as it is, but for rounding in casts."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a value came from a product.

    Attributes:
        bias: Number of the parameter that was added, None for none so far.
        eps: The coarsest precision that it was cast to, or that what was added to it was.
        signs: Whether only the signs are still those of the sum.
        reason: Why nothing can be proved, empty if something can.
    """

    bias: int | None = None
    eps: float = 0.0
    signs: bool = False
    reason: str = ""

    def lost(self) -> Way:
        """The same after something that is not understood."""
        return replace(self, reason=self.reason or LOST)

    def after(self, eqn: Any, operand: int, *, bias: tuple[int, float] | None, zeros: Sequence[bool]) -> Way:
        """The same after one operation.

        Args:
            eqn: The operation.
            operand: Which of its operands came this way.
            bias: Number of the parameter along the axis of the units that the other operand is, and the coarsest
                precision that it was cast to; None for none.
            zeros: Of each operand whether it is zero everywhere.
        """
        name = eqn.primitive.name
        if name == "convert_element_type":
            eps = cast_to(eqn)
            return self.lost() if eps is None else replace(self, eps=max(self.eps, eps))
        if name in SAME or name == "reduce_window_max":
            return self
        if name in ("add", "add_any") and bias is not None and self.bias is None and not self.signs:
            return replace(self, bias=bias[0], eps=max(self.eps, bias[1]))
        scaled = name == "div" and operand == 0 and _positive(eqn.invars[1])
        scaled |= name == "mul" and _positive(eqn.invars[1 - operand])
        dropped = name == "select_n" and all(zero for at, zero in enumerate(zeros) if at not in (0, operand))
        if scaled or dropped or name == "reduce_window_sum":
            return replace(self, signs=True)
        return self.lost()


def cast_to(eqn: Any) -> float | None:
    """The precision of what an operation gives out, None for whole numbers, which are other values."""
    return precision(eqn.outvars[0].aval.dtype) or None


def vector_axis(eqn: Any, before: Shape, shape: Shape, axis: int) -> int | None:
    """Along which axis a vector lies after an operation, constant along all others; None where that is lost."""
    name = eqn.primitive.name
    if name == "broadcast_in_dim":
        moved = int(eqn.params["broadcast_dimensions"][axis])
        return moved if shape[moved] == before[axis] else None
    if name == "transpose":
        return list(eqn.params["permutation"]).index(axis)
    if name in ("reshape", "squeeze", "expand_dims"):
        ones = [length == 1 for at, length in enumerate(before) if at != axis]
        places = [at for at, length in enumerate(shape) if length == before[axis]]
        rest = [length for at, length in enumerate(shape) if places and at != places[-1]]
        return places[-1] if places and all(ones) and all(length == 1 for length in rest) else None
    return axis if name in SAME and before == shape else None


def own_axis(shape: Shape) -> int | None:
    """The axis along which a parameter is a vector, as in ``[units]`` and ``[units, 1, 1]``; None if it is none."""
    long = [at for at, length in enumerate(shape) if length != 1]
    if len(long) > 1 or not shape:
        return None
    return long[0] if long else len(shape) - 1


def is_zero(atom: Any) -> bool:
    """Whether an operand is written out as the number zero."""
    return isinstance(atom, core.Literal) and not atom.aval.shape and bool(atom.val == 0)


def _positive(atom: Any) -> bool:
    return isinstance(atom, core.Literal) and not atom.aval.shape and bool(atom.val > 0)

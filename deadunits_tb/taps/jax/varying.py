"""What differs between the devices of a ``shard_map``, where JAX keeps track of it (``check_vma``).

There a gradient with respect to what is the same on all devices is added up over them by JAX; a rule of one's own for
a gradient must know. The attribute that tells has had two names so far, and is absent in older versions.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax


def varying_axes(value: Any) -> frozenset[str]:
    """Names of the axes over which a value differs between devices; none where JAX does not keep track."""
    if not hasattr(jax, "typeof"):
        return frozenset()
    kind: Any = jax.typeof(value)
    if hasattr(kind, "vma"):
        return frozenset(kind.vma)
    return frozenset(kind.manual_axis_type.varying) if hasattr(kind, "manual_axis_type") else frozenset()


def varying_like(value: Any, other: Any) -> Any:
    """The same value, as one that differs wherever the other does."""
    axes = tuple(sorted(varying_axes(other) - varying_axes(value)))
    if not axes:
        return value
    return lax.pcast(value, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(value, axes)

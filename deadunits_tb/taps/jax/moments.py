"""What an Optax optimizer carries on from earlier steps: what moves a parameter although its gradient is zero."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.tree_util import GetAttrKey, tree_leaves_with_path

Path = tuple[Any, ...]

_FIRST = frozenset({"trace", "mu"})
"""Fields of Optax's states that move a parameter."""
_SECOND = frozenset({"nu", "nu_max"})
"""Fields by the root of which that is divided."""


class Moments:
    """Of all parameters at one moment.

    Args:
        state: Of any chain of Optax; None if it is not at hand.
        params: Whose state it is.
    """

    def __init__(self, state: Any, params: Any) -> None:
        leaves = tree_leaves_with_path(params)
        shapes = {path: jnp.shape(leaf) for path, leaf in leaves}
        self._paths = {id(leaf): path for path, leaf in leaves}
        self._tied = len(self._paths) < len(leaves)
        self._fields: dict[Path, list[tuple[str, Any]]] = {}
        self._known = state is not None
        for path, leaf in tree_leaves_with_path(state):
            ends = (at for at in range(1, len(path)) if shapes.get(path[at:]) == jnp.shape(leaf))
            end = next(ends, None)  # the longest first: one parameter's path may end with another's
            field = None if end is None else path[end - 1]
            if isinstance(field, GetAttrKey):
                self._fields.setdefault(path[end:], []).append((field.name, leaf))
            elif jnp.ndim(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                self._known = False  # of which parameter it is, is not known

    def of(self, parameter: Any) -> tuple[Any, Any] | None:
        """Of one parameter, arrays of its shape: what moves it, and what that is divided by; None for what is not kept.

        Returns:
            None where it is not known what moves it, or whether anything does.
        """
        path = self._paths.get(id(parameter))
        if not self._known or self._tied or path is None:
            return None
        found = self._fields.get(path, [])
        first = [leaf for name, leaf in found if name in _FIRST]
        second = [leaf for name, leaf in found if name in _SECOND]
        if len(first) + len(second) < len(found) or len(first) > 1 or len(second) > 1:
            return None
        return first[0] if first else None, second[0] if second else None

"""What an Optax optimizer remembers of single parameters, set back as if they were new. Pure.

Its count of steps is one for all parameters and goes on. So second moments with bias correction become the mean of
those of units that work, which is what a fresh entry's estimate would be under that count; zeros would make the next
steps up to 6.6 times too long (see ``deadunits_tb/revive/torch_optimizer.py``). All else becomes zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey

from deadunits_tb.errors import InvalidArgumentError

Path = tuple[Any, ...]
_ZERO = frozenset({"trace", "mu", "acc_grads"})
_SECOND = frozenset({"nu", "nu_max"})


def forget(state: Any, params: Any, new: Mapping[Path, Any], peers: Mapping[Path, Any]) -> Any:
    """Set back what an optimizer state holds of some entries of parameters.

    Args:
        state: Of any chain of Optax whose parts are those of SGD with momentum, Adam, AdamW or RMSprop.
        params: The parameters, of the shapes that the state was made for.
        new: Path of a parameter to ``bool``, shaped like it: the entries that are new.
        peers: Likewise the entries of units that work, which the new ones are likened to.

    Raises:
        InvalidArgumentError: It is not known what a part of the state remembers.
    """
    shapes = {path: jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    paths = {path for path, _ in leaves}
    found = [_place(path, leaf, shapes) for path, leaf in leaves]
    sums: dict[Path, list[Any]] = {}  # of a moment over all parameters, for a layer in which no unit works
    for place, (_, leaf) in zip(found, leaves, strict=True):
        if place is not None:
            total = sums.setdefault(place[0], [0.0, 0])
            total[0], total[1] = total[0] + jnp.sum(leaf, dtype=jnp.float32), total[1] + jnp.size(leaf)
    after = []
    for place, (_, leaf) in zip(found, leaves, strict=True):
        if place is None or place[1] not in new:
            after.append(leaf)
            continue
        field, parameter = place
        mask, value = new[parameter], jnp.zeros((), jnp.float32)
        counted = (*field[:-1], GetAttrKey("count")) in paths
        if field[-1].name in _SECOND and counted:
            likened = peers[parameter] & ~mask
            mean = jnp.sum(jnp.where(likened, leaf, 0), dtype=jnp.float32) / jnp.maximum(likened.sum(), 1)
            typical, entries = sums[field]
            value = jnp.where(likened.any(), mean, typical / entries)
        after.append(jnp.where(mask, value.astype(leaf.dtype), leaf))
    return jax.tree_util.tree_unflatten(structure, after)


def _place(path: Path, leaf: Any, shapes: Mapping[Path, tuple[int, ...]]) -> tuple[Path, Path] | None:
    """Path of the field that holds a leaf, and of the parameter that it belongs to; None for what belongs to none."""
    for start in range(1, len(path) + 1):  # the longest end first: one parameter's path may end with another's
        parameter, field = path[start:], path[start - 1]
        if parameter in shapes and isinstance(field, GetAttrKey) and shapes[parameter] == jnp.shape(leaf):
            if field.name in _ZERO | _SECOND:
                return path[:start], parameter
            break
    if jnp.ndim(leaf) == 0 or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return None  # counts, rates, keys
    raise InvalidArgumentError(
        f"it is not known what {jax.tree_util.keystr(path)} of the optimizer state remembers: revival works with what "
        "optax.sgd, adam, adamw, amsgrad and rmsprop are made of"
    )

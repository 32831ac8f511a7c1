"""Random sums that stand for weights which are too many to copy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from deadunits_tb.taps.columns import SIGNS


def projected(matrix: Any) -> tuple[Any, Any]:
    """Of weights ``[rows, units]`` in float32 random sums ``[SIGNS, units]``, and a digest of the bits ``[units]``.

    Rounding makes the sums of unchanged weights depend on how they were added up; the digest, in integers, does not.
    """
    rows = len(matrix)
    for_signs, for_digest = jax.random.split(jax.random.key(20))  # the same each time, without keeping them
    sums = jax.random.rademacher(for_signs, (SIGNS, rows), jnp.float32) @ matrix
    odd = jax.random.bits(for_digest, (rows, 1), jnp.uint32) | 1
    return sums, jnp.sum(jax.lax.bitcast_convert_type(matrix, jnp.uint32) * odd, 0, dtype=jnp.uint32)

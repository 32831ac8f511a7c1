"""What looking at weights needs of JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.jax.projection import projected


class _JaxDevice:
    """Arrays of JAX."""

    def copy(self, value: Any) -> Any:
        return jnp.array(value, copy=True)  # the step is given the buffer, and overwrites it

    def matrix(self, columns: Columns, value: Any) -> Any:
        return jnp.transpose(value, columns.order).astype(jnp.float32).reshape(columns.rows, columns.units)

    def project(self, matrix: Any) -> list[Any]:
        return [*projected(matrix), jnp.sqrt(jnp.sum(jnp.square(matrix), 0))]

    def where(self, condition: Any, one: Any, other: Any) -> Any:
        return jnp.where(condition, one, other)

    def concatenate(self, vectors: list[Any]) -> Any:
        return jnp.concatenate([jnp.zeros(0), *vectors])

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = jax.jit(function)
        return made

    def numpy(self, vector: Any) -> npt.NDArray[np.floating]:
        return np.asarray(vector)


DEVICE = _JaxDevice()

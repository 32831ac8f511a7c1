"""What a user hands over as arrays: taken as NumPy takes it, or refused with a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deadunits_tb.errors import InvalidArgumentError

Matrix = npt.NDArray[Any]


def as_numbers(name: str, values: object) -> Matrix:
    """Take in real numbers of any type that NumPy, or an array library that NumPy can read, knows.

    Args:
        name: Of the argument, for the message.
        values: An array, nested lists, or a tensor on the CPU.

    Returns:
        The array; types that NumPy cannot calculate with (bfloat16, float8, int, bool) widened to one that can.

    Raises:
        InvalidArgumentError: These are no real numbers.
    """
    try:
        array = np.asarray(values)
    except Exception as error:  # such as a tensor on a device, ragged lists
        raise InvalidArgumentError(f"{name} cannot be made a NumPy array: {error}") from error
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        return array if size <= 8 else array.astype(np.float64)
    if kind in "iub":
        return array.astype(np.float64)
    if "float" in array.dtype.name:  # of the package ml_dtypes, such as bfloat16
        return array.astype(np.float32)
    raise InvalidArgumentError(f"{name} must hold real numbers, not {array.dtype} ({type(values).__name__})")


def check_axis(name: str, axis: object, dimensions: int, low: int = 0) -> int:
    """The axis counted from the front.

    Args:
        name: Of the argument.
        axis: What was given.
        dimensions: How many axes the array has.
        low: The first axis that is allowed.

    Raises:
        InvalidArgumentError: There is no such axis, or it may not be this one.
    """
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -dimensions <= axis < dimensions:
        raise InvalidArgumentError(f"{name} must be an axis of an array with {dimensions} axes, not {axis!r}")
    found = int(axis) % dimensions
    if found < low:
        raise InvalidArgumentError(f"{name} must not be {axis}: axis 0 holds the examples")
    return found


def check_mask(mask: object, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """A mask over examples, or over examples and positions.

    Args:
        mask: What was given; true or not zero where a position is real.
        shape: Of the activations without the unit axis.

    Raises:
        InvalidArgumentError: It does not fit.
    """
    array = as_numbers("mask", mask)
    if not array.ndim or array.shape != shape[: array.ndim]:
        raise InvalidArgumentError(
            f"mask has shape {array.shape} and must cover the examples, or examples and positions, of shape {shape}"
        )
    real: npt.NDArray[np.bool_] = array != 0
    return real

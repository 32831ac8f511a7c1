"""How a Keras layer sums up what it takes in, where that is a product with one parameter of its own."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
from keras import layers

from deadunits_tb.capture.silent_layers import Summing, rounding
from deadunits_tb.taps.keras.layers import CONVOLUTIONS, DEPTHWISE, SEPARABLE, TRANSPOSED, WITH_UNITS, UnitLayer

_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


def input_axes(unit_layer: UnitLayer) -> tuple[int, ...]:
    """Axes of a layer's input that its weights sum over, as they come in the kernel; empty where it is no such sum.

    Of a convolution that of the channels alone: its positions share the range of their channel.
    """
    layer = unit_layer.layer
    if type(layer) not in WITH_UNITS or unit_layer.loop or len(unit_layer.incoming) != 1 or type(layer) in SEPARABLE:
        return ()  # what a class of the user's own does with its kernel is not known
    if type(layer) in CONVOLUTIONS:
        return (1,) if layer.data_format == "channels_first" else (-1,)
    if type(layer) is layers.EinsumDense:
        return _einsum_axes(layer.equation, unit_layer)
    return (-1,)


def summing(unit_layer: UnitLayer, computed: Collection[int], *, accelerated: bool) -> Summing | str:
    """How a layer sums up its inputs, or why no bound of that is known.

    Args:
        unit_layer: Built.
        computed: ``id`` of layers whose kernel others replace before they call them.
        accelerated: Whether matrix units may take float32 with ten bits.
    """
    layer = unit_layer.layer
    if unit_layer.loop:
        return "it runs in a loop, and is looked at from outside, where its sums are not seen"
    own = len(unit_layer.incoming) == 1 and getattr(layer, "kernel", None) is unit_layer.incoming[0].variable
    if not own or id(layer) in computed:
        return "its weights are not one parameter of a dense layer or a convolution"
    if type(layer) not in WITH_UNITS:
        return f"{type(layer).__name__} is no class of Keras, and what it does with its weights is not known"
    if not input_axes(unit_layer):
        return "its weights are not one parameter of a dense layer or a convolution"
    kernel = unit_layer.incoming[0].variable
    columns = unit_layer.incoming[0].columns
    bias = layer.bias
    if bias is not None and math.prod(bias.shape) != columns.units:
        return "its bias is not one number for each unit"
    positions, groups, zero = 1, 1, False
    convolution = type(layer) in CONVOLUTIONS
    if convolution:
        positions = math.prod(layer.kernel_size)
        groups = kernel.shape[-2] if type(layer) in DEPTHWISE else getattr(layer, "groups", 1)
        zero = type(layer) in TRANSPOSED or layer.padding != "valid"
    eps = _EPS.get(keras.backend.standardize_dtype(layer.compute_dtype))
    precision = _EPS.get(keras.backend.standardize_dtype(kernel.dtype))
    if eps is None or precision is None:
        return f"it calculates in {layer.compute_dtype}, whose rounding is not known"
    return Summing(
        kernel=positions,
        groups=groups,
        group_units=columns.units // groups,
        zero=zero,
        rounding=rounding(columns.rows, eps, convolution=convolution, accelerated=accelerated),
        precision=max(precision, float(np.finfo(np.float32).eps)) / 2,
    )


def computed_layers(everything: Collection[Any]) -> set[int]:
    """``id`` of layers within wrappers, which may compute the kernel anew in each call (SpectralNormalization)."""
    wrappers = [layer for layer in everything if isinstance(layer, layers.Wrapper)]
    return {id(layer.layer) for layer in wrappers}


def _einsum_axes(equation: str, unit_layer: UnitLayer) -> tuple[int, ...]:
    """Where all letters of the kernel are either those of units or summed over."""
    inputs, output = equation.replace(" ", "").split("->")
    source, kernel = inputs.split(",")
    units = {kernel[axis] for axis in unit_layer.incoming[0].axes}
    summed = [letter for letter in kernel if letter not in units]
    if any(letter not in source or letter in output for letter in summed):
        return ()
    front = source.partition("...")[0] if "..." in source else ""
    return tuple(source.index(letter) - len(source) for letter in summed) if not set(front) & set(summed) else ()

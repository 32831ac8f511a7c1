"""What lies between a layer's sum and its activation function, as far as a bound of the sum survives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras import layers

from deadunits_tb.taps.keras.layers import ADDITIONS, RESHAPES, public

_RANKS = ("1D", "2D", "3D")
_WITHIN = (
    *RESHAPES,
    *public("Identity", "ActivityRegularization", "RepeatVector"),
    *public(*(kind + rank for kind in ("Cropping", "UpSampling", "MaxPooling", "AveragePooling") for rank in _RANKS)),
    *public(*(kind + rank for kind in ("GlobalMaxPooling", "GlobalAveragePooling") for rank in _RANKS)),
    *public(*(kind + rank for kind in ("AdaptiveMaxPooling", "AdaptiveAveragePooling") for rank in _RANKS)),
)
"""What gives nothing that is not between the smallest and the largest value that it takes in."""
_SIGNS = (
    *public("Dropout", "Masking"),
    *public(*(kind + rank for kind in ("SpatialDropout", "ZeroPadding") for rank in _RANKS)),
)
"""What keeps, of single values, no more than whether they are above zero."""
_SMOOTH = ("nearest", "bilinear")
"""Ways to blow up an image that stay within what they are given."""


@dataclass(frozen=True, eq=False, slots=True)
class Way:
    """From a layer's sum to one tensor behind it.

    Attributes:
        norm: The batch normalisation on it, None without.
        source: What that took in.
        batch: Whether it took the statistics of that.
        signs: Whether values are no longer between those of the sum, and only their signs are its own.
        lost: Why no bound is known of what comes out, empty where one is.
    """

    norm: Any = None
    source: Any = None
    batch: bool = False
    signs: bool = False
    lost: str = ""

    def through(self, layer: Any, given: Any, axes: tuple[int, ...], kwargs: Mapping[str, Any]) -> Way:
        """The way behind one more layer.

        Args:
            layer: A layer that hands units on.
            given: What it takes in.
            axes: Where the units are there.
            kwargs: With which it was called.
        """
        kind = type(layer)
        if self.lost or (kind in _WITHIN and getattr(layer, "interpolation", "nearest") in _SMOOTH):
            return self
        if kind in _SIGNS:
            return replace(self, signs=True)
        if kind is layers.BatchNormalization:
            if self.norm is not None or self.signs:
                return replace(self, lost="its sum goes through more than a batch normalisation")
            axis = layer.axis % len(given.shape)
            if (
                axes != (axis,)
                or kwargs.get("mask") is not None
                or layer.synchronized
                or getattr(layer, "renorm", False)
            ):
                return replace(
                    self, lost=f"what normalises it, {layer.name!r}, does so over other units, processes or masks"
                )
            batch = bool(kwargs.get("training")) and layer.trainable
            return replace(self, norm=layer, source=given if batch else None, batch=batch)
        what = "a sum" if isinstance(layer, ADDITIONS) else f"{kind.__name__} {layer.name!r}"
        return replace(self, lost=f"{what} stands between it and its activation function, of which no bound is known")

    def is_like(self, other: Way) -> bool:
        """Whether the same bound holds behind another way."""
        return (self.lost, self.norm, self.batch) == (other.lost, other.norm, other.batch)

    def without_source(self) -> Way:
        """The same, when the step is over."""
        return replace(self, source=None)

    def ended(self, *, silent: bool) -> Way:
        """At an activation function.

        Args:
            silent: Whether that is silent exactly where its input is not above zero.
        """
        if silent or self.lost:
            return self
        return replace(self, lost="its activation function is not silent exactly where its input is not above zero")


UNFINISHED = Way(lost="no activation function was seen to take in its sum")
UNCHANGED = Way()

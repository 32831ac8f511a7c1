"""The ranges of what layers with silent units take in, and what can be proved of these units by them.

Nothing is done for a layer without silent units. For the others each call in an observed step gives the smallest and
the largest value of each input feature, and the statistics of a batch normalisation behind it; in steps that become
records the interval bound is summed up, before the optimizer's step and after it, for the silent units alone.

A certificate needs the whole way from the inputs to the activation function to be understood: a product with a
parameter, perhaps a batch normalisation, and what leaves values or their signs as they are. Of everything else it is
said that nothing can be proved, and why.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from deadunits_tb.capture.silent_layers import RARER
from deadunits_tb.certificate import PROVABLE, Certificates
from deadunits_tb.record import Int
from deadunits_tb.taps.torch import calls
from deadunits_tb.taps.torch.bounds import pending, sums
from deadunits_tb.taps.torch.distributed import is_sharded
from deadunits_tb.taps.torch.layers import UnitLayer
from deadunits_tb.taps.torch.silent_layer import SilentLayer

T = torch.Tensor

_UNKNOWN_WEIGHTS = "its weights are not one parameter of a linear layer or a convolution"
_SHARDED = "each process holds only a part of its weights"
_NO_OPTIMIZER = "no optimizer was given, so what still moves its units is not known"
_SAME_VALUES = frozenset(
    {
        *calls.RESHAPES,
        *calls.PERMUTATIONS,
        *calls._spellings("contiguous clone to float half bfloat16 double type type_as cpu cuda alias requires_grad"),
    }
)
_SAME_SIGNS = frozenset(
    calls._spellings(
        "dropout dropout1d dropout2d dropout3d feature_dropout max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d "
        "avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
        "adaptive_max_pool2d adaptive_max_pool3d"
    )
)
"""What is not above zero stays so; after a normalisation and before an activation function that is enough."""


@dataclass(frozen=True, eq=False, slots=True)
class _Tag:
    """A tensor on the way from a layer to its activation function.

    Attributes:
        tensor: The tensor.
        version: Of it: whatever works on it in place makes it another.
        watched: The layer.
        moved: Whether axes may have changed places.
        signs: Whether only its signs are those of the layer's outputs.
        normalised: Whether it was normalised.
    """

    tensor: weakref.ref[Any]
    version: int
    watched: SilentLayer
    moved: bool = False
    signs: bool = False
    normalised: bool = False


class Ranges:
    """Ranges of the inputs of layers with silent units, in one model.

    Call its methods with gradients disabled. A failure of ours ends certificates, and nothing else.
    """

    def __init__(self) -> None:
        self._watched: dict[str, SilentLayer] = {}
        self._refused: dict[str, str] = {}
        self._by_parameter: dict[int, SilentLayer] = {}
        self._tags: dict[int, _Tag] = {}
        self._step = 0
        self._known: Mapping[str, Int] = {}
        self._told: dict[str, tuple[int, Int]] = {}
        self._failed = False

    def of_pass(self) -> Ranges | None:
        """What a forward pass has to tell its calls to, None if no layer has silent units."""
        return self if self._by_parameter and not self._failed else None

    def begin(self, step: int, silent: Mapping[str, Int], layers: Mapping[str, UnitLayer]) -> None:
        """An observed step begins.

        Args:
            step: Its number.
            silent: Layer to its silent units at the last record.
            layers: By name.
        """
        self._step = step
        self._tags.clear()
        if silent is self._known or self._failed:
            return
        self._known, before = silent, self._watched
        self._watched, self._refused = {}, {}
        for name, units in silent.items():
            layer = layers.get(name)
            weights = [weights for group in layer.incoming for weights in group] if layer is not None else []
            if layer is None or len(weights) != 1 or layer.at_output or layer.rows or not weights[0].ready:
                self._refused[name] = _UNKNOWN_WEIGHTS
                continue
            if is_sharded(weights[0].parameter):
                self._refused[name] = _SHARDED
                continue
            known = before.get(name)
            if known is None or known.weights.parameter is not weights[0].parameter:
                known = SilentLayer(layer, weights[0], units, step)
            known.units = units
            self._watched[name] = known
        self._by_parameter = {id(one.weights.parameter): one for one in self._watched.values()}

    def see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """A call was made in a forward pass."""
        if self._failed:
            return
        try:
            with torch.no_grad():
                self._see(func, args, kwargs, out)
        except Exception as error:
            self._give_up(error)

    def before_step(self) -> None:
        """The optimizer is about to change the weights, in a step that becomes a record."""
        try:
            for name, one in self._watched.items():
                ready = not self._failed and self._due(name) and not one.missing()
                one.before = (one.calls, sums(one)) if ready else None
        except Exception as error:
            self._give_up(error)

    def _due(self, name: str) -> bool:
        """Whether a layer is looked at: when other units are silent, and otherwise ever more seldom."""
        step, units = self._told.get(name, (-1, None))
        return units is None or self._step >= RARER * step or not np.array_equal(units, self._known[name])

    def after_step(self, optimizer: Any) -> Callable[[], Mapping[str, Certificates]] | None:
        """It has.

        Returns:
            Fetches what can be proved of each layer with silent units that is due; None if there are none.
        """
        due = {name for name in (*self._watched, *self._refused) if self._due(name)}
        if not due:
            return None
        step = self._step
        refused = {name: Certificates.none(step, reason) for name, reason in self._refused.items() if name in due}
        found: dict[str, Callable[[], Certificates]] = {}
        self._told |= {name: (step, self._known[name]) for name in due}
        try:
            for name, one in self._watched.items():
                if name not in due:
                    continue
                reason = _NO_OPTIMIZER if optimizer is None else one.missing()
                if reason:
                    refused[name] = Certificates.none(step, reason)
                else:
                    found[name] = pending(one, optimizer, step)
                one.before = None
        except Exception as error:
            self._give_up(error)
            return None

        def fetch() -> Mapping[str, Certificates]:
            try:
                return refused | {name: fetched() for name, fetched in found.items()}
            except Exception as error:
                self._give_up(error)
                return {}

        return fetch

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        self._watched.clear()
        self._by_parameter.clear()
        self._tags.clear()
        self._told.clear()
        self._refused = {name: f"the monitor could not: {type(error).__name__}: {error}" for name in self._known}

    # One call

    def _see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        if func is calls.LINEAR or func in calls.CONVOLUTIONS:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            watched = self._by_parameter.get(id(weight))
            if watched is not None and isinstance(out, T):
                whole = watched.take_in(func, args, kwargs, out, self._step)
                if whole is not None:
                    self._tags[id(out)] = _Tag(weakref.ref(out), out._version, watched, moved=not whole)
            return
        source: Any = args[0] if args else kwargs.get("input")
        tag = self._at(source)
        if tag is None or not isinstance(out, T):
            return
        if source._version != tag.version + (out is source):  # something else has worked on it in place
            return
        if (calls.activation(func, args, kwargs, source.dim(), 1) or "") in PROVABLE:
            tag.watched.reached += 1
            tag.watched.ways.add(tag.normalised)
        elif func in _SAME_VALUES:
            self._tag(out, tag, moved=True)
        elif func in _SAME_SIGNS:
            self._tag(out, tag, signs=True)
        elif func is F.batch_norm and not (tag.moved or tag.signs or tag.normalised):
            tag.watched.normalise(source, args, kwargs)
            self._tag(out, tag, normalised=True)

    def _at(self, tensor: Any) -> _Tag | None:
        tag = self._tags.get(id(tensor))
        return tag if tag is not None and tag.tensor() is tensor else None

    def _tag(self, out: Any, tag: _Tag, *, moved: bool = False, signs: bool = False, normalised: bool = False) -> None:
        self._tags[id(out)] = _Tag(
            weakref.ref(out),
            out._version,
            tag.watched,
            tag.moved or moved,
            tag.signs or signs,
            tag.normalised or normalised,
        )

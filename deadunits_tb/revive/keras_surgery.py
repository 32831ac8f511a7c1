"""Everything that changes when units of a Keras layer are revived, worked out before anything is changed.

In NumPy, so that it is the same on every backend: weights are fetched, and assigned as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.record import Int
from deadunits_tb.revive.keras_graph import Lost, Route
from deadunits_tb.revive.keras_optimizer import Mask, forget, shift_average
from deadunits_tb.revive.policy import Candidate, LayerPlan
from deadunits_tb.taps.keras.consumers import taken_in
from deadunits_tb.taps.keras.layers import CONVOLUTIONS, DEPTHWISE, SEPARABLE, TRANSPOSED

Array = npt.NDArray[Any]
_HE = frozenset({"relu", "relu6", "leaky_relu", "prelu", "elu", "celu", "gelu", "silu", "mish", "hard_silu"})


@dataclass(frozen=True, eq=False, slots=True)
class _Outgoing:
    """Weights that take in the units, and what the units give on average to the bias beside them."""

    kernel: keras.Variable
    units: Mask
    peers: Mask
    bias: keras.Variable | None
    shift: Array | None


@dataclass(eq=False, slots=True)
class Surgery:
    """Everything that changes for one layer."""

    plan: LayerPlan
    layer: Any
    rows: Mask
    peer_rows: Mask
    units: Int
    peers: Int
    kernel: Array
    norms: tuple[Any, ...]
    outgoing: list[_Outgoing]

    def disconnect(self, optimizer: Any) -> None:
        """Nothing takes in the units any more; what they sent on average comes from the biases."""
        for one in self.outgoing:
            if one.shift is not None and one.bias is not None:
                one.bias.assign_add(one.shift)
                shift_average(optimizer, one.bias, one.shift)
            _assign(one.kernel, one.units, 0)
            forget(optimizer, one.kernel, one.units, one.peers)

    def renew(self, optimizer: Any) -> None:
        """New incoming weights and normalisation."""
        _assign(self.layer.kernel, self.rows, self.kernel)
        forget(optimizer, self.layer.kernel, self.rows, self.peer_rows)
        vectors = [(self.layer.bias, 0)]
        for norm in self.norms:
            vectors += [(norm.gamma, 1), (norm.beta, 0), (norm.moving_mean, 0), (norm.moving_variance, 1)]
        for vector, value in vectors:
            if vector is not None:
                new, peers = (_along(vector.shape, 0, each) for each in (self.units, self.peers))
                _assign(vector, new, value)
                forget(optimizer, vector, new, peers)


def prepare(
    model: keras.Model, layer: Any, route: Route, chosen: Candidate, initializer: Any, seed: int, sample: Any
) -> Surgery:
    """Work out everything that will change.

    Raises:
        Lost: The layer cannot be revived.
    """
    total = chosen.plan.total
    axis = unit_axis(layer)
    if layer.kernel.shape[axis] != total:
        raise Lost(f"it has {layer.kernel.shape[axis]} units, but records of {total}")
    if not layer.trainable:
        raise Lost("its weights are frozen")
    for norm in route.norms:
        if not isinstance(norm, layers.BatchNormalization) or norm.moving_mean.shape != (total,):
            raise Lost(f"{norm.name} on the way does not normalise each of the {total} units by itself")
    if sample is None and not (chosen.silent and route.zero_when_silent):
        raise Lost("what its units send is not known to be zero: give sample=, a batch of inputs, to ask the model")
    fed = _mean_inputs(model, [consumer for consumer, _ in route.consumers], sample) if sample is not None else {}
    taken = []
    for consumer, positions in route.consumers:
        if not consumer.trainable:
            raise Lost(f"{consumer.name}, which takes its units in, is frozen: they would stay disconnected")
        if sample is not None and consumer not in fed:
            raise Lost(f"the sample does not reach {consumer.name}, which takes its units in")
        taken.append(_outgoing(consumer, positions, chosen, fed.get(consumer)))
    return Surgery(
        plan=chosen.plan,
        layer=layer,
        rows=_along(layer.kernel.shape, axis, chosen.units),
        peer_rows=_along(layer.kernel.shape, axis, chosen.peers),
        units=chosen.units,
        peers=chosen.peers,
        kernel=fresh_kernel(layer, initializer, route.function, seed),
        norms=route.norms,
        outgoing=taken,
    )


def unit_axis(layer: Any) -> int:
    """Of the units in the kernel.

    Raises:
        Lost: There is no known initializer for single units of such a layer.
    """
    plain = isinstance(layer, (layers.Dense, CONVOLUTIONS)) and not isinstance(layer, (*DEPTHWISE, *SEPARABLE))
    if not plain or getattr(layer, "kernel_initializer", None) is None:
        raise Lost(
            f"there is no known initializer for single units of {type(layer).__name__}: Dense and Conv layers "
            "can be revived"
        )
    if not isinstance(layer.kernel, keras.Variable):
        raise Lost("its kernel is computed from other weights")
    if getattr(layer, "data_format", None) == "channels_first":
        raise Lost("its units come first, not last")
    return -2 if isinstance(layer, TRANSPOSED) else -1


def check_initializer(initializer: Any) -> Any:
    """None for the layer's own, ``"auto"`` for He's or Glorot's by activation function, or what Keras understands.

    Raises:
        InvalidArgumentError: Keras does not know it.
    """
    if initializer is None or initializer == "auto":
        return initializer
    try:
        return keras.initializers.get({"he": "he_normal", "glorot": "glorot_uniform"}.get(initializer, initializer))
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            "initializer must be None for the layer's own, 'he', 'glorot', 'auto', "
            f"or an initializer of Keras, not {initializer!r}"
        ) from error


def fresh_kernel(layer: Any, initializer: Any, function: str | None, seed: int) -> Array:
    """A new kernel for a layer, of the shape of its own. An initializer of Keras always gives the same for one seed.

    Args:
        layer: With a kernel.
        initializer: As :func:`check_initializer` gives.
        function: The layer's activation function; with ``"auto"`` unknown ones get He's.
        seed: For random ones.
    """
    if initializer == "auto":
        initializer = keras.initializers.get("he_normal" if function is None or function in _HE else "glorot_uniform")
    elif initializer is None:
        initializer = layer.kernel_initializer
    if hasattr(initializer, "get_config"):
        config = initializer.get_config()
        initializer = type(initializer).from_config({**config, "seed": seed} if "seed" in config else config)
    kernel = layer.kernel
    return np.asarray(keras.ops.convert_to_numpy(initializer(tuple(kernel.shape), dtype=kernel.dtype)))


def _outgoing(consumer: Any, positions: int, chosen: Candidate, means: Array | None) -> _Outgoing:
    weights = taken_in(consumer, positions)
    kernel, (axis,) = weights.variable, weights.axes
    total, shape = chosen.plan.total, kernel.shape
    if shape[axis] != total * positions:
        raise Lost(f"{consumer.name} takes in {shape[axis]} features, not {total} units {positions} times")
    blocks = np.arange(positions)[:, np.newaxis] * total  # flattened as [positions, units]
    places = (blocks + chosen.units).reshape(-1)
    units, peers = (_along(shape, axis, (blocks + each).reshape(-1)) for each in (chosen.units, chosen.peers))
    bias = getattr(consumer, "bias", None) if not hasattr(consumer, "cell") else consumer.cell.bias
    shift = None
    if means is not None and (means[places] != 0).any():
        if bias is None:
            raise Lost(f"{consumer.name} has no bias that could take over what they send on average")
        shift = _shift(consumer, _fetch(kernel), axis, places, means, bias)
    return _Outgoing(kernel, units, peers, bias, shift)


def _shift(consumer: Any, kernel: Array, axis: int, places: Int, means: Array, bias: keras.Variable) -> Array:
    """What units of these means give to a bias, shaped like it."""
    kernel = kernel.astype(np.float64)
    if isinstance(consumer, layers.Dense) or hasattr(consumer, "cell"):
        given = means[places] @ kernel[places]
    elif isinstance(consumer, DEPTHWISE):
        only = np.zeros(len(means))
        only[places] = means[places]
        given = (kernel.sum(axis=tuple(range(kernel.ndim - 2))) * only[:, np.newaxis]).reshape(-1)
    elif isinstance(consumer, CONVOLUTIONS) and not isinstance(consumer, (*TRANSPOSED, *SEPARABLE)):
        given = means[places] @ kernel.sum(axis=tuple(range(kernel.ndim - 2)))[places]
    else:
        raise Lost(f"what the units send cannot be moved into the bias of {type(consumer).__name__}")
    shift = np.zeros(bias.shape)
    (shift[0] if shift.ndim == 2 else shift)[:] = given  # a GRU has a bias for its inputs and one for its state
    return shift


def _mean_inputs(model: keras.Model, consumers: Iterable[Any], sample: Any) -> dict[Any, Array]:
    """Mean of each feature that a layer takes in, ``[features]``, in evaluation mode."""
    sums: dict[Any, Array] = {}
    counts: dict[Any, int] = {}
    watched = list(consumers)

    def looking(layer: Any) -> Any:
        call = layer.call

        def look(values: Any, *args: Any, **kwargs: Any) -> Any:
            rows = keras.ops.convert_to_numpy(values).astype(np.float64)
            rows = rows.reshape(-1, rows.shape[-1])
            sums[layer] = sums.get(layer, 0) + rows.sum(axis=0)
            counts[layer] = counts.get(layer, 0) + len(rows)
            return call(values, *args, **kwargs)

        return look

    try:
        for layer in watched:
            layer.call = looking(layer)
        model(sample, training=False)
    finally:
        for layer in watched:
            vars(layer).pop("call", None)
    return {layer: total / counts[layer] for layer, total in sums.items()}


def _along(shape: Iterable[int], axis: int, places: Int) -> Mask:
    mask = np.zeros(tuple(shape), bool)
    np.moveaxis(mask, axis, 0)[places] = True
    return mask


def _assign(variable: keras.Variable, where: Mask, values: Array | float) -> None:
    old = _fetch(variable)
    variable.assign(np.where(where, np.asarray(values, old.dtype), old))


def _fetch(variable: keras.Variable) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(variable))


def unit_count(layer: Any) -> int:
    """How many units a layer has.

    Raises:
        Lost: There are none that could be revived.
    """
    axis = unit_axis(layer)
    return int(layer.kernel.shape[axis])

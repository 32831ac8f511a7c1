"""Revival of dead units in JAX: a pure function over parameters and optimizer state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deadunits_tb.capture.arguments import check_whole
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.revive.jax_optimizer import Path, forget
from deadunits_tb.revive.policy import COOL_DOWN, MAX_SHARE, RevivalPlan, RevivePolicy, candidates, tell
from deadunits_tb.units import UnitState

Get = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Weights that take in the units of a layer.

    Attributes:
        weights: In your parameters, such as ``lambda params: params["w2"]``.
        unit_axis: The axis that is summed over with the units: -2 in ``[units, outputs]`` and ``[height, width, units,
            outputs]``, -1 in Equinox's ``[outputs, units]``. It may be a multiple of the units long: then the units
            repeat along it, as behind flattening.
        bias: Beside the weights, ``[outputs]``; None if there is none.
        output_axis: Of the weights: the axis of the outputs.
        unit_by_unit: Behind flattening, whether all inputs of one unit lie side by side (channels first), instead of
            all units of one position.
    """

    weights: Get
    unit_axis: int = -2
    bias: Get | None = None
    output_axis: int = -1
    unit_by_unit: bool = False


@dataclass(frozen=True, slots=True)
class Revivable:
    """How the units of a layer are revived.

    Attributes:
        weights: The incoming weights in your parameters, such as ``lambda params: params["w1"]``.
        initializer: Of the weights, as ``jax.nn.initializers`` makes them: a function of key, shape and type.
        outgoing: Every one of the weights that take in the units.
        bias: Of the units, None if there is none.
        weight_unit_axis: Of the weights: -1 in ``[inputs, units]``, 0 in Equinox's ``[units, inputs]``.
        zeros: Other parameters or statistics ``[units]`` that begin at zero: the offset of a batch normalisation, its
            running mean.
        ones: Likewise those that begin at one: its scale, its running variance.
    """

    weights: Get
    initializer: Callable[..., Any]
    outgoing: tuple[Outgoing, ...]
    bias: Get | None = None
    weight_unit_axis: int = -1
    zeros: tuple[Get, ...] = ()
    ones: tuple[Get, ...] = ()


class Revived(NamedTuple):
    """What goes on with training."""

    params: Any
    opt_state: Any


def revive(
    key: Any,
    params: Any,
    opt_state: Any,
    units: RevivalPlan | Mapping[str, Any],
    layers: Mapping[str, Revivable],
    *,
    means: Mapping[str, Any] | None = None,
    working: Mapping[str, Any] | None = None,
) -> Revived:
    """Give units new weights, without changing what the network computes at this moment. Pure: works under ``jit``.

    ::

        layers = {"hidden": Revivable(weights=lambda p: p["w1"], bias=lambda p: p["b1"],
                                      initializer=jax.nn.initializers.he_normal(),
                                      outgoing=(Outgoing(lambda p: p["w2"], bias=lambda p: p["b2"]),))}
        plan = plan_revival(writer, step)
        if plan:
            params, opt_state = revive(key, params, opt_state, plan, layers)
            record_revival(writer, plan)

    Incoming weights come from the initializer, the bias becomes zero. Outgoing weights become zero, and what the units
    send on average moves into the bias behind them. What the optimizer remembers of all these entries is as if new.

    Args:
        key: For the new weights.
        params: Any pytree of arrays. Running statistics may be part of it.
        opt_state: Of Optax: SGD with momentum, Adam, AdamW or RMSprop, in any chain; made for ``params`` as a whole.
            None if there is none.
        units: What :func:`plan_revival` chose; or layer to ``bool [units]``, true for those to revive.
        layers: Layer to how it is revived.
        means: Layer to ``[units]`` what each sends on average, where that is not zero: dead units of ReLU send zero,
            saturated and constant ones do not.
        working: Layer to ``bool [units]``, units to liken the new ones to; all others if left out.

    Returns:
        Parameters and optimizer state.

    Raises:
        InvalidArgumentError: An argument has the wrong type, value or shape, or nothing is known of a part of the
            optimizer state.
        UnknownNameError: A layer is not in ``layers``.
    """
    masks = {name: jnp.asarray(mask) for name, mask in _masks(units).items()}
    for name, mask in masks.items():
        if name not in layers:
            raise UnknownNameError.of("layer", name, layers)
        _check(name, layers[name], mask)
    edit = _Edit(params)
    for name, mask in masks.items():  # all of them first: weights between two revived units are to be new, not zero
        peers = _peers(name, mask, working)
        for one in layers[name].outgoing:
            _disconnect(edit, name, one, mask, peers, (means or {}).get(name))
    for number, (name, mask) in enumerate(masks.items()):
        peers = _peers(name, mask, working)
        _renew(edit, name, layers[name], mask, peers, jax.random.fold_in(key, number))
    state = None if opt_state is None else forget(opt_state, params, edit.new, edit.peers)
    return Revived(edit.params, state)


def plan_revival(
    writer: Any,
    step: int,
    *,
    layers: Iterable[str] | None = None,
    states: Iterable[str | UnitState] = ("dead",),
    max_share: float = MAX_SHARE,
    cool_down: int = COOL_DOWN,
) -> RevivalPlan:
    """Choose the units to revive by what a writer recorded. Output layers are left out.

    Args:
        writer: A ``DeadUnitsWriter``, of this module or of ``deadunits_tb``. Of several processes the first one's
            knows: share what it says.
        step: The last training step.
        layers: Those that may be revived, None for all.
        states: Units in these states are revived: ``dead``, ``saturated``, ``constant``, ``dormant``.
        max_share: Share of a layer that is revived at once at most, those units first that have been so for longest.
        cool_down: Steps between two revivals of one layer. There is none either before its next record.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value.
        UnknownNameError: There is no such layer.
    """
    policy = RevivePolicy.of(states, max_share, cool_down)
    check_whole("step", step, 0)
    named = None if layers is None else set(layers)
    monitor = _monitor(writer)
    if monitor is None:
        return RevivalPlan(int(step), (), {}, policy.words, False)
    for name in named or ():
        if name not in monitor.infos:
            raise UnknownNameError.of("layer", name, monitor.infos)
    writer.flush()
    found, refused = candidates(monitor, policy, int(step), named)
    return RevivalPlan(int(step), tuple(one.plan for one in found), refused, policy.words, False)


def record_revival(writer: Any, plan: RevivalPlan) -> None:
    """After :func:`revive`: the units are judged anew, and the log has an event for each layer.

    Args:
        writer: As for :func:`plan_revival`.
        plan: What was done.
    """
    monitor = _monitor(writer)
    if monitor is not None and plan:
        writer.flush()
        tell(monitor, plan)


class _Edit:
    """Parameters under change: where entries are new, and which others they are likened to."""

    def __init__(self, params: Any) -> None:
        self.params = params
        self._first = params
        self._paths = {id(leaf): path for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
        self.new: dict[Path, Any] = {}
        self.peers: dict[Path, Any] = {}

    def path(self, name: str, get: Get) -> Path:
        """Where a user's function finds an array."""
        try:
            leaf = get(self._first)
        except (KeyError, AttributeError, TypeError, IndexError) as error:
            raise InvalidArgumentError(f"layer {name!r}: its weights are not in params: {error!r}") from None
        if id(leaf) not in self._paths:
            raise InvalidArgumentError(f"layer {name!r}: what is found in params is no array of it, but {type(leaf)}")
        found: Path = self._paths[id(leaf)]
        return found

    def value(self, path: Path) -> Any:
        """As it is by now."""
        return next(leaf for at, leaf in jax.tree_util.tree_leaves_with_path(self.params) if at == path)

    def set(self, path: Path, values: Any, new: Any = None, peers: Any = None) -> None:
        """Put an array in the place of another, and note which of its entries are new."""
        old = self.value(path)
        values = jnp.asarray(values, old.dtype)
        self.params = jax.tree_util.tree_map_with_path(lambda at, leaf: values if at == path else leaf, self.params)
        if new is not None:
            new, peers = jnp.broadcast_to(new, values.shape), jnp.broadcast_to(peers, values.shape)
            self.new[path] = self.new[path] | new if path in self.new else new
            self.peers[path] = self.peers[path] | peers if path in self.peers else peers


def _disconnect(edit: _Edit, name: str, one: Outgoing, mask: Any, peers: Any, means: Any) -> None:
    path = edit.path(name, one.weights)
    weights = edit.value(path)
    taken, likened = (_along(name, weights, one.unit_axis, each, one.unit_by_unit) for each in (mask, peers))
    if means is not None:
        if one.bias is None:
            raise InvalidArgumentError(f"layer {name!r}: say in Outgoing which bias takes over what its units send")
        sent = _along(name, weights, one.unit_axis, jnp.asarray(means), one.unit_by_unit)
        others = tuple(axis for axis in range(weights.ndim) if axis != one.output_axis % weights.ndim)
        bias = edit.path(name, one.bias)
        edit.set(bias, edit.value(bias) + jnp.sum(jnp.where(taken, weights * sent, 0), axis=others))
    edit.set(path, jnp.where(taken, 0, weights), taken, likened)


def _renew(edit: _Edit, name: str, layer: Revivable, mask: Any, peers: Any, key: Any) -> None:
    path = edit.path(name, layer.weights)
    weights = edit.value(path)
    rows, likened = (_along(name, weights, layer.weight_unit_axis, each, False) for each in (mask, peers))
    edit.set(path, jnp.where(rows, layer.initializer(key, weights.shape, weights.dtype), weights), rows, likened)
    vectors = [(get, 0) for get in (*((layer.bias,) if layer.bias else ()), *layer.zeros)]
    for get, value in (*vectors, *((get, 1) for get in layer.ones)):
        path = edit.path(name, get)
        vector = edit.value(path)
        if vector.shape != mask.shape:
            raise InvalidArgumentError(
                f"layer {name!r} has {mask.size} units, but {vector.shape} in one of its vectors"
            )
        edit.set(path, jnp.where(mask, value, vector), mask, peers)


def _along(name: str, weights: Any, axis: int, values: Any, unit_by_unit: bool) -> Any:
    """Values of each unit in a shape that fits weights along an axis."""
    length, units = weights.shape[axis], values.shape[0]
    if length % units:
        raise InvalidArgumentError(
            f"layer {name!r}: {units} units do not fill axis {axis} of weights {weights.shape} evenly"
        )
    repeat = jnp.repeat if unit_by_unit else jnp.tile
    shape = [1] * weights.ndim
    shape[axis] = length
    return repeat(values, length // units).reshape(shape)


def _masks(units: Any) -> dict[str, Any]:
    if isinstance(units, RevivalPlan):
        return {one.layer: np.isin(np.arange(one.total), one.units) for one in units.layers}
    if not isinstance(units, Mapping):
        raise InvalidArgumentError(f"units must be a plan, or map layers to bool [units], not {type(units).__name__}")
    return dict(units)


def _peers(name: str, mask: Any, working: Mapping[str, Any] | None) -> Any:
    return ~mask if working is None or name not in working else jnp.asarray(working[name]) & ~mask


def _check(name: str, layer: Revivable, mask: Any) -> None:
    if mask.dtype != bool or mask.ndim != 1:
        raise InvalidArgumentError(f"units of layer {name!r} must be bool [units], not {mask.dtype} {mask.shape}")
    if not callable(layer.initializer):
        raise InvalidArgumentError(
            f"layer {name!r} has no known initializer: give one, such as jax.nn.initializers.he_normal()"
        )
    if not layer.outgoing:
        raise InvalidArgumentError(
            f"layer {name!r}: say in outgoing which weights take in its units, all of them: outgoing=(Outgoing(...),)"
        )


def _monitor(writer: Any) -> Monitor | None:
    if not hasattr(writer, "_monitor") or not callable(getattr(writer, "flush", None)):
        raise InvalidArgumentError(f"writer must be a DeadUnitsWriter, not {type(writer).__name__}")
    monitor: Monitor | None = writer._monitor
    return monitor

"""The state that a step carries along: statistics of some layers, as a pytree of arrays on the device.

Everything here is pure. Where ``None`` is handed over instead of statistics, each function does nothing but what the
model itself does, so a step that is given ``None`` is compiled to what it would be without us.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.taps.jax.inputs import no_inputs, ranges_of
from deadunits_tb.taps.jax.plan import Layer, Plan, checked_layers, limits_of, unit_axes
from deadunits_tb.taps.jax.reductions import AxisNames, activation_sums, square_sums, value_summary
from deadunits_tb.taps.jax.varying import varying_axes, varying_like
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import BOUNDED


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the examples that were observed since :func:`init_statistics`. Immutable; a pytree of float32 arrays.

    Attributes:
        plan: The layers.
        layers: Layer to field to ``[units]`` or a number, named as in :mod:`deadunits_tb.capture.packed`.
        run: The same of the step as a whole.
    """

    plan: Plan
    layers: Mapping[str, Mapping[str, Any]]
    run: Mapping[str, Any]

    def tree_flatten_with_keys(self) -> tuple[Any, Plan]:
        """As JAX asks for it."""
        keys = jax.tree_util.GetAttrKey("layers"), jax.tree_util.GetAttrKey("run")
        return ((keys[0], dict(self.layers)), (keys[1], dict(self.run))), self.plan

    @classmethod
    def tree_unflatten(cls, plan: Plan, children: Any) -> Statistics:
        """As JAX asks for it."""
        return cls(plan, *children)

    def with_layer(self, name: str, **fields: Any) -> Statistics:
        """The same with other numbers of a layer."""
        return Statistics(self.plan, {**self.layers, name: {**self.layers[name], **fields}}, self.run)

    def with_run(self, **fields: Any) -> Statistics:
        """The same with other numbers of the step."""
        return Statistics(self.plan, self.layers, {**self.run, **fields})


def init_statistics(layers: Mapping[str, Layer], *, thresholds: Thresholds | None = None) -> Statistics:
    """Statistics of nothing yet.

    Args:
        layers: Name to what is known of each, in the model's order.
        thresholds: Those that act while observing are used; None for the defaults.

    Raises:
        InvalidArgumentError: There is no layer, or something else in its place.
    """
    return empty_statistics(Plan(checked_layers(layers), thresholds or Thresholds()))


def empty_statistics(plan: Plan, scales: Mapping[str, float | None] | None = None) -> Statistics:
    """Statistics of nothing yet, as NumPy arrays.

    Args:
        plan: The layers.
        scales: Root mean square of each layer's activations at the previous record, where there was one.
    """

    def layer_fields(name: str, layer: Layer) -> dict[str, Any]:
        zeros, zero = np.zeros(layer.units, np.float32), np.float32(0)
        names = ["shift", "sum", "squares", "fired_positions", "fired_examples", "gradient"]
        if not layer.relu_like:
            names.append("sum_abs")
        if layer.activation_function in BOUNDED:
            names.append("saturated")
        if layer.weights is not None:
            names += ["norm_in", "change", "weight_gradient"]
        scale = (scales or {}).get(name)
        numbers = {"examples": zero, "positions": zero, "scale": np.float32(-1 if scale is None else scale)}
        extremes = {"min": zeros + np.float32(np.inf), "max": zeros - np.float32(np.inf)}
        return {field: zeros for field in names} | numbers | extremes | no_inputs(layer)

    run = {name: np.float32(0) for name in ("gradients", "losses", "loss", "skipped")}
    run |= {"inputs": np.zeros(6, np.float32), "looked": np.zeros(3, np.float32)}
    return Statistics(plan, {name: layer_fields(name, layer) for name, layer in plan.layers}, run)


def observe(
    statistics: Statistics | None,
    layer: str,
    activation_function: Callable[[Any], Any] | None,
    pre_activation: Any,
    *,
    mask: Any = None,
    batched: bool = True,
    axis_name: AxisNames | None = None,
    inputs: Any = None,
    shared: bool = False,
) -> tuple[Any, Statistics | None]:
    """Apply an activation function, and observe both sides of it.

    ::

        hidden, statistics = observe(statistics, "hidden", jax.nn.relu, x @ params["w"] + params["b"])

    Several calls for one layer add up. The gradient at the pre-activation becomes part of the gradient with respect to
    ``statistics``, which :func:`value_and_grad` and :func:`observe_gradients` take in.

    Args:
        statistics: So far. None to apply the function and nothing else.
        layer: Its name.
        activation_function: Applied to the pre-activation; None for a linear layer.
        pre_activation: ``[examples, ..., units]``, or with the layer's own unit axis.
        mask: ``[examples]`` or ``[examples, ...]``: true where examples or positions are real, not padding.
        batched: Whether there is an axis of examples. Not so inside ``jax.vmap`` over examples: name its axis then.
        axis_name: Of axes of ``vmap``, ``pmap`` or ``shard_map`` over which the examples of a batch are spread.
        inputs: What the layer's weights take in, ``[examples, ..., features]`` or with its own ``input_axis``: here
            ``x``. With it the record says of dead units whether they can fire at all; :attr:`Layer.inputs` tells how
            many features there are.
        shared: Whether something else takes in the pre-activation, too, such as a skip connection. Otherwise gradients
            are added up in another order there, which changes their last bits.

    Returns:
        What the activation function returns, and the statistics with this call in them.

    Raises:
        InvalidArgumentError: The arguments do not fit the layer.
        UnknownNameError: There is no such layer.
    """
    if statistics is None:
        return pre_activation if activation_function is None else activation_function(pre_activation), None
    _check_statistics(statistics)
    spec = statistics.plan.layer(layer)
    axes = unit_axes(layer, spec, pre_activation)
    others = jnp.ndim(pre_activation) - len(axes)
    if batched and not others:
        raise InvalidArgumentError(
            f"the pre-activation of layer {layer!r} has no axis of examples: inside jax.vmap say batched=False "
            "and axis_name, the name of the vmapped axis"
        )
    lengths = [length for axis, length in enumerate(jnp.shape(pre_activation)) if axis not in axes]
    if mask is not None and (not jnp.ndim(mask) or list(jnp.shape(mask)) != lengths[: jnp.ndim(mask)]):
        raise InvalidArgumentError(
            f"the mask of layer {layer!r} has shape {jnp.shape(mask)} and must cover the first axes of {tuple(lengths)}"
        )
    taken_in = {}
    if inputs is not None:
        taken_in = ranges_of(layer, spec, inputs, pre_activation, mask, batched=batched, axis_name=axis_name)
    before = statistics.layers[layer]
    earlier = lax.stop_gradient({name: values for name, values in before.items() if name != "gradient"})
    tap = functools.partial(_tap_gradient, axes, batched)
    probe = varying_like(before["gradient"], pre_activation)
    if activation_function is None:
        output = tap(pre_activation, None, probe, mask)
    elif not shared:
        output = activation_function(tap(pre_activation, None, probe, mask))
    else:  # in front of the function, its gradients would be added up before those of the others join them
        back = jax.vjp(activation_function, lax.stop_gradient(pre_activation))[1]
        output = tap(activation_function(pre_activation), lax.stop_gradient(back), probe, mask)
    sums = activation_sums(
        output,
        unit_axes(layer, spec, output),
        mask,
        relu_like=spec.relu_like,
        limits=limits_of(spec, statistics.plan.thresholds),
        scale=earlier["scale"],
        fired_scale=statistics.plan.thresholds.fired_scale,
        batched=batched,
        earlier=(earlier["examples"], earlier["shift"]),
        axis_name=axis_name,
    )
    return output, statistics.with_layer(layer, **merged(earlier, sums | taken_in))


def value_and_grad(
    loss: Callable[..., Any], *, has_aux: bool = False, axis_name: AxisNames | None = None
) -> Callable[..., tuple[tuple[Any, Any], Any]]:
    """As ``jax.value_and_grad``, for a loss that carries statistics along.

    ::

        def loss(params, statistics, x, y):
            hidden, statistics = observe(statistics, "hidden", jax.nn.relu, x @ params["w"] + params["b"])
            return ..., statistics

        (value, statistics), gradients = value_and_grad(loss)(params, statistics, x, y)

    Args:
        loss: Of parameters, statistics or None, and whatever else; gives the loss and the statistics.
        has_aux: Whether it gives the loss and a pair instead: the statistics, and something else.
        axis_name: As :func:`observe_gradients` takes it.

    Returns:
        A function of the same arguments. It gives what ``loss`` gives, the loss and its gradients now among the
        statistics, and the gradients with respect to the parameters.
    """

    def differentiated(params: Any, statistics: Statistics | None, *args: Any, **kwargs: Any) -> Any:
        both = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (value, aux), (gradients, signals) = both(params, statistics, *args, **kwargs)
        seen, rest = aux if has_aux else (aux, None)
        if (seen is None) != (statistics is None):
            raise InvalidArgumentError(
                "the loss function must return the statistics that it was given, as the last observe() returned them: "
                f"return loss, statistics{' and what else there is' if has_aux else ''}"
            )
        seen = observe_gradients(seen, signals, loss=value, axis_name=axis_name)
        return (value, (seen, rest) if has_aux else seen), gradients

    return functools.wraps(loss)(differentiated)


def observe_gradients(
    statistics: Statistics | None,
    gradients: Any,
    *,
    loss: Any = None,
    loss_scale: Any = 1.0,
    skipped: Any = False,
    axis_name: AxisNames | None = None,
) -> Statistics | None:
    """Take in what differentiation has found at the pre-activations: for loops without :func:`value_and_grad`.

    Args:
        statistics: As the loss function returned them.
        gradients: Of the loss with respect to the statistics that the loss function was given.
        loss: Its value, unscaled.
        loss_scale: What the loss was multiplied by before it was differentiated.
        skipped: Whether the step will be skipped for gradients that are not finite: its activations are kept then.
        axis_name: Of axes of ``pmap`` or ``shard_map`` over which you average the gradients afterwards, where each
            device differentiates the mean loss of its own examples.

    Raises:
        InvalidArgumentError: ``gradients`` are not those of statistics of the same layers.
    """
    if statistics is None:
        return None
    _check_statistics(statistics)
    if not isinstance(gradients, Statistics) or gradients.plan != statistics.plan:
        raise InvalidArgumentError(
            "gradients must be those of the loss with respect to these statistics, as jax.grad(loss, argnums=1) "
            f"gives them where argument 1 are the statistics, not {_what(gradients)}"
        )
    share = 1.0 / jnp.asarray(loss_scale, jnp.float32)
    if axis_name is not None:
        share = share / lax.psum(1, axis_name)
    for name in statistics.layers:
        squares = gradients.layers[name]["gradient"]
        # Where JAX keeps track of what differs between devices it has added the squares up by itself.
        if axis_name is not None and (not varying_axes(lax.axis_index(axis_name)) or varying_axes(squares)):
            squares = lax.psum(squares, axis_name)
        squares = statistics.layers[name]["gradient"] + squares * share * share
        statistics = statistics.with_layer(name, gradient=squares)
    run = statistics.run
    found = {
        "gradients": run["gradients"] + 1,
        "skipped": jnp.maximum(run["skipped"], jnp.asarray(skipped, jnp.float32)),
    }
    if loss is not None:
        value = jnp.asarray(lax.stop_gradient(loss), jnp.float32)
        value = value if axis_name is None else lax.pmean(value, axis_name)
        found |= {"losses": run["losses"] + 1, "loss": run["loss"] + value}
    return statistics.with_run(**found)


def observe_inputs(statistics: Statistics | None, inputs: Any) -> Statistics | None:
    """Look at the numbers that are fed to the model, which explain many a dead unit.

    Args:
        statistics: So far.
        inputs: Numbers of any shape; not names of tokens.
    """
    if statistics is None:
        return None
    _check_statistics(statistics)
    return statistics.with_run(inputs=value_summary([inputs])[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _tap_gradient(axes: tuple[int, ...], batched: bool, values: Any, back: Any, probe: Any, mask: Any) -> Any:
    """An identity. The gradient with respect to the probe is the sum of squares of that with respect to the values.

    Behind an activation function ``back`` makes of it the gradient in front of that; None elsewhere.
    """
    return values


def _forward(axes: tuple[int, ...], batched: bool, values: Any, back: Any, probe: Any, mask: Any) -> tuple[Any, Any]:
    return values, (back, mask)


def _backward(axes: tuple[int, ...], batched: bool, kept: Any, gradient: Any) -> tuple[Any, None, Any, None]:
    back, mask = kept
    signal = gradient if back is None else back(gradient)[0]
    return gradient, None, square_sums(signal, axes, mask, batched=batched), None


_tap_gradient.defvjp(_forward, _backward)


def merged(earlier: Mapping[str, Any], sums: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of one layer together with what came before."""
    return {name: _WAYS.get(name, jnp.add)(earlier[name], values) for name, values in sums.items()}


_WAYS: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("min", "inputs_low"), jnp.minimum),
    **dict.fromkeys(("max", "inputs_high", "inputs_eps"), jnp.maximum),
    "shift": lambda _, shift: shift,
}
"""How fields are put together, where they do not add up."""


def _check_statistics(statistics: Any) -> None:
    if not isinstance(statistics, Statistics):
        raise InvalidArgumentError(
            f"statistics must be what init_statistics or DeadUnitsWriter.begin gave, or None, not {_what(statistics)}"
        )


def _what(value: Any) -> str:
    return f"those of {', '.join(value.layers)}" if isinstance(value, Statistics) else f"a {type(value).__name__}"

"""Watch the units of any model in JAX, by pure functions inside your own jitted step.

::

    from deadunits_tb.jax import DeadUnitsWriter, Layer, observe, observe_weights, value_and_grad

    def loss(params, statistics, x, y):
        hidden, statistics = observe(statistics, "hidden", jax.nn.relu, x @ params["w"] + params["b"])
        return cross_entropy(hidden @ params["v"], y), statistics

    @jax.jit
    def step(params, state, statistics, x, y):
        (value, statistics), gradients = value_and_grad(loss)(params, statistics, x, y)
        updates, state = optimizer.update(gradients, state, params)
        new_params = optax.apply_updates(params, updates)
        return new_params, state, observe_weights(statistics, params, gradients, new_params)

    layers = {"hidden": Layer(128, "relu", weights=lambda params: params["w"])}
    with DeadUnitsWriter("runs/mlp", layers, params=params) as writer:
        for i, (x, y) in enumerate(batches):
            params, state, statistics = step(params, state, writer.begin(i), x, y)
            writer.write(i, statistics, params=params)

Whether a dead unit can fire at all is told where the layer's inputs are handed over, too: ``observe(..., inputs=x)``,
with ``Layer(..., biases=lambda params: params["b"], inputs=784)``.

:func:`watch` does without the change in the loss function: it finds the activation functions of a model by itself,
whether it is written in Flax (linen or nnx), Equinox or plain JAX.
"""

from __future__ import annotations

from deadunits_tb.errors import MissingDependencyError

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise MissingDependencyError("JAX is not installed: pip install 'deadunits-tb[jax]'") from error

from deadunits_tb.revive.jax import Outgoing, Revivable, Revived, plan_revival, record_revival, revive
from deadunits_tb.taps.jax.plan import Layer
from deadunits_tb.taps.jax.statistics import (
    Statistics,
    init_statistics,
    observe,
    observe_gradients,
    observe_inputs,
    value_and_grad,
)
from deadunits_tb.taps.jax.watch import FoundLayers, WatchedFunction, watch
from deadunits_tb.taps.jax.weights import observe_weights
from deadunits_tb.taps.jax.writer import DeadUnitsWriter

__all__ = [
    "DeadUnitsWriter",
    "FoundLayers",
    "Layer",
    "Outgoing",
    "Revivable",
    "Revived",
    "Statistics",
    "WatchedFunction",
    "init_statistics",
    "observe",
    "observe_gradients",
    "observe_inputs",
    "observe_weights",
    "plan_revival",
    "record_revival",
    "revive",
    "value_and_grad",
    "watch",
]

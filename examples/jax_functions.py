"""Plain functions in JAX on 8 x 8 digits: two lines in the loss, two in the loop.

Then: tensorboard --logdir runs
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

from deadunits_tb.jax import DeadUnitsWriter, Layer, observe, observe_inputs, observe_weights, value_and_grad

optimizer = optax.adam(1e-3)
layers = {
    "hidden": Layer(
        64,
        "relu",
        weights=lambda params: params["w"],
        outgoing=lambda params: params["v"],
        biases=lambda params: params["b"],
        inputs=64,
    )
}


def loss(params: Any, statistics: Any, images: Any, labels: Any) -> Any:
    """Cross-entropy of a network with one hidden layer; and its statistics, where they are wanted."""
    before = images @ params["w"] + params["b"]
    hidden, statistics = observe(statistics, "hidden", jax.nn.relu, before, inputs=images)
    logits = hidden @ params["v"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), statistics


@jax.jit
def train_step(params: Any, state: Any, statistics: Any, images: Any, labels: Any) -> Any:
    """One step. Where statistics are None it is compiled to what it would be without them."""
    (_, statistics), gradients = value_and_grad(loss)(params, statistics, images, labels)
    updates, state = optimizer.update(gradients, state, params)
    new_params = optax.apply_updates(params, updates)
    statistics = observe_weights(observe_inputs(statistics, images), params, gradients, new_params)
    return new_params, state, statistics


def main(log_dir: str = "runs/jax_functions", steps: int = 600) -> Any:
    """Train, and return the parameters."""
    images, labels = load_digits(return_X_y=True)
    images = ((images - 8) / 8).astype(np.float32)
    random = np.random.default_rng(0)
    params = {
        "w": (random.normal(size=(64, 64)) / 8).astype(np.float32),
        "b": np.where(np.arange(64) < 3, -30, 0).astype(np.float32),  # three units are born dead
        "v": (random.normal(size=(64, 10)) / 8).astype(np.float32),
    }
    state = optimizer.init(params)
    with DeadUnitsWriter(log_dir, layers, params=params, total_steps=steps) as writer:
        for i in range(steps):
            chosen = random.integers(0, len(images), 64)
            params, state, statistics = train_step(params, state, writer.begin(i), images[chosen], labels[chosen])
            writer.write(i, statistics, params=params, opt_state=state, learning_rate=1e-3)
    return params


if __name__ == "__main__":
    main(*sys.argv[1:2])

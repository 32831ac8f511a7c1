"""A Flax linen model as it is, on 8 x 8 digits: its layers and activation functions are found by themselves.

The same works for Flax nnx (``graph, params = nnx.split(model)``). Then: tensorboard --logdir runs
"""

from __future__ import annotations

import sys
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

from deadunits_tb.jax import DeadUnitsWriter, observe_weights, value_and_grad, watch


class Network(nn.Module):
    """A convolution, a hidden layer, ten classes."""

    @nn.compact
    def __call__(self, images: Any) -> Any:
        """From ``[examples, 8, 8, 1]`` to ``[examples, 10]``."""
        x = nn.relu(nn.Conv(16, (3, 3), name="convolution")(images))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(len(images), -1)
        x = nn.gelu(nn.LayerNorm()(nn.Dense(64, name="hidden")(x)))
        return nn.Dense(10, name="digit")(x)


model, optimizer = Network(), optax.adamw(1e-3)


def loss(params: Any, images: Any, labels: Any) -> Any:
    """Cross-entropy: nothing of ours in it."""
    logits = model.apply({"params": params}, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


watched = watch(loss)


@jax.jit
def train_step(params: Any, state: Any, statistics: Any, images: Any, labels: Any) -> Any:
    """One step. Where statistics are None it is compiled to what it would be without them."""
    (_, statistics), gradients = value_and_grad(watched)(params, statistics, images, labels)
    updates, state = optimizer.update(gradients, state, params)
    new_params = optax.apply_updates(params, updates)
    return new_params, state, observe_weights(statistics, params, gradients, new_params)


def main(log_dir: str = "runs/flax_digits", steps: int = 300) -> Any:
    """Train, and return the parameters."""
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    params = model.init(jax.random.key(0), images[:1])["params"]
    state, random = optimizer.init(params), np.random.default_rng(0)
    with DeadUnitsWriter(log_dir, watched.layers(params, images[:2], labels[:2]), params=params) as writer:
        for i in range(steps):
            chosen = random.integers(0, len(images), 64)
            params, state, statistics = train_step(params, state, writer.begin(i), images[chosen], labels[chosen])
            writer.write(i, statistics, params=params)
    return params


if __name__ == "__main__":
    main(*sys.argv[1:2])

"""An Equinox model as it is, written for one image and vmapped over a batch, on 8 x 8 digits.

Then: tensorboard --logdir runs
"""

from __future__ import annotations

import sys
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

from deadunits_tb.jax import DeadUnitsWriter, observe_weights, value_and_grad, watch

model = eqx.nn.MLP(64, 10, 48, depth=2, activation=jax.nn.silu, key=jax.random.key(0))
params, static = eqx.partition(model, eqx.is_array)
optimizer = optax.adam(1e-3)


def loss(params: Any, images: Any, labels: Any) -> Any:
    """Cross-entropy: nothing of ours in it."""
    logits = jax.vmap(eqx.combine(params, static))(images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


watched = watch(loss)


@jax.jit
def train_step(params: Any, state: Any, statistics: Any, images: Any, labels: Any) -> Any:
    """One step. Where statistics are None it is compiled to what it would be without them."""
    (_, statistics), gradients = value_and_grad(watched)(params, statistics, images, labels)
    updates, state = optimizer.update(gradients, state, params)
    new_params = eqx.apply_updates(params, updates)
    return new_params, state, observe_weights(statistics, params, gradients, new_params)


def main(log_dir: str = "runs/equinox_digits", steps: int = 400) -> Any:
    """Train, and return the model."""
    images, labels = load_digits(return_X_y=True)
    images = ((images - 8) / 8).astype(np.float32)
    now, state, random = params, optimizer.init(params), np.random.default_rng(0)
    with DeadUnitsWriter(log_dir, watched.layers(params, images[:2], labels[:2]), params=params) as writer:
        for i in range(steps):
            chosen = random.integers(0, len(images), 64)
            now, state, statistics = train_step(now, state, writer.begin(i), images[chosen], labels[chosen])
            writer.write(i, statistics, params=now)
    return eqx.combine(now, static)


if __name__ == "__main__":
    main(*sys.argv[1:2])

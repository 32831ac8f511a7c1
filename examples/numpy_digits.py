"""Raw NumPy, without any framework: hand over arrays, one line per layer.

The digits that scikit-learn ships. Then: tensorboard --logdir runs
"""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits

from deadunits_tb import DeadUnitsWriter


def main(log_dir: str = "runs/numpy", steps: int = 300, learning_rate: float = 0.1) -> float:
    """Train a hidden layer of 64 ReLU units by plain gradient descent, and return the accuracy."""
    rng = np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    first = rng.normal(0, np.sqrt(2 / 64), (64, 64))  # He (2015)
    second = rng.normal(0, np.sqrt(2 / 64), (64, 10))
    with DeadUnitsWriter(log_dir) as writer:
        for step in range(steps):
            batch = rng.integers(0, len(images), 64)
            hidden = np.maximum(images[batch] @ first, 0)
            scores = np.exp(hidden @ second)
            share = scores / scores.sum(axis=1, keepdims=True)
            loss = -np.log(share[np.arange(64), labels[batch]]).mean()
            share[np.arange(64), labels[batch]] -= 1
            error = share / 64  # gradient of the loss at the scores, which is a pre-activation
            signal = (error @ second.T) * (hidden > 0)
            writer.observe(step, "hidden", hidden, gradients=signal, weights=first, outgoing=second)
            writer.observe(step, "digit", hidden @ second, activation_function="linear", gradients=error, role="output")
            writer.context(step, learning_rate=learning_rate, loss=loss, inputs=images[batch])
            second -= learning_rate * (hidden.T @ error)
            first -= learning_rate * (images[batch].T @ signal)
    return float((np.argmax(np.maximum(images @ first, 0) @ second, axis=1) == labels).mean())


if __name__ == "__main__":
    main(*sys.argv[1:2])

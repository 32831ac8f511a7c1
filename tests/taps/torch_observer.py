"""What each step of a watched PyTorch model has shown, and slow loops in float64 to compare it with."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

import slow_reference
from deadunits_tb.torch import watch

FUNCTIONS = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.Hardtanh: "hard_tanh",
    nn.Hardsigmoid: "hard_sigmoid", nn.Softsign: "softsign", nn.GELU: "gelu", nn.LeakyReLU: "leaky_relu",
}  # fmt: skip


class Observer:
    """Watches a model, and keeps what each step has shown."""

    def __init__(self, model, log_dir, optimizer=None, **arguments):
        self.model = model.train()
        self.optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.1)
        self.monitor = watch(model, log_dir, optimizer=self.optimizer, every=1, **arguments)
        self.steps = {}
        observe = self.monitor._monitor.observe

        def spy(step, deferred, **named):
            self.steps[step] = deferred()
            observe(step, deferred, **named)

        self.monitor._monitor.observe = spy

    def __call__(self, x, loss=lambda out: out.float().square().mean(), passes=1):
        self.optimizer.zero_grad()
        for _ in range(passes):
            loss(self.model(x)).backward()
        self.optimizer.step()
        return self.seen()

    def seen(self):
        self.monitor.flush()
        assert self.monitor.errors == ()
        return self.steps[max(self.steps)]

    def info(self, layer):
        return self.monitor._tap._known.infos[layer]


def statistics(seen):
    """As :func:`slow_reference.of_unit` names them, ``[units]``."""
    found = {
        "active_fraction": seen.fired_examples / seen.examples,
        "active_positions": seen.fired_positions / seen.positions,
        "mean": seen.mean,
        "mean_abs": seen.sum_abs / seen.positions,
        "std": np.sqrt(seen.squares / seen.positions),
        "min": seen.min,
        "max": seen.max,
    }
    if seen.saturated is not None:
        found["saturated_fraction"] = seen.saturated / seen.positions
    if seen.gradient_squares is not None:
        found["gradient"] = np.sqrt(seen.gradient_squares / seen.positions)
    return found


def spied(module):
    """Keeps the outputs of an activation module and the gradients at its input, of every call."""
    kept = {"outputs": [], "gradients": []}

    def before(_, args):
        args[0].register_hook(lambda g: kept["gradients"].append(g.detach().double()))

    def after(_, __, output):
        kept["outputs"].append(output.detach().double())

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)
    return kept


def check(seen, kept, function, axis, scale=1.0, tolerance=1e-5):
    def rows(tensors):
        moved = [np.moveaxis(t.numpy(), axis, -1) for t in tensors]
        return np.concatenate([t.reshape(len(t), -1, t.shape[-1]) for t in moved])

    outputs, gradients = rows(kept["outputs"]), rows(kept["gradients"]) / scale
    assert (seen.examples, seen.positions) == (len(outputs), math.prod(outputs.shape[:2]))
    if function in ("relu", "relu6"):
        fires = lambda y: y > 0  # noqa: E731
    else:
        limit = np.float32(1e-3) * np.sqrt(np.mean(outputs**2))
        fires = lambda y: abs(y) > limit  # noqa: E731
    found = statistics(seen)
    for unit in range(outputs.shape[-1]):
        wanted = slow_reference.of_unit(
            [slow_reference.examples_of(outputs, unit)],
            fires=fires,
            function=function,
            gradients=[slow_reference.examples_of(gradients, unit)],
        )
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name][unit], value, rtol=tolerance, atol=1e-7, err_msg=name)


LAYOUTS = {
    "BC": (lambda act: nn.Sequential(nn.Linear(6, 5), act), (7, 6), -1),
    "BTC": (lambda act: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), act), (4, 3, 6), -1),
    "BCL": (lambda act: nn.Sequential(nn.Conv1d(2, 5, 2), act), (4, 2, 6), 1),
    "BCHW": (lambda act: nn.Sequential(nn.Conv2d(2, 5, 2, bias=False), nn.BatchNorm2d(5), act), (4, 2, 4, 3), 1),
    "BCDHW": (lambda act: nn.Sequential(nn.ConvTranspose3d(2, 4, 2, groups=2), act), (3, 2, 2, 2, 2), 1),
    "BHWC": (lambda act: nn.Sequential(nn.Linear(6, 5), act), (3, 2, 2, 6), -1),
}

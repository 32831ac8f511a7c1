"""What to train, and what is planted in it. The same recipe runs on every framework."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from benchmarks.truth import networks
from benchmarks.truth.networks import Architecture, Array, Hidden, Parameters

EXAMPLES = 600
"""Images in the data set: few, so that an exhaustive pass at every step costs little."""


@dataclass(frozen=True)
class Plant:
    """What is done to some units from a step on, before each step.

    Attributes:
        kind: What is done. ``kill`` pushes the bias far down, once; ``nan`` makes one weight NaN, once. The others hold
            something before every step: ``bound`` the bias far up, ``prune`` the incoming weights at zero, ``flat`` too
            with a bias of one, ``cut`` the outgoing weights at zero, ``hold`` the incoming weights where they are,
            ``shrink`` the incoming weights at a thousandth, and ``rate`` the bias where the unit fires on ``value`` of
            the data set, loudly.
        layer: Index of the hidden layer.
        units: Of the layer.
        step: The first at which it is done.
        value: For ``rate``.
    """

    kind: Literal["kill", "bound", "prune", "flat", "cut", "hold", "shrink", "rate", "nan"]
    layer: int
    units: tuple[int, ...]
    step: int = 0
    value: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """A run: a network on scikit-learn's digits.

    Attributes:
        name: Of the run.
        cause: That the findings should name first; None for a healthy run.
        architecture: Kind of network, see :mod:`benchmarks.truth.networks`.
        sizes: Units of each layer of a dense network, the inputs first.
        function: Activation function of the hidden layers.
        optimizer: By name.
        rate: The learning rate at its highest.
        schedule: How the rate goes.
        gain: Variance of a layer's first weights, times the number of its inputs.
        mean: Of the first weights of the hidden layers.
        bias: First biases of the hidden layers.
        scaling: Of the pixels.
        scaled_from: Step from which on the pixels come as bytes; None for never.
        decay: Decoupled weight decay of the kernels.
        spike_at: Step whose labels weigh a million times as much.
        nan_at: Step whose batch holds a NaN.
        frozen: Hidden layers that are not trained.
        one_class: Whether the head is a softmax over one unit.
        few: Examples of the data set, and of each step, where they are known by heart; 0 for all. The monitor is told.
        pretrained: Steps of training, unobserved, before the run begins.
        steps: To train.
        batch: Examples a step.
        seed: Of weights and batches.
        plants: What is done to single units.
    """

    name: str
    cause: str | None = None
    architecture: Architecture = "dense"
    sizes: tuple[int, ...] = (64, 32, 32, 10)
    function: str = "relu"
    optimizer: Literal["sgd", "momentum", "adam"] = "adam"
    rate: float = 1e-3
    schedule: Literal["constant", "warm_up", "cosine"] = "constant"
    gain: float = 2.0
    mean: float = 0.0
    bias: float = 0.0
    scaling: Literal["standardized", "unit", "bytes"] = "standardized"
    scaled_from: int | None = None
    decay: float = 0.0
    spike_at: int | None = None
    nan_at: int | None = None
    frozen: tuple[int, ...] = ()
    one_class: bool = False
    few: int = 0
    pretrained: int = 0
    steps: int = 240
    batch: int = 64
    seed: int = 0
    plants: tuple[Plant, ...] = ()

    @property
    def hidden(self) -> int:
        """How many hidden layers there are."""
        return len(self.layers)

    @functools.cached_property
    def layers(self) -> list[Hidden]:
        """The hidden layers."""
        return networks.hidden_layers(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all layers."""
        return (*(f"hidden_{number}" for number in range(1, self.hidden + 1)), "output")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        if self.schedule == "warm_up":
            return self.rate * min(1.0, (step + 1) / (self.steps / 2))
        if self.schedule == "cosine":
            return self.rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.rate

    def batches(self) -> npt.NDArray[np.int64]:
        """``[steps, batch]`` indices of images: whole passes, each in an order of its own."""
        if self.few:
            return np.tile(np.arange(self.few), (self.steps, 1))
        random = np.random.default_rng([self.seed, 2])
        passes = -(-self.steps * self.batch // EXAMPLES)
        order = np.concatenate([random.permutation(EXAMPLES) for _ in range(passes)])
        return order[: self.steps * self.batch].reshape(self.steps, self.batch)

    def images(self, step: int = 0) -> Array:
        """``[images, pixels]`` of the data set as it is at a step."""
        late = self.scaled_from is not None and step >= self.scaled_from
        return pixels("bytes" if late else self.scaling)

    def batch_at(self, step: int, rows: npt.NDArray[np.int64]) -> tuple[Array, npt.NDArray[np.int64], float]:
        """Images, labels and weight of the loss at a step."""
        images = self.images(step)[rows]
        if step == self.nan_at:
            images[3, 5] = np.nan
        return images, labels()[rows] * (not self.one_class), 1e6 if step == self.spike_at else 1.0

    def plant(self, step: int, parameters: Parameters, before: Parameters) -> None:
        """Do to the parameters what is planted, in place.

        Args:
            step: That comes next.
            parameters: As the step before has left them.
            before: As they were before that step.
        """
        for one in self.plants:
            if step < one.step or (one.kind in ("kill", "nan") and step > one.step):
                continue
            layer, units = self.layers[one.layer], list(one.units)
            bias, kernels = layer.biases(parameters), layer.incoming(parameters)
            match one.kind:
                case "kill":
                    bias[-1, units] = -1e3
                case "bound":
                    bias[:, units] = 20.0
                case "prune" | "flat":
                    for kernel in kernels:
                        kernel[:, units] = 0.0
                    bias[:, units] = float(one.kind == "flat")
                case "cut":
                    for reader in layer.outgoing(parameters):
                        reader[:, units] = 0.0
                case "hold":
                    for kernel, held in zip(kernels, layer.incoming(before), strict=True):
                        kernel[:, units] = held[:, units]
                case "shrink":
                    size = np.linalg.norm(kernels[0][:, units], axis=0)
                    kernels[0][:, units] *= 1e-3 * math.sqrt(self.gain) / size
                    bias[:, units] = 0.0
                case "rate":
                    if step == one.step:
                        kernels[0][:, units] *= 60.0  # so that it is rare, but not small beside its neighbours
                    values = networks.pre_activations(self, parameters, self.images(step), one.layer)
                    shift = np.quantile(values[:, units] - bias[0, units], 1 - one.value, axis=0, method="higher")
                    bias[:, units] = -shift
                case "nan":
                    kernels[0][0, units] = np.nan


@functools.cache
def _digits() -> tuple[Array, npt.NDArray[np.int64]]:
    digits = load_digits()
    return digits.data[:EXAMPLES].astype(np.float64), digits.target[:EXAMPLES].astype(np.int64)


def labels() -> npt.NDArray[np.int64]:
    """``[images]`` digits."""
    return _digits()[1]


@functools.cache
def pixels(scaling: str) -> Array:
    """``[images, 64]``: standardised per feature, from 0 to 1, or from 0 to 255."""
    images, _ = _digits()
    if scaling == "bytes":
        return images * (255 / 16)
    if scaling == "unit":
        return images / 16
    return (images - images.mean(axis=0)) / np.maximum(images.std(axis=0), 1e-6)

"""Small PyTorch models of many kinds, each with a batch, and the training of any of them in any mode."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from deadunits_tb.torch import watch

torch.set_num_threads(1)


def vectors(n=16):
    return torch.randn(n, 6)


def images(n=8):
    return torch.randn(n, 2, 8, 8)


def tokens(n=8):
    return torch.randint(0, 20, (n, 5))


def sequences(n=8):
    return torch.randn(n, 5, 6)


class Functional(nn.Module):
    """Activation functions as functions and methods, one in place, weights used without a module."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.matrix = nn.Parameter(torch.randn(8, 8) / 3)
        self.transposed = nn.Parameter(torch.randn(3, 8) / 3)

    def forward(self, x):
        x = F.relu(self.one(x))
        x = torch.tanh_(self.two(x))
        x = self.three(x).clamp(min=0)
        x = (x @ self.matrix).sigmoid()
        return x @ self.transposed.T


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.one = nn.Conv2d(4, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4) for _ in range(3)])
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.norms[0](self.stem(x)), inplace=True)
        y = F.relu(self.norms[1](self.one(x)))
        y = self.norms[2](self.two(y))
        y += x
        return self.head(F.relu(y).mean((2, 3)))


class Twice(nn.Module):
    """A layer called twice, another not at all."""

    def __init__(self):
        super().__init__()
        self.stem, self.shared, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.idle = nn.Linear(8, 8)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.shared(self.shared(x).relu()).relu())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(F.gelu(self.hidden(self.embed(x))).mean(1))[:, :3]


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, **arguments):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.recurrent = kind(6, 7, batch_first=True, **arguments)
        self.head = nn.LazyLinear(3)

    def forward(self, x):
        return self.head(self.recurrent(self.embed(x))[0][:, -1])


class Block(nn.Module):
    """A transformer block as people write it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.norms = nn.ModuleList([nn.LayerNorm(8) for _ in range(2)])
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        x = self.embed(x)
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.drop(self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh")))
        return self.head(x.mean(1))


class Encoder(nn.Module):
    def __init__(self, **arguments):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, **arguments)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)
        self.first = arguments.get("batch_first", False)

    def forward(self, x):
        x = self.embed(x) if self.first else self.embed(x).transpose(0, 1)
        return self.head(self.encoder(x).mean(1 if self.first else 0))


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.stem = nn.Linear(6, 8)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(inplace=True))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(checkpoint(self.body, self.stem(x).relu(), use_reentrant=self.reentrant))


class Gated(nn.Module):
    """Gates, concatenation, and activation functions written by hand."""

    def __init__(self):
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(6, 8), nn.Linear(6, 8, bias=False), nn.Linear(8, 8)
        self.by_hand, self.both = nn.Linear(8, 8), nn.Linear(16, 8)
        self.wide, self.head = nn.Linear(8, 8), nn.Linear(4, 3)

    def forward(self, x):
        x = self.down(F.silu(self.gate(x)) * self.up(x))
        y = self.by_hand(x)
        y = y * torch.sigmoid(1.702 * y)
        return self.head(F.glu(self.wide(self.both(torch.cat([x, y], -1)))))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout2d(0.2),
        nn.ConvTranspose2d(6, 4, 2, groups=2), nn.GELU(), nn.Conv2d(4, 4, 3, groups=4), nn.LeakyReLU(),
        nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip


def signals():
    return nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2), nn.ELU(), nn.ConvTranspose1d(4, 4, 2), nn.SiLU(),
        nn.Unflatten(2, (1, 3)), nn.Unflatten(2, (1, 1)), nn.Conv3d(4, 4, 1), nn.Hardtanh(), nn.Flatten(),
        nn.Linear(12, 3),
    )  # fmt: skip


def normalised():
    return nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.LayerNorm(8), nn.ReLU6(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), nn.Softplus(), nn.Linear(8, 3), nn.LogSoftmax(-1),
    )  # fmt: skip


def frozen():
    model = dense()
    model[0].requires_grad_(False)
    return model


def dense():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))


ZOO = {
    "dense": (dense, vectors),
    "convolutions": (convolutions, images),
    "signals": (signals, vectors),
    "functional": (Functional, vectors),
    "residual": (Residual, images),
    "twice": (Twice, vectors),
    "tied": (Tied, tokens),
    "lstm": (Recurrent, tokens),
    "gru": (lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True, dropout=0.2), tokens),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), tokens),
    "projected": (lambda: Recurrent(nn.LSTM, proj_size=4), tokens),
    "block": (Block, tokens),
    "encoder": (Encoder, tokens),
    "encoder gelu": (lambda: Encoder(activation="gelu", batch_first=True, norm_first=True), tokens),
    "checkpoint": (lambda: Checkpointed(False), vectors),
    "checkpoint reentrant": (lambda: Checkpointed(True), vectors),
    "gated": (Gated, vectors),
    "normalised": (normalised, vectors),
    "frozen": (frozen, vectors),
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01),
}


def built(name: str) -> tuple[nn.Module, Any]:
    """A model and its batch, always the same; random numbers then go on from a known state."""
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    make, batch = ZOO[name]
    return make(), batch()


def train(
    name: str,
    log_dir: Any = None,
    *,
    optimizer: str = "sgd",
    steps: int = 4,
    accumulate: int = 1,
    autocast: torch.dtype | None = None,
    scaled: float = 0.0,
    closure: bool = False,
    clip: bool = False,
    evaluate: bool = False,
    every: int = 1,
    tell: bool = True,
    **arguments: Any,
) -> dict[str, Any]:
    """Train a model of the zoo, watched where there is a log directory; everything that training leaves behind."""
    model, x = built(name)
    trained = OPTIMIZERS[optimizer](model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=scaled, growth_interval=2) if scaled else None
    monitor = None
    if log_dir is not None:
        monitor = watch(model, log_dir, optimizer=trained, scaler=scaler, every=every, **arguments)
    losses = []
    y = torch.randint(0, 3, (len(x),))
    for _ in range(steps):
        trained.zero_grad()
        for _ in range(accumulate):
            with torch.autocast("cpu", autocast) if autocast else contextlib.nullcontext():
                loss = F.cross_entropy(model(x).float(), y) / accumulate
            if not closure:
                (scaler.scale(loss) if scaler else loss).backward()
        losses.append(loss.item())
        if clip:
            if scaler:
                scaler.unscale_(trained)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        if scaler:
            scaler.step(trained)
            scaler.update()
        elif closure:

            def again():
                trained.zero_grad()
                loss = F.cross_entropy(model(x).float(), y)
                loss.backward()
                return loss

            trained.step(again)
        else:
            trained.step()
        if monitor is not None and tell:
            monitor.step(loss=loss)
        if evaluate:
            with torch.no_grad():
                model(x)
            model.eval()
            model(x)
            model.train()
    if monitor is not None:
        monitor.close()
    return {
        "weights": {key: value.clone() for key, value in model.state_dict().items()},
        "optimizer": trained.state_dict()["state"],
        "losses": losses,
        "random": (torch.get_rng_state(), random.random(), np.random.random()),  # noqa: NPY002
        "monitor": monitor,
        "model": model,
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal to the last bit."""
    for key in ("weights", "optimizer", "losses", "random"):
        _assert_same(one[key], other[key], key)


def _assert_same(one: Any, other: Any, where: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7)) if one.is_floating_point() else one.equal(other), (
            where
        )
    elif isinstance(one, (list, tuple)):
        for at, (left, right) in enumerate(zip(one, other, strict=True)):
            _assert_same(left, right, f"{where}.{at}")
    else:
        assert one == other or (one != one and other != other), where

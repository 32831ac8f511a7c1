"""What cannot be revived in PyTorch is said, and where the user may help."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.torch import revive
from revive_torch_zoo import DEAD, Residual, batch, kill, mlp


class Guarded(nn.Module):
    """Code that torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 1e9:
            raise ValueError
        return self.head(torch.relu(self.hidden(x)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head, self.other = nn.Linear(6, 8), nn.Linear(8, 6, bias=False), nn.Linear(6, 8)
        self.other.weight = self.hidden.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(x)))


class TwoProducers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.other, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(x))) + self.head(self.other(x))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "untraceable": (Guarded, "hidden", r"torch.fx cannot trace Guarded .*next=\{'hidden'"),
    "tied": (Tied, "hidden", "tied to another layer's"),
    "consumer of others": (TwoProducers, "hidden", "head also takes in other units"),
    "residual stream": (Residual, "outer", "added to others"),
    "output": (mlp, "4", "part of the model's output"),
    "LayerNorm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)), "0", "mixes"),
    "softmax": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Softmax(-1), nn.Linear(8, 3)), "0", "mixes"),
    "unknown": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (2, 4))), "0", "go through Unflatten"),
    "recurrent": (lambda: nn.Sequential(nn.LSTM(6, 8)), "0", "no units that could be revived"),
    "computed": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3)),
        "0",
        "no known initializer",
    ),
    "frozen": (lambda: mlp().requires_grad_(False), "0", "frozen"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_revived_is_said_and_nothing_is_changed(case: str) -> None:
    make, layer, reason = REFUSED[case]
    torch.manual_seed(0)
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InvalidArgumentError, match=reason):
        revive(model, units={layer: [0, 1]}, sample=batch((4, 6)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_nothing_is_half_done() -> None:
    """One layer could be revived, the other cannot."""
    model = Residual()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InvalidArgumentError, match="'outer' cannot be revived"):
        revive(model, units={"inner": DEAD, "outer": DEAD}, sample=batch((4, 6)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_user_may_say_where_units_go() -> None:
    torch.manual_seed(0)
    model = Guarded()
    kill(model, "hidden", DEAD)
    x = batch((32, 6))
    before = model(x)
    revive(model, units={"hidden": DEAD}, next={"hidden": model.head}, sample=x)
    assert not model.head.weight[:, DEAD].any()
    assert model.hidden.weight[DEAD].all()
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"units": None}, r"units must say what to revive"),
        ({"units": {"0": [8]}}, r"layer '0' has units 0 to 7, not 8"),
        ({"units": {"0": [0.5]}}, r"must be a list of indices, or 8 booleans"),
        ({"units": {"9": [0]}}, r"there is no layer '9'"),
        ({"states": ["dying"]}, r"'dying' cannot be revived; choose of dead, saturated, constant, dormant"),
        ({"states": ["ded"]}, r"'ded' is no state"),
        ({"states": []}, r"states is empty"),
        ({"max_share": 0}, r"max_share"),
        ({"cool_down": -1}, r"cool_down"),
        ({"initializer": "xavier"}, r"initializer must be None .*'xavier'"),
        ({"optimizer": torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])}, r"what Adagrad remembers .*SGD, Adam"),
        ({"layers": "0"}, r"layers must be a list"),
        ({"next": {"0": "12"}}, r"there is no layer '12'"),
    ],
)
def test_wrong_arguments_are_said(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidArgumentError, match=error):
        revive(mlp(), **{"units": {"0": DEAD}, "sample": batch((4, 6)), **arguments})
    with pytest.raises(InvalidArgumentError, match="takes what watch"):
        revive(object())

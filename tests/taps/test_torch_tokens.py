"""Tokens are no examples, also where a model puts the tokens of all sequences one under the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torch_observer import Observer, check

EXAMPLES, TOKENS = 4, 5


class Flat(nn.Module):
    """``[examples, tokens, units]`` is reshaped before a layer, or behind it, or not at all."""

    def __init__(self, place):
        super().__init__()
        self.place = place
        self.embed, self.up, self.act, self.down = nn.Embedding(9, 6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.embed(x)
        if self.place == "before":
            x = x.reshape(-1, x.size(-1))
        z = self.up(x)
        if self.place == "behind":
            z = z.flatten(0, 1)
        y = self.down(self.act(z))
        if self.place in ("before", "behind"):
            y = y.view(EXAMPLES, TOKENS, 6)
        return self.head(F.relu(y).mean(1))


def shaped(kept):
    return {name: [one.reshape(EXAMPLES, TOKENS, -1) for one in tensors] for name, tensors in kept.items()}


@pytest.mark.parametrize("place", ["before", "behind", "never"])
def test_rows_that_are_tokens_are_counted_with_their_examples(place, tmp_path):
    torch.manual_seed(0)
    model = Flat(place)
    kept: dict[str, list[torch.Tensor]] = {"outputs": [], "gradients": []}
    model.act.register_forward_pre_hook(
        lambda _, args: args[0].register_hook(lambda g: kept["gradients"].append(g.detach().double())) and None
    )
    model.act.register_forward_hook(lambda _, __, out: kept["outputs"].append(out.detach().double()))
    observe = Observer(model, tmp_path)
    seen = observe(torch.randint(0, 9, (EXAMPLES, TOKENS))).layers
    check(seen["up"], shaped(kept), "relu", -1)
    assert (seen["down"].examples, seen["down"].positions) == (EXAMPLES, EXAMPLES * TOKENS)
    assert [observe.info(name).tokens for name in ("up", "down", "head")] == [True, True, False]
    assert (observe.info("up").fan_out, observe.info("down").activation_function) == (6, "relu")


def test_ids_that_were_flattened_before_they_are_looked_up_are_examples(tmp_path):
    """Nothing tells then that they are tokens of sequences: each row counts, as the model has it."""
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    observe = Observer(model, tmp_path)
    seen = observe(torch.randint(0, 9, (EXAMPLES * TOKENS,))).layers["1"]
    assert (seen.examples, seen.positions) == (EXAMPLES * TOKENS, EXAMPLES * TOKENS)
    assert not observe.info("1").tokens


def test_rows_that_two_sequences_explain_differently_count_by_themselves(tmp_path):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.up = nn.Embedding(9, 6), nn.Linear(6, 8)

        def forward(self, x):
            y = self.embed(x).transpose(0, 1).reshape(-1, 6)  # [tokens, examples], one under the other
            return self.up(y).relu()

    seen = Observer(Both(), tmp_path)(torch.randint(0, 9, (EXAMPLES, TOKENS))).layers["up"]
    assert (seen.examples, seen.positions) == (EXAMPLES * TOKENS, EXAMPLES * TOKENS)


def test_rows_that_are_picked_are_not_grouped(tmp_path):
    class Picked(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.up = nn.Embedding(9, 6), nn.Linear(6, 8)

        def forward(self, x):
            return self.up(self.embed(x).flatten(0, 1))[3:].relu()

    observe = Observer(Picked(), tmp_path)
    observe(torch.randint(0, 9, (EXAMPLES, TOKENS)))
    assert observe.info("up").activation_function is None

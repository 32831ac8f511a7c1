"""Merging the fields of replicas gives what one process gives for the whole batch."""

from __future__ import annotations

import numpy as np
import pytest

from deadunits_tb.capture.packed import SQUARE_SCALE, Call, Layout, PackedStep, observation, unpack, unpack_steps
from deadunits_tb.taps.merge import join, merge_fields, merge_vectors

UNITS = 3


def packed(outputs, gradients, *, relu_like, loss=0.0, mask=None):
    """What a tap packs, by hand in float64: outputs ``[examples, positions, units]``."""
    mask = np.ones(outputs.shape[:2], bool) if mask is None else mask
    flat, shift = outputs[mask], outputs[mask][:1].sum(0)
    apart = flat - shift
    fired = (outputs > 0 if relu_like else np.abs(outputs) > 1e-3) & mask[..., None]
    empty = len(flat) == 0
    return {
        "loss": np.array([loss]),
        "skipped": np.zeros(1),
        "inputs": np.array([flat.size, shift[0], (flat - shift[0]).sum(), ((flat - shift[0]) ** 2).sum(), 0, 9.0]),
        "0:examples": np.array([float(mask.any(1).sum())]),
        "0:positions": np.array([float(mask.sum())]),
        "0:shift": shift,
        "0:sum": flat.sum(0) if relu_like else apart.sum(0),
        "0:squares": (apart**2).sum(0),
        "0:min": np.full(UNITS, np.inf) if empty else flat.min(0),
        "0:max": np.full(UNITS, -np.inf) if empty else flat.max(0),
        "0:sum_abs": np.abs(flat).sum(0),
        "0:fired_positions": fired.sum((0, 1)).astype(float),
        "0:fired_examples": fired.any(1).sum(0).astype(float),
        "0:gradient": ((SQUARE_SCALE * gradients[mask]) ** 2).sum(0),
    }


def layout(fields, relu_like):
    sizes = {name: len(values) for name, values in fields.items()}
    return Layout(sizes, (Call("layer", 0, True),), frozenset([0] if relu_like else []))


def assert_same(one, other):
    for name in ("examples", "positions"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("fired_examples", "fired_positions", "mean", "squares", "sum_abs", "min", "max", "gradient_squares"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-12, err_msg=name)


def test_steps_whose_numbers_lie_in_another_order_are_not_taken_together():
    def step(loss_first):
        sizes = {"loss": 1} if loss_first else {}
        sizes |= {"0:examples": 1, "0:positions": 1} | {
            f"0:{name}": 2 for name in ("shift", "sum", "squares", "fired_positions", "fired_examples", "min", "max")
        }
        sizes |= {} if loss_first else {"loss": 1}
        values = {name: np.full(size, 7.0 if name == "loss" else 4.0) for name, size in sizes.items()}
        return PackedStep(
            lambda: (Layout(sizes, (Call("layer", 0, True),)), np.concatenate(list(values.values()))), lambda _: {}
        )

    assert unpack_steps([step(True), step(False)]) is None
    for first in (True, False):
        together = unpack_steps([step(first), step(first)])
        assert together.losses == (7.0, 7.0)
        assert together.layers["layer"].examples.tolist() == [4, 4]


@pytest.mark.parametrize("relu_like", [True, False])
@pytest.mark.parametrize("cuts", [[4], [1, 7], [0, 5], [3, 3, 9]], ids=str)
def test_replicas_together_are_the_whole_batch(relu_like, cuts):
    """Also where a replica got no example at all: a cut at 0, or twice at the same place."""
    random = np.random.default_rng(0)
    outputs = random.normal(5, 1, size=(10, 4, UNITS))
    outputs = np.maximum(outputs - 5, 0) if relu_like else outputs
    outputs[..., 1] = 0.3
    gradients, mask = random.normal(size=outputs.shape) * 1e-15, random.random((10, 4)) < 0.7
    whole = packed(outputs, gradients, relu_like=relu_like, mask=mask)
    parts = [
        packed(*split, relu_like=relu_like, mask=some, loss=1.5)
        for *split, some in zip(*(np.split(each, cuts) for each in (outputs, gradients, mask)), strict=True)
    ]
    found = layout(whole, relu_like)
    merged = merge_fields(found, parts, loss="sum")
    one, other = observation(found, whole), observation(found, merged)
    assert_same(other.layers["layer"], one.layers["layer"])
    assert other.layers["layer"].squares[1] == 0
    assert other.loss == 1.5 * len(parts)
    assert observation(found, merge_fields(found, parts, loss="mean")).loss == 1.5
    assert other.inputs[0] == one.inputs[0]
    np.testing.assert_allclose(other.inputs[1:], one.inputs[1:], rtol=1e-12)


def test_replicas_that_padded_to_different_lengths():
    """Without a mask they tell the positions of each example, and those differ."""
    random = np.random.default_rng(1)
    parts = []
    for examples, length in ((2, 3), (4, 5)):
        outputs = random.normal(size=(examples, length, UNITS))
        fields = packed(outputs, outputs, relu_like=False)
        del fields["0:positions"]
        parts.append(fields | {"0:each": np.array([float(length)])})
    found = layout(parts[0], False)
    rows = np.stack([np.concatenate(list(fields.values())) for fields in parts])
    layer = unpack(*merge_vectors(found, rows, loss="sum")).layers["layer"]
    assert (layer.examples, layer.positions) == (6, 26)


def test_what_overflowed_on_one_replica_is_seen():
    outputs = np.ones((2, 1, UNITS))
    parts = [packed(outputs, outputs, relu_like=True) for _ in range(2)]
    parts[1]["0:sum"] = parts[1]["0:squares"] = np.array([np.nan, np.inf, 2.0])
    parts[1]["skipped"] = np.ones(1)
    found = layout(parts[0], True)
    layer = observation(found, merge_fields(found, parts, loss="sum")).layers["layer"]
    assert np.isfinite(layer.mean).tolist() == [False, False, True]
    assert layer.gradient_squares is None, "a step that any replica skipped tells nothing of gradients"


def test_nobody_saw_an_example():
    outputs = np.ones((0, 1, UNITS))
    parts = [packed(outputs, outputs, relu_like=True) for _ in range(2)]
    found = layout(parts[0], True)
    assert observation(found, merge_fields(found, parts, loss="sum")).layers == {}


def test_several_functions_of_one_step_are_as_one():
    """One layer in both halves of a batch, which makes it one layer; another in the second function only."""
    random = np.random.default_rng(2)
    outputs = np.maximum(random.normal(size=(10, 4, UNITS)), 0)
    gradients, others = random.normal(size=outputs.shape), random.normal(size=(3, 2, UNITS))
    whole, other = packed(outputs, gradients, relu_like=True), packed(others, others, relu_like=False)
    parts = []
    for split in (slice(0, 4), slice(4, 10)):
        fields = packed(outputs[split], gradients[split], relu_like=True)
        if split.start:
            fields |= {f"1:{name[2:]}": values for name, values in other.items() if name.startswith("0:")}
            calls = (Call("layer", 0, True), Call("other", 1, False))
        else:
            calls = (Call("layer", 0, True),)
        sizes = {name: len(values) for name, values in fields.items()}
        parts.append((Layout(sizes, calls, frozenset([0])), np.concatenate(list(fields.values()))))
    found = unpack(*join(parts, {"loss": np.array([7.0])}))
    assert list(found.layers) == ["layer", "other"]
    assert_same(found.layers["layer"], observation(layout(whole, True), whole).layers["layer"])
    assert_same(found.layers["other"], observation(layout(other, False), other).layers["layer"])
    assert [layer.trainable for layer in found.layers.values()] == [True, False]
    assert found.loss == 7.0
    np.testing.assert_allclose(found.inputs, observation(layout(whole, True), whole).inputs, rtol=1e-12)


def test_a_step_is_skipped_if_one_of_its_functions_says_so():
    outputs = np.ones((2, 1, UNITS))
    parts = [packed(outputs, outputs, relu_like=True) for _ in range(2)]
    parts[0]["skipped"] = np.ones(1)
    vectors = [(layout(fields, True), np.concatenate(list(fields.values()))) for fields in parts]
    seen = unpack(*join(vectors, {})).layers["layer"]
    assert seen.examples == 4
    assert seen.gradient_squares is None


def test_functions_that_saw_nothing_are_no_step():
    assert unpack(*join([], {})).layers == {}


def test_ranges_are_those_of_all_replicas_and_functions_that_looked():
    ends = {"range:3:input_low": [[1.0, -2.0], [np.inf, np.inf], [0.5, 3.0]],
            "range:3:input_high": [[1.0, 2.0], [-np.inf, -np.inf], [4.0, 3.0]]}  # fmt: skip
    named = Layout(dict.fromkeys(ends, 2), ())
    replicas = np.array([np.concatenate(rows) for rows in zip(*ends.values(), strict=True)])
    wanted = {"range:3:input_low": [0.5, -2.0], "range:3:input_high": [4.0, 3.0]}
    merged = merge_vectors(named, replicas, loss="sum")
    joined = join([(named, replica) for replica in replicas], {})
    for found, vector in (merged, joined):
        fields = found.split(vector)
        assert {name: fields[name].tolist() for name in wanted} == wanted

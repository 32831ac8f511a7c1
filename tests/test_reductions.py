"""Arrays of any layout and type give the observation that plain loops give."""

import math
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import slow_reference
from deadunits_tb.capture.activation_functions import field_name, known_name, output_limits
from deadunits_tb.capture.reductions import observe_arrays, squared_sum, summarise_inputs
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import BOUNDED

FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(4 * x, 0, 6),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "gelu": lambda x: x * (x > -1),
    None: lambda x: x,
}


def check(seen, values, name, *, gradients=None, mask=None, scale=None):
    """Compare with the slow reference; ``values`` is ``[examples, positions, units]``."""
    values = values.astype(np.float64)
    if name in ("relu", "relu6"):
        limit = 0.0
    else:
        real = values if mask is None else values[mask]
        limit = 1e-3 * (math.sqrt(float(np.mean(real**2))) if scale is None else scale)
    for unit in range(values.shape[2]):
        reference = slow_reference.of_unit(
            [slow_reference.examples_of(values, unit, mask)],
            fires=lambda y: y > limit or (name not in ("relu", "relu6") and y < -limit),
            function=name,
            gradients=None if gradients is None else [slow_reference.examples_of(gradients, unit, mask)],
        )
        got = {
            "active_fraction": seen.fired_examples[unit] / seen.examples,
            "active_positions": seen.fired_positions[unit] / seen.positions,
            "mean": seen.mean[unit],
            "mean_abs": seen.sum_abs[unit] / seen.positions,
            "std": math.sqrt(seen.squares[unit] / seen.positions),
            "min": seen.min[unit],
            "max": seen.max[unit],
        }
        if seen.saturated is not None:
            got["saturated_fraction"] = seen.saturated[unit] / seen.positions
        if seen.gradient_squares is not None:
            got["gradient"] = math.sqrt(seen.gradient_squares[unit] / seen.positions)
        assert got == pytest.approx(reference, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(7, 3), (5, 4, 3), (3, 2, 4, 5), (2, 2, 2, 3, 4)])
def test_agrees_with_plain_loops_whatever_the_layout(name, shape):
    rng = np.random.default_rng(len(shape))
    values = FUNCTIONS[name](rng.normal(0, 4, shape)).astype(np.float32)
    gradients = rng.normal(size=shape).astype(np.float32)
    flat = values.reshape(shape[0], -1, shape[-1])
    for axis in range(1, len(shape)):
        seen = observe_arrays(
            np.moveaxis(values, -1, axis),
            activation_function=name,
            unit_axis=axis,
            gradients=np.moveaxis(gradients, -1, axis),
        )
        assert (seen.examples, seen.positions) == (shape[0], flat.shape[0] * flat.shape[1])
        check(seen, flat, name, gradients=gradients.reshape(flat.shape))


@pytest.mark.parametrize("name", ["relu", "tanh", None])
def test_padding_is_left_out(name):
    rng = np.random.default_rng(1)
    values, gradients = FUNCTIONS[name](rng.normal(0, 2, (6, 5, 3))), rng.normal(size=(6, 5, 3))
    mask = rng.random((6, 5)) < 0.5
    mask[2] = False  # an example that is padding throughout is none
    mask[3] = True
    values[~mask], gradients[~mask] = 1e6, np.nan
    seen = observe_arrays(values, activation_function=name, gradients=gradients, mask=mask)
    assert seen.examples == np.count_nonzero(mask.any(axis=1))
    assert seen.positions == mask.sum()
    check(seen, values, name, gradients=gradients, mask=mask)


def test_a_mask_over_examples_drops_whole_examples():
    values = np.arange(24.0).reshape(4, 3, 2)
    kept = observe_arrays(values, activation_function="relu", mask=np.array([True, False, True, False]))
    alone = observe_arrays(values[[0, 2]], activation_function="relu")
    assert kept.examples == 2
    np.testing.assert_array_equal(kept.mean, alone.mean)
    np.testing.assert_array_equal(kept.fired_examples, alone.fired_examples)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int8, np.int64])
def test_every_type_is_calculated_in_float64(dtype):
    values = (np.arange(60).reshape(20, 3) % 7).astype(dtype)
    seen = observe_arrays(values, activation_function="relu")
    check(seen, values[:, None, :], "relu")
    assert seen.mean.dtype == seen.squares.dtype == np.float64


@pytest.mark.parametrize("value", [3.3, 1e6 + 0.1, -1e-20, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_has_a_spread_of_exactly_zero(value, dtype):
    seen = observe_arrays(np.full((1000, 77), value, dtype), activation_function=None)
    assert not seen.squares.any()
    assert (seen.mean == dtype(value)).all()


def test_a_small_spread_far_from_zero_is_kept():
    values = (1e4 + np.random.default_rng(0).normal(0, 1e-3, (5000, 2))).astype(np.float64)
    seen = observe_arrays(values, activation_function=None)
    np.testing.assert_allclose(np.sqrt(seen.squares / seen.positions), values.std(axis=0), rtol=1e-6)


def test_a_gradient_too_small_to_be_squared_in_float32_is_not_zero():
    gradients = np.full((4, 2), 1e-30, np.float32)
    gradients[:, 1] = 0
    seen = observe_arrays(np.ones((4, 2)), activation_function="relu", gradients=gradients)
    assert seen.gradient_squares[0] > 0
    assert seen.gradient_squares[1] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_shows_in_its_unit_alone(bad):
    values = np.random.default_rng(0).random((50, 4)).astype(np.float32)
    values[7, 2] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = observe_arrays(values, activation_function="tanh")
    for number in (seen.mean, seen.sum_abs, seen.max + seen.min):
        assert (np.isfinite(number) == [True, True, False, True]).all()
    assert (seen.fired_examples[[0, 1, 3]] > 0).all()


def test_nothing_to_see_is_no_observation():
    for shape in [(0, 3), (4, 0, 3), (0, 5, 3)]:
        assert observe_arrays(np.zeros(shape), activation_function="relu") is None
    nothing = np.zeros((4, 2), bool)
    assert observe_arrays(np.ones((4, 2, 3)), activation_function="relu", mask=nothing) is None


def test_firing_is_told_against_the_scale_of_the_previous_record():
    values = np.array([[0.002, 0.0005, -0.002, 1.0]])
    seen = observe_arrays(values, activation_function="tanh", scale=1.0)
    assert seen.fired_positions.tolist() == [1, 0, 1, 1]
    strict = Thresholds(fired_scale=0.5)
    seen = observe_arrays(values, activation_function="tanh", scale=1.0, thresholds=strict)
    assert seen.fired_positions.tolist() == [0, 0, 0, 1]


@given(arrays.arrays(np.float32, (5, 3), elements=st.floats(-(2.0**50), 2.0**50, width=32)))
@settings(max_examples=50, deadline=None)
def test_moments_hold_for_any_numbers(values):
    seen = observe_arrays(values, activation_function="relu")
    exact = values.astype(np.float64)
    size = np.abs(exact).max(axis=0)
    assert (np.abs(seen.mean - exact.mean(axis=0)) <= 1e-12 * size).all()
    assert (seen.squares >= 0).all()
    assert (np.abs(seen.squares / 5 - exact.var(axis=0)) <= 1e-9 * np.square(size)).all()
    np.testing.assert_array_equal(seen.min, exact.min(axis=0))
    np.testing.assert_array_equal(seen.max, exact.max(axis=0))


def test_squares_of_many_rows_add_up_over_chunks():
    values = np.random.default_rng(3).normal(size=(30_000, 5)).astype(np.float16)
    np.testing.assert_allclose(squared_sum(values), (values.astype(np.float64) ** 2).sum(axis=0), rtol=1e-12)


def test_inputs_are_summed_up():
    values = np.random.default_rng(0).normal(100, 3, (40, 6, 2)).astype(np.float32)
    count, mean, squares, low, high = summarise_inputs(values)
    assert count == values.size
    assert (low, high) == (values.min(), values.max())
    assert (mean, math.sqrt(squares / count)) == pytest.approx((values.mean(dtype=float), values.std(dtype=float)))
    assert summarise_inputs(np.zeros((0, 3))) is None


@pytest.mark.parametrize("name", sorted(BOUNDED))
@pytest.mark.parametrize("share", [0.3, 0.01, 1e-4, 1e-7, 1e-12])
def test_the_limits_are_where_the_derivative_crosses_the_share(name, share):
    lower, upper = output_limits(name, share)
    holds = slow_reference.SATURATED[name]
    assert holds(upper, share)
    assert upper == np.float32(upper)
    inside = float(np.nextafter(np.float32(upper), np.float32(0)))
    assert not holds(inside, share)
    if name == "relu6":
        assert lower == -math.inf
    else:
        assert holds(lower, share)


def test_functions_without_bounds_never_saturate():
    assert output_limits("relu", 0.01) == output_limits(None, 0.01) == (-math.inf, math.inf)
    with pytest.raises(InvalidArgumentError, match="above 0 and below 1"):
        output_limits("tanh", 0.0)


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [("ReLU", "relu"), ("LeakyReLU", "leaky_relu"), ("Swish", "silu"), ("hardtanh", "hard_tanh"), ("ReLU6", "relu6")],
)
def test_frameworks_names_become_the_fields(given_name, expected):
    assert field_name(given_name) == expected


def test_an_unknown_function_is_refused_with_what_is_close():
    assert field_name("snake") is None
    with pytest.raises(UnknownNameError, match="Did you mean 'relu'"):
        known_name("rellu")

"""Tiles of a heatmap against a slow and obvious reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadunits_tb.reading.tiles import TILE_ROWS, levels_of, rows_of, state_tile, statistic_tile, tiles_of
from deadunits_tb.record import from_bfloat16_bits, round_bfloat16
from deadunits_tb.units import SEVERITY, UnitState


@pytest.mark.parametrize(
    ("units", "levels"), [(1, 1), (256, 1), (257, 2), (1024, 2), (1025, 3), (5000, 4), (1_000_000, 7)]
)
def test_levels_end_where_one_tile_holds_all_rows(units: int, levels: int) -> None:
    assert levels_of(units) == levels
    assert rows_of(units, levels - 1) <= TILE_ROWS
    assert levels == 1 or rows_of(units, levels - 2) > TILE_ROWS
    assert tiles_of(units, levels - 1) == 1


def random_states(units: int, records: int, seed: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.choice(len(UnitState), (records, units), p=[0.7] + [0.3 / 11] * 11).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(units=st.integers(1, 2600), records=st.integers(1, 4), seed=st.integers(0, 99))
def test_states_of_all_tiles_and_levels(units: int, records: int, seed: int) -> None:
    states = random_states(units, records, seed)
    order = np.random.default_rng(seed + 1).permutation(units)
    for level in range(levels_of(units)):
        size = 4**level
        for tile in range(tiles_of(units, level)):
            found = state_tile(lambda u: states[:, u], order, level, tile)
            rows = range(256 * tile, min(256 * (tile + 1), rows_of(units, level)))
            for place, row in enumerate(rows):
                members = states[:, order[row * size : (row + 1) * size]]
                if level == 0:
                    assert found[place].tolist() == members[:, 0].tolist()
                    continue
                for record, here in enumerate(members):
                    worst = max(here, key=lambda code: SEVERITY[code])
                    alarms = sum(UnitState(int(code)).level == 3 for code in here)
                    assert found[0, place, record] == worst
                    assert found[1, place, record] == -(-255 * alarms // len(here))
            assert found.shape == ((len(rows), records) if level == 0 else (2, len(rows), records))


def test_one_dead_unit_in_a_million_is_seen() -> None:
    units = 1_000_000
    asked: list[int] = []

    def columns(some: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        asked.append(len(some))
        return np.where(some == 654_321, np.uint8(UnitState.DEAD), np.uint8(0))[None, :]

    worst, share = state_tile(columns, np.arange(units), levels_of(units) - 1, 0)
    assert worst.shape == (245, 1)
    assert (worst == UnitState.DEAD).sum() == 1
    assert share.max() == 1  # 1 of 4,096 is less than 1 in 255, and shown as one
    assert (share > 0).sum() == 1
    assert max(asked) <= 16_384  # never all units at once


@settings(max_examples=25, deadline=None)
@given(units=st.integers(1, 1500), records=st.integers(1, 4), seed=st.integers(0, 99))
def test_statistics_of_all_levels(units: int, records: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = round_bfloat16(rng.normal(size=(records, units)) * 10.0 ** rng.integers(-9, 9))
    values[rng.random(values.shape) < 0.1] = np.nan
    values[rng.integers(records)] = np.nan  # a record without statistics
    order = rng.permutation(units)
    for level in range(levels_of(units)):
        tiles = [statistic_tile(lambda u: values[:, u], order, level, t) for t in range(tiles_of(units, level))]
        found = from_bfloat16_bits(np.concatenate(tiles))
        assert all(tile.dtype == np.uint16 for tile in tiles)
        assert found.shape == (rows_of(units, level), records)
        for row in range(len(found)):
            members = values[:, order[row * 4**level : (row + 1) * 4**level]]
            for record, here in enumerate(members):
                known = here[~np.isnan(here)].astype(np.float64)
                expected = round_bfloat16(np.array([known.mean()]))[0] if known.size else np.nan
                np.testing.assert_allclose(
                    found[row, record], expected, rtol=0.008, atol=1e-12 * np.abs(known).max(initial=0)
                )


def test_infinity_and_large_values_survive() -> None:
    values = np.full((1, 1024), 3e38, np.float32)
    values[0, 3] = np.inf
    values[0, 8], values[0, 9] = np.inf, -np.inf
    found = from_bfloat16_bits(statistic_tile(lambda u: values[:, u], np.arange(1024), 1, 0))[:, 0]
    assert np.isinf(found[0])
    assert found[1] == pytest.approx(3e38, rel=0.01)  # the sum of four such would overflow float32
    assert np.isnan(found[2])
    assert values[0, 0] == np.float32(3e38)  # the source is left as it was

"""Which records stand for all of them where there are more records than columns to draw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deadunits_tb.record import Int

COLUMNS = 240
"""Columns of an overview strip or a distribution: enough for its width, few enough to send at once."""


def evenly_spaced(records: int, columns: int = COLUMNS) -> Int:
    """Indices of at most ``columns`` records, evenly spaced, the first and the last among them."""
    if records <= columns:
        return np.arange(records)
    return np.round(np.linspace(0, records - 1, columns)).astype(np.int64)


def peaks(weight: npt.NDArray[np.generic], columns: Int) -> Int:
    """For each column, the heaviest record since the column before it; the latest of equals.

    Args:
        weight: ``[records]`` what must not vanish, such as the units in an alarm state.
        columns: ``[columns]`` ascending record indices, as :func:`evenly_spaced` gives.

    Returns:
        ``int64 [columns]`` record indices.
    """
    starts = np.concatenate(([0], columns[:-1] + 1)) if len(columns) else columns
    return np.array(
        [stop - int(np.argmax(weight[start : stop + 1][::-1])) for start, stop in zip(starts, columns, strict=True)],
        np.int64,
    )

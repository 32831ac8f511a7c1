"""Two runs that were recorded in different ways, and should have been recorded alike."""

from __future__ import annotations

import numpy as np

from deadunits_tb.reading.run_api import Run


def assert_same_records(one: Run, other: Run) -> None:
    """All that was recorded is equal to the last bit."""
    assert [(each.step, each.examples, each.loss, each.inputs) for each in one.records] == [
        (each.step, each.examples, each.loss, each.inputs) for each in other.records
    ]
    assert one.records[-1].skipped == other.records[-1].skipped
    assert one.records[-1].errors == other.records[-1].errors == ()
    assert list(one.layers) == list(other.layers)
    for name, layer in one.layers.items():
        wanted = other.layers[name]
        assert layer.info == wanted.info
        assert set(layer.statistics) == set(wanted.statistics)
        np.testing.assert_array_equal(layer.states, wanted.states)
        for statistic in layer.statistics:
            np.testing.assert_array_equal(layer.statistic(statistic), wanted.statistic(statistic), err_msg=name)

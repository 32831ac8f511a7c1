"""What the route on two runs answers. ``docs/http_api.md`` is the contract."""

from __future__ import annotations

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.reading.comparison import StatesOf, comparison_json
from deadunits_tb.reading.comparison import compare as compare_runs
from deadunits_tb.reading.history import RunHistory
from deadunits_tb.serving.histories import Histories
from deadunits_tb.serving.parameters import Query
from deadunits_tb.serving.responses import Reply, json_reply


def compare(histories: Histories, query: Query) -> Reply:
    """``/compare``."""
    first = histories.run(query)
    other = query.text("other")
    if other == first.run:
        raise InvalidArgumentError(f"a run does not differ from itself: {other[:80]!r}")
    of_other = query.replace(run=other)
    second = histories.run(of_other)
    thresholds = query.optional("thresholds") or ""

    def answer() -> Reply:
        judge = _judge(histories, query, first), _judge(histories, of_other, second)
        found = comparison_json(compare_runs(first, second, states_of=judge))
        return json_reply({**found, "versions": [first.version, second.version]})

    keys = histories.key(query, first), histories.key(of_other, second)
    return histories.replies.get(("compare", *keys, thresholds), answer)


def _judge(histories: Histories, query: Query, run: RunHistory) -> StatesOf:
    return lambda layer: histories.judged(query, run, run.layers[layer]).states

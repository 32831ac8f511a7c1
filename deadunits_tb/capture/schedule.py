"""Which training steps are observed, and which observations become records. Pure logic: no clock, no framework."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from deadunits_tb.capture.arguments import check_share, check_whole
from deadunits_tb.record import NEVER

OPENING_SECONDS = 2.0
"""Own work that a run may spend, tracing and compiling included, beyond its share of the time."""
OPENING_EXAMPLES = 3000
"""Observed examples after which the opening ends: enough for the first verdicts."""
LATER_SECONDS = 0.5
"""Part of that which the opening leaves for the rest of the run, even where compiling took more than there was."""
_OPENING_INTERVAL = 4
_UNTIMED_INTERVAL = 10
_HORIZON = 0.5
_SAMPLES = 64
_OUTLIER = 10
_WORST_COST = 100

RECORDS = 1000
"""Records that a run of known length aims at."""
MOST_RECORDS = 2000
"""Records that a run never exceeds."""
EXAMPLES_PER_RECORD = 8
"""Fewer examples than this wait for more, except those of the very first observation."""
_EARLY_RECORDS = 200
_DENSE_RECORDS = 600
_RECORDS_PER_DOUBLING = 70
_RESUMED_RECORDS = 500


class ObservationSchedule:
    """Chooses the observed steps so that the monitor's own work stays within its share of the training time.

    The first step is always observed. With ``every`` every n-th follows. Otherwise, while the opening allowance lasts
    and :data:`OPENING_EXAMPLES` were not yet seen, every step (every fourth once half the allowance is spent). Where
    compiling takes more than half of it, it lasts for one second more: a short run should not end without a verdict.

    From then on what is left of the allowance, and the share of the training time, are spread evenly over the rest of
    the run; where its length is unknown, over the next half of the steps made so far, again and again. So a short
    run is watched to its end, and a long one works off what its opening has overspent.

    Args:
        every: Interval that the user fixed, None to choose.
        max_overhead: Share of the training time that observing may take, above 0 and at most 1.
        initial_step: The first step of this process.
        total_steps: The step at which training is expected to end, counted like ``step``; None if unknown.

    Raises:
        InvalidArgumentError: An argument is out of its bounds.
    """

    def __init__(
        self,
        *,
        every: int | None = None,
        max_overhead: float = 0.01,
        initial_step: int = 0,
        total_steps: int | None = None,
    ) -> None:
        check_whole("every", every, 1, none="to choose by cost")
        check_share("max_overhead", max_overhead)
        self._every = None if every is None else int(every)
        self._share = float(max_overhead)
        self._first = self._next = initial_step
        self._last, self._ended = initial_step - 1, 0
        self._pace = 1.0
        self._total_steps = total_steps
        self._examples = 0
        self._costs: deque[float] = deque(maxlen=4 * _SAMPLES)  # they vary more than steps do
        self._plain_steps: deque[float] = deque(maxlen=_SAMPLES)
        self._observed_steps: deque[float] = deque(maxlen=_SAMPLES)
        self._observations = 0
        self._ordinary = 0.0
        self._opening = every is None
        self._chosen = False
        self.own_seconds = 0.0
        """The monitor's own work so far."""
        self.opening_seconds = 0.0
        """Its work in the opening; where the interval is fixed, in the first observation, which traces and compiles."""
        self.training_seconds = 0.0
        """Duration of all training steps so far, the monitor's own work included."""
        self.interval = self._every or 1
        """Steps from one observation to the next, at present."""

    def expect(self, total_steps: int | None) -> None:
        """Learn, or correct, the step at which training is expected to end."""
        self._total_steps = total_steps

    def wants(self, step: int) -> bool:
        """Whether a step is to be observed."""
        return step >= self._next

    def observed(self, step: int, *, examples: int, seconds: float) -> None:
        """Note an observation, and choose the next.

        Args:
            step: The observed step.
            examples: That became known since the last call; they may be of earlier steps.
            seconds: The monitor's own work since the last call.
        """
        self._observations += 1
        self._pace = max(1, step - self._last) / max(1, self._ended + (self._observations == 1))
        self._last, self._ended = step, 0
        self._examples += examples
        self.own_seconds += seconds
        if self._opening or self._observations == 1:
            self.opening_seconds += seconds
        if self._observations > 1:  # the first one holds tracing and compiling, and says nothing about the next
            self._costs.append(seconds)
            usual = seconds <= _OUTLIER * min(self._costs)  # nearly always, and the median costs more
            self._ordinary += seconds if usual else min(seconds, _OUTLIER * median(self._costs))
        if self._opening and (self._examples >= OPENING_EXAMPLES or self._spent(1.0)):
            self._opening = False
            self._ordinary = 0.0
        if self._every is None:
            self.interval = self._choose(step)
        self._next = step + self.interval

    def trained(self, *, observed: bool, seconds: float) -> None:
        """Note the duration of what comes between two of :meth:`wants`, the monitor's own work in it included.

        That is a training step, or several where they are run together or counted in another way: the schedule learns
        from the numbers of observed steps by how much they rise each time.
        """
        self._ended += 1
        self.training_seconds += seconds
        (self._observed_steps if observed else self._plain_steps).append(seconds)

    def _choose(self, step: int) -> int:
        if self._opening:
            return _OPENING_INTERVAL if self._spent(0.5) else 1
        cost, duration = self._cost(), self._duration()
        if cost is None:
            return _OPENING_INTERVAL
        if not duration:
            return _UNTIMED_INTERVAL
        rest = self._rest(step)
        allowed = OPENING_SECONDS + self._share * (self.training_seconds + rest * duration)
        left = max(allowed - self.own_seconds, LATER_SECONDS - self._ordinary)
        if left >= cost:
            wanted = max(1, math.ceil(rest * cost / left))
        else:  # wait until it can be afforded
            wanted = math.ceil(rest + (cost - left) / (self._share * duration))
        chosen, self._chosen = self._chosen, True
        return min(wanted, 2 * self.interval) if chosen else wanted

    def _rest(self, step: int) -> float:
        """Steps over which to spread what is left."""
        if self._total_steps is not None and self._total_steps > step:
            return self._total_steps - step
        return max(1.0, _HORIZON * (step + 1 - self._first))

    def _spent(self, share: float) -> bool:
        """Whether the opening has spent a share of what it may. Half of the allowance is kept from compiling."""
        most = OPENING_SECONDS - LATER_SECONDS
        return self._ordinary >= share * OPENING_SECONDS / 2 and self.own_seconds >= share * most

    def _cost(self) -> float | None:
        if not self._costs:
            return None
        # A mean, as records cost more than other observations, but without outliers.
        limit = _WORST_COST * median(self._costs)
        return sum(min(cost, limit) for cost in self._costs) / len(self._costs)

    def _duration(self) -> float:
        """Of a step without the monitor; 0 if unknown."""
        if len(self._plain_steps) >= 3:
            return median(self._plain_steps) / self._pace
        if not self._observed_steps or not self._costs:
            return 0.0
        return max(0.0, median(self._observed_steps) - median(self._costs)) / self._pace


class RecordSchedule:
    """Chooses the observations that become records: about 1,000, never more than :data:`MOST_RECORDS`.

    Where the length of the run is known: the first 200 observations, then evenly spread over the rest. Otherwise the
    first 600, from then on the distance doubles every 70 records, towards the end sooner. A resumed run makes its share
    of the 1,000, or goes on as if 500 had been spread over the steps until then. The last one is kept for the end.

    Args:
        initial_step: The first step of this process.
        total_steps: The step at which training is expected to end, counted like ``step``; None if unknown.
    """

    def __init__(self, *, initial_step: int = 0, total_steps: int | None = None) -> None:
        self._initial_step = initial_step
        self._total_steps = total_steps
        self._last = NEVER
        self._distance = 1.0
        self._stage = (0, initial_step)
        self._stage_end = _DENSE_RECORDS
        self._most = MOST_RECORDS - 1
        if initial_step > 0:
            self._distance = max(1.0, initial_step / _RESUMED_RECORDS)
            self._stage_end = _RECORDS_PER_DOUBLING
            self._most = MOST_RECORDS // 2 - 1
        self.records = 0
        """Records so far."""

    def expect(self, total_steps: int | None) -> None:
        """Learn, or correct, the step at which training is expected to end."""
        self._total_steps = total_steps

    def due(self, step: int) -> bool:
        """Whether an observation at this step should become a record, if there are enough examples."""
        if self.records == 0:
            return True
        return step > self._last and step - self._last >= self._distance and self.records < self._most

    def enough(self, examples: int) -> bool:
        """Whether a window holds enough examples for a record."""
        return examples >= (EXAMPLES_PER_RECORD if self.records else 1)

    def recorded(self, step: int) -> None:
        """Note a record."""
        self.records += 1
        self._last = step
        total, first = self._total_steps, self._initial_step
        if total is not None and step < total:
            share = (total - first) / total  # a resumed run has made the others before
            left = max(1.0, RECORDS * share - self.records)
            early = self.records < _EARLY_RECORDS * (first == 0)
            self._distance = 1.0 if early else max(1.0, round((total - step) / left))
            self._begin_stage(step)
        elif self.records >= self._stage_end:
            records, begin = self._stage
            self._distance = 2 * max(self._distance, (step - begin) / (self.records - records))
            self._begin_stage(step)

    def _begin_stage(self, step: int) -> None:
        self._stage = (self.records, step)
        self._stage_end = self.records + max(1, min(_RECORDS_PER_DOUBLING, (self._most - self.records) // 10))

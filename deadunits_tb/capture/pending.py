"""Observed steps that wait on the device until a record is due."""

from __future__ import annotations

from deadunits_tb.capture.observation import Deferred
from deadunits_tb.capture.packed import PackedStep, unpack_steps
from deadunits_tb.capture.run_layers import RunLayers
from deadunits_tb.capture.run_window import RunWindow

MOST_PENDING = 32
"""Observations that may wait on the device; more are fetched although no record is due. Many are taken in at once for
little more than one."""
PENDING_NUMBERS = 1 << 21
"""Fewer wait where they would be more numbers than this, of about 14 for each unit."""
FEWEST_PENDING = 8


class PendingSteps:
    """A queue of observed steps, in their order."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Deferred]] = []
        self._most = MOST_PENDING

    @property
    def full(self) -> bool:
        """Whether no more should wait."""
        return len(self._waiting) >= self._most

    def make_room_for(self, units: int) -> None:
        """Learn of how many units each of them tells."""
        self._most = max(FEWEST_PENDING, min(MOST_PENDING, PENDING_NUMBERS // max(1, 14 * units)))

    def add(self, number: int, deferred: Deferred) -> None:
        """Let a step wait, by its number."""
        self._waiting.append((number, deferred))

    def drop(self) -> None:
        """Forget them: nobody wants to know any more."""
        self._waiting.clear()

    def take_in(self, layers: RunLayers, window: RunWindow) -> int:
        """Fetch what waits, and add it up.

        Args:
            layers: That take in what was seen of each.
            window: That takes in the rest.

        Returns:
            Its examples.
        """
        waiting, self._waiting = self._waiting, []
        packed: list[PackedStep] = []
        for _, deferred in waiting:
            if not isinstance(deferred, PackedStep):
                break
            packed.append(deferred)
        together = unpack_steps(packed) if len(packed) > 1 else None
        examples = 0
        if together is not None:
            layers.add_steps([number for number, _ in waiting[: len(packed)]], together)
            examples += window.add_steps(len(packed), together)
            waiting = waiting[len(packed) :]
        for number, deferred in waiting:
            observation = deferred()
            layers.add(number, observation)
            examples += window.add(observation)
        return examples

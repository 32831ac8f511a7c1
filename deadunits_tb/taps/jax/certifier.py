"""What can be proved of the silent units of a loop in JAX: when their weights are looked at, and what is said if not.

The ranges of the inputs come with the statistics of each observed step, those of all layers whose way to a ReLU is
known. The weights are looked at in steps that become records, of silent units alone: before the optimizer's step, as
the user's loop handed the parameters over after the step before, and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deadunits_tb.capture.silent_layers import RARER
from deadunits_tb.certificate import PROVABLE, Certificates
from deadunits_tb.record import NEVER, Int
from deadunits_tb.taps.jax.bounds import Ranges, certified
from deadunits_tb.taps.jax.looks import Look, Unlookable, look
from deadunits_tb.taps.jax.moments import Moments
from deadunits_tb.taps.jax.plan import Layer, Plan
from deadunits_tb.taps.jax.statistics import Statistics

_NO_WEIGHTS = "its weights are not known: say where they are with Layer(weights=...)"
_NO_INPUTS = "what it takes in is not known: say Layer(inputs=...), and hand it to observe(inputs=...)"
_NOT_HANDED = "what it takes in was not handed to observe(inputs=...) since units of it fell silent"
_NO_PARAMS = "the writer was not given the parameters: call write(step, statistics, params=params)"
_NO_BEFORE = (
    "what still moves its units is not known, which takes the parameters before a step, too: call begin(step) before "
    "and write(step, statistics, params=params) after every step, the unobserved ones too"
)


class Certifier:
    """Of one run. Nothing here raises: a failure of ours ends certificates, and nothing else.

    Args:
        plan: The layers.
        unproved: Name of a layer of which nothing can be proved to the reason.
    """

    def __init__(self, plan: Plan, unproved: Mapping[str, str]) -> None:
        self._layers = {name: layer for name, layer in plan.layers if layer.activation_function in PROVABLE}
        self._reasons = {name: unproved.get(name) or _reason(layer) for name, layer in self._layers.items()}
        self._ranges: dict[str, Ranges] = {}
        self._handed: tuple[Any, Any] | None = None
        self._before: dict[str, Look | str] = {}
        self._begun = NEVER
        self._told: dict[str, tuple[int, Int]] = {}
        self._failed = ""

    def hand_over(self, params: Any, state: Any) -> None:
        """A step has been made: what it gave is what the next one begins with. Kept until :meth:`begin`."""
        self._handed = None if params is None or not self._layers or self._failed else (params, state)

    def begin(self, step: int, silent: Mapping[str, Int], *, due: bool) -> None:
        """Just before a step.

        Args:
            step: Its number.
            silent: Layer to its silent units at the last record.
            due: Whether a record is expected of it.
        """
        handed, self._handed, self._before, self._begun = self._handed, None, {}, step
        if due and handed is not None and silent:
            self._before = self._looks(self._due(step, silent), *handed)

    def end(
        self, step: int, silent: Mapping[str, Int], params: Any, state: Any
    ) -> Callable[[], Mapping[str, Certificates]] | None:
        """Just after a step of which a record is expected.

        Args:
            step: Its number.
            silent: As in :meth:`begin`.
            params: After the step, None if they are not at hand.
            state: Of the optimizer, likewise.

        Returns:
            Fetches what can be proved of each layer with silent units that is due; None if there are none.
        """
        due, before, steps = self._due(step, silent), self._before, step + 1 - self._begun
        if not due:
            return None
        self._told |= {name: (step, units) for name, units in due.items()}
        after = self._looks(due, params, state)

        def fetch() -> Mapping[str, Certificates]:
            return {name: self._proved(name, before.get(name, _NO_BEFORE), after[name], step, steps) for name in due}

        return fetch

    def take_in(self, step: int, statistics: Statistics, silent: Mapping[str, Int]) -> None:
        """The statistics of an observed step were fetched."""
        for name in self._layers:
            fields = statistics.layers[name]
            if name not in silent:
                self._ranges.pop(name, None)
            elif "inputs_low" in fields and fields["inputs_eps"] > 0:
                low, high = (np.asarray(fields[each], np.float64) for each in ("inputs_low", "inputs_high"))
                self._ranges.setdefault(name, Ranges(low, high, step)).add(low, high, float(fields["inputs_eps"]))

    def _due(self, step: int, silent: Mapping[str, Int]) -> dict[str, Int]:
        """Layers that are looked at: when other units are silent, and otherwise ever more seldom."""
        due = {}
        for name, units in silent.items():
            told, known = self._told.get(name, (NEVER, None))
            again = known is None or step >= RARER * told or not np.array_equal(known, units)
            if name in self._layers and again:
                due[name] = units
        return due

    def _looks(self, due: Mapping[str, Int], params: Any, state: Any) -> dict[str, Look | str]:
        found: dict[str, Look | str] = {}
        moments: Moments | None = None
        for name, units in due.items():
            found[name] = self._failed or self._reasons[name] or (_NO_PARAMS if params is None else "")
            if found[name]:
                continue
            try:
                moments = moments or Moments(state, params)
                found[name] = look(name, self._layers[name], units, params, moments)
            except Unlookable as reason:
                found[name] = str(reason)
            except Exception as error:
                found[name] = self._give_up(error)
        return found

    def _proved(self, name: str, before: Look | str, after: Look | str, step: int, steps: int) -> Certificates:
        if isinstance(after, str):
            return Certificates.none(step, after)
        ranges = self._ranges.get(name)
        if ranges is None:
            return Certificates.none(step, _NOT_HANDED)
        if isinstance(before, str) or not np.array_equal(before.units, after.units):
            return Certificates.none(step, before if isinstance(before, str) else _NO_BEFORE)
        try:
            return certified(self._layers[name], ranges, before, after, step=step, steps=steps)
        except Exception as error:
            return Certificates.none(step, self._give_up(error))

    def _give_up(self, error: Exception) -> str:
        self._failed = f"the monitor could not: {type(error).__name__}: {error}"
        self._handed = None
        return self._failed


def _reason(layer: Layer) -> str:
    """Why nothing can be proved of a layer as the user describes it, empty if something can."""
    if layer.weights is None:
        return _NO_WEIGHTS
    return _NO_INPUTS if layer.inputs is None else ""

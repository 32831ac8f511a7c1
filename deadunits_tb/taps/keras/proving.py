"""What can be proved of the silent units of a Keras model: its parameters around a step, and the ranges of its inputs.

Of layers without silent units nothing is looked at. For the others, each observed step reduces the ranges of their
inputs (:mod:`.ranges`); in steps that become records, ever more seldom, the parameters of the silent units are read
before the optimizer's step and after it. A failure of ours ends certificates, and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from deadunits_tb.capture.packed import Layout
from deadunits_tb.capture.silent_layers import Look, Parameters, SilentLayers, Summing
from deadunits_tb.certificate import Certificates
from deadunits_tb.record import Int
from deadunits_tb.taps.columns import Columns
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.layers import Survey, UnitLayer
from deadunits_tb.taps.keras.sums import computed_layers, summing
from deadunits_tb.taps.keras.trails import StepTrace
from deadunits_tb.taps.keras.treatment import trainers, treatment
from deadunits_tb.taps.keras.ways import Way

Values = Callable[[keras.Variable], Any]
"""Gives the present value of a variable, on the device."""
_UNKNOWN = "its weights are not known"
_NOT_SEEN = "it was not called in an observed step"
_ELSEWHERE = "it is called inside a loop or a function of its own, where its inputs are not seen"
_SEVERAL = "it is followed by different things in different calls"
_NO_STEP = "in the step that was looked at the optimizer changed no weights, so what moves its units was not seen"


class Picks(Protocol):
    """What reading parameters needs of a backend."""

    @property
    def accelerated(self) -> bool:
        """Whether matrix units may take float32 with ten bits."""

    def pick(self, value: Any, columns: Columns, units: Int) -> npt.NDArray[np.floating]:
        """``[rows, k]`` of the value of a variable, on the host."""

    def optimizers(self) -> Iterable[keras.optimizers.Optimizer]:
        """All that may train the model."""


class Proving:
    """Proves what it can of one model's silent units.

    Args:
        model: Built.
        survey: Its layers.
        picks: Of the backend.
    """

    def __init__(self, model: keras.Model, survey: Survey, picks: Picks) -> None:
        self._by_name: Mapping[str, UnitLayer] = {one.name: one for one in survey.watched}
        self._computed = computed_layers(keras_private.sublayers(model))
        self._picks = picks
        self._layers = SilentLayers()
        self._ways: dict[str, Way] = {}
        self._open: dict[str, _Opened | str] = {}
        self._looks: dict[str, Look | str] = {}
        self._proved: set[str] = set()
        self._failure = ""
        self._step = 0
        self.seconds = 0.0
        """Spent here since it was last set to zero."""

    def begin(self, step: int, silent: Mapping[str, Int]) -> bool:
        """An observed step begins.

        Args:
            step: Its number.
            silent: Layer to its silent units.

        Returns:
            Whether its ranges are wanted.
        """
        self._step, self._open, self._looks = step, {}, {}
        return self._layers.begin(step, silent) and not self._failure

    def before(self, values: Values) -> None:
        """The optimizer is about to change the weights, in a step that becomes a record."""
        for name in self._layers.due(self._step):
            self._open[name] = self._guarded(self._opened, name, values) or self._failure

    def after(self, values: Values) -> None:
        """It has."""
        for name, opened in self._open.items():
            if isinstance(opened, str):
                self._looks[name] = opened
                continue
            look = self._guarded(opened.close, values) or self._failure
            if look != _NO_STEP or name not in self._proved:
                self._looks[name] = look
        self._open = {}

    def learn(self, traces: Iterable[StepTrace]) -> None:
        """Take in how the layers of newly traced steps are followed."""
        for trace in traces:
            ways: dict[str, Way] = dict.fromkeys(trace.elsewhere, Way(lost=_ELSEWHERE))
            for trail in trace.trails:
                name = trail.layer.name
                known = ways.setdefault(name, trail.way)
                if known is not trail.way and (trail.way.lost or not known.is_like(trail.way)):
                    ways[name] = known if known.lost else Way(lost=trail.way.lost or _SEVERAL)
            for name, way in ways.items():
                known = self._ways.setdefault(name, way)
                if not known.is_like(way):
                    self._ways[name] = Way(lost=way.lost or known.lost or _SEVERAL)

    def take_in(self, layout: Layout, vector: npt.NDArray[np.floating]) -> tuple[Layout, npt.NDArray[np.floating]]:
        """Take in the ranges of a step that was fetched, and give it on."""
        if self._layers.silent and not self._failure:
            self._guarded(lambda: self._layers.take_in(layout.split(vector)))
        return layout, vector

    def prove(self, step: int) -> Mapping[str, Certificates]:
        """What is proved of the layers that were looked at in a step, once it and all before it are fetched."""
        looks, self._looks = self._looks, {}
        found = {}
        for name, look in looks.items():
            held = self._guarded(self._layers.prove, step, name, look)
            held = Certificates.none(step, self._failure) if self._failure else held
            if held is not None:
                found[name] = held
                self._proved.add(name)
        return found

    def _guarded(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do some work of ours; None where it failed, now or before."""
        if self._failure:
            return None
        began = perf_counter()
        try:
            return work(*args)
        except Exception as error:
            self._failure = f"the monitor could not: {type(error).__name__}: {error}"
            return None
        finally:
            self.seconds += perf_counter() - began

    def _opened(self, name: str, values: Values) -> _Opened | str:
        unit_layer, way = self._by_name.get(name), self._ways.get(name)
        if unit_layer is None:
            return _UNKNOWN
        sums = summing(unit_layer, self._computed, accelerated=self._picks.accelerated)
        if isinstance(sums, str):
            return sums
        if way is None or way.lost:
            return _NOT_SEEN if way is None else way.lost
        return _Opened.at(unit_layer, sums, way, self._layers.silent[name], self._picks, values)


class _Opened:
    """A layer before the optimizer's step."""

    def __init__(
        self, unit_layer: UnitLayer, sums: Summing, way: Way, units: Int, picks: Picks, trained_by: list[Any]
    ) -> None:
        self._sums, self._units, self._picks, self._trained_by = sums, units, picks, trained_by
        self._columns = unit_layer.incoming[0].columns
        self._way, norm = way, way.norm
        self._variables = [unit_layer.incoming[0].variable, *_added(unit_layer, norm)]
        self._running = [] if norm is None else [norm.moving_mean, norm.moving_variance]
        self._before: Parameters | None = None
        self._steps: list[int] = []

    @classmethod
    def at(
        cls, unit_layer: UnitLayer, sums: Summing, way: Way, units: Int, picks: Picks, values: Values
    ) -> _Opened | str:
        """Look at a layer, or say why that is no use."""
        variables = [unit_layer.incoming[0].variable, *_added(unit_layer, way.norm)]
        trained_by = trainers(list(picks.optimizers()), variables)
        if isinstance(trained_by, str):
            return trained_by
        opened = cls(unit_layer, sums, way, units, picks, trained_by)
        opened._before, opened._steps = opened._parameters(values), opened._counted(values)
        return opened

    def close(self, values: Values) -> Look | str:
        """After the step: both together."""
        assert self._before is not None
        counted = self._counted(values)
        steps = {now - before for now, before in zip(counted, self._steps, strict=True)}
        accumulated = [one.gradient_accumulation_steps or 1 for one in self._optimizers]
        if min(steps) < 1 or any(now % each for now, each in zip(counted, accumulated, strict=True)):
            return _NO_STEP
        treatments = [
            treatment(one, variable, functools.partial(self._picked, values))
            for one, variable in zip(self._trained_by, self._variables, strict=True)
        ]
        return Look(
            self._units,
            self._sums,
            self._before,
            self._parameters(values),
            treatments,
            batch=self._way.batch,
            epsilon=0.0 if self._way.norm is None else float(self._way.norm.epsilon),
            steps=max(steps),
        )

    @property
    def _optimizers(self) -> list[Any]:
        return list({id(one): one for one in self._trained_by if one is not None}.values())

    def _counted(self, values: Values) -> list[int]:
        return [int(np.asarray(values(keras_private.steps_made(one)))) for one in self._optimizers]

    def _parameters(self, values: Values) -> Parameters:
        every = (*self._variables, *self._running)
        weights, *vectors = (None if one is None else self._picked(values, one) for one in every)
        assert weights is not None
        return Parameters(weights, *vectors)

    def _picked(self, values: Values, variable: keras.Variable) -> Any:
        """``[rows, k]`` of the weights, or what is shaped like them; ``[k]`` of all others."""
        shape = tuple(variable.shape)
        weights = shape == self._columns.shape and len(shape) > 1
        columns = self._columns if weights else Columns(shape, tuple(range(len(shape))))
        picked = self._picks.pick(values(variable), columns, self._units)
        return picked if weights else picked[0]


def _added(unit_layer: UnitLayer, norm: Any) -> list[keras.Variable | None]:
    """Bias, and scale and shift of a normalisation; None for each that there is not."""
    return [
        unit_layer.layer.bias,
        norm.gamma if norm is not None and norm.scale else None,
        norm.beta if norm is not None and norm.center else None,
    ]

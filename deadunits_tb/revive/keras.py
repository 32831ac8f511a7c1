"""Revival of dead units in Keras: a callback for ``fit``, and a function for any other loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from deadunits_tb.capture.arguments import check_whole
from deadunits_tb.capture.messages import one_line, say
from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.record import NEVER
from deadunits_tb.revive.keras_graph import Lost, Route, named_route, route
from deadunits_tb.revive.keras_optimizer import check_optimizer
from deadunits_tb.revive.keras_surgery import Surgery, check_initializer, prepare, unit_count
from deadunits_tb.revive.policy import (
    COOL_DOWN,
    MAX_SHARE,
    Candidate,
    RevivalPlan,
    RevivePolicy,
    by_hand,
    candidates,
    tell,
)
from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.layers import survey
from deadunits_tb.units import UnitState

Named = Mapping[str, "str | keras.Layer | Iterable[str | keras.Layer]"]


class ReviveCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is published without types
    """Gives dead units new weights while ``fit`` trains, without changing what the model computes at that moment.

    It goes by the records of a :class:`~deadunits_tb.keras.DeadUnitsCallback` in the same ``fit``, listed before it::

        units = DeadUnitsCallback("runs/mlp")
        model.fit(x, y, callbacks=[units, ReviveCallback(units)])

    Incoming weights come from the layer's own initializer, the bias becomes zero. Outgoing weights become zero, and
    what the unit sent on average moves into the bias behind them. Batch normalisation of the unit, and what the
    optimizer remembers of all these entries, is as if new.

    Dense and Conv layers of functional and sequential models can be revived; in others, name where their units go in
    ``next``. Wrong arguments raise before training; what fails later on is said once, and training goes on without it.

    Args:
        monitor: The callback whose records say which units to revive.
        every: Look every so many batches; None for the end of each epoch.
        layers: Names or objects of the layers that may be revived; None for all but output layers. One that is named
            here and cannot be revived is an error when training begins; others are ``refused`` in the plans.
        next: Layer to the layers that take in its units, all of them, where they cannot be found.
        norms: Layer to the batch normalisations that its units pass, where ``next`` names where they go.
        states: Units in these states are revived: ``dead``, ``saturated``, ``constant``, ``dormant``.
        max_share: Share of a layer that is revived at once at most, those units first that have been so for longest.
        cool_down: Steps between two revivals of one layer. There is none either before its next record.
        initializer: None for the layer's own; ``"auto"`` for He's or Glorot's by its activation function; or any that
            Keras understands.
        sample: A batch of inputs: the model is asked, in evaluation mode, what the units send. Without it only dead
            units of ReLU are revived, which send exact zeros.
        seed: For the new weights; None for another in each run.
        dry_run: Only make plans.
        verbose: 1 to print each plan.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value, or, when training begins, the optimizer is not
            known or a layer that was named cannot be revived.
        UnknownNameError: When training begins: there is no such layer.

    Attributes:
        plans: What was done so far, or with ``dry_run`` would have been.
    """

    def __init__(
        self,
        monitor: Any,
        *,
        every: int | None = None,
        layers: Iterable[str | keras.Layer] | None = None,
        next: Named | None = None,
        norms: Named | None = None,
        states: Iterable[str | UnitState] = ("dead",),
        max_share: float = MAX_SHARE,
        cool_down: int = COOL_DOWN,
        initializer: Any = None,
        sample: Any = None,
        seed: int | None = None,
        dry_run: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if not hasattr(monitor, "_monitor"):
            raise InvalidArgumentError(
                f"ReviveCallback takes the DeadUnitsCallback of the same fit, not {type(monitor).__name__}"
            )
        check_whole("every", every, 1, none="for the end of each epoch")
        check_whole("seed", seed, 0, none="for another in each run")
        self._watching, self._every = monitor, every
        self._layers = None if layers is None else _listed(layers)
        self._policy = RevivePolicy.of(states, max_share, cool_down)
        self._how: dict[str, Any] = {
            "next": next, "norms": norms, "initializer": check_initializer(initializer), "sample": sample,
            "random": np.random.default_rng(seed),
        }  # fmt: skip
        self._dry_run, self._verbose = dry_run, verbose
        self._batches, self._stopped = 0, False
        self.plans: list[RevivalPlan] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make sure that what was named can be revived."""
        self._stopped = False
        check_optimizer(self.model.optimizer)
        if self._layers is not None and keras_private.is_built(self.model):
            target = _Target(self.model, **self._how)
            for name in (target.name(layer) for layer in self._layers):
                target.check(name)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Revive, every so many batches."""
        self._batches += 1
        if self._every is not None and self._batches % self._every == 0:
            self._revive()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Revive, if that is the moment."""
        if self._every is None:
            self._revive()

    def _revive(self) -> None:
        if self._stopped:
            return
        try:
            plan = self._plan()
        except Exception as error:
            self._stopped = True
            say(f"deadunits_tb revives no more units and training goes on. {one_line('revive', error)}")
            return
        if plan:
            self.plans.append(plan)
            if self._verbose:
                print(f"\n{plan}", flush=True)  # noqa: T201  # below Keras's progress bar

    def _plan(self) -> RevivalPlan:
        monitor = self._watching._monitor
        if not isinstance(monitor, Monitor):
            raise InvalidArgumentError(
                "its DeadUnitsCallback is not part of this fit: give both to fit, that one first"
            )
        model = self.model  # brings the variables up to date where Keras runs on JAX
        target = _Target(model, **self._how)
        named = None if self._layers is None else {target.name(layer) for layer in self._layers}
        step = int(keras.ops.convert_to_numpy(model.optimizer.iterations)) - 1
        chosen, refused = candidates(monitor, self._policy, step, named)
        surgeries = []
        for one in chosen:
            try:
                surgeries.append(target.prepare(one))
            except Lost as reason:
                refused[one.plan.layer] = str(reason)
        plans = tuple(one.plan for one in surgeries)
        plan_of_all = RevivalPlan(step, plans, refused, self._policy.words, not self._dry_run)
        if surgeries and not self._dry_run:
            _operate(surgeries, model.optimizer)
            tell(monitor, plan_of_all)
        return plan_of_all


def revive(
    model: keras.Model,
    units: Mapping[str, Any],
    *,
    next: Named | None = None,
    norms: Named | None = None,
    initializer: Any = None,
    sample: Any,
    seed: int | None = None,
    dry_run: bool = False,
) -> RevivalPlan:
    """Give units new weights as :class:`ReviveCallback` does, in a loop of one's own. All of it is done, or nothing.

    Args:
        model: Built. If it is compiled, its optimizer forgets the units.
        units: Layer to its units to revive: indices, or a boolean for each unit.
        next: As for :class:`ReviveCallback`.
        norms: Likewise.
        initializer: Likewise.
        sample: A batch of inputs, which shows what the units send on average.
        seed: For the new weights; None for another in each call.
        dry_run: Only say what would happen.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value, or a layer cannot be revived.
        UnknownNameError: There is no such layer.
    """
    optimizer = getattr(model, "optimizer", None)
    check_optimizer(optimizer)
    random = np.random.default_rng(seed)
    target = _Target(model, next, norms, check_initializer(initializer), sample, random)
    surgeries = []
    for each, given in units.items():
        name = target.name(each)
        target.check(name)
        chosen = by_hand(name, given, unit_count(target.layers[name]))
        try:
            surgeries.append(target.prepare(chosen))
        except Lost as reason:
            raise InvalidArgumentError(f"layer {name!r} cannot be revived: {reason}") from None
    if not dry_run:
        _operate(surgeries, optimizer)
    return RevivalPlan(NEVER, tuple(one.plan for one in surgeries), {}, "units chosen by hand", not dry_run)


class _Target:
    """A model, and how its layers are revived."""

    def __init__(
        self,
        model: keras.Model,
        next: Named | None,
        norms: Named | None,
        initializer: Any,
        sample: Any,
        random: np.random.Generator,
    ) -> None:
        self._model, self._initializer, self._sample, self._random = model, initializer, sample, random
        self.layers = {one.name: one.layer for one in survey(model).watched}
        self._next = {self.name(layer): self._all(to) for layer, to in (next or {}).items()}
        self._norms = {self.name(layer): self._all(by) for layer, by in (norms or {}).items()}

    def name(self, layer: str | keras.Layer) -> str:
        """Of a layer that a user named, in the records.

        Raises:
            UnknownNameError: There is none such.
        """
        for name, each in self.layers.items():
            if each is layer or layer in (name, each.name, each.path):
                return name
        raise UnknownNameError.of("layer", getattr(layer, "name", layer), self.layers)

    def check(self, name: str) -> None:
        """Make sure that a layer that was named can be revived.

        Raises:
            InvalidArgumentError: It cannot.
        """
        try:
            unit_count(self.layers[name])
            self._route(name)
        except Lost as reason:
            where = (
                "" if "initializer" in str(reason) else f"; if you know where they go, say so: next={{{name!r}: ...}}"
            )
            raise InvalidArgumentError(f"layer {name!r} cannot be revived: {reason}{where}") from None

    def prepare(self, chosen: Candidate) -> Surgery:
        """Work out everything that will change for one layer.

        Raises:
            Lost: It cannot be revived.
        """
        seed = int(self._random.integers(1, 2**31))
        name = chosen.plan.layer
        return prepare(self._model, self.layers[name], self._route(name), chosen, self._initializer, seed, self._sample)

    def _route(self, name: str) -> Route:
        layer = self.layers[name]
        if name in self._next:
            return named_route(layer, unit_count(layer), self._next[name], self._norms.get(name, ()))
        return route(self._model, layer)

    def _all(self, named: Any) -> tuple[Any, ...]:
        inside = keras_private.sublayers(self._model)
        found = []
        for one in [named] if isinstance(named, (str, keras.Layer)) else named:
            same = [layer for layer in inside if layer is one or one in (layer.name, layer.path)]
            if not same:
                raise UnknownNameError.of("layer", getattr(one, "name", one), [layer.name for layer in inside])
            found += same[:1]
        return tuple(found)


def _operate(surgeries: list[Surgery], optimizer: Any) -> None:
    for surgery in surgeries:  # all of them first: the weights between two revived units are to be new, not zero
        surgery.disconnect(optimizer)
    for surgery in surgeries:
        surgery.renew(optimizer)


def _listed(layers: Any) -> list[Any]:
    if isinstance(layers, (str, keras.Layer)) or not isinstance(layers, Iterable):
        raise InvalidArgumentError(f"layers must be a list of names or layers, or None for all, not {layers!r}")
    return list(layers)

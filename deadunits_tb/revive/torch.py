"""Revival of dead units in PyTorch: a function for any moment between two steps, and a hook that calls it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from deadunits_tb.capture.arguments import check_whole
from deadunits_tb.capture.messages import one_line, say
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.revive.policy import COOL_DOWN, MAX_SHARE, Candidate, RevivalPlan, RevivePolicy, tell
from deadunits_tb.revive.torch_graph import ZERO_WHEN_SILENT, Graph, Lost, Route
from deadunits_tb.revive.torch_initializer import Initializer, check_initializer
from deadunits_tb.revive.torch_optimizer import check_optimizer
from deadunits_tb.revive.torch_surgery import Means, prepare, seeded
from deadunits_tb.revive.torch_target import Target
from deadunits_tb.units import UnitState

Named = Mapping[str, "str | nn.Module | Iterable[str | nn.Module]"]


def revive(
    watched: Any,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    units: Mapping[str, Any] | None = None,
    layers: Iterable[str | nn.Module] | None = None,
    next: Named | None = None,
    norms: Named | None = None,
    states: Iterable[str | UnitState] = ("dead",),
    max_share: float = MAX_SHARE,
    cool_down: int = COOL_DOWN,
    initializer: Initializer = None,
    sample: Any = None,
    seed: int | None = None,
    dry_run: bool = False,
) -> RevivalPlan:
    """Give units that are dead new weights, without changing what the model computes at this moment.

    Call it between two training steps::

        monitor = watch(model, "runs/mlp", optimizer=optimizer)
        ...
        if step % 500 == 0:
            print(revive(monitor))

    Incoming weights come from the layer's own initializer, the bias becomes zero. Outgoing weights become zero, and
    what the unit sent on average moves into the bias behind them. Batch normalisation of the unit, and what the
    optimizer remembers of all these entries, is as if new. Either all of this happens or, after an error, nothing.

    The layers that take in the units are found by ``torch.fx``; where it cannot tell, name them in ``next``. Linear
    layers and convolutions can be revived, and must feed linear layers, convolutions or recurrent layers.

    Args:
        watched: What ``watch`` returned, whose last records say which units to revive; or a model, with ``units``.
        optimizer: Trains the model: SGD, Adam, AdamW or RMSprop. With a monitor, its own if left out; with a model,
            None where there is none.
        units: With a model, layer to its units to revive: indices, or a boolean for each unit.
        layers: Names or modules of the layers that may be revived; None for all but output layers. One that is named
            here and cannot be revived is an error; others are ``refused`` in the plan.
        next: Layer to the modules that take in its units, all of them, where they cannot be found.
        norms: Layer to the batch normalisations that its units pass, where ``next`` names where they go.
        states: Units in these states are revived: ``dead``, ``saturated``, ``constant``, ``dormant``.
        max_share: Share of a layer that is revived at once at most, those units first that have been so for longest.
        cool_down: Steps between two revivals of one layer. There is none either before its next record.
        initializer: None for the layer's own; ``"he"``, ``"glorot"``, or ``"auto"`` for either by its activation
            function; or a function that fills a tensor, such as ``nn.init.orthogonal_``.
        sample: A batch for the model, a tensor or a tuple of arguments: it is asked, in evaluation mode, what the units
            send. Without it only dead units of ReLU are revived, which send exact zeros.
        seed: For the new weights, the same on all processes that train one model; None for the global generator.
        dry_run: Only say what would happen.

    Returns:
        What was done, or would be.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value, the optimizer is not known, or a layer that was
            named cannot be revived.
        UnknownNameError: There is no such layer.
    """
    policy = RevivePolicy.of(states, max_share, cool_down)
    check_initializer(initializer)
    target = Target.of(watched, optimizer, units)
    check_optimizer(target.optimizer)
    named = None if layers is None else {target.name(layer) for layer in _listed(layers)}
    routes = _Routes(target, next, norms)
    chosen, refused = target.choose(policy, named)
    surgeries, means = [], Means(target.model, sample)
    with seeded(seed):
        for one in chosen:
            module = target.module(one.plan.layer)
            try:
                route = routes.of(one, module)
                surgeries.append(prepare(target.model, module, route, one, initializer, means))
            except Lost as reason:
                if target.units is not None or (named is not None and one.plan.layer in named):
                    raise InvalidArgumentError(_hint(one.plan.layer, str(reason))) from None
                refused[one.plan.layer] = str(reason)
    words = policy.words if target.units is None else "units chosen by hand"
    plan = RevivalPlan(target.step, tuple(one.plan for one in surgeries), refused, words, not dry_run)
    if not dry_run and surgeries:
        for surgery in surgeries:  # all of them first: the weights between two revived units are to be new, not zero
            surgery.disconnect(target.optimizer)
        for surgery in surgeries:
            surgery.renew(target.optimizer)
        if target.monitor is not None:
            tell(target.monitor, plan)
    return plan


class ReviveHook:
    """Calls :func:`revive` by itself, after every so many steps of the monitor's optimizer.

    ::

        monitor = watch(model, "runs/mlp", optimizer=optimizer)
        hook = ReviveHook(monitor, every=500)

    Training never ends because of it: what fails later on is said once, and the hook takes itself away.

    Args:
        monitor: What ``watch`` returned, with an optimizer.
        every: Steps from one look to the next.
        arguments: As for :func:`revive`; ``optimizer`` and ``units`` are the monitor's.

    Raises:
        InvalidArgumentError: As :func:`revive`, or the monitor has no optimizer.

    Attributes:
        plans: What was done so far, those in which nothing was left out.
    """

    def __init__(self, monitor: Any, *, every: int = COOL_DOWN, **arguments: Any) -> None:
        check_whole("every", every, 1)
        target = Target.of(monitor, None, None)
        if target.optimizer is None:
            raise InvalidArgumentError("this monitor was made without an optimizer: call revive() in your own loop")
        revive(monitor, **{**arguments, "dry_run": True})  # what is wrong with them is said now
        self._monitor, self._every, self._arguments = monitor, every, arguments
        self.plans: list[RevivalPlan] = []
        self._handle: Any = target.optimizer.register_step_post_hook(self._after_step)

    def remove(self) -> None:
        """Revive no more. May be called again."""
        self._handle.remove()

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._monitor.current_step % self._every:
            return
        try:
            plan = revive(self._monitor, **self._arguments)
        except Exception as error:
            self.remove()
            say(f"deadunits_tb revives no more units and training goes on. {one_line('revive', error)}")
            return
        if plan:
            self.plans.append(plan)


class _Routes:
    """Where the units of each layer go: as the user says, or as the model's code tells."""

    def __init__(self, target: Target, next: Named | None, norms: Named | None) -> None:
        self._target = target
        self._next = {target.name(layer): self._modules(to) for layer, to in (next or {}).items()}
        self._norms = {target.name(layer): self._modules(by) for layer, by in (norms or {}).items()}
        self._graph: Graph | None = None

    def _modules(self, named: Any) -> tuple[nn.Module, ...]:
        listed = [named] if isinstance(named, (str, nn.Module)) else list(named)
        found = [self._target.module(self._target.name(one)) for one in listed]
        return tuple(module for module in found if module is not None)

    def of(self, chosen: Candidate, module: nn.Module | None) -> Route:
        """The route of a layer's units.

        Raises:
            Lost: It is not known.
        """
        name = chosen.plan.layer
        if module is None:
            raise Lost("it is not a module of the model, but a parameter or a call of one")
        if name in self._next:
            norms = self._norms.get(name, ())
            silent = chosen.function in ZERO_WHEN_SILENT and not norms
            return Route(self._next[name], norms, chosen.function, silent)
        if self._graph is None:
            self._graph = Graph(self._target.model)
        return self._graph.route(module)


def _listed(layers: Any) -> list[Any]:
    if isinstance(layers, (str, nn.Module)) or not isinstance(layers, Iterable):
        raise InvalidArgumentError(f"layers must be a list of names or modules, or None for all, not {layers!r}")
    return list(layers)


def _hint(layer: str, reason: str) -> str:
    known = "give sample=" in reason or "initializer" in reason
    name = "" if known else f"; if you know where they go, say so: next={{{layer!r}: 'the layer that takes them in'}}"
    return f"layer {layer!r} cannot be revived: {reason}{name}"

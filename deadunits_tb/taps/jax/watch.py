"""Functions in JAX that are watched as they are: taps are put into what JAX has traced of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.taps.jax.feeds import Feed
from deadunits_tb.taps.jax.inputs import FIELDS, range_fields
from deadunits_tb.taps.jax.plan import Layer
from deadunits_tb.taps.jax.private import evaluated
from deadunits_tb.taps.jax.statistics import Statistics, merged, observe
from deadunits_tb.taps.jax.survey import Path, Survey, survey


class FoundLayers(dict[str, Layer]):
    """Name to layer, in the model's order; a :class:`DeadUnitsWriter` takes it as it is.

    Attributes:
        skipped: Name of what is not watched to the reason.
        unproved: Name of a layer of whose dead units nothing can be proved to the reason: its inputs are not looked at.
    """

    skipped: dict[str, str]
    unproved: dict[str, str]


class WatchedFunction:
    """What :func:`watch` gives: the same function, with statistics as a second argument."""

    def __init__(self, function: Callable[..., Any], *, has_aux: bool) -> None:
        self._function = function
        self._has_aux = has_aux
        functools.update_wrapper(self, function)

    def layers(self, params: Any, *args: Any, **kwargs: Any) -> FoundLayers:
        """Find the layers. Nothing is run, so shapes will do for arrays (``jax.ShapeDtypeStruct``).

        Args:
            params: As the function takes them first.
            args: What else it takes.
            kwargs: Likewise.

        Raises:
            InvalidArgumentError: No layer is found.
        """
        found = _Traced(self._function, params, args, kwargs).survey
        if not found.layers:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in found.skipped.items())
            raise InvalidArgumentError(
                "no layer was found in this function: its first argument must be the parameters of the model "
                f"that it calls. {reasons or 'There are no weights in it'}"
            )
        layers = FoundLayers(found.layers)
        layers.skipped, layers.unproved = found.skipped, found.unproved
        return layers

    def __call__(self, params: Any, statistics: Statistics | None, *args: Any, **kwargs: Any) -> Any:
        """Call the function, and observe the layers that the statistics are of.

        Returns:
            What the function returns, and the statistics; with ``has_aux`` its first result, and a pair of the
            statistics and its second.
        """
        if statistics is None:
            result = self._function(params, *args, **kwargs)
        else:
            result, statistics = _Traced(self._function, params, args, kwargs).run(statistics)
        if self._has_aux:
            value, aux = result
            return value, (statistics, aux)
        return result, statistics


def watch(function: Callable[..., Any], *, has_aux: bool = False) -> WatchedFunction:
    """Watch a function as it is: a loss that calls any model, in Flax, Equinox or plain JAX.

    ::

        watched = watch(loss)                                   # loss(params, x, y)
        layers = watched.layers(params, x, y)                   # for a DeadUnitsWriter
        (value, statistics), gradients = value_and_grad(watched)(params, statistics, x, y)

    The activation functions are found behind the weights; where there is none, or it is not one that we know, a layer
    counts as linear. What is inside ``scan``, ``while_loop``, ``cond`` and ``checkpoint`` is not seen, and
    :attr:`FoundLayers.skipped` says so: use :func:`observe` there. Axis 0, or the first that does not hold units,
    holds the examples.

    Args:
        function: Of the parameters and whatever else.
        has_aux: Whether it gives a pair of which only the first is the loss.
    """
    if not callable(function):
        raise InvalidArgumentError(f"watch takes the loss function, not {function!r}")
    return WatchedFunction(function, has_aux=has_aux)


class _Traced:
    """A function traced for some arguments."""

    def __init__(self, function: Callable[..., Any], params: Any, args: Any, kwargs: Any) -> None:
        paths = jax.tree_util.tree_leaves_with_path(params)
        leaves, structure = jax.tree.flatten((params, args, kwargs))
        dynamic = [at for at, leaf in enumerate(leaves) if _is_array(leaf)]
        result_structure: list[Any] = []

        def flat(*arrays: Any) -> list[Any]:
            filled = list(leaves)
            for at, array in zip(dynamic, arrays, strict=True):
                filled[at] = array
            params, args, kwargs = jax.tree.unflatten(structure, filled)
            results: list[Any]
            results, kept = jax.tree.flatten(function(params, *args, **kwargs))
            result_structure.append(kept)
            return results

        self._arrays = [leaves[at] for at in dynamic]
        self._closed = jax.make_jaxpr(flat)(*self._arrays)
        self._structure = result_structure[0]
        # Parameters come first among the leaves; those that are no arrays, as Equinox has them, are left out.
        params_at = [at for at in dynamic if at < len(paths)]
        self.survey = survey(self._closed.jaxpr, [_joined(paths[at][0]) for at in params_at], params_at)

    def run(self, statistics: Statistics) -> tuple[Any, Statistics]:
        """Evaluate it with taps."""
        run = _Run(self.survey, statistics)
        results = run.through(self._closed.jaxpr, self._closed.consts, self._arrays, ())
        return jax.tree.unflatten(self._structure, results), run.statistics


class _Run:
    def __init__(self, found: Survey, statistics: Statistics) -> None:
        self._survey = found
        self._observed = {name for name, _ in statistics.plan.layers}
        self.statistics = statistics

    def through(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any], path: Path) -> list[Any]:
        values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

        def of(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else values[atom]

        number = 0
        while number < len(jaxpr.eqns):
            eqn, at = jaxpr.eqns[number], (*path, number)
            tap = self._survey.taps.get(at)
            if tap is None or tap.layer not in self._observed:
                tap = None
            eqns = jaxpr.eqns[number : number + (tap.length if tap else 1)]
            feed = self._survey.feeds.get(at)
            if feed is not None:
                self._fed(feed, of(eqn.invars[feed.operand]))
            if tap is None:
                results = self._results(eqn, [of(atom) for atom in eqn.invars], at)
            elif tap.operand is None:
                results = [self._seen(tap.layer, None, self._results(eqn, [of(atom) for atom in eqn.invars], at)[0])]
            else:
                taken = eqn.invars[tap.operand]
                function = functools.partial(_evaluated, eqns, values, taken)
                shared = _is_shared(jaxpr, number, len(eqns), taken)
                results = [self._seen(tap.layer, function, of(taken), shared=shared)]
            values.update(zip(eqns[-1].outvars, results, strict=True))
            number += len(eqns)
        return [of(atom) for atom in jaxpr.outvars]

    def _results(self, eqn: Any, inputs: list[Any], path: Path) -> list[Any]:
        if path in self._survey.opened:
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            return self.through(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs, path)
        return evaluated(eqn, inputs)

    def _fed(self, feed: Feed, value: Any) -> None:
        known = self.statistics.layers.get(feed.layer, {})
        if all(name in known for name in FIELDS):
            earlier = {name: known[name] for name in FIELDS}
            fields = merged(earlier, range_fields(value, feed.axes, feed.eps))
            self.statistics = self.statistics.with_layer(feed.layer, **fields)

    def _seen(self, layer: str, function: Callable[[Any], Any] | None, value: Any, *, shared: bool = False) -> Any:
        result, statistics = observe(self.statistics, layer, function, value, shared=shared)
        assert statistics is not None
        self.statistics = statistics
        return result


def _is_shared(jaxpr: Any, number: int, length: int, taken: Any) -> bool:
    """Whether something else than some operations in a row takes in a value, or may do so outside of the function."""
    rest = (*jaxpr.eqns[:number], *jaxpr.eqns[number + length :])
    places = (jaxpr.invars, jaxpr.outvars, *(each.invars for each in rest))
    return any(atom is taken for atoms in places for atom in atoms)


def _evaluated(eqns: Sequence[Any], values: dict[Any, Any], taken: Any, value: Any) -> Any:
    """Some operations in a row as a function of one of the values that they take."""
    own = {**values, taken: value}
    for eqn in eqns:
        inputs = [atom.val if isinstance(atom, core.Literal) else own[atom] for atom in eqn.invars]
        own.update(zip(eqn.outvars, evaluated(eqn, inputs), strict=True))
    return own[eqns[-1].outvars[0]]


def _is_array(leaf: Any) -> bool:
    return (hasattr(leaf, "shape") and hasattr(leaf, "dtype")) or isinstance(leaf, (int, float, complex))


def _joined(path: Any) -> str:
    """Such as ``hidden/kernel``, whatever the parameters are made of."""
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
    while len(parts) > 1 and parts[-1] in ("value", "raw_value"):
        parts.pop()
    if len(parts) > 2 and parts[0] == "params":
        parts.pop(0)
    return "/".join(parts)

"""A training step of the user's own, with a second ``tf.function`` beside it that is traced with taps.

The user's function stays as it is and runs all steps that are not observed. Which one runs is decided on the host, call
by call.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, Protocol

import tensorflow as tf

from deadunits_tb.taps.tensorflow.private import draws_statefully, second_function


class FunctionTap(Protocol):
    """What looks into a function for one monitor."""

    @property
    def observing(self) -> bool:
        """Whether the present step is observed."""

    def get_ready(self) -> bool:
        """Whether a function can be traced with taps now."""

    def agrees(self, ready: bool) -> bool:
        """Whether all workers are as ready as this one says to be; all of them ask."""

    def suspended(self) -> contextlib.AbstractContextManager[None]:
        """Leave alone what runs in the body."""

    def part(self) -> contextlib.AbstractContextManager[Any]:
        """Look into what runs in the body. Raises nothing of its own."""

    def pack(self, part: Any) -> Any:
        """Numbers on the device, after the body; None where looking failed."""

    def took(self, numbers: Any, seconds: float, *, traced: bool) -> None:
        """The function ran."""

    def report(self, error: Exception | str) -> None:
        """Looking failed, and nothing will be observed any more."""


class WrappedFunction:
    """Runs a function as it is, or on observed steps with taps.

    Args:
        function: What ``tf.function`` gave, or a function of Python.
        tap: Of the first monitor.
    """

    def __init__(self, function: Callable[..., Any], tap: FunctionTap) -> None:
        self._function = function
        self._is_graph = isinstance(function, tf.types.experimental.PolymorphicFunction)
        self._taps = [tap]
        self._variants: dict[tuple[int, ...], Any] = {}
        self._checked = False
        self._failed = False
        self._always: tuple[FunctionTap, ...] | None = None
        functools.update_wrapper(self, function, updated=())

    def with_tap(self, tap: FunctionTap) -> WrappedFunction:
        """The same function for one more monitor: as of a second model that it trains."""
        both = WrappedFunction(self._function, tap)
        both._taps = [*self._taps, tap]
        return both

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._function, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step."""
        taps = tuple(tap for tap in self._taps if tap.observing)
        if self._failed or not (taps or self._always) or not tf.executing_eagerly():
            return self._function(*args, **kwargs)
        if not self._is_graph:
            return self._run(
                self._eagerly, tuple(tap for tap in taps if tap.agrees(tap.get_ready())), args, kwargs, traced=False
            )
        variant, taps, traced = self._variant(taps, args, kwargs)
        if variant is None:
            with self._all_suspended():
                return self._function(*args, **kwargs)
        return self._run(lambda _, *args, **kwargs: variant(*args, **kwargs), taps, args, kwargs, traced=traced)

    def _run(
        self,
        function: Callable[..., Any],
        taps: tuple[FunctionTap, ...],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        traced: bool,
    ) -> Any:
        began = perf_counter()
        result, numbers = function(taps, *args, **kwargs)
        seconds = perf_counter() - began
        for tap, of_tap in zip(taps, numbers, strict=True):
            if tap.observing:
                tap.took(of_tap, seconds / len(taps), traced=traced)
        return result

    def _eagerly(self, taps: tuple[FunctionTap, ...], *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
        return self._tapped(taps, self._function)(*args, **kwargs)  # type: ignore[no-any-return]

    def _tapped(self, taps: tuple[FunctionTap, ...], function: Callable[..., Any]) -> Callable[..., Any]:
        def tapped(*args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
            with contextlib.ExitStack() as stack:
                parts = [stack.enter_context(tap.part()) for tap in taps]
                result = function(*args, **kwargs)
            return result, [tap.pack(part) for tap, part in zip(taps, parts, strict=True)]

        return tapped

    def _variant(
        self, taps: tuple[FunctionTap, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, tuple[FunctionTap, ...], bool]:
        """The function traced with the taps, those that it was traced with, and whether it was traced for this call."""
        if not self._checked and not self._check(args, kwargs):
            return None, (), False
        taps = self._always or tuple(tap for tap in taps if tap.agrees(tap.get_ready()))
        if not taps:
            return None, (), False
        key = tuple(self._taps.index(tap) for tap in taps)
        if key in self._variants:
            return self._variants[key], taps, False
        variant = second_function(self._function, functools.partial(self._tapped, taps))
        failure: Exception | None = None
        try:
            variant.get_concrete_function(*args, **kwargs)  # before anything runs, so that failing costs nothing
        except Exception as error:
            failure = error
        if not all([tap.agrees(failure is None and tap.get_ready()) for tap in taps]):
            self._give_up(failure or "the function could not be traced with taps")
            return None, (), False
        self._variants[key] = variant
        return variant, taps, True

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Trace the user's own function first: it makes variables as without us, and tells whether it can be watched.

        Returns:
            False where that failed: then the function's own call says why, to the user.
        """
        ran_before = bool(self._function.experimental_get_tracing_count())  # type: ignore[attr-defined]
        try:
            with self._all_suspended():
                concrete = self._function.get_concrete_function(*args, **kwargs)  # type: ignore[attr-defined]
        except Exception:
            return False
        self._checked = True
        if not draws_statefully(concrete.graph):
            return True
        if ran_before:
            self._give_up(
                "the function draws random numbers whose state is hidden in its graph (tf.random.normal, tf.nn.dropout "
                "and the like), and has run before: call monitor.wrap before its first call"
            )
            return False
        ready = tuple(tap for tap in self._taps if tap.get_ready())
        self._always = ready or None
        return True

    @contextlib.contextmanager
    def _all_suspended(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for tap in self._taps:
                stack.enter_context(tap.suspended())
            yield

    def _give_up(self, why: Exception | str) -> None:
        self._failed = True
        for tap in self._taps:
            tap.report(why)

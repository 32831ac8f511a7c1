"""Follow the output of each layer with weights to its activation function, in one observed step.

Both sides of the activation function are wanted: its output (did the unit fire?) and the gradient at its input (does
it still learn?). Where the layer applies the function itself, its ``activation`` is wrapped. Otherwise its output is
followed, tensor by tensor, through layers that hand units on (normalisation, dropout, pooling, reshaping, addition),
until an activation layer or function takes it in. Only the *input* of the function is replaced, by an identity that
sees the gradient: losses look for the logits on the very output of a softmax.

Nothing here knows a backend: it asks a :class:`Backend`.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

import keras

from deadunits_tb.taps.keras import private as keras_private
from deadunits_tb.taps.keras.layers import (
    ACTIVATIONS,
    ADDITIONS,
    LOOPS,
    WITH_UNITS,
    Survey,
    UnitLayer,
    function_of,
    has_activation,
    is_exactly_silent,
)
from deadunits_tb.taps.keras.places import axes_after, covers
from deadunits_tb.taps.keras.replacing import replaced
from deadunits_tb.taps.keras.trails import Passage, StepTrace, Tap, Trail


class Backend(Protocol):
    """What following needs of a backend of Keras."""

    @property
    def functions(self) -> Sequence[tuple[ModuleType, str]]:
        """Activation functions of the backend's own that a model may call: modules, and names in them."""

    def belongs(self, tensor: Any, graph: object) -> bool:
        """Whether a tensor can be carried out of the step: not one of a loop's body or of a function within."""

    def input_to_keep(self, tensor: Any, layer: UnitLayer) -> Any:
        """What a layer takes in, to be looked at when the step is over; None where that is not wanted."""

    def gradient_tap(self, tensor: Any, arrived: Callable[[Any], None]) -> Any:
        """A tensor to be used in place of the given one; ``arrived`` gets the loss gradient with respect to it."""

    def reduce_gradient(self, gradient: Any, tap: Tap) -> Any:
        """The gradient's statistics per unit; those of several gradients add up."""

    def reduce_activation(self, output: Any, tap: Tap) -> Any:
        """The output's statistics per unit."""


class Follower:
    """Wraps what an observed step calls, only while it is traced or run, and leaves nothing behind.

    Args:
        model: The model.
        survey: Its layers.
        backend: Reduces tensors.
    """

    def __init__(self, model: keras.Model, survey: Survey, backend: Backend) -> None:
        self._model = model
        self._survey = survey
        self._backend = backend
        self._watched = {id(unit_layer.layer): unit_layer for unit_layer in survey.watched}
        self._local = threading.local()
        self._functions: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._installed = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Wrap once what several replicas call in the body, each following a step of its own in its own thread."""
        self._installed = True
        try:
            with replaced(self._wrappers()):
                yield
        finally:
            self._installed = False

    @contextlib.contextmanager
    def following(self, step: StepTrace) -> Iterator[None]:
        """Follow what the body calls in this thread."""
        with contextlib.ExitStack() as stack:
            with step.guard():
                if not self._installed:
                    stack.enter_context(replaced(self._wrappers()))
            self._local.step = step
            try:
                yield
            finally:
                self._local.step = None

    def finish(self, step: StepTrace) -> None:
        """Look at the outputs of layers for which no activation function was found."""
        for trail in step.trails:
            if not step.outputs_known:  # a train_step of the user's own: what nothing takes in is for the loss
                trail.is_output = not trail.met and not trail.lost
            if trail.ended:
                continue
            if not trail.layer.loop:
                linear = trail.layer.linear or (not trail.lost and (trail.met or trail.is_output))
                trail.tap.function = "linear" if linear else None
            trail.tap.activation = self._backend.reduce_activation(trail.output, trail.tap)

    def _wrappers(self) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
        for layer in self._survey.followed:
            yield layer, "call", self._wrap_call(layer)
            if isinstance(layer, WITH_UNITS) and not isinstance(layer, LOOPS) and has_activation(layer):
                yield layer, "activation", self._wrap_fused(layer)
        for module, name in (*keras_private.activation_functions(), *self._backend.functions):
            original = getattr(module, name)
            wrapper = self._functions.get(original)  # eager steps come here each time, and there are many of these
            if wrapper is None:
                wrapper = self._functions[original] = self._wrap_function(original)
            yield module, name, wrapper
        yield self._model, "call", self._wrap_model(self._model.call)
        yield self._model, "compute_loss", self._wrap_loss(self._model.compute_loss)

    def _step(self) -> StepTrace | None:
        step: StepTrace | None = getattr(self._local, "step", None)
        return None if step is None or step.inside or step.failure is not None else step

    def _wrap_fused(self, layer: keras.Layer) -> Callable[..., Any]:
        original, unit_layer = layer.activation, self._watched.get(id(layer))

        def activation(x: Any, *args: Any, **kwargs: Any) -> Any:
            step, passages = self._step(), []
            if step is not None and unit_layer is not None:
                with step.guard():
                    if self._can_look(step, x, unit_layer.name):
                        passages.append(self._begin(step, unit_layer, x))
            if step is None or not passages:
                return original(x, *args, **kwargs)
            silent = not (args or kwargs) and is_exactly_silent(original)
            return self._through(step, passages, function_of(original), silent, original, x, *args, **kwargs)

        return activation

    def _wrap_function(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def function(*args: Any, **kwargs: Any) -> Any:
            step = self._step()
            passages = _open(step.at(args[0])) if step is not None and args else []
            if step is None or not passages:
                return original(*args, **kwargs)
            silent = len(args) == 1 and kwargs.keys() <= {"name"} and is_exactly_silent(original)
            return self._through(step, passages, function_of(original), silent, original, *args, **kwargs)

        return function

    def _wrap_call(self, layer: Any) -> Callable[..., Any]:
        original, unit_layer = layer.call, self._watched.get(id(layer))

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            step = self._step()
            if step is None:
                return original(*args, **kwargs)
            given = args[0] if args else next(iter(kwargs.values()), None)
            passages: list[Passage] = []
            began = len(step.trails)
            with step.guard():
                passages = _met(step, layer, given, args)
                step.masks[id(layer)] = keras_private.mask_of(given)
                if unit_layer is not None:
                    step.given[id(layer)] = self._backend.input_to_keep(given, unit_layer)
            if isinstance(layer, ACTIVATIONS) and args and _open(passages):
                silent = is_exactly_silent(layer)
                return self._through(step, _open(passages), function_of(layer), silent, original, *args, **kwargs)
            with step.nested() if isinstance(layer, LOOPS) else contextlib.nullcontext():
                output = original(*args, **kwargs)
            with step.guard():
                if unit_layer is not None:
                    return self._given_out(step, unit_layer, output, began)
                if passages and not isinstance(layer, (*ACTIVATIONS, *WITH_UNITS)):
                    _hand_on(step, layer, given, output, passages, kwargs)
            return output

        return call

    def _wrap_model(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            step = self._step()
            if step is not None:
                with step.guard():
                    _taken_by_loss(step, outputs)
            return outputs

        return call

    def _wrap_loss(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            loss = original(*args, **kwargs)
            step = self._step()
            if step is not None:
                with step.guard():
                    step.loss = loss
                    _taken_by_loss(step, kwargs.get("y_pred", args[2] if len(args) > 2 else None))
            return loss

        return compute_loss

    def _can_look(self, step: StepTrace, tensor: Any, name: str) -> bool:
        if not keras.ops.is_tensor(tensor) or len(tensor.shape) < 2:
            return False
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
            return False
        if not self._backend.belongs(tensor, step.graph):
            step.elsewhere.add(name)
            return False
        return True

    def _begin(self, step: StepTrace, unit_layer: UnitLayer, tensor: Any) -> Passage:
        axes = tuple(axis % len(tensor.shape) for axis in unit_layer.axes)
        if any(tensor.shape[axis] is None for axis in axes):
            raise ValueError(f"the number of units of layer {unit_layer.name!r} is not known in advance")
        mask = step.masks.get(id(unit_layer.layer))
        mask = mask if covers(mask, tensor) and not unit_layer.convolution else None
        trail = Trail(unit_layer, Tap(unit_layer, axes, mask), tensor, given=step.given.get(id(unit_layer.layer)))
        step.trails.append(trail)
        return Passage(trail, axes, mask)

    def _given_out(self, step: StepTrace, unit_layer: UnitLayer, output: Any, began: int) -> Any:
        """A layer has given its output: if its own activation function was not found on the way, a trail begins."""
        first = output[0] if isinstance(output, (list, tuple)) else output
        if any(trail.layer is unit_layer for trail in step.trails[began:]):
            return output
        if not self._can_look(step, first, unit_layer.name):
            return output
        passage = self._begin(step, unit_layer, first)
        trail = passage.trail
        own = trail.tap
        trail.output = tapped = self._tap(step, own, first, superseded=lambda: trail.tap is not own)
        if unit_layer.loop:
            trail.ended, trail.tap.function = True, unit_layer.function
            trail.tap.activation = self._backend.reduce_activation(tapped, trail.tap)
        step.tag(tapped, [passage])
        return type(output)([tapped, *output[1:]]) if isinstance(output, (list, tuple)) else tapped

    def _through(
        self,
        step: StepTrace,
        passages: list[Passage],
        function: str,
        silent: bool,
        original: Callable[..., Any],
        x: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Call an activation function that trails have come to: tap its input, look at its output."""
        taps: dict[tuple[int, ...], Tap] = {}
        tapped = x
        with step.guard():
            for passage in passages:
                if passage.axes not in taps:
                    tap = Tap(passage.trail.layer, passage.axes, passage.mask, function)
                    tapped = self._tap(step, tap, tapped)
                    taps[passage.axes] = tap
        with step.nested():
            output = original(tapped, *args, **kwargs)
        with step.guard():
            for tap in taps.values():
                tap.activation = self._backend.reduce_activation(output, tap)
            for passage in passages:
                trail = passage.trail
                trail.tap, trail.ended, trail.output, trail.met = taps[passage.axes], True, output, False
                trail.way = passage.way.ended(silent=silent)
            step.tag(output, passages)
        return output

    def _tap(self, step: StepTrace, tap: Tap, tensor: Any, superseded: Callable[[], bool] = lambda: False) -> Any:
        def arrived(gradient: Any) -> None:
            if superseded() or step.failure is not None or not self._backend.belongs(gradient, step.graph):
                return
            with step.guard():
                reduced = self._backend.reduce_gradient(gradient, tap)
                tap.gradient = reduced if tap.gradient is None else tap.gradient + reduced

        return self._backend.gradient_tap(tensor, arrived)


def _open(passages: list[Passage]) -> list[Passage]:
    return [passage for passage in passages if not passage.trail.ended]


def _met(step: StepTrace, layer: Any, given: Any, args: tuple[Any, ...]) -> list[Passage]:
    """The trails that come to a layer with its inputs."""
    inputs = list(given) if isinstance(given, (list, tuple)) else [given]
    if isinstance(layer, ADDITIONS):
        inputs += args[1:2]
    passages = [passage for tensor in inputs for passage in step.at(tensor)]
    for passage in passages:
        passage.trail.met = True
    return passages


def _hand_on(
    step: StepTrace, layer: Any, given: Any, output: Any, passages: list[Passage], kwargs: Mapping[str, Any]
) -> None:
    if not keras.ops.is_tensor(output):
        return
    if isinstance(layer, ADDITIONS):  # what an activation function gave is not what comes out of an addition
        passages = _open(passages)
    before = given[0] if isinstance(given, (list, tuple)) else given
    handed = []
    for passage in passages:
        axes = axes_after(layer, before.shape, output.shape, passage.axes)
        if axes is None:
            passage.trail.lost = True
        else:
            mask = passage.mask if covers(passage.mask, output) else None
            way = passage.way if passage.trail.ended else passage.way.through(layer, before, passage.axes, kwargs)
            handed.append(Passage(passage.trail, axes, mask, way))
    step.tag(output, handed)


def _taken_by_loss(step: StepTrace, outputs: Any) -> None:
    for tensor in keras.tree.flatten(outputs):
        if keras.ops.is_tensor(tensor):
            step.outputs_known = True
            for passage in step.at(tensor):
                passage.trail.is_output = True

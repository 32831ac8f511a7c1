"""Follow the output of each layer with weights to its activation function, in one forward pass.

Both sides of the activation function are wanted: its output (did the unit fire?) and the gradient at its input (does
it still learn?). A function mode sees every torch call of the pass, whoever makes it. The output of a layer with
weights is tagged, and what hands units on (normalisation, dropout, pooling, casts, sums, reshapes) hands the tag on.
The first activation function that takes in a tagged tensor ends the trail: its input gets a tensor hook *before* the
call, so functions that work in place are safe. Tags hold weak references: an ``id`` is used again when a tensor dies.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from deadunits_tb.taps.torch import calls, places
from deadunits_tb.taps.torch import private as torch_private
from deadunits_tb.taps.torch.layers import Survey, UnitLayer, with_loose_weight
from deadunits_tb.taps.torch.ranges import Ranges
from deadunits_tb.taps.torch.rows import Place
from deadunits_tb.taps.torch.trails import Consumer, Passage, Sink, Tap, Trail

T = torch.Tensor


class Follow(TorchFunctionMode):  # type: ignore[misc]  # PyTorch's types are not read
    """One forward pass.

    Args:
        survey: Of the model.
        sink: Takes what is seen.
        frame: In which the pass runs: once it has returned, nothing is followed any more. None where the pass is ended
            for certain.
        clock: Runs while we work.
        ranges: Told of each call on what layers give, None if no layer has silent units.
    """

    def __init__(
        self,
        survey: Survey,
        sink: Sink,
        frame: FrameType | None,
        clock: contextlib.AbstractContextManager[None],
        ranges: Ranges | None = None,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._survey = survey
        self._sink = sink
        self.frame = frame
        self._ranges = ranges
        self._tags: dict[int, tuple[weakref.ref[Any], list[Passage]]] = {}
        self._loose: dict[int, UnitLayer] = {}
        self._examples_of_rows: dict[int, int] = {}
        self._inside = 0
        self.trails: list[Trail] = []
        self.outputs_known = False
        self.calls = 0
        self.failure: Exception | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """See one call."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # a compiled function within the model: nothing of this is to get into it
            return func(*args, **kwargs)
        if self.failure is not None or self._inside or func in calls.LOOKS:
            return func(*args, **kwargs)
        self.calls += 1
        before: Any = None
        try:
            seen = list(self._seen(args, kwargs)) if self._tags else []
            tells = self._survey.tokens and func in _TELL_ROWS
            if not seen and not tells and func not in _WITH_WEIGHTS:
                return func(*args, **kwargs)
            if not self.live:
                return func(*args, **kwargs)
        except Exception as error:
            self.failure = error
            return func(*args, **kwargs)
        try:
            with self._clock:
                before = self._before(func, args, kwargs, seen)
        except Exception as error:
            self.failure = error
        out = func(*args, **kwargs)
        if self._ranges is not None:
            self._ranges.see(func, args, kwargs, out)
        if self.failure is None:
            try:
                with self._clock:
                    if tells:
                        self._learn_rows(func, args, kwargs, out)
                    self._after(func, args, kwargs, seen, before, out)
            except Exception as error:
                self.failure = error
        return out

    def begin(self, layer: UnitLayer, output: Any) -> None:
        """Begin a trail at a layer's output, unless one has begun there."""
        if not _has_units(output) or self._at(output) or torch_private.in_backward():
            return
        axis = output.dim() - 1 if layer.axis is None else output.dim() + layer.axis
        if axis < 0:
            return
        examples = layer.examples if output.dim() == 3 and axis == 2 else 0
        rows = int(output.shape[0]) if output.dim() == 2 else 0
        in_examples = self._examples_of_rows.get(rows, 0)  # tokens of sequences, one under the other
        positions = rows // in_examples if in_examples and axis == 1 else 1
        place = Place(axis, int(output.shape[axis]), examples=examples, positions=positions)
        trail = Trail(layer, output, place, disabled=not torch.is_grad_enabled())
        self.trails.append(trail)
        if layer.at_output:
            trail.tap, trail.function = Tap(layer, place), layer.function
            trail.ended, trail.witness, trail.output = True, "output", None
            self._sink.stage(output, trail.tap)
            self._sink.reduce(output, trail.tap, layer.function)
        self._tag(output, [Passage(trail, place, behind=layer.at_output)])

    def _learn_rows(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Of tokens ``[examples, tokens]``, or a reshape to one token after the other: how many rows are how many."""
        source = args[0] if args else kwargs.get("input")
        if not (isinstance(source, T) and isinstance(out, T)):
            return
        rows = 0
        if func is calls.EMBEDDING:
            rows = source.numel() if source.dim() == 2 else 0
        elif source.dim() > 2 and out.dim() == 2 and out.shape[1] == source.shape[-1]:
            rows = int(out.shape[0])
        if rows > source.shape[0] > 0:
            examples = int(source.shape[0])
            known = self._examples_of_rows.setdefault(rows, examples)
            if known != examples:  # which of them is the batch, nobody says
                self._examples_of_rows[rows] = 0

    def module_output(self, layer: UnitLayer, args: tuple[Any, ...], output: Any) -> None:
        """A module has given its output."""
        if self._inside or self.failure is not None or not self.live:
            return
        try:
            with self._clock:
                if layer.rows:
                    self._look_up(layer, args)
                    return
                first = output[0] if isinstance(output, tuple) else output
                self.begin(layer, first)
        except Exception as error:
            self.failure = error

    @property
    def live(self) -> bool:
        """Whether the pass is under way: an interrupt from the keyboard ends it without a word."""
        return self.frame is None or torch_private.running(self.frame)

    def _look_up(self, layer: UnitLayer, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], T) and not torch_private.in_backward():
            place = Place(0, layer.module.num_embeddings)
            trail = Trail(layer, None, place, Tap(layer, place), layer.function, ended=True, witness="none")
            trail.met = trail.escaped = True
            self._sink.count_rows(args[0], trail.tap)  # type: ignore[arg-type]
            self.trails.append(trail)

    def enter_activation(self, args: tuple[Any, ...], function: str) -> None:
        """A module that is an activation function is called: nothing within it is looked at."""
        self._inside += 1
        if self._inside > 1 or self.failure is not None or not args:
            return
        try:
            with self._clock:
                self._activation = self._end_trails(args[0], self._at(args[0]), function)
        except Exception as error:
            self.failure = error

    def leave_activation(self, output: Any) -> None:
        """It has given its output."""
        self._inside -= 1
        if self._inside or self.failure is not None:
            return
        try:
            with self._clock:
                self._look(output, self._activation)
        except Exception as error:
            self.failure = error

    def finish(self, outputs: Any, *, whole: bool = True) -> None:
        """The pass is over: look at layers for which no activation function was found, and hand all over.

        Args:
            outputs: What the model gave, None if unknown.
            whole: Whether it was the whole model, and not a part of it whose outputs others take in.
        """
        for tensor in tensors_of(outputs):
            self.outputs_known = True
            for passage in self._at(tensor):
                if not whole:
                    _escape(passage)
                    continue
                passage.trail.is_output = not passage.trail.consumers
                passage.trail.met = passage.trail.escaped = True
        for trail in self.trails:
            if not self.outputs_known and not trail.consumers and not trail.escaped:  # nothing else is left: the loss
                trail.is_output = trail.met = True
            if not trail.ended:
                self._settle(trail)
                known = trail.met and not trail.lost
                trail.function = "linear" if trail.layer.linear or trail.is_output or known else None
                trail.witness = "output" if trail.function is None else trail.witness
            self._sink.add(trail)
        self._tags.clear()

    # One call

    def _before(self, func: Any, args: Any, kwargs: Any, seen: list[tuple[Any, list[Passage]]]) -> Any:
        for tensor, passages in seen:
            first = args[0] if args else kwargs.get("input")
            if tensor is not first:
                continue
            if func in calls.ACTIVATIONS and (open_ := [one for one in passages if not one.trail.ended]):
                name = calls.activation(func, args, kwargs, tensor.dim(), open_[0].place.axis)
                if name is not None:
                    return self._end_trails(tensor, passages, name)
            if _in_place(func, kwargs):
                for passage in passages:
                    if not passage.trail.ended and passage.trail.output is tensor:
                        self._settle(passage.trail)
        return [(tensor, tensor.shape) for tensor, _ in seen]

    def _after(self, func: Any, args: Any, kwargs: Any, seen: Any, before: Any, out: Any) -> None:
        if isinstance(before, _Ended):
            self._look(out, before)
            return
        if func in _WITH_WEIGHTS and isinstance(out, T):
            self._linear(func, args, kwargs, seen, out)
            return
        if func in calls.LOSSES or func in calls.INNER_LAYERS:
            for _, passages in seen:
                for passage in passages:
                    passage.trail.met = passage.trail.escaped = True
                    passage.trail.is_output = passage.trail.is_output or func in calls.LOSSES
            return
        shapes = {id(tensor): tuple(shape) for tensor, shape in before or ()}
        handed: list[Passage] = []
        for tensor, passages in seen:
            for passage in passages:
                place = places.after_call(func, args, kwargs, tensor, shapes[id(tensor)], passage.place, out)
                if place is None:
                    _escape(passage)
                else:
                    handed.append(Passage(passage.trail, place, passage.behind))
        if handed:
            self._tag(out, self._without_self_gates(handed, out))

    def _linear(self, func: Any, args: Any, kwargs: Any, seen: Any, out: Any) -> None:
        source, parameter, axis = calls.product(func, args, kwargs)
        convolution = func in calls.CONVOLUTIONS
        groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
        depthwise = convolution and groups != 1
        for tensor, passages in seen:
            for passage in passages:
                known = isinstance(parameter, torch.nn.Parameter) and not depthwise and not self._survey.sharded
                if tensor is source and known and passage.place.axis == (1 if convolution else tensor.dim() - 1):
                    passage.trail.met = True
                    place = passage.place if passage.place.positions == 1 else replace(passage.place, positions=1)
                    passage.trail.consumers.append(Consumer(parameter, 1 - axis, place))
                else:
                    _escape(passage)
        layer = self._survey.by_weight.get(id(parameter)) or self._loose_layer(parameter, axis, convolution)
        if layer is not None:
            self.begin(layer, out)

    def _loose_layer(self, parameter: Any, axis: int, convolution: bool) -> UnitLayer | None:
        found = self._survey.loose.get(id(parameter))
        if found is None:
            return None
        if id(parameter) not in self._loose:
            self._loose[id(parameter)] = with_loose_weight(found, parameter, axis, convolution)
        return self._loose[id(parameter)]

    # Trails

    def _end_trails(self, tensor: Any, passages: list[Passage], function: str) -> _Ended:
        """An activation function is about to take in a tensor."""
        taps: dict[Place, Tap] = {}
        for passage in passages:
            trail = passage.trail
            if trail.ended:
                continue
            if passage.place not in taps:
                taps[passage.place] = tap = Tap(trail.layer, passage.place)
                self._sink.stage(tensor, tap)
            trail.tap, trail.ended, trail.function, trail.output = taps[passage.place], True, function, None
        return _Ended(function, taps, [Passage(passage.trail, passage.place, behind=True) for passage in passages])

    def _look(self, output: Any, ended: _Ended) -> None:
        for tap in ended.taps.values():
            self._sink.reduce(output, tap, ended.function)
        if isinstance(output, T):
            self._tag(output, ended.passages)

    def _without_self_gates(self, passages: list[Passage], out: Any) -> list[Passage]:
        """Each trail once.

        One that comes from before and from behind its function, as in ``x * sigmoid(x)``, has not had its whole
        function before: what comes out here is that.
        """
        kept: dict[int, Passage] = {}
        for passage in passages:
            trail, other = passage.trail, kept.get(id(passage.trail))
            if other is not None and other.behind != passage.behind:
                trail.function, trail.witness, trail.tap = "custom", "none", Tap(trail.layer, passage.place)
                self._sink.reduce(out, trail.tap, "custom")
            if other is None or passage.behind:
                kept[id(trail)] = passage
        return list(kept.values())

    def _settle(self, trail: Trail) -> None:
        """Look at a layer's own output: at the end of the pass, or before something works on it in place."""
        if trail.output is not None:
            output, trail.output = trail.output, None
            trail.tap = Tap(trail.layer, trail.place)
            self._sink.stage(output, trail.tap)
            self._sink.reduce(output, trail.tap, None)

    def _at(self, tensor: Any) -> list[Passage]:
        known = self._tags.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else []

    def _tag(self, tensor: Any, passages: list[Passage]) -> None:
        self._tags[id(tensor)] = (weakref.ref(tensor), passages)

    def _seen(self, args: Any, kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, list[Passage]]]:
        """The tagged tensors among arguments."""
        for value in (*args, *kwargs.values()) if kwargs else args:
            if isinstance(value, T):
                if found := self._at(value):
                    yield value, found
            elif isinstance(value, (list, tuple)):
                for inner in value:
                    if isinstance(inner, T) and (found := self._at(inner)):
                        yield inner, found


@dataclass(frozen=True, slots=True)
class _Ended:
    """Trails that an activation function takes in, while it is called."""

    function: str
    taps: dict[Place, Tap]
    passages: list[Passage]


_WITH_WEIGHTS = frozenset({calls.LINEAR, *calls.PRODUCTS, *calls.ADDED_PRODUCT, *calls.CONVOLUTIONS})
_TELL_ROWS = frozenset({calls.EMBEDDING, *calls.RESHAPES})
_IN_PLACE_OPERATORS = frozenset({T.__iadd__, T.__isub__, T.__imul__, T.__itruediv__, T.__setitem__})


def _in_place(func: Any, kwargs: Mapping[str, Any]) -> bool:
    if func in _IN_PLACE_OPERATORS or kwargs.get("inplace") is True:
        return True
    name = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _has_units(tensor: Any) -> bool:
    return isinstance(tensor, T) and tensor.is_floating_point() and tensor.dim() > 0 and tensor.layout == torch.strided


def _escape(passage: Passage) -> None:
    passage.trail.escaped = True
    passage.trail.lost = passage.trail.lost or not passage.behind


def tensors_of(outputs: Any) -> Iterator[Any]:
    """All tensors of a structure, in its order."""
    if isinstance(outputs, T):
        yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from tensors_of(value)
    elif isinstance(outputs, (list, tuple)):
        for value in outputs:
            yield from tensors_of(value)
    elif hasattr(outputs, "__dataclass_fields__"):
        for value in vars(outputs).values():
            yield from tensors_of(value)

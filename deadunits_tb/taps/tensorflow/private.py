"""Every private name of TensorFlow that the taps lean on, so that a new version of TensorFlow is one file's work.

Checked with TensorFlow 2.21. What is missing in another version raises an error that says so, before training starts.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from deadunits_tb.errors import MissingDependencyError

_DRAWS = ("Random", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial")
_DEPTH = 200


def check_version() -> None:
    """Find out whether this version of TensorFlow has what the taps need.

    Raises:
        MissingDependencyError: It has not.
    """
    missing = [
        name
        for name, found in (
            ("tensorflow.python.eager.record.could_possibly_record", hasattr(_record(), "could_possibly_record")),
            ("tf.__internal__.decorator.make_decorator", hasattr(tf.__internal__.decorator, "make_decorator")),
            ("tf.function(...)._clone", hasattr(tf.function(lambda: None), "_clone")),
        )
        if not found
    ]
    if missing:
        raise MissingDependencyError(
            f"deadunits_tb cannot watch TensorFlow {tf.__version__}, which has no {missing[0]}: use TensorFlow 2.21"
        )


def is_recording() -> bool:
    """Whether a gradient tape records in this thread."""
    return bool(_record().could_possibly_record())


def identity_before(tensor: Any, back: Callable[[Any], Any]) -> Any:
    """A bare identity of a tensor, and nothing else in the graph.

    Args:
        tensor: In, as it is.
        back: Takes the gradient on its way back, and returns it.
    """
    try:
        record = _record()
    except ImportError:  # another version: a custom gradient works everywhere, and leaves an operation in between
        return tf.custom_gradient(lambda value: (tf.identity(value), back))(tensor)
    with record.stop_recording():
        value = tf.identity(tensor)
    record.record_operation("DeadUnitsTap", [value], [tensor], lambda gradient: [back(gradient)])
    return value


def attributes(graph: Any, added: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Give attributes to all operations that the body adds to a graph."""
    scope: contextlib.AbstractContextManager[None] = graph._attr_scope(added)
    return scope


def sources_of_gradient() -> list[Any] | None:
    """With respect to what the ``tf.GradientTape`` that is calling us differentiates; None where there is none."""
    frame: Any = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            return None
        found = frame.f_locals
        if isinstance(found.get("self"), tf.GradientTape) and "sources" in found:
            return list(tf.nest.flatten(found["sources"]))
        frame = frame.f_back
    return None


def second_function(function: Any, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """Another ``tf.function`` with the same settings, that traces the same Python function within another.

    Args:
        function: What ``tf.function`` gave.
        around: Takes a function that runs the user's own, as autograph converts it, and returns what to trace.
    """

    def traced(*args: Any, **kwargs: Any) -> Any:
        # TensorFlow puts what autograph makes of the user's function, and of it alone, into this attribute.
        return around(decorated.__wrapped__)(*args, **kwargs)

    decorated = tf.__internal__.decorator.make_decorator(function.python_function, traced)
    return function._clone(decorated)


def draws_statefully(graph: Any) -> bool:
    """Whether a graph, or a function that it calls, draws random numbers whose state is hidden in its operations.

    Another graph draws others. Keras's own layers and ``tf.random.Generator`` keep their state in variables instead,
    which all graphs share.
    """
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return any(node.op.startswith(_DRAWS) and "Dataset" not in node.op for node in nodes)


def _record() -> Any:
    from tensorflow.python.eager import record

    return record

"""Look at a tensor of someone's graph so that TensorFlow compiles that graph as if nobody looked.

Before a graph runs, TensorFlow rewrites it: products and sums are put in another order where that saves work, equal
operations become one, chains are fused. Whether it may depends on *who else* uses a value, and each rewriting changes
results in the last bit. So an additional reader, an operation in between, or a control dependency can change training.
Three things together keep ours out of sight:

- A value that such a rewriting could swallow is not read: the operations that made it are made a second time, back to
  values that none can swallow (:func:`apart`). Mostly there is nothing to do, as a matrix product stands between.
- What we make carries a mark, and equal operations with different marks never become one (:func:`marked`).
- What sees a gradient is a bare identity, which TensorFlow removes before it rewrites anything (:func:`gradient_seen`).

``tests/taps/test_keras_rewriting.py`` compares the rewritten graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from deadunits_tb.taps.tensorflow.private import attributes, identity_before

_MARK = "_dead_units"

_REMOVED = frozenset({"Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics"})
"""Operations that are removed, or moved past: what is on their other side counts."""

_REORDERED = frozenset(
    {
        *("Add", "AddV2", "AddN", "Sub", "Mul", "MulNoNan", "Div", "RealDiv", "DivNoNan", "Neg", "Reciprocal"),
        *("Square", "SquaredDifference", "Pow", "Sqrt", "Rsqrt", "Log", "Log1p", "Exp", "Expm1", "Abs", "Sign"),
        *("Maximum", "Minimum", "Cast", "Reshape", "ExpandDims", "Squeeze", "Transpose", "Conj", "BroadcastTo"),
        *("Accumulate", "AccumulateNV2", "Relu", "Relu6", "Tanh", "Sigmoid", "Elu", "Selu", "LeakyRelu", "Softplus"),
        *("Erf", "Sin", "Cos", "Floor", "Round", "Inv", "ZerosLike", "OnesLike"),
    }
)
"""Operations on single elements, that may be put in another order, or into one with their neighbours."""

_FUSED = {
    **dict.fromkeys(("MatMul", "Conv2D", "Conv3D", "DepthwiseConv2dNative"), frozenset({"BiasAdd"})),
    "BiasAdd": frozenset({"Add", "AddV2", "AddN", "Relu", "Relu6", "Elu", "Tanh", "Sigmoid", "LeakyRelu"}),
}
"""Operations that become one with what takes them in."""

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "Case", "StatelessCase"})
"""Functions: TensorFlow puts their bodies in their place before it rewrites."""


def apart(tensor: Any, made: dict[int, Any] | None = None) -> Any:
    """The same value, to be read without a rewriting of the graph being noticed or hindered.

    Called when all of the graph that may use the tensor is there.

    Args:
        tensor: Of the graph that is being built; an eager one is given back.
        made: What was made for other tensors of the same graph, by their ``id``: it is used again, and added to.
    """
    if not isinstance(tensor, tf.Tensor) or not tf.is_symbolic_tensor(tensor):
        return tensor
    made = {} if made is None else made
    if id(tensor) not in made:
        made[id(tensor)] = _again(tensor, made) if _may_be_swallowed(tensor) else tensor
    return made[id(tensor)]


def _again(tensor: Any, made: dict[int, Any]) -> Any:
    operation = tensor.op
    inputs = [apart(each, made) for each in operation.inputs]
    with marked():
        again = tensor.graph.create_op(
            operation.type,
            inputs,
            [output.dtype for output in operation.outputs],
            attrs=dict(operation.node_def.attr),
            name="dead_units_apart",
        )
    for old, new in zip(operation.outputs, again.outputs, strict=True):
        new.set_shape(old.shape)
        made[id(old)] = new
    return again.outputs[tensor.value_index]


def _may_be_swallowed(tensor: Any) -> bool:
    kind = tensor.op.type
    if _MARK in tensor.op.node_def.attr:
        return False
    users = _users(tensor)
    if kind in _FUSED:
        return any(user.type in _FUSED[kind] for user in users)
    return kind in _REMOVED | _REORDERED and any(user.type in _REORDERED | _CALLS for user in users)


def _users(tensor: Any) -> list[Any]:
    """Operations other than ours that take in a tensor, those behind removed ones among them."""
    found = []
    for user in tensor.consumers():
        if _MARK in user.node_def.attr:
            continue
        found += [each for output in user.outputs for each in _users(output)] if user.type in _REMOVED else [user]
    return found


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """Mark what the body adds to a graph."""
    if tf.executing_eagerly():
        yield
        return
    mark = tf.compat.v1.AttrValue(b=True)
    with attributes(tf.compat.v1.get_default_graph(), {_MARK: mark}), tf.name_scope("dead_units"):
        yield


def gradient_seen(tensor: Any, arrived: Callable[[Any], None]) -> Any:
    """A tensor to be used in place of the given one; ``arrived`` gets the loss gradient with respect to it."""

    def back(gradient: Any) -> Any:
        arrived(gradient)
        return gradient

    return identity_before(tensor, back)

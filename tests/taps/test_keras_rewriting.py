"""TensorFlow rewrites the graph of an observed step as it rewrites that of the model's own, whatever is read in it.

Equal results of a few steps may be luck; equal expressions are not. After a step the graphs that TensorFlow ran are
compared: what every variable was assigned, as an expression of operations, attributes and inputs.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections import Counter

import keras
import pytest
import tensorflow as tf
from keras import layers as L
from tensorflow.python.eager import context  # the only way to what was run

from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.taps.tensorflow.apart import apart
from keras_zoo import CLASSES, ZOO, built, vectors

COMMUTATIVE = {"Mul", "Add", "AddV2", "AddN", "Maximum", "Minimum", "Equal", "LogicalAnd"}
"""TensorFlow orders their inputs by name; IEEE 754 does not care."""


def scaled():
    """Products behind and before activation functions, that TensorFlow would like to put in another order."""
    x = inputs = keras.Input((6,))
    x = L.Activation("gelu")(L.Dropout(0.3)(L.Dense(8)(x)))
    x = L.Dense(8, "silu", kernel_regularizer="l2")(L.Rescaling(1.7)(x))
    x = L.BatchNormalization()(L.Dense(7, "selu")(L.Rescaling(0.7)(L.Rescaling(0.3)(x))))
    x = L.Dropout(0.3)(L.PReLU()(L.Dense(7)(x)))
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(x))


class Raw(keras.Model):
    """Calls what nobody wraps."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = L.Dense(8, "gelu"), L.Dense(8), L.Dense(CLASSES)

    def call(self, inputs):
        return self.head(tf.raw_ops.Tanh(x=self.second(0.37 * self.first(inputs) * 1.1)))


MODELS = {"scaled": (scaled, vectors), "raw": (Raw, vectors)}


def nesterov() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)


def accumulating() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.05, momentum=0.9, gradient_accumulation_steps=2)


def adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(0.01, clipnorm=1.0)


def assigned(model: keras.Model, data, callbacks: list[keras.callbacks.Callback]) -> Counter[str]:
    """What each variable was assigned in one step: digests of expressions."""
    x, y = data
    context.enable_run_metadata()
    try:
        model.fit(x[:8], y[:8], batch_size=8, verbose=0, callbacks=callbacks)
        graphs = context.export_run_metadata().function_graphs
    finally:
        context.disable_run_metadata()
    graph = max((each.post_optimization_graph for each in graphs), key=lambda graph: len(graph.node))
    nodes = {node.name: node for node in graph.node}
    known: dict[str, str] = {}

    def expression(tensor: str) -> str:
        name, _, port = tensor.partition(":")
        node, key = nodes[name], f"{name}:{port or 0}"
        if key not in known:
            known[key] = "itself"  # loops
            inputs = [each for each in node.input if not each.startswith("^")]
            if node.op == "Identity":
                known[key] = expression(inputs[0])
            else:
                known[key] = digest(node, inputs, port or "0")
        return known[key]

    def digest(node, inputs: list[str], port: str) -> str:
        if node.op in ("_Arg", "Placeholder"):  # ours takes more, so they have other numbers
            facts = [node.attr["T"].type]
        elif node.op == "Const":
            facts = [node.attr["value"].tensor.SerializeToString(deterministic=True)]
        else:
            attributes = sorted(item for item in node.attr.items() if not item[0].startswith("_"))
            names = ("container", "shared_name")
            facts = [
                (name, value.SerializeToString(deterministic=True)) for name, value in attributes if name not in names
            ]
        operands = [expression(each) for each in inputs]
        operands = sorted(operands) if node.op in COMMUTATIVE else operands
        return hashlib.sha1(repr((node.op, facts, operands, port)).encode()).hexdigest()

    return Counter(f"{node.op} {expression(node.input[1])}" for node in graph.node if "Assign" in node.op)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("convolutions", nesterov),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("separate", nesterov),
                ("scaled", adam),
                ("raw", adam),
                ("dense", nesterov),
                ("residual", adam),
                ("attention", adam),
                ("scaled", nesterov),
                ("scaled", accumulating),
            )
        ),
    ],
)
def test_the_same_expressions_are_assigned(name: str, optimizer, tmp_path: pathlib.Path, monkeypatch) -> None:
    for model in MODELS.items():
        monkeypatch.setitem(ZOO, *model)
    bare = assigned(*built(name, optimizer=optimizer), [])
    watched = assigned(*built(name, optimizer=optimizer), [DeadUnitsCallback(tmp_path, every=1)])
    assert sum(bare.values()) > 5
    assert bare == watched


def test_only_what_a_rewriting_could_swallow_is_made_again() -> None:
    def made(function) -> bool:
        graph = tf.Graph()
        with graph.as_default():
            x = tf.compat.v1.placeholder(tf.float32, [4, 4])
            tensor = function(x)
            again = apart(tensor)
            assert again.shape == tensor.shape
            return again is not tensor

    def multiplied(x):
        y = 2.0 * x
        tf.identity(y) * 3.0
        return y

    def taken_by_a_product(x):
        y = 2.0 * x
        tf.matmul(y, y)
        return y

    def fused(x):
        y = tf.nn.bias_add(tf.matmul(x, x), tf.zeros([4]))
        tf.raw_ops.Tanh(x=y)
        return y

    assert made(multiplied)
    assert made(fused)
    assert not made(taken_by_a_product)
    assert not made(lambda x: 2.0 * x)

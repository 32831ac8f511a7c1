"""Every private name of Keras that the taps lean on, so that a new version of Keras is one file's work.

Checked with Keras 3.15. What is missing in another version raises an error that says so, before training starts.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import keras

from deadunits_tb.errors import MissingDependencyError

_ELEMENTWISE = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "glu", "sigmoid", "log_sigmoid"),
    *("hard_sigmoid", "hard_silu", "hard_tanh", "tanh", "tanh_shrink", "softplus", "softsign", "soft_shrink"),
    *("hard_shrink", "threshold", "squareplus", "sparse_plus", "sparse_sigmoid", "softmax", "log_softmax", "sparsemax"),
)
"""Activation functions by the names that Keras gives them as functions."""


def check_version() -> None:
    """Find out whether this version of Keras has what the taps need.

    Raises:
        MissingDependencyError: It has not.
    """
    needed = (
        "backend.nn.relu",
        "backend.compute_output_spec",
        "ops.numpy.Add",
        "ops.function.make_node_key",
        "layers.Layer._flatten_layers",
        "layers.Layer._open_name_scope",
    )
    for name in needed:
        try:
            operator.attrgetter(name)(_source())
        except AttributeError as error:
            raise MissingDependencyError(
                f"deadunits_tb cannot watch Keras {keras.__version__}, which has no {name}: use Keras 3.10 to 3.15"
            ) from error


def activation_functions() -> list[tuple[ModuleType, str]]:
    """Where activation functions live that a model's own code may call: modules, and names in them."""
    places = (keras.activations, _source().backend.nn, _source().backend.numpy)
    return [(module, name) for module in places for name in _ELEMENTWISE if callable(getattr(module, name, None))]


def addition_operations() -> tuple[type, ...]:
    """What ``x + y`` and ``x - y`` become in a functional model."""
    operations = _source().ops.numpy
    return operations.Add, operations.Subtract


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """All layers inside a layer or model, at any depth, itself left out."""
    return list(layer._flatten_layers(include_self=False))


def is_built(model: keras.Model) -> bool:
    """Whether all weights of a model's layers exist."""
    return all(layer.built for layer in sublayers(model))


def build(model: keras.Model, batch: Any) -> None:
    """Make all weights of a model, in the way that its first step would, and as far as that goes before it.

    The weights are the same: initializers draw their seeds when they are constructed. A ``build`` of the user's own is
    called; without one the model is called on symbolic tensors, which the first step would do, too, and nothing else.

    Args:
        model: Not built yet.
        batch: What ``fit`` trains on: a structure of anything with a shape and a type.
    """
    inputs = keras.utils.unpack_x_y_sample_weight(batch)[0]
    with model._open_name_scope():  # in which the first step would be: the weights' paths come from it
        if not getattr(model.build, "_is_default", False):
            model.build(tuple(inputs.shape))
        else:
            _call_symbolically(model, inputs)


def mask_of(tensor: Any) -> Any:
    """The padding mask that Keras attached to a tensor, None without."""
    return _source().backend.get_keras_mask(tensor)


def optimizer_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that an optimizer was built for."""
    return list(optimizer._trainable_variables)


def optimizer_slots(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> dict[str, keras.Variable]:
    """What an optimizer remembers of a variable, by name; empty where it does not train it, or has made no step."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    slots = {}
    for name in (
        *("momentums", "_momentums", "_velocities", "_velocity_hats", "_average_gradients"),
        *("_accumulated_gradients", "_model_variables_moving_average"),
    ):
        for trained, slot in zip(inner._trainable_variables, getattr(inner, name, ()) or (), strict=False):
            if trained is variable:
                slots[name.strip("_")] = slot
    return slots


def trainer_of(optimizers: Iterable[keras.optimizers.Optimizer], variable: Any) -> keras.optimizers.Optimizer | None:
    """The optimizer that trains a variable, without those around it that scale the loss or hand out work."""
    for optimizer in optimizers:
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        parts = getattr(inner, "optimizers", None)  # of a MultiOptimizer
        found = trainer_of(parts, variable) if isinstance(parts, (list, tuple)) else None
        if found is not None:
            return found
        if any(trained is variable for trained in getattr(inner, "_trainable_variables", ())):
            return inner
    return None


def decays(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether an optimizer lets a variable that it trains decay."""
    return bool(optimizer.weight_decay) and bool(optimizer._use_weight_decay(variable))


def steps_made(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """The variable that counts how often an optimizer was given gradients, accumulated or not."""
    return optimizer._iterations


def learning_rate_source(optimizer: keras.optimizers.Optimizer) -> Any:
    """A variable, a schedule, or a function of the user's."""
    return getattr(optimizer, "inner_optimizer", optimizer)._learning_rate


def graph_of(model: keras.Layer) -> Any:
    """The functional graph of a functional or sequential model, None for a subclassed one."""
    graph = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    return graph if hasattr(graph, "_nodes") and hasattr(graph, "operations") else None


def graph_calls(graph: Any) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """Each call in a functional graph: operation, symbolic tensors in, symbolic tensors out."""
    for operation in graph.operations:
        for index, node in enumerate(operation._inbound_nodes):
            if _source().ops.function.make_node_key(operation, index) in graph._nodes:
                yield operation, list(node.arguments.keras_tensors), list(node.outputs)


def replicas_kept(key: str, strategy: Any) -> tuple[Any, str, Any]:
    """Keep one entry of the logs as it is on each replica, side by side, where Keras would take the mean of them.

    Args:
        key: Of the logs.
        strategy: Of ``tf.distribute``, under which a train function is traced or runs.

    Returns:
        Module, name in it, and what to put there meanwhile.
    """
    trainer = _source().backend.tensorflow.trainer
    original = trainer.reduce_per_replica

    def reduce_per_replica(values: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(values, dict) or key not in values:
            return original(values, *args, **kwargs)
        rest = {name: value for name, value in values.items() if name != key}
        each = strategy.experimental_local_results(values[key])
        return {**original(rest, *args, **kwargs), key: keras.ops.stack(each)}

    return trainer, "reduce_per_replica", reduce_per_replica


def training_mode() -> bool | None:
    """Whether the layer that is being called is in training mode; None where nobody said."""
    context = _source().backend.common.global_state.get_global_attribute("current_call_ctx")
    mode = None if context is None else context.get_value("training")
    return mode if isinstance(mode, bool) else None


def fit_callbacks(frame: Any) -> keras.callbacks.CallbackList | None:
    """The callback list of the ``fit`` that calls us, which lives as long as that call."""
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return caller
        frame = frame.f_back
    return None


def _call_symbolically(model: keras.Model, inputs: Any) -> None:
    def symbolic(spec: Any) -> Any:
        return keras.KerasTensor(tuple(spec.shape), keras.backend.standardize_dtype(spec.dtype))

    training = {"training": True} if "training" in inspect.signature(model.call).parameters else {}
    _source().backend.compute_output_spec(model.call, keras.tree.map_structure(symbolic, inputs), **training)
    model.build(tuple(keras.tree.flatten(inputs)[0].shape))


def _source() -> Any:
    return keras.src

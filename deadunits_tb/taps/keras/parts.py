"""What a Keras model is made of and how it is trained: so that two runs can be told apart by their dropout, say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from deadunits_tb.run_record import MODEL_PARTS, ModelPart
from deadunits_tb.taps.keras import private as keras_private

_NOT_THE_RECIPE = frozenset({"name", "dtype", "trainable", "seed", "sparse", "ragged", "data_format"})


def model_parts(model: keras.Model) -> tuple[ModelPart, ...]:
    """All layers, at any depth, models themselves left out, in the model's order. Nothing is computed or built."""
    layers = [layer for layer in keras_private.sublayers(model) if not isinstance(layer, keras.Model)]
    return tuple(ModelPart(layer.name, type(layer).__name__, _settings(layer)) for layer in layers[:MODEL_PARTS])


def optimizer_facts(optimizer: Any) -> dict[str, str | float]:
    """Class and settings of an optimizer, as far as they are texts and numbers; of one within a loss scaler, its own.

    Args:
        optimizer: None for none.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer is None:
        return {}
    try:
        settings = optimizer.get_config()
    except Exception:  # an optimizer of the user's own need not have any
        settings = {}
    facts = {
        name: value if isinstance(value, str) else float(value)
        for name, value in settings.items()
        if isinstance(value, (str, int, float)) and name != "name"
    }
    return {"class": type(optimizer).__name__, **facts}


def _settings(layer: keras.Layer) -> dict[str, str | float]:
    try:
        config = layer.get_config()
    except Exception:  # a layer of the user's own need not have any
        return {}
    return {
        name: value
        for name, given in config.items()
        if name not in _NOT_THE_RECIPE and (value := _value(given)) is not None
    }


def _value(given: Any) -> str | float | None:
    if isinstance(given, (bool, int, float)):
        return float(given)
    if isinstance(given, (str, tuple)):
        return str(given)[:80]
    if isinstance(given, dict) and "class_name" in given:  # an initializer, a regularizer
        return "".join(_described(given))[:80]
    return None


def _described(given: dict[str, Any]) -> Iterator[str]:
    yield str(given["class_name"])
    config = given.get("config")
    settings = config if isinstance(config, dict) else {}
    told = [f"{name}={v:g}" for name, v in settings.items() if isinstance(v, (int, float)) and name != "seed"]
    if told:
        yield f"({', '.join(told)})"

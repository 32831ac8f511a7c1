"""The Keras callback as its users meet it: arguments, logs, what it prints, and what is left when anything fails."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any

import keras
import numpy as np
import pytest

import deadunits_tb
from chosen_interval import assert_chosen_by_cost, without_opening
from deadunits_tb import MonitorWarning, Thresholds
from deadunits_tb.errors import InvalidArgumentError, LogDirectoryError, UnknownNameError
from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.units import UnitState
from keras_zoo import BACKEND, assert_same_state, built, state


def fit(callbacks: list[Any], *, epochs: int = 2, **arguments: Any) -> tuple[keras.Model, keras.callbacks.History]:
    model, (x, y) = built("dense")
    history = model.fit(x, y, batch_size=11, epochs=epochs, verbose=0, callbacks=callbacks, **arguments)
    return model, history


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"every": 0}, "every must be a whole number from 1"),
        ({"every": "often"}, "every must be a whole number from 1"),
        ({"max_overhead": 0}, "max_overhead must be above 0"),
        ({"max_bytes": -1}, "max_bytes must be a whole number from 1"),
        ({"dataset_examples": -1}, "dataset_examples must be a whole number from 0"),
        ({"layers": "dense"}, "layers must be a list"),
        ({"layers": []}, "layers is empty"),
        ({"layers": [3]}, "layers must hold names or layers"),
        ({"thresholds": 3}, "thresholds must be Thresholds"),
        ({"thresholds": {"dead_examples": -1}}, "dead_examples must be between"),
        ({"on_alarm": 3}, "on_alarm must be a function"),
        ({"stop_on_alarm": "yes"}, "stop_on_alarm must be True or False"),
        ({"verbose": 7}, "verbose must be 0 or 1"),
    ],
)
def test_wrong_arguments_are_refused_at_once(tmp_path: pathlib.Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgumentError, match=sentence):
        DeadUnitsCallback(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_does_not_exist_is_refused_before_training(tmp_path: pathlib.Path) -> None:
    model, (x, y) = built("dense")
    model.optimizer.build(model.trainable_variables)  # as some backends do before the callbacks are asked
    before = state(model)
    with pytest.raises(UnknownNameError, match="there is no layer 'dense_9'") as raised:
        model.fit(x, y, verbose=0, callbacks=[DeadUnitsCallback(tmp_path, layers=["dense_9"])])
    assert "'dense_1'" in str(raised.value)
    assert_same_state(before, state(model))


def test_an_unwritable_directory_is_refused_before_training(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    model, (x, y) = built("dense")
    model.optimizer.build(model.trainable_variables)
    before = state(model)
    with pytest.raises(LogDirectoryError, match="file"):
        model.fit(x, y, verbose=0, callbacks=[DeadUnitsCallback(tmp_path / "file")])
    assert_same_state(before, state(model))


def test_only_the_chosen_layers_are_watched(tmp_path: pathlib.Path) -> None:
    fit([DeadUnitsCallback(tmp_path, every=1, layers=["dense_1"])])
    assert list(deadunits_tb.load(tmp_path)["."].layers) == ["dense_1"]


def test_dead_fraction_is_in_the_logs_for_early_stopping(tmp_path: pathlib.Path) -> None:
    stop = keras.callbacks.EarlyStopping("dead_fraction", mode="min", baseline=-1.0, patience=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Keras warns where the metric is not there
        _, history = fit([DeadUnitsCallback(tmp_path, every=1), stop], epochs=5)
    assert history.history["dead_fraction"] == [0.0, 0.0]


def test_the_table_after_each_epoch(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit([DeadUnitsCallback(tmp_path, every=1, verbose=1)])
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if line.startswith("epoch")]
    assert [line.split(",")[0] for line in headings] == ["epoch 1/2", "epoch 2/2"]
    for state_ in ("dead", "saturated", "constant", "disconnected", "non_finite"):
        assert state_ in headings[0]
    assert sum(line.strip().startswith("dense") for line in lines) == 6


def test_steps_go_on_over_fits_and_from_the_optimizer(tmp_path: pathlib.Path) -> None:
    model, (x, y) = built("dense")
    watch = DeadUnitsCallback(tmp_path / "whole", every=1)
    for _ in range(2):
        model.fit(x, y, batch_size=11, verbose=0, callbacks=[watch])
    model.fit(x, y, batch_size=11, verbose=0, callbacks=[DeadUnitsCallback(tmp_path / "resumed", every=1)])
    runs = deadunits_tb.load(tmp_path)
    assert runs["whole"].layers["dense"].steps.tolist() == [0, 1, 2, 3]
    assert runs["resumed"].layers["dense"].steps.tolist() == [4, 5]


def test_evaluation_and_prediction_are_not_counted(tmp_path: pathlib.Path) -> None:
    class Looks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.predict(x[:3], verbose=0)

    model, (x, y) = built("dense", run_eagerly=True)
    callbacks = [DeadUnitsCallback(tmp_path, every=1), Looks()]
    model.fit(x, y, batch_size=11, epochs=2, verbose=0, callbacks=callbacks, validation_data=(x[:8], y[:8]))
    assert [(record.step, record.examples) for record in deadunits_tb.load(tmp_path)["."].records] == [
        (step, 11) for step in range(4)
    ]


def test_gradients_that_the_optimizer_accumulates(tmp_path: pathlib.Path) -> None:
    """Each batch is a step, as Keras counts them; between updates no weight moves."""

    def trained(callbacks: list[Any]) -> dict[str, Any]:
        optimizer = lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)  # noqa: E731
        model, (x, y) = built("dense", optimizer=optimizer, run_eagerly=True)
        model.fit(x, y, batch_size=11, epochs=2, verbose=0, callbacks=callbacks)
        return state(model)

    assert_same_state(trained([]), trained([DeadUnitsCallback(tmp_path, every=1)]))
    run = deadunits_tb.load(tmp_path)["."]
    assert [(record.step, record.examples) for record in run.records] == [(step, 11) for step in range(4)]
    moved = (run.layers["dense_2"].statistic("update_ratio") > 0).any(1)
    assert moved.tolist() == [False, True, False, True]


@pytest.mark.slow
def test_by_default_the_interval_is_chosen_by_cost(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_opening(monkeypatch)
    fit([DeadUnitsCallback(tmp_path)], epochs=50)
    assert_chosen_by_cost(deadunits_tb.load(tmp_path)["."], steps=100)


def test_a_callback_is_of_one_model(tmp_path: pathlib.Path) -> None:
    watch = DeadUnitsCallback(tmp_path, every=1)
    fit([watch])
    with pytest.raises(InvalidArgumentError, match="of its own for each model"):
        fit([watch])


def nan_images() -> tuple[keras.Model, Any, Any]:
    model, (x, y) = built("dense")
    x = x.copy()
    x[12] = np.nan  # in the second batch
    return model, x, y


def test_an_alarm_is_raised_and_may_stop_training(tmp_path: pathlib.Path) -> None:
    model, x, y = nan_images()
    alarms: list[Any] = []
    watch = DeadUnitsCallback(tmp_path, every=1, on_alarm=alarms.append, stop_on_alarm=True)
    history = model.fit(x, y, batch_size=11, epochs=10, verbose=0, shuffle=False, callbacks=[watch])
    assert len(history.history["loss"]) < 10
    assert {alarm.state for alarm in alarms} == {UnitState.NON_FINITE}
    assert alarms[0].step == 1
    run = deadunits_tb.load(tmp_path)["."]
    assert (run.layers["dense"].states[-1] == UnitState.NON_FINITE).all()


def test_thresholds_by_name_are_those_of_the_run(tmp_path: pathlib.Path) -> None:
    fit([DeadUnitsCallback(tmp_path, every=1, thresholds={"dead_examples": 5000})])
    assert deadunits_tb.load(tmp_path)["."].info.thresholds == Thresholds(dead_examples=5000)


class Interrupted(keras.callbacks.Callback):
    """Raises in the middle of an epoch."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            raise self.error


def leftovers(model: keras.Model) -> list[str]:
    """Whatever of ours is still in the model, its layers or its optimizer."""
    found = []
    for owner in (model, model.optimizer, *model._flatten_layers()):
        found += [
            f"{owner}.{name}"
            for name, value in vars(owner).items()
            if "deadunits_tb" in getattr(value, "__module__", "") or ""
        ]
        found += [
            f"{owner}.{name}"
            for name, value in vars(owner).items()
            if type(getattr(value, "__self__", None)).__module__.startswith("deadunits_tb")
        ]
    return found


@pytest.mark.parametrize(
    "error", [RuntimeError("a callback fails"), pytest.param(KeyboardInterrupt(), marks=pytest.mark.slow)]
)
def test_nothing_is_left_in_the_model_when_fit_raises(tmp_path: pathlib.Path, error: BaseException) -> None:
    model, (x, y) = built("dense")
    watch = DeadUnitsCallback(tmp_path, every=1)
    with pytest.raises(type(error)):
        model.fit(x, y, batch_size=11, verbose=0, callbacks=[watch, Interrupted(error)])
    assert leftovers(model) == []
    del watch
    plain, _ = built("dense")
    with pytest.raises(type(error)):
        plain.fit(x, y, batch_size=11, verbose=0, callbacks=[Interrupted(error)])
    for one in (model, plain):
        keras.utils.set_random_seed(3)
        one.fit(x, y, batch_size=11, verbose=0)
    assert_same_state(state(model), state(plain))
    assert deadunits_tb.load(tmp_path)["."].layers["dense"].steps.tolist() == [0, 1]


def test_nothing_is_left_in_the_model_after_fit(tmp_path: pathlib.Path) -> None:
    model, _ = fit([DeadUnitsCallback(tmp_path, every=1)])
    assert leftovers(model) == []


@pytest.mark.parametrize("where", ["record", pytest.param("fetch", marks=pytest.mark.slow)])
def test_a_monitor_that_fails_does_not_touch_the_training(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from deadunits_tb.capture.recording import Recording
    from deadunits_tb.taps.keras.backends import step_class

    def broken(*arguments: object, **named: object) -> None:
        raise OSError("injected")

    if where == "record":
        monkeypatch.setattr(Recording, "_record", broken)
    else:
        monkeypatch.setattr(step_class(), "fetch", broken)
    plain, expected = fit([])
    with pytest.warns(MonitorWarning, match=r"training goes on.*injected") as warned:
        model, history = fit([DeadUnitsCallback(tmp_path, every=1)])
    assert len([one for one in warned if issubclass(one.category, MonitorWarning)]) == 1
    assert_same_state(state(plain), state(model))
    assert expected.history["loss"] == history.history["loss"]
    assert leftovers(model) == []


@pytest.mark.slow
def test_a_full_disk_does_not_touch_the_training(tmp_path: pathlib.Path) -> None:
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("no /dev/full on this system")
    plain, _ = fit([])
    with pytest.warns(MonitorWarning, match="budget of 20,000 bytes"):
        model, _ = fit([DeadUnitsCallback(tmp_path, every=1, max_bytes=20_000)], epochs=60)
    longer, _ = fit([], epochs=60)
    assert_same_state(state(longer), state(model))
    assert plain is not None


@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere a compiled step can be watched")
def test_a_step_that_torch_compiles_is_left_alone_and_that_is_said(tmp_path: pathlib.Path) -> None:
    model, _ = built("dense")
    model.compile("sgd", "mse", jit_compile=True)
    watch = DeadUnitsCallback(tmp_path, every=1)
    watch.set_model(model)
    model.make_train_function()
    with pytest.warns(MonitorWarning, match="use jit_compile=False"):
        watch.on_train_begin()
    assert watch._tap is not None
    watch.on_train_batch_begin(0)
    assert leftovers(model) == [], "the model's own train function is the one that fit calls"

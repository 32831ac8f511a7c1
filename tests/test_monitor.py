"""What the monitor is told ends up in the file; whatever fails, training goes on."""

import dataclasses
import logging
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from deadunits_tb.capture.monitor import Monitor, MonitorWarning
from deadunits_tb.capture.observation import StepObservation, WeightObservation
from deadunits_tb.capture.pending import MOST_PENDING
from deadunits_tb.capture.reductions import observe_arrays
from deadunits_tb.errors import InvalidArgumentError, LogDirectoryError, UnknownNameError
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader
from deadunits_tb.run_record import RunInfo
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo, UnitState

HIDDEN = LayerInfo("hidden", "Dense", 0, 8, "relu", witness="pre_activation")
OTHER = LayerInfo("other", "Dense", 1, 4, "relu", witness="pre_activation")
RUN = RunInfo(layers=(HIDDEN,))


def batch(step, *, dead=(), examples=32, units=8, bad=None):
    rng = np.random.default_rng(step)
    values = np.maximum(rng.normal(size=(examples, units)), 0)
    values[:, list(dead)] = 0
    gradients = rng.normal(size=values.shape) * (values > 0)
    if bad is not None:
        values[0, 0] = bad
    return observe_arrays(values, activation_function="relu", gradients=gradients)


def seen(step, loss=None, inputs=None, **settings):
    return StepObservation({"hidden": batch(step, **settings)}, loss, inputs)


def train(monitor, steps, **settings):
    for step in steps:
        if monitor.wants(step):
            monitor.observe(step, lambda step=step: seen(step, **settings), learning_rate=0.1, seconds=1e-4)
        monitor.time(False, 0.01)


def history(tmp_path):
    return RunReader(LocalDataProvider(tmp_path)).history(".")


def test_records_are_read_back_as_they_were_judged(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=2)
    train(monitor, range(300), dead=[3])
    last = monitor.last_records["hidden"]
    assert monitor.counts == {"hidden": {"active": 7, "dead": 1}}
    assert monitor.dead_fraction == 1 / 8
    assert monitor.mean_abs("hidden") == pytest.approx(0.4 * 7 / 8, rel=0.2)
    monitor.close()
    run = history(tmp_path)
    layer = run.layer("hidden")
    assert layer.steps.tolist() == list(range(0, 300, 2))
    read = layer.record(len(layer.steps) - 1)
    np.testing.assert_array_equal(read.states, last.states)
    np.testing.assert_array_equal(read.since, last.since)
    np.testing.assert_array_equal(read.statistics.values, last.statistics.values)
    assert read.since[3] == 0
    assert math.isnan(read.window.run_moves)  # no weights were recorded
    unknown = {"run_moves": None}
    assert dataclasses.replace(read.window, **unknown) == dataclasses.replace(last.window, **unknown)


def test_the_facts_of_a_record(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=3, dataset_examples=500)
    monitor.skip("embedding", "looked up, not calculated")
    monitor.skip("embedding", "said before")
    rates = iter([0.5, 0.25])
    one, two = (seen(step, loss=1.0 / (step + 1), inputs=(10, 0.0, 10.0, -3.0, 3.0)) for step in (0, 3))
    monitor.observe(0, lambda: one, learning_rate=lambda: next(rates), seconds=0.25)
    monitor.time(True, 1.0)
    monitor.time(False, 1.5)
    monitor.observe(3, lambda: two, learning_rate=lambda: next(rates), seconds=0.25)
    monitor.close()
    first, second = history(tmp_path).records
    assert (first.step, first.optimizer_steps, first.examples, first.observations) == (0, 1, 32, 1)
    assert (second.step, second.optimizer_steps, second.interval, second.records_written) == (3, 3, 3, 2)
    assert (first.learning_rate, second.learning_rate, second.loss) == (0.5, 0.25, 0.25)
    assert dataclasses.astuple(first.inputs) == (0, 1, -3, 3)
    assert first.overhead is None
    assert second.overhead == pytest.approx(0.25 / 2.5, rel=0.5)
    assert [(s.layer, s.reason) for s in second.skipped] == [("embedding", "looked up, not calculated")]
    assert second.counts["hidden"] == (0,) * UnitState.UNKNOWN + (8, 0)
    assert history(tmp_path).layer("hidden").window(1).dataset_examples == 500


def test_observations_wait_on_the_device_until_a_record_is_due(tmp_path):
    monitor, fetched = Monitor(tmp_path, RUN, every=1, total_steps=100_000), []

    def deferred(step):
        return lambda: fetched.append(step) or seen(step)

    waited = []
    for step in range(400):
        monitor.observe(step, deferred(step), seconds=0)
        waited.append(step + 1 - len(fetched))
    assert fetched == sorted(fetched)
    assert max(waited[:200]) == 0  # early every observation is a record
    assert max(waited) == MOST_PENDING - 1
    monitor.close()
    assert fetched == list(range(400))
    layer = history(tmp_path).layer("hidden")
    assert layer.steps.tolist() == [*range(200), 324, 399]  # 99,800 steps are left for 800 records
    assert [layer.window(i).observations for i in (-3, -2, -1)] == [1, 125, 75]


def test_what_waits_is_of_the_layer_as_it_was(tmp_path):
    """For a ReLU any gradient but zero is a signal, for tanh a millionth of the layer's is none."""
    monitor = Monitor(tmp_path, RUN, every=1, initial_step=100_000)  # from there on not each observation is a record
    small = np.where(np.arange(8) == 2, 1e-20, 1.0)

    def one(step):
        layer = batch(step)
        return StepObservation({"hidden": dataclasses.replace(layer, gradient_squares=small * layer.positions)})

    for step in range(6):
        if step == 4:
            monitor.add_layer(dataclasses.replace(HIDDEN, activation_function="tanh"))
        monitor.observe(100_000 + step, lambda step=step: one(step), seconds=0)
    monitor.close()
    without = monitor.last_records["hidden"].evidence.examples_without_signal
    assert without.tolist() == [64 if unit == 2 else 0 for unit in range(8)]  # of the last two steps


def test_units_that_are_added_end_the_monitor_and_what_waits_is_recorded(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1, initial_step=100_000)
    for step in range(3):
        monitor.observe(100_000 + step, lambda step=step: seen(step), seconds=0)
    with pytest.warns(MonitorWarning, match="layer 'hidden': it had 8 units and now has 10: begin a new monitor"):
        monitor.add_layer(dataclasses.replace(HIDDEN, units=10))
    monitor.observe(100_003, lambda: seen(3, units=10), seconds=0)
    monitor.close()
    run = history(tmp_path)
    assert run.layer("hidden").steps.tolist() == [100_000, 100_002]
    assert "now has 10" in run.records[-1].errors[0]


def test_steps_may_be_called_otherwise_than_they_are_counted(tmp_path):
    """What is due goes by the count, and so does a length that is told in numbers."""
    monitor = Monitor(tmp_path, RUN, every=1, total_steps=64 * 100_000)
    for step in range(400):
        assert monitor.will_record(step) == (step < 200 or step == 324)
        monitor.observe(step, lambda step=step: seen(step), number=64 * (step + 1), seconds=0)
    monitor.close()
    run = history(tmp_path)
    assert run.layer("hidden").steps.tolist() == [64 * (step + 1) for step in (*range(200), 324, 399)]
    assert [record.optimizer_steps for record in run.records[-3:]] == [1, 125, 75]
    assert run.layer("hidden").window(0).from_start


def test_a_few_examples_at_a_time_are_put_together(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1)
    train(monitor, range(20), examples=3)
    monitor.close()
    layer = history(tmp_path).layer("hidden")
    assert [layer.window(i).examples for i in range(len(layer.steps))] == [3, *[9] * 6]


def test_run_moves_is_the_largest_update_of_any_layer(tmp_path):
    def with_change(observation, change):
        weights = WeightObservation(norm_in=np.ones(len(change)), change=np.array(change, float))
        return dataclasses.replace(observation, weights=weights)

    monitor = Monitor(tmp_path, RunInfo(layers=(HIDDEN, OTHER)), every=1)
    layers = {
        "hidden": with_change(batch(0), [0] * 8),
        "other": with_change(batch(0, units=4), [0, 0.5, np.nan, 0.25]),
    }
    monitor.observe(0, lambda: StepObservation(layers), seconds=0)
    assert {record.window.run_moves for record in monitor.last_records.values()} == {0.5}
    monitor.close()


def test_layers_that_appear_later_were_not_seen_from_the_start(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1)
    train(monitor, range(3))
    monitor.add_layer(OTHER)
    both = StepObservation({"hidden": batch(3), "other": batch(3, units=4)})
    monitor.observe(3, lambda: both, seconds=0)
    windows = {name: record.window for name, record in monitor.last_records.items()}
    assert windows["hidden"].from_start
    assert not windows["other"].from_start
    assert (windows["other"].first_step, windows["other"].examples_seen) == (3, 32)
    monitor.close()
    assert list(history(tmp_path).layers) == ["hidden", "other"]


@pytest.mark.parametrize(("initial", "first", "whole"), [(0, 0, True), (1, 1, True), (0, 3, False), (500, 500, False)])
def test_born_dead_is_known_only_if_the_first_step_was_observed(tmp_path, initial, first, whole):
    monitor = Monitor(tmp_path, RUN, every=1, initial_step=initial)
    train(monitor, [first])
    assert monitor.last_records["hidden"].window.from_start is whole
    monitor.close()


def test_alarms_come_once_and_when_units_double(tmp_path):
    said = []
    thresholds = Thresholds(unknown_examples=32, dead_examples=32, confirm_examples=1, confirm_records=1)
    monitor = Monitor(tmp_path, RunInfo(layers=(HIDDEN,), thresholds=thresholds), every=1, on_alarm=said.append)
    plan = [[], [0], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [], [], [5]]
    for step, dead in enumerate(plan):
        monitor.observe(step, lambda step=step, dead=dead: seen(step, dead=dead), seconds=0)
    assert [(alarm.step, alarm.state, alarm.units) for alarm in said] == [
        (1, UnitState.DEAD, 1),
        (3, UnitState.DEAD, 2),
        (5, UnitState.DEAD, 4),
        (8, UnitState.DEAD, 1),
    ]
    assert (said[0].layer, said[0].total) == ("hidden", 8)
    monitor.close()


def test_an_exception_in_the_users_callback_is_said_and_recording_goes_on(tmp_path):
    def complain(alarm):
        raise RuntimeError(f"no mail server for {alarm.layer}")

    thresholds = Thresholds(unknown_examples=1, dead_examples=1, confirm_examples=1, confirm_records=1)
    monitor = Monitor(tmp_path, RunInfo(layers=(HIDDEN,), thresholds=thresholds), every=1, on_alarm=complain)
    with pytest.warns(MonitorWarning, match="will not call on_alarm again.*no mail server for hidden") as warned:
        train(monitor, range(3), dead=[0])
    assert len(warned) == 1
    train(monitor, range(3, 5), dead=[0, 1, 2, 3])  # another alarm, which nobody hears
    monitor.close()
    assert [record.step for record in history(tmp_path).records] == [0, 1, 2, 3, 4]
    assert "no mail server" in history(tmp_path).records[-1].errors[0]


def test_a_failure_is_said_once_recorded_and_ends_the_monitor(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1)
    train(monitor, range(3))

    def lost():
        raise RuntimeError("the device\nwent away")

    with pytest.warns(MonitorWarning, match="training goes on. observe: RuntimeError: the device went away") as warned:
        monitor.observe(3, lost, seconds=0)
    assert len(warned) == 1
    monitor.observe(4, lost, seconds=0)  # says nothing: warnings are errors here
    assert monitor.stopped
    assert not monitor.wants(10)
    monitor.report("again", "no use")
    monitor.close()
    monitor.close()
    run = history(tmp_path)
    assert [record.step for record in run.records] == [0, 1, 2]
    assert run.records[-1].errors == ("observe: RuntimeError: the device went away",)
    assert run.records[-1].counts["hidden"][UnitState.UNKNOWN] == 8
    assert run.records_written == 3


def test_a_failure_before_the_first_record_is_recorded_too(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1, initial_step=7)
    with pytest.warns(MonitorWarning, match="tracing: no such operation"):
        monitor.report("tracing", "no such operation")
    monitor.close()
    (record,) = history(tmp_path).records
    assert (record.step, record.errors) == (7, ("tracing: no such operation",))


def test_what_is_left_can_be_settled_before_training_goes_on(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1, total_steps=100_000)
    train(monitor, range(204))
    monitor.settle()
    assert history(tmp_path).layer("hidden").steps.tolist() == [*range(200), 203]
    train(monitor, range(204, 208))
    monitor.close()
    monitor.settle()
    assert history(tmp_path).layer("hidden").steps.tolist() == [*range(200), 203, 207]


def test_a_handful_of_examples_at_the_end_does_not_judge(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1)
    train(monitor, range(4), examples=5)
    monitor.close()
    assert history(tmp_path).layer("hidden").steps.tolist() == [0, 2]


def test_a_failure_at_the_end_is_caught_too(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1, total_steps=10_000)
    train(monitor, range(205))
    monitor.observe(205, lambda: 1 / 0, seconds=0)
    with pytest.warns(MonitorWarning, match="ZeroDivisionError"):
        monitor.close()


@pytest.mark.parametrize(
    ("observation", "sentence"),
    [
        (StepObservation({"nobody": batch(0)}), "there is no layer 'nobody'"),
        (StepObservation({"hidden": batch(0, units=5)}), "layer 'hidden' has 8 units, not 5"),
    ],
)
def test_an_observation_that_does_not_fit_is_reported(tmp_path, observation, sentence):
    monitor = Monitor(tmp_path, RUN, every=1)
    with pytest.warns(MonitorWarning, match=sentence):
        monitor.observe(0, lambda: observation, seconds=0)
    monitor.close()


def test_steps_that_run_backwards_are_reported(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1)
    train(monitor, range(5))
    with pytest.warns(MonitorWarning, match="steps ran backwards, from 4 to 2"):
        monitor.observe(2, lambda: seen(2), seconds=0)
    monitor.close()


def test_where_warnings_are_errors_the_training_still_goes_on(tmp_path, caplog):
    monitor = Monitor(tmp_path, RUN, every=1)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "deadunits_tb"):
        warnings.simplefilter("error")
        monitor.observe(0, lambda: 1 / 0, seconds=0)
    assert "stopped monitoring" in caplog.text
    monitor.close()


def test_steps_without_examples_or_layers_make_no_record(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1)
    for step in range(5):
        monitor.observe(step, StepObservation, seconds=0)
    assert math.isnan(monitor.dead_fraction)
    assert math.isnan(monitor.mean_abs("hidden"))
    assert monitor.scale("hidden") is None
    train(monitor, [5])
    assert monitor.last_records["hidden"].window.step == 5
    monitor.close()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_bad_loss_is_recorded(tmp_path, loss):
    monitor = Monitor(tmp_path, RUN, every=1)
    train(monitor, range(2), loss=loss, bad=np.nan)
    monitor.close()
    assert str(history(tmp_path).records[-1].loss) == str(loss)
    assert history(tmp_path).layer("hidden").record(-1).states[0] == UnitState.NON_FINITE


def test_inputs_of_a_window_are_merged_and_a_bad_one_stays_to_be_seen(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1)
    inputs = [(2, 1.0, 2.0, 0.0, 2.0), (2, 5.0, 0.0, 5.0, 5.0), (1, 3.0, 0.0, 3.0, 3.0)]
    inputs += [inputs[0], (2, math.nan, math.nan, math.nan, math.nan), inputs[1]]
    for step, fed in enumerate([None, *inputs]):
        monitor.observe(
            step, lambda step=step, fed=fed: seen(step, inputs=fed, examples=8 if not step else 3), seconds=0
        )
    monitor.close()
    none, whole, bad = (record.inputs for record in history(tmp_path).records)
    assert none is None
    assert dataclasses.astuple(whole) == pytest.approx((3.0, math.sqrt(18 / 5), 0.0, 5.0))
    assert all(math.isnan(number) for number in dataclasses.astuple(bad))


def test_a_file_that_cannot_be_written_any_more_is_said_once(tmp_path):
    monitor = Monitor(tmp_path, RUN, every=1, max_bytes=20_000)

    def train_on():
        train(monitor, range(200))
        monitor.flush()
        train(monitor, range(200, 202))
        monitor.close()

    with pytest.warns(MonitorWarning, match="budget of 20,000 bytes") as warned:
        train_on()
    assert len({str(warning.message) for warning in warned}) == len(warned)
    assert all("budget of 20,000 bytes" in error for error in monitor.errors)
    assert sum(path.stat().st_size for path in tmp_path.rglob("events*")) <= 20_000


def test_a_program_that_ends_without_closing_loses_nothing(tmp_path):
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_monitor import Monitor, RUN, train
monitor = Monitor({str(tmp_path)!r}, RUN, every=1, total_steps=100_000)
train(monitor, range(204))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert history(tmp_path).layer("hidden").steps.tolist() == [*range(200), 203]


WRONG = {
    "every": [0, 1.5, "1"],
    "max_overhead": [0, 2, None],
    "max_bytes": [0, -1, 1e6, None],
    "total_steps": [-1, 2.5, "many"],
    "initial_step": [-1, 0.5, None],
    "dataset_examples": [-1, None],
    "on_alarm": ["print", 3],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, name, value):
    with pytest.raises(InvalidArgumentError, match=name):
        Monitor(tmp_path / "run", RUN, **{name: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("log_dir", [None, "", 3, b""])
def test_a_wrong_log_directory_is_refused(log_dir):
    with pytest.raises(InvalidArgumentError, match="log_dir must be the path of a directory"):
        Monitor(log_dir, RUN)


def test_a_log_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(LogDirectoryError):
        Monitor(tmp_path / "file", RUN)


def test_an_unknown_layer_is_refused(tmp_path):
    monitor = Monitor(tmp_path, RUN)
    with pytest.raises(UnknownNameError, match="Did you mean 'hidden'"):
        monitor.mean_abs("hiden")
    monitor.close()

"""What is handed over wrongly is refused at once, and nothing of the call is taken in."""

import inspect

import numpy as np
import pytest

from deadunits_tb import DeadUnitsWriter, InvalidArgumentError, LogDirectoryError
from deadunits_tb.reading.local import LocalDataProvider
from deadunits_tb.reading.provider import RunReader


def history(tmp_path):
    return RunReader(LocalDataProvider(tmp_path)).history(".")


GOOD = {"step": 3, "layer": "l", "activations": np.ones((4, 3))}

WRONG = [
    ({"step": -1}, "step must be a whole number from 0, not -1"),
    ({"step": 2.0}, "step must be a whole number"),
    ({"step": "3"}, "step must be a whole number"),
    ({"step": None}, "step must be a whole number"),
    ({"layer": ""}, "layer must be the name of a layer, not ''"),
    ({"layer": 3}, "layer must be the name of a layer, not 3"),
    ({"activations": np.ones(3)}, r"activations must be \[examples, ..., units\], not of shape \(3,\)"),
    ({"activations": np.ones((4, 0))}, "have no units"),
    ({"activations": None}, "activations must hold real numbers"),
    ({"activations": [["a", "b"]]}, "activations must hold real numbers, not"),
    ({"activations": [[1, 2], [3]]}, "activations cannot be made a NumPy array"),
    ({"activations": np.ones((4, 3), complex)}, "activations must hold real numbers, not complex128"),
    ({"activation_function": "rellu"}, "no activation function 'rellu'. Did you mean 'relu'"),
    ({"activation_function": max}, "activation_function must be a name"),
    ({"gradients": np.ones((4, 2))}, r"gradients have shape \(4, 2\), activations \(4, 3\)"),
    ({"gradients": "steep"}, "gradients must hold real numbers"),
    ({"weights": np.ones((3, 5))}, "weights of shape .3, 5. have 5 units along axis -1, the activations 3"),
    ({"weights": 3.0}, "weights must have an axis of units"),
    (
        {"weights": np.ones((5, 3)), "weight_gradients": np.ones((4, 3))},
        "weight_gradients are 4 per unit and weights 5",
    ),
    ({"weights": np.ones((3, 5)), "weight_unit_axis": 2}, "weight_unit_axis must be an axis of an array with 2 axes"),
    ({"outgoing": np.ones((5, 3))}, "outgoing of shape .5, 3. have 5 units along axis 0, the activations 3"),
    ({"unit_axis": 0}, "unit_axis must not be 0: axis 0 holds the examples"),
    ({"unit_axis": -2}, "unit_axis must not be -2"),
    ({"unit_axis": 2}, "unit_axis must be an axis of an array with 2 axes, not 2"),
    ({"unit_axis": "last"}, "unit_axis must be an axis"),
    ({"unit_axis": True}, "unit_axis must be an axis"),
    ({"mask": np.ones((4, 3))}, r"mask has shape \(4, 3\) and must cover the examples"),
    ({"mask": np.ones(5)}, "mask has shape"),
    ({"mask": True}, "mask has shape"),
    ({"trainable": "yes"}, "trainable must be True or False, not 'yes'"),
    ({"role": "input"}, "role must be 'hidden' or 'output', not 'input'"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG)
def test_wrong_arguments_are_refused_and_nothing_of_the_call_is_taken_in(tmp_path, change, sentence):
    with DeadUnitsWriter(tmp_path) as writer:
        with pytest.raises(InvalidArgumentError, match=sentence):
            writer.observe(**{**GOOD, **change})
        writer.observe(2, "l", np.ones((4, 3)))  # the step did not advance, the layer is not known
    assert history(tmp_path).layer("l").steps.tolist() == [2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"activations": np.ones((4, 2))}, "layer 'l' had units 3 before, not 2"),
        ({"activation_function": "tanh"}, "layer 'l' had activation_function 'relu' before, not 'tanh'"),
        ({"role": "output"}, "layer 'l' had role 'hidden' before, not 'output'"),
        ({"weights": np.ones((7, 3))}, "layer 'l' had 5 weights per unit before, not 7"),
        ({"step": 2}, "step 2 comes after step 3: steps never run backwards"),
    ],
)
def test_what_contradicts_an_earlier_call_is_refused(tmp_path, change, sentence):
    with DeadUnitsWriter(tmp_path) as writer:
        writer.observe(**GOOD, weights=np.ones((5, 3)))
        with pytest.raises(InvalidArgumentError, match=sentence):
            writer.observe(**{**GOOD, **change})
        writer.observe(**{**GOOD, "step": 4})


def test_pre_activations_handed_over_as_outputs_are_noticed(tmp_path):
    with DeadUnitsWriter(tmp_path) as writer:
        with pytest.raises(InvalidArgumentError, match="as low as -2, which 'relu' never gives"):
            writer.observe(0, "l", np.array([[1.0, -2.0]]))
        writer.observe(0, "l", np.array([[1.0, -2.0]]), activation_function="linear")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"step": -1}, "step must be a whole number"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
        ({"loss": [1, 2]}, "loss must be a number"),
        ({"inputs": ["text"]}, "inputs must hold real numbers"),
    ],
)
def test_a_wrong_context_is_refused(tmp_path, change, sentence):
    with DeadUnitsWriter(tmp_path) as writer, pytest.raises(InvalidArgumentError, match=sentence):
        writer.context(**{"step": 0, **change})


def test_a_closed_writer_says_so(tmp_path):
    writer = DeadUnitsWriter(tmp_path)
    writer.close()
    for call in (lambda: writer.observe(**GOOD), lambda: writer.context(0), writer.flush):
        with pytest.raises(InvalidArgumentError, match="the writer is closed"):
            call()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"log_dir": ""}, "log_dir must be the path"),
        ({"log_dir": 3}, "log_dir must be the path"),
        ({"thresholds": {"dead_examples": 5}}, "thresholds must be deadunits_tb.Thresholds"),
        ({"max_bytes": 0}, "max_bytes must be a whole number from 1"),
    ],
)
def test_wrong_arguments_of_the_writer_itself(tmp_path, wrong, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        DeadUnitsWriter(**{"log_dir": tmp_path, **wrong})


def test_a_log_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LogDirectoryError):
        DeadUnitsWriter(tmp_path / "file")


def test_the_signature_is_the_promised_one():
    constructor, observe = (inspect.signature(f) for f in (DeadUnitsWriter, DeadUnitsWriter.observe))
    assert [(p.name, p.default) for p in constructor.parameters.values()][1:] == [
        ("thresholds", None),
        ("max_bytes", 2**30),
        ("dataset_examples", 0),
    ]
    expected = {
        "activation_function": "relu", "gradients": None, "weights": None, "weight_gradients": None, "outgoing": None,
        "inputs_low": None, "inputs_high": None, "biases": None,
        "unit_axis": -1, "weight_unit_axis": -1, "mask": None, "trainable": True, "role": "hidden",
    }  # fmt: skip
    assert list(observe.parameters)[:4] == ["self", "step", "layer", "activations"]
    keywords = {p.name: p.default for p in observe.parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert keywords == expected

"""What is known of each layer: where its units are, which activation function it leads to, which weights it feeds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

import deadunits_tb
from deadunits_tb.errors import InvalidArgumentError, UnknownNameError
from deadunits_tb.keras import DeadUnitsCallback
from deadunits_tb.taps.keras.layers import survey
from keras_zoo import BACKEND, assert_same_state, built, state, vectors

HIDDEN, OUTPUT = ("hidden", "pre_activation"), ("output", "pre_activation")
LOOP = ("hidden", "output")
EXPECTED = {
    # name: kind, units, activation function, fan-in, fan-out, role and witness
    "dense": {
        "dense": ("Dense", 8, "relu", 6, 5, *HIDDEN),
        "dense_1": ("Dense", 5, "tanh", 8, 3, *HIDDEN),
        "dense_2": ("Dense", 3, "softmax", 5, None, *OUTPUT),
    },
    "unbuilt": {
        "dense": ("Dense", 8, "relu", 6, 3, *HIDDEN),
        "dense_1": ("Dense", 3, "softmax", 8, None, *OUTPUT),
    },
    "separate": {
        "dense": ("Dense", 8, "relu", 6, 7, *HIDDEN),
        "dense_1": ("Dense", 7, "leaky_relu", 8, 6, *HIDDEN),
        "dense_2": ("Dense", 6, "prelu", 7, 5, *HIDDEN),
        "dense_3": ("Dense", 5, "gelu", 6, 3, *HIDDEN),
        "dense_4": ("Dense", 3, "softmax", 5, None, *OUTPUT),
    },
    "convolutions": {
        "conv2d": ("Conv2D", 4, "relu", 18, 20, *HIDDEN),
        "conv2d_1": ("Conv2D", 5, "relu", 16, 12, *HIDDEN),
        "dense": ("Dense", 3, "softmax", 20, None, *OUTPUT),
    },
    "other_convolutions": {
        "depthwise_conv2d": ("DepthwiseConv2D", 4, "relu", 9, 4, *HIDDEN),
        "separable_conv2d": ("SeparableConv2D", 4, "relu", 4, 12, *HIDDEN),
        "conv2d_transpose": ("Conv2DTranspose", 3, "silu", 16, None, *HIDDEN),
        "conv1d": ("Conv1D", 4, "relu", 9, 3, *HIDDEN),
        "separable_conv1d": ("SeparableConv1D", 4, "relu", 4, 12, *HIDDEN),
        "conv1d_transpose": ("Conv1DTranspose", 4, "elu", 12, 3, *HIDDEN),
        "depthwise_conv1d": ("DepthwiseConv1D", 4, "relu", 3, 3, *HIDDEN),
        "dense": ("Dense", 3, "softmax", 4, None, *OUTPUT),
    },
    "convolutions_3d": {
        "conv3d": ("Conv3D", 3, "relu", 8, 16, *HIDDEN),
        "conv3d_transpose": ("Conv3DTranspose", 2, "relu6", 24, 3, *HIDDEN),
        "dense": ("Dense", 3, "softmax", 2, None, *OUTPUT),
    },
    "residual": {
        "conv2d": ("Conv2D", 4, "relu", 18, None, *HIDDEN),
        "conv2d_1": ("Conv2D", 4, "relu", 36, None, *HIDDEN),
        "conv2d_2": ("Conv2D", 4, "relu", 36, None, *HIDDEN),
        "conv2d_3": ("Conv2D", 4, "relu", 4, None, *HIDDEN),
        "dense": ("Dense", 3, "softmax", 4, None, *OUTPUT),
    },
    "shared": {
        "dense": ("Dense", 6, "relu", 6, 9, *HIDDEN),
        "dense_1": ("Dense", 3, "softmax", 6, None, *OUTPUT),
    },
    "nested": {
        "dense": ("Dense", 6, "relu", 6, 4, *HIDDEN),
        "dense_1": ("Dense", 4, "relu", 6, None, *HIDDEN),
        "dense_2": ("Dense", 5, "relu", 4, None, *HIDDEN),
        "dense_3": ("Dense", 3, "softmax", 5, None, *OUTPUT),
    },
    "subclassed": {
        "dense": ("Dense", 6, "relu", 6, None, *HIDDEN),
        "dense_1": ("Dense", 6, "tanh", 6, None, *HIDDEN),
        "dense_2": ("Dense", 6, "relu", 6, None, *HIDDEN),
        "dense_3": ("Dense", 6, "mish", 6, None, *HIDDEN),
        "dense_4": ("Dense", 3, "softmax", 6, None, *OUTPUT),
    },
    "own_step": {
        "dense": ("Dense", 6, "relu", 6, None, *HIDDEN),
        "dense_1": ("Dense", 3, "softmax", 6, None, *OUTPUT),
    },
    "recurrent": {
        "lstm": ("LSTM", 4, "tanh", 8, None, *LOOP),
        "forward_gru": ("GRU", 3, "tanh", 7, None, *LOOP),
        "backward_gru": ("GRU", 3, "tanh", 7, None, *LOOP),
        "dense": ("Dense", 4, "relu", 6, 4, *HIDDEN),
        "simple_rnn": ("SimpleRNN", 4, "relu", 8, 3, *LOOP),
        "dense_1": ("Dense", 3, "softmax", 4, None, *OUTPUT),
    },
    "distributed": {
        "time_distributed": ("TimeDistributed", 4, "relu", 3, 8, *LOOP),
        "conv1d": ("Conv1D", 4, "relu", 8, 12, *HIDDEN),
        "dense_1": ("Dense", 3, "softmax", 16, None, *OUTPUT),
    },
    "attention": {
        "query": ("EinsumDense", 6, "linear", 4, None, *HIDDEN),
        "key": ("EinsumDense", 6, "linear", 4, None, *HIDDEN),
        "value": ("EinsumDense", 6, "linear", 4, None, *HIDDEN),
        "attention_output": ("EinsumDense", 4, "linear", 6, None, *HIDDEN),
        "einsum_dense": ("EinsumDense", 8, "gelu", 4, 4, *HIDDEN),
        "dense": ("Dense", 4, "linear", 8, None, *HIDDEN),
        "dense_1": ("Dense", 3, "softmax", 4, None, *OUTPUT),
    },
    "generator_like": {
        "dense": ("Dense", 32, "relu", 6, None, *HIDDEN),
        "conv2d_transpose": ("Conv2DTranspose", 3, "tanh", 32, 27, *HIDDEN),
        "dense_1": ("Dense", 3, "softmax", 27, None, *OUTPUT),
    },
}


def recorded(model, x, y, log_dir, **arguments):
    """The run of one eager step: without tracing, so quick."""
    model.run_eagerly = True
    model.fit(x, y, batch_size=len(x), verbose=0, callbacks=[DeadUnitsCallback(log_dir, every=1, **arguments)])
    return deadunits_tb.load(log_dir)["."]


@pytest.mark.parametrize("name", EXPECTED)
def test_layers_of(name, tmp_path):
    model, (x, y) = built(name)
    run = recorded(model, x, y, tmp_path)
    found = {
        layer: (
            *(info.kind, info.units, info.activation_function, info.fan_in, info.fan_out),
            *(info.role, info.witness),
        )
        for layer, info in ((layer, history.info) for layer, history in run.layers.items())
    }
    assert found == EXPECTED[name]
    assert list(found) == list(EXPECTED[name]), "in the order of the calls"
    assert run.records[-1].errors == ()
    assert all(history.info.framework == f"keras/{BACKEND}" for history in run.layers.values())
    assert all(history.info.weight_delta == "exact" for history in run.layers.values())
    embeds = name in ("recurrent", "attention")
    tokens = {layer for layer, history in run.layers.items() if history.info.tokens}
    assert tokens == ({layer for layer in found if layer not in ("simple_rnn", "dense_1")} if embeds else set())
    assert [(skipped.layer, "row" in skipped.reason) for skipped in run.records[-1].skipped] == (
        [("embedding", True)] if embeds else []
    )
    if name == "shared":  # as both of its calls are seen
        assert run.layers["dense"]._history.window(0).examples == 2 * run.layers["dense_1"]._history.window(0).examples


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_layers_that_cannot_be_watched_say_why(tmp_path):
    class Own(L.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],))

        def call(self, x):
            return x * self.scale

    class Unused(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.never, self.own = L.Dense(3, name="used"), L.Dense(3, name="never"), Own(name="own")

        def build(self, shape):
            self.used.build(shape)
            self.never.build(shape)
            self.own.build((None, 3))

        def call(self, x):
            return keras.activations.softmax(self.own(self.used(x)))

    model = Unused()
    model.compile("sgd", "sparse_categorical_crossentropy")
    run = recorded(model, *vectors(), tmp_path)
    reasons = {skipped.layer: skipped.reason for skipped in run.records[-1].skipped}
    assert reasons.keys() == {"never", "own"}
    assert reasons["never"] == "not called in the training step"
    assert "does not know where the units" in reasons["own"]
    assert run.layers["used"].info.activation_function is None, "what it goes through is not known"


def test_layers_of_one_name_are_called_by_their_paths(tmp_path):
    def part(name):
        return keras.Sequential([keras.Input((6,)), L.Dense(6, "relu", name="same")], name=name)

    model = keras.Sequential([keras.Input((6,)), part("one"), part("other"), L.Dense(3, "softmax", name="head")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    names = [unit_layer.name for unit_layer in survey(model).watched]
    assert len(set(names)) == 3
    assert [name.rpartition("/")[2] for name in names] == ["same", "same", "head"]
    assert list(recorded(model, *vectors(), tmp_path).layers) == names


def test_layers_are_chosen_by_name_path_object_or_what_holds_them():
    model, _ = built("nested")
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))

    def watched(*chosen):
        return {unit_layer.name for unit_layer in survey(model, chosen).watched}

    assert watched("dense_3") == watched(model.get_layer("dense_3")) == watched(model.get_layer("dense_3").path)
    assert watched(inner) == watched(inner.name) == {"dense", "dense_1", "dense_2"}
    with pytest.raises(UnknownNameError, match=r"there is no layer 'dens_3'\. Did you mean 'dense_3'"):
        survey(model, ["dens_3"])
    with pytest.raises(UnknownNameError, match="there is no layer 'stranger'"):
        survey(model, [L.Dense(3, name="stranger")])
    model, _ = built("separate")
    with pytest.raises(InvalidArgumentError, match="none of the layers to watch has units: re_lu"):
        survey(model, ["re_lu"])


def test_weights_that_are_computed_from_others_are_left_alone(tmp_path):
    model, (x, y) = built("dense")
    model.layers[0].enable_lora(2)
    model.compile("sgd", "sparse_categorical_crossentropy")
    run = recorded(model, x, y, tmp_path)
    assert run.layers["dense"].info.weight_delta == "none"
    with pytest.raises(UnknownNameError):
        run.layers["dense"].statistic("norm_in")
    assert np.isfinite(run.layers["dense"].statistic("gradient")).all()


@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere it is a function of its own")
def test_what_is_computed_again_on_the_way_back_is_seen_once(tmp_path):
    class Inner(keras.Model):
        def __init__(self, again):
            super().__init__()
            self.hidden, self.head = L.Dense(4, "relu", name="hidden"), L.Dense(3, "softmax", name="head")
            self.function = keras.remat(lambda x: self.hidden(x)) if again else self.hidden

        def build(self, shape):
            self.hidden.build(shape)
            self.head.build((None, 4))

        def call(self, x):
            return self.head(self.function(x))

    def trained(callbacks, again=True):
        keras.utils.clear_session()
        keras.utils.set_random_seed(7)
        model = Inner(again)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(*vectors(), batch_size=11, verbose=0, shuffle=False, callbacks=callbacks)
        return state(model)

    assert_same_state(trained([]), trained([DeadUnitsCallback(tmp_path / "again", every=1)]))
    trained([DeadUnitsCallback(tmp_path / "once", every=1)], again=False)
    runs = deadunits_tb.load(tmp_path)
    assert [record.examples for record in runs["again"].records] == [11, 11]
    for name, layer in runs["once"].layers.items():
        assert set(layer.statistics) == set(runs["again"].layers[name].statistics)
        for statistic in layer.statistics:
            np.testing.assert_array_equal(
                runs["again"].layers[name].statistic(statistic), layer.statistic(statistic), err_msg=statistic
            )

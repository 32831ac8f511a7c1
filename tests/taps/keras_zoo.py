"""Small Keras models of every kind that the taps must see through, and a way to train them twice."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers as L
from keras import ops

BACKEND = keras.backend.backend()
"""On which all of this runs: Keras has one for each process."""
if BACKEND == "jax":
    import jax
elif BACKEND == "torch":
    import torch

    torch.set_num_threads(1)
else:
    import tensorflow as tf

EXAMPLES = 22
"""Three batches of 8, the last one smaller."""
CLASSES = 3


def vectors(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(EXAMPLES, 6)).astype("float32"), random.integers(0, CLASSES, EXAMPLES)


def images(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(EXAMPLES, 6, 6, 2)).astype("float32"), random.integers(0, CLASSES, EXAMPLES)


def volumes(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(EXAMPLES, 4, 4, 4, 1)).astype("float32"), random.integers(0, CLASSES, EXAMPLES)


def series(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(EXAMPLES, 5, 3)).astype("float32"), random.integers(0, CLASSES, EXAMPLES)


def tokens(seed=0):
    random = np.random.default_rng(seed)
    ids = random.integers(1, 9, (EXAMPLES, 5))
    ids[np.arange(5) >= random.integers(2, 6, (EXAMPLES, 1))] = 0
    return ids, random.integers(0, CLASSES, EXAMPLES)


def dense():
    return keras.Sequential([keras.Input((6,)), L.Dense(8, "relu"), L.Dense(5, "tanh"), L.Dense(CLASSES, "softmax")])


def separate():
    x = inputs = keras.Input((6,))
    for units, activation in ((8, L.ReLU()), (7, L.LeakyReLU(0.1)), (6, L.PReLU()), (5, L.Activation("gelu"))):
        x = L.Dropout(0.2)(L.BatchNormalization()(L.Dense(units)(x)))
        x = activation(x)
    x = L.Dense(CLASSES)(x)
    return keras.Model(inputs, L.Softmax()(x))


def convolutions():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(4, 3, padding="same", activation="relu"),
            L.MaxPooling2D(),
            L.Conv2D(5, 2),
            L.BatchNormalization(),
            L.Activation("relu"),
            L.Flatten(),
            L.Dense(CLASSES, "softmax"),
        ]
    )


def convolutions_first():
    x = inputs = keras.Input((2, 6, 6))
    x = L.Conv2D(4, 3, padding="same", activation="relu", data_format="channels_first")(x)
    x = L.Conv2D(5, 2, data_format="channels_first")(x)
    x = L.Activation("silu")(L.BatchNormalization(axis=1)(x))
    x = L.GlobalAveragePooling2D(data_format="channels_first")(x)
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(x))


def other_convolutions():
    x = inputs = keras.Input((6, 6, 2))
    x = L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x)
    x = L.SeparableConv2D(4, 2, activation="relu")(x)
    x = L.Conv2DTranspose(3, 2, activation="silu")(x)
    x = L.Reshape((16, 3))(x)
    x = L.Conv1D(4, 3, activation="relu")(x)
    x = L.SeparableConv1D(4, 3, activation="relu")(x)
    x = L.Conv1DTranspose(4, 3, activation="elu")(x)
    x = L.DepthwiseConv1D(3, activation="relu")(x)
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(L.GlobalMaxPooling1D()(x)))


def convolutions_3d():
    x = inputs = keras.Input((4, 4, 4, 1))
    x = L.Conv3D(3, 2, activation="relu")(x)
    x = L.Conv3DTranspose(2, 2)(x)
    x = L.ReLU(max_value=6)(L.GlobalAveragePooling3D()(x))
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(x))


def residual():
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    for _ in range(2):
        y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x))
        x = L.ReLU()(L.Add()([x, y]))
    y = L.Conv2D(4, 1)(x)
    x = ops.relu(x + y)
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(L.GlobalAveragePooling2D()(x)))


def shared():
    inputs = keras.Input((6,))
    twice = L.Dense(6, "relu")
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(twice(twice(inputs))))


def nested():
    inner = keras.Sequential([keras.Input((6,)), L.Dense(6, "relu"), L.Dense(4), L.ReLU()])
    deep = keras.Input((6,))
    outer = keras.Model(deep, L.Dense(5, "relu")(inner(deep)))
    inputs = keras.Input((6,))
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(outer(inputs)))


def raw_relu(x):
    """The backend's own, past Keras."""
    return {
        "tensorflow": lambda: tf.nn.relu(x),
        "jax": lambda: jax.nn.relu(x),
        "torch": lambda: torch.nn.functional.relu(x),
    }[BACKEND]()


class Subclassed(keras.Model):
    """Calls activation functions in every way that code may."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third, self.fourth = L.Dense(6), L.Dense(6), L.Dense(6), L.Dense(6)
        self.norm, self.drop, self.head = L.LayerNormalization(), L.Dropout(0.3), L.Dense(CLASSES)

    def call(self, inputs, training=False):
        x = keras.activations.relu(self.norm(self.first(inputs)))
        x = ops.tanh(self.drop(self.second(x), training=training))
        x = raw_relu(self.third(x))
        x = keras.activations.mish(self.fourth(x))
        return keras.activations.softmax(self.head(x))


class OwnStep(keras.Model):
    """A ``train_step`` written by hand."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = L.Dense(6, "relu"), L.Dense(CLASSES, "softmax")

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def train_step(self, *args):
        return {"tensorflow": self._tensorflow_step, "jax": self._jax_step, "torch": self._torch_step}[BACKEND](*args)

    def _tensorflow_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        weights = self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss, "twice": 2 * loss}

    def _jax_step(self, state, data):
        trainable, others, optimizer_variables, metrics = state
        x, y = data[:2]

        def loss_and_state(trainable):
            y_pred, after = self.stateless_call(trainable, others, x)
            return self.compute_loss(x=x, y=y, y_pred=y_pred), after

        (loss, others), gradients = jax.value_and_grad(loss_and_state, has_aux=True)(trainable)
        trainable, optimizer_variables = self.optimizer.stateless_apply(optimizer_variables, gradients, trainable)
        return {"loss": loss, "twice": 2 * loss}, (trainable, others, optimizer_variables, metrics)

    def _torch_step(self, data):
        x, y = data[:2]
        self.zero_grad()
        loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        loss.backward()
        weights = list(self.trainable_weights)
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
        return {"loss": loss.detach(), "twice": 2 * loss.detach()}


def recurrent():
    x = inputs = keras.Input((5,), dtype="int32")
    x = L.Embedding(9, 4, mask_zero=True)(x)
    x = L.LSTM(4, return_sequences=True)(x)
    x = L.Bidirectional(L.GRU(3, return_sequences=True))(x)
    x = L.Dense(4, "relu")(x)
    x = L.SimpleRNN(4, activation="relu")(x)
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(x))


def distributed():
    x = inputs = keras.Input((5, 3))
    x = L.TimeDistributed(L.Dense(4, "relu"))(x)
    x = L.Conv1D(4, 2, activation="relu")(x)
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(L.Flatten()(x)))


def attention():
    x = inputs = keras.Input((5,), dtype="int32")
    x = L.Embedding(9, 4)(x)
    x = L.Add()([x, L.MultiHeadAttention(2, 3)(x, x)])
    y = L.LayerNormalization()(x)
    y = L.EinsumDense("abc,cd->abd", output_shape=(None, 8), activation="gelu")(y)
    x = L.Add()([x, L.Dense(4)(y)])
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(L.GlobalAveragePooling1D()(x)))


def generator_like():
    x = inputs = keras.Input((6,))
    x = L.Reshape((2, 2, 8))(L.Dense(32, use_bias=False)(x))
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.Conv2DTranspose(3, 2, activation="tanh")(x)
    return keras.Model(inputs, L.Dense(CLASSES, "softmax")(L.Flatten()(x)))


def unbuilt():
    return keras.Sequential([L.Dense(8, "relu"), L.Dropout(0.2), L.Dense(CLASSES, "softmax")])


ZOO = {
    "dense": (dense, vectors),
    "unbuilt": (unbuilt, vectors),
    "separate": (separate, vectors),
    "convolutions": (convolutions, images),
    "other_convolutions": (other_convolutions, images),
    "convolutions_3d": (convolutions_3d, volumes),
    "residual": (residual, images),
    "shared": (shared, vectors),
    "nested": (nested, vectors),
    "subclassed": (Subclassed, vectors),
    "own_step": (OwnStep, vectors),
    "recurrent": (recurrent, tokens),
    "distributed": (distributed, series),
    "attention": (attention, tokens),
    "generator_like": (generator_like, vectors),
}
"""Name to what builds the model and what makes its data."""


def images_first(seed=0):
    x, y = images(seed)
    return np.moveaxis(x, -1, 1).copy(), y


CHANNELS_FIRST = {"convolutions_first": (convolutions_first, images_first)}
"""TensorFlow cannot train it on a CPU."""


def built(name, *, optimizer=None, policy="float32", loss="sparse_categorical_crossentropy", **compile_arguments):
    """A compiled model of the zoo, with the same weights each time."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(7)
    keras.mixed_precision.set_global_policy(policy)
    try:
        build, data = (ZOO | CHANNELS_FIRST)[name]
        model = build()
        make = optimizer or (lambda: keras.optimizers.Adam(0.01))
        metrics = None if name == "own_step" else ["accuracy"]
        model.compile(make(), loss, metrics=metrics, **compile_arguments)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return model, data()


def state(model):
    """Everything that training changes, by name."""
    found = {f"weight {v.path}": array(v) for v in model.variables}
    if model.optimizer is not None:
        found |= {f"optimizer {v.path}": array(v) for v in model.optimizer.variables}
    return found


def array(value):
    """A copy in NumPy, of a variable or tensor of any backend; bfloat16 as float32, of which it is a part."""
    value = ops.convert_to_tensor(value)
    if keras.backend.standardize_dtype(value.dtype) == "bfloat16":
        value = ops.cast(value, "float32")
    return np.array(ops.convert_to_numpy(value))


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)

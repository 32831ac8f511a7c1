"""Five small networks that fail each in its own way (one does not), trained for real on scikit-learn's digits."""

from __future__ import annotations

import os
import pathlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from deadunits_tb.errors import InvalidArgumentError, LogDirectoryError, MissingDependencyError

if TYPE_CHECKING:
    import keras

Scaling = Literal["standardized", "unit", "bytes"]
Images = npt.NDArray[np.float32]
"""``[images, 64]``"""

BATCH_SIZE = 100  # 17 of 100 images and one of 97: no small last batch, whose record would say little


@dataclass(frozen=True, slots=True)
class Network:
    """One run of the demo: what its name promises comes about by its own training.

    Attributes:
        name: The run.
        story: What is wrong with it, in a few words.
        scaling: Of the pixels: per feature to mean 0 and deviation 1; to 0..1; or to 0..255.
        optimizer: Makes the optimizer.
        hidden: Arguments of each hidden layer.
        epochs: Passes over the 1,797 images.
    """

    name: str
    story: str
    scaling: Scaling
    optimizer: Callable[[], Any]
    hidden: tuple[dict[str, Any], ...]
    epochs: int = 25

    def build(self) -> keras.Sequential:
        """Make the compiled, untrained network; the same weights each time."""
        import keras

        keras.utils.set_random_seed(1)
        layers: list[Any] = [keras.Input((64,), name="pixels")]
        layers += [
            keras.layers.Dense(64, name=f"hidden_{number}", **arguments)
            for number, arguments in enumerate(self.hidden, start=1)
        ]
        layers.append(keras.layers.Dense(10, activation="softmax", name="digit"))
        model = keras.Sequential(layers, name=self.name)
        model.compile(self.optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model


def networks() -> tuple[Network, ...]:
    """The five networks, the healthy one first.

    Raises:
        MissingDependencyError: Keras, TensorFlow or scikit-learn is not installed.
    """
    keras = _import_keras()
    relu = {"activation": "relu", "kernel_initializer": "he_normal"}
    # Each with a seed of its own: without one, Keras draws it now, before build() sets all the others.
    negative = (
        {"activation": "relu", "kernel_initializer": keras.initializers.RandomNormal(-0.02, 0.05, seed=seed)}
        for seed in (1, 2)
    )
    return (
        Network(
            "healthy",
            "ReLU, He initialization, Adam, pixels standardized",
            "standardized",
            lambda: keras.optimizers.Adam(1e-3),
            (relu, relu),
        ),
        Network(
            "learning_rate_too_high",
            "the same with SGD at a learning rate of 2.0",
            "standardized",
            lambda: keras.optimizers.SGD(2.0),
            (relu, relu),
        ),
        Network(
            "badly_initialized",
            "weights drawn around -0.02, so most units never fire on pixels that are at least 0",
            "unit",
            lambda: keras.optimizers.Adam(1e-3),
            tuple(negative),
        ),
        Network(
            "saturated_tanh",
            "tanh fed with pixels of 0 to 255",
            "bytes",
            lambda: keras.optimizers.Adam(1e-3),
            ({"activation": "tanh", "kernel_initializer": "glorot_uniform"},) * 2,
        ),
        Network(
            "frozen_layer",
            "its first layer is not trainable",
            "standardized",
            lambda: keras.optimizers.Adam(1e-3),
            ({**relu, "trainable": False}, relu),
        ),
    )


def digits(scaling: Scaling) -> tuple[Images, npt.NDArray[np.int64]]:
    """The 1,797 images of handwritten digits, 8 x 8 pixels of 0 to 16, that scikit-learn ships.

    Args:
        scaling: How to scale the pixels.

    Returns:
        Images ``[1797, 64]`` and labels ``[1797]``.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    if scaling == "standardized":
        # Corner pixels never vary.
        pixels = (pixels - pixels.mean(axis=0)) / np.maximum(pixels.std(axis=0), 1e-6)
    else:
        pixels = pixels * {"unit": 1 / 16, "bytes": 255 / 16}[scaling]
    return pixels.astype(np.float32), labels


def train(network: Network, log_dir: pathlib.Path, on_epoch: Callable[[dict[str, float]], None]) -> keras.Sequential:
    """Train one network with the callback that writes its log.

    Args:
        network: Which one.
        log_dir: The run is written to the directory of the network's name in there; an earlier one is replaced.
        on_epoch: Called after each epoch with Keras's ``logs``.

    Returns:
        The trained network.
    """
    keras = _import_keras()
    from deadunits_tb.keras import DeadUnitsCallback

    run_dir = log_dir / network.name
    _remove_earlier_run(run_dir)
    images, labels = digits(network.scaling)
    model = network.build()
    progress = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch(logs))
    # So few steps that each is worth observing; left to itself, the callback would spend 1 % of these seconds.
    watch = DeadUnitsCallback(run_dir, every=1)
    model.fit(images, labels, batch_size=BATCH_SIZE, epochs=network.epochs, verbose=0, callbacks=[watch, progress])
    return model


def train_all(log_dir: pathlib.Path, console: Console) -> None:
    """Train the five networks one after the other, with a progress bar for each.

    Raises:
        LogDirectoryError: ``log_dir`` cannot be written.
        MissingDependencyError: Keras, TensorFlow or scikit-learn is not installed.
    """
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogDirectoryError(f"cannot write to {log_dir}: {error.strerror}") from error
    with Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("epochs  {task.fields[state]}"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        with console.status("loading TensorFlow"):
            todo = networks()
        width = max(len(network.name) for network in todo)
        tasks = [
            progress.add_task(network.name.ljust(width), total=network.epochs, start=False, state=network.story)
            for network in todo
        ]
        for network, task in zip(todo, tasks, strict=True):
            progress.start_task(task)

            def show(logs: dict[str, float], task: Any = task) -> None:
                state = f"loss {logs['loss']:.2f}, accuracy {logs['accuracy']:.0%}"
                progress.update(task, advance=1, state=state)

            train(network, log_dir, show)


def serve(log_dir: pathlib.Path, port: int | None, console: Console) -> None:
    """Serve TensorBoard until Ctrl-C and print the address that opens the tab.

    Args:
        log_dir: What to show.
        port: None for the first free one from TensorBoard's own 6006 on.
        console: Where to print.

    Raises:
        InvalidArgumentError: The port cannot be used.
    """
    from tensorboard import default, program

    board = program.TensorBoard(default.get_plugins())
    board.configure(
        argv=["tensorboard", "--logdir", str(log_dir), *(["--port", str(port)] if port is not None else [])]
    )
    try:
        url = board.launch()
    except program.TensorBoardServerException as error:
        raise InvalidArgumentError(str(error)) from error
    console.print(f"\nThe tab: [bold link={url}#dead_units]{url}#dead_units[/]\nCtrl-C ends it.", soft_wrap=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print()


def run(log_dir: str | os.PathLike[str], *, serve_after: bool = True, port: int | None = None) -> None:
    """Train the five networks, print the report, and serve TensorBoard.

    Args:
        log_dir: Where the runs are written.
        serve_after: Whether to serve TensorBoard, until Ctrl-C.
        port: For TensorBoard; None for a free one.

    Raises:
        LogDirectoryError: ``log_dir`` cannot be written.
        InvalidArgumentError: The port cannot be used.
        MissingDependencyError: Keras, TensorFlow or scikit-learn is not installed.
    """
    from deadunits_tb.reading.report import print_report

    if serve_after and port:
        _check_port(port)
    directory = pathlib.Path(log_dir).expanduser().resolve()
    console = Console()
    console.print(f"Training five networks on handwritten digits; their logs go to {directory}", soft_wrap=True)
    train_all(directory, console)
    print_report(directory, console)
    if serve_after:
        serve(directory, port, console)


def _import_keras() -> Any:
    # Before TensorFlow's first import: no talk about the CPU, and no GPU for networks that are faster without.
    for name, value in {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "CUDA_VISIBLE_DEVICES": "-1",
    }.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras
        import sklearn  # noqa: F401  # asked for now, so that it is not missed after the first network
    except ImportError as error:
        raise MissingDependencyError(
            f"the demo needs {error.name}, which is not installed: pip install 'deadunits-tb[demo]'"
        ) from error
    return keras


def _check_port(port: int) -> None:
    """Say before the training, not after it, that a port is taken."""
    with socket.socket() as attempt:
        # As TensorBoard does: a port that was just given up can be used.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("localhost", port))
        except OSError as error:
            raise InvalidArgumentError(
                f"port {port} cannot be used: {error.strerror}; name another one, or none for a free one"
            ) from error


def _remove_earlier_run(run_dir: pathlib.Path) -> None:
    # Two runs in one directory would be read as one that was resumed. Only event files go: nothing else is ours.
    for path in run_dir.rglob("events.out.tfevents.*"):
        path.unlink()

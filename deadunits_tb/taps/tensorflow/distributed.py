"""What replicas and workers have to tell each other in an observed step, with TensorFlow's own collectives.

Replicas of one process share its graph: what each of them packed leaves the step side by side, and is merged on the
host (:mod:`deadunits_tb.taps.merge`). Only two numbers of each unit must be known to all while the step runs: gradients
of weights, whose norm is that of their sum, and the scale against which firing is told before there is a record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deadunits_tb.errors import InvalidArgumentError

_ON_ONE_MACHINE = ("MirroredStrategy", "OneDeviceStrategy", "_DefaultDistributionStrategy")
_ON_SEVERAL = ("CollectiveAllReduceStrategy", "MultiWorkerMirroredStrategy")
_SUM = tf.distribute.ReduceOp.SUM


def check_strategy(strategy: tf.distribute.Strategy, *, several_workers: bool) -> None:
    """Find out whether training under a strategy can be observed.

    Args:
        strategy: Under which the model was made.
        several_workers: Whether workers may be several.

    Raises:
        InvalidArgumentError: It cannot.
    """
    kind = _kind(strategy)
    if kind in _ON_ONE_MACHINE or (kind in _ON_SEVERAL and (several_workers or workers(strategy) == 1)):
        return
    if kind in _ON_SEVERAL:
        raise InvalidArgumentError(
            "fit on several workers cannot be watched: write the loop with tf.GradientTape and use "
            "deadunits_tb.tensorflow.watch"
        )
    raise InvalidArgumentError(
        f"training under {kind} cannot be watched, as its steps run on other machines or out of order: use "
        "MirroredStrategy or MultiWorkerMirroredStrategy, or write arrays with DeadUnitsWriter"
    )


def workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together."""
    if _kind(strategy) not in _ON_SEVERAL:
        return 1
    local = max(1, len(strategy.extended.worker_devices))
    return int(strategy.num_replicas_in_sync) // local


def worker(strategy: tf.distribute.Strategy) -> int:
    """Number of this process among them; 0 is the chief, who alone writes."""
    resolver = strategy.cluster_resolver
    if workers(strategy) == 1 or resolver is None:
        return 0
    if resolver.task_type in (None, "chief"):
        return 0
    first = 1 if "chief" in resolver.cluster_spec().jobs else 0
    return first + int(resolver.task_id)


def summed_gradients(gradients: Mapping[int, Any]) -> dict[int, Any]:
    """Gradients of weights, added up over the replicas of the step.

    Args:
        gradients: Of this replica's share of the loss, by ``id`` of the variable.
    """
    dense = [tf.convert_to_tensor(gradient) for gradient in gradients.values()]
    if not dense:
        return {}
    return dict(zip(gradients, tf.distribute.get_replica_context().all_reduce(_SUM, dense), strict=True))


def shared_scale(scale: Any, rows: Any, mask: Any) -> Any:
    """The scale of the last record, or before there is one, the root mean square over the whole batch.

    Args:
        scale: Negative before the first record.
        rows: ``[examples, ..., units]`` of this replica.
        mask: What is real of them, None for all.
    """
    rows = tf.stop_gradient(rows)
    squares = tf.square(rows)
    if mask is not None:
        squares = tf.where(mask[..., None], squares, 0.0)
        count = tf.reduce_sum(tf.cast(mask, tf.float32))
    else:
        count = tf.cast(tf.reduce_prod(tf.shape(rows)[:-1]), tf.float32)
    sums = tf.concat([tf.reduce_sum(squares, list(range(len(rows.shape) - 1))), count[None]], 0)
    sums = tf.distribute.get_replica_context().all_reduce(_SUM, sums)
    power = sums[:-1] / tf.maximum(sums[-1], 1.0)
    finite = tf.math.is_finite(power)
    units = tf.maximum(tf.reduce_sum(tf.cast(finite, tf.float32)), 1.0)
    return tf.where(scale < 0, tf.sqrt(tf.reduce_sum(tf.where(finite, power, 0.0)) / units), scale)


class Workers:
    """The processes of a MultiWorkerMirroredStrategy, as far as watching goes.

    All of them call :meth:`exchange` at the same steps. Others have nothing to say to each other.

    Args:
        strategy: Of the training.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.count = workers(strategy)
        """How many there are."""
        self.number = worker(strategy)
        """Which this is."""
        self._gather = tf.function(self._gathered, autograph=False, reduce_retracing=True)

    def exchange(self, numbers: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give every worker the numbers of all.

        Args:
            numbers: ``[n]`` in float32, equally many on each worker.

        Returns:
            ``[workers, n]``.
        """
        mine = np.asarray(numbers, np.float32)
        return np.asarray(self._gather(tf.constant(mine)))

    def together(self, parts: Sequence[npt.NDArray[np.floating]] | None) -> list[npt.NDArray[np.float32]] | None:
        """What all workers have packed in one step.

        Args:
            parts: Of this worker, each ``[replicas, numbers]``; None where it failed.

        Returns:
            Likewise, with the replicas of all; None where a worker failed, or has others than this one.
        """
        mine = [] if parts is None else parts
        said = self.exchange([float(parts is None), float(len(mine)), float(sum(part.size for part in mine))])
        if said[:, 0].any() or (said != said[0]).any():
            return None
        rows = self.exchange(np.concatenate([part.reshape(-1) for part in mine]))
        found, at = [], 0
        for part in mine:
            found.append(rows[:, at : at + part.size].reshape(-1, part.shape[1]))
            at += part.size
        return found

    def _gathered(self, mine: Any) -> Any:
        """A sum of vectors that are zero but for each worker's own part is exact."""
        n, local = tf.shape(mine)[0], len(self._strategy.extended.worker_devices)
        before = tf.zeros([self.number * n])
        after = tf.zeros([(self.count - 1 - self.number) * n])

        def own() -> Any:
            first = tf.distribute.get_replica_context().replica_id_in_sync_group % local == 0
            return tf.cast(first, tf.float32) * tf.concat([before, mine, after], 0)

        summed = self._strategy.reduce(_SUM, self._strategy.run(own), axis=None)
        return tf.reshape(summed, [self.count, n])


def _kind(strategy: tf.distribute.Strategy) -> str:
    return type(strategy).__name__

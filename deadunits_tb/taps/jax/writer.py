"""From statistics on the device to records: the host side of a loop in JAX."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from deadunits_tb.capture import packed
from deadunits_tb.capture.alarms import AlarmCallback
from deadunits_tb.capture.arguments import check_whole, checked_thresholds
from deadunits_tb.capture.monitor import LearningRate, Monitor
from deadunits_tb.capture.observation import StepObservation
from deadunits_tb.errors import InvalidArgumentError
from deadunits_tb.record import NEVER
from deadunits_tb.run_record import RunInfo
from deadunits_tb.taps.costs import StepCosts
from deadunits_tb.taps.jax.certifier import Certifier
from deadunits_tb.taps.jax.drift import WeightDrift
from deadunits_tb.taps.jax.inputs import FIELDS
from deadunits_tb.taps.jax.plan import Layer, Plan, checked_layers
from deadunits_tb.taps.jax.statistics import Statistics, empty_statistics
from deadunits_tb.taps.jax.weights import check_params
from deadunits_tb.thresholds import Thresholds
from deadunits_tb.units import LayerInfo


class DeadUnitsWriter:
    """Writes the statistics of a loop in JAX; shown in the tab *Dead Units* of TensorBoard.

    ::

        with DeadUnitsWriter("runs/mlp", {"hidden": Layer(128, "relu")}) as writer:
            for i, (x, y) in enumerate(batches):
                params, state, statistics = step(params, state, writer.begin(i), x, y)
                writer.write(i, statistics)

    :meth:`begin` gives statistics to fill where the step is to be observed, otherwise None: then a step that carries
    them along with :func:`observe` is what it would be without. So a jitted step is compiled twice, and which of both
    runs is decided here, by cost.

    Nothing waits for the device but a record. Wrong arguments raise; whatever else fails is said once with a
    :class:`~deadunits_tb.MonitorWarning`, and training goes on. Of several processes the first one writes: all
    must call the same methods, and ``every`` must be given, so that they agree on the steps.

    Args:
        log_dir: The run's log directory; records go into its sub-directory ``dead_units``.
        layers: Name to what is known of each, in the model's order.
        params: Before training. With them and those given to :meth:`write`, it is recorded how far weights have moved
            since, and the norms of outgoing weights.
        every: Observe every n-th step; None to choose by cost.
        thresholds: The numbers behind the verdicts, as :class:`~deadunits_tb.Thresholds` or some of them by name.
        max_overhead: Share of the training time that observing may take, beyond an opening allowance of two seconds,
            where ``every`` is None.
        max_bytes: Most bytes of the run's event files.
        total_steps: The step at which training is expected to end; None if unknown.
        initial_step: The first step of this process; above 0 in a resumed run.
        on_alarm: Called with an :class:`~deadunits_tb.Alarm` when units enter an alarm state.

    Raises:
        InvalidArgumentError: An argument has the wrong type or value, or the weights of a layer are not in ``params``.
        LogDirectoryError: The log directory cannot be written.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        layers: Mapping[str, Layer],
        *,
        params: Any = None,
        every: int | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        max_overhead: float = 0.01,
        max_bytes: int = 2**30,
        total_steps: int | None = None,
        initial_step: int = 0,
        on_alarm: AlarmCallback | None = None,
    ) -> None:
        self._plan = Plan(checked_layers(layers), checked_thresholds(thresholds))
        if params is not None:
            check_params(self._plan, params)
        check_whole("every", every, 1, none="to choose by cost")
        self._several = jax.process_count() > 1
        if every is None and self._several:
            raise InvalidArgumentError(
                f"{jax.process_count()} processes train together: give every, such as every=50, "
                "so that all observe the same steps"
            )
        self._every, self._next = every, initial_step
        self._drift = None if params is None else WeightDrift(self._plan, params)
        self._certifier = Certifier(self._plan, getattr(layers, "unproved", {}))
        self._known: dict[str, LayerInfo] = {}
        self._costs = StepCosts()
        self._waiting: _Observed | None = None
        self._begun: tuple[int, float, bool] | None = None
        self._compiled = False
        self._scaled_at = NEVER
        self._scales: dict[str, float | None] = {}
        self._last = NEVER
        self._monitor: Monitor | None = None
        if jax.process_index() != 0:
            return
        run = RunInfo(
            framework="jax",
            versions={"jax": jax.__version__},
            thresholds=self._plan.thresholds,
            layers=tuple(self._info(name, gradients=False) for name, _ in self._plan.layers),
            every=every,
        )
        self._monitor = Monitor(
            log_dir,
            run,
            every=every,
            max_overhead=max_overhead,
            max_bytes=max_bytes,
            total_steps=total_steps,
            initial_step=initial_step,
            on_alarm=on_alarm,
        )
        for name, reason in getattr(layers, "skipped", {}).items():
            self._monitor.skip(name, reason)
        weakref.finalize(self, self._monitor.close).atexit = False  # there the monitor closes by itself

    def begin(self, step: int) -> Statistics | None:
        """Just before a step: what to hand to it.

        Args:
            step: Optimizer steps since the start of training; never below that of the call before.

        Returns:
            Statistics of nothing yet, of NumPy arrays; None where this step is not observed.
        """
        self._check_step(step)
        now = perf_counter()
        self._deliver(now)
        wanted = self._wants(step)
        self._begun = (int(step), now, wanted)
        if self._monitor is not None:
            due = wanted and self._monitor.will_record(step)
            self._certifier.begin(int(step), self._monitor.silent_units, due=due)
        # Only the first process knows the scales, and all must hand the same to the step: there each batch has its own.
        return empty_statistics(self._plan, None if self._several else self._scales) if wanted else None

    def write(
        self,
        step: int,
        statistics: Statistics | None,
        *,
        params: Any = None,
        learning_rate: LearningRate = None,
        opt_state: Any = None,
    ) -> None:
        """Just after a step, outside of ``jit``: hand over what it returned. Best after every step, observed or not.

        Args:
            step: As in :meth:`begin`.
            statistics: As the step returned them; may be of several steps together. None to do nothing.
            params: After the step; looked at where a record is due. With those after the step before, the record says
                of dead units whether they can fire at all, and what still moves them.
            learning_rate: Of this step, or a function that gives it and is called when a record is made.
            opt_state: Of Optax, after the step: with it momentum is told apart from what else moves a dead unit.

        Raises:
            InvalidArgumentError: The statistics are of other layers, or no arrays yet.
        """
        if self._monitor is not None and self._begun is not None:  # otherwise it would be kept for long
            self._certifier.hand_over(params, opt_state)
        if statistics is None:
            return
        self._check_step(step)
        self._check_statistics(statistics)
        self._last = int(step)
        monitor = self._monitor
        if (monitor is None or monitor.stopped) and not self._several:
            return
        if self._waiting is not None:  # begin() is not called in this loop
            self._deliver(None)
        try:
            moved = None
            # Weights may be spread over the processes: then all must take part, whatever the first one records.
            due = self._several or (monitor is not None and monitor.will_record(step))
            if self._drift is not None and params is not None and due:
                moved = self._drift.compare(params)
            if monitor is None or monitor.stopped:
                return
            if monitor.will_record(step):
                self._prove(monitor, step, params, opt_state)
            self._waiting = _Observed(int(step), statistics, moved, learning_rate)
        except InvalidArgumentError:
            raise
        except Exception as error:
            if monitor is not None:
                monitor.report("write", error)

    def flush(self) -> None:
        """Wait until the records made so far are in the file."""
        self._deliver(None)
        if self._monitor is not None:
            self._monitor.flush()

    def close(self) -> None:
        """Make a record of what is left and finish the file. May be called again."""
        self._deliver(None)
        if self._monitor is not None:
            self._monitor.close()

    @property
    def dead_fraction(self) -> float:
        """Share of all units that are dead at the last record, NaN before the first and on other processes."""
        return float("nan") if self._monitor is None else self._monitor.dead_fraction

    def __enter__(self) -> DeadUnitsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wants(self, step: int) -> bool:
        if self._monitor is not None and not self._several:
            return self._monitor.wants(step)
        # Also where the monitor has stopped: all processes must run the same step.
        assert self._every is not None
        wanted = step >= self._next
        self._next = step + self._every if wanted else self._next
        return wanted

    def _deliver(self, now: float | None) -> None:
        """Hand the observation before this step to the monitor: its duration is known now, and it may be ready."""
        begun, self._begun = self._begun, None
        waiting, self._waiting = self._waiting, None
        monitor = self._monitor
        if monitor is None or monitor.stopped:
            return
        seconds = None if begun is None or now is None else now - begun[1]
        if begun is not None and begun[2] and waiting is None and now is not None:
            monitor.report("begin", f"step {begun[0]} was given statistics, and write() did not get them back")
            return
        if waiting is None:
            if seconds is not None:
                self._costs.plain(seconds)
                monitor.time(False, seconds)
            return
        own = 0.0
        if seconds is not None:
            own = self._costs.observed(seconds, traced=not self._compiled)
            monitor.time(True, seconds)
        self._compiled = True
        monitor.observe(waiting.step, self._fetcher(waiting), learning_rate=waiting.learning_rate, seconds=own)
        self._rescale(monitor)

    def _prove(self, monitor: Monitor, step: int, params: Any, state: Any) -> None:
        fetch = self._certifier.end(int(step), monitor.silent_units, params, state)
        if fetch is not None:
            monitor.proofs.wait(fetch)

    def _fetcher(self, waiting: _Observed) -> Callable[[], StepObservation]:
        def fetch() -> StepObservation:
            statistics: Statistics = jax.device_get(waiting.statistics)
            self._learn(statistics)
            if self._monitor is not None:
                self._certifier.take_in(waiting.step, statistics, self._monitor.silent_units)
            observation = step_observation(statistics)
            if waiting.moved is None or self._drift is None:
                return observation
            return self._drift.added(observation, waiting.moved)

        return fetch

    def _learn(self, statistics: Statistics) -> None:
        assert self._monitor is not None
        for name, fields in statistics.layers.items():
            info = self._info(name, gradients=bool(statistics.run["gradients"] > 0))
            if fields["examples"] > 0 and self._known.get(name) != info:
                self._known[name] = info
                self._monitor.add_layer(info)

    def _info(self, name: str, *, gradients: bool) -> LayerInfo:
        layer, drift = self._plan.layer(name), self._drift
        method: Literal["exact", "projection", "none"] = "none"
        if layer.weights is not None:
            method = "exact" if drift is None else drift.methods[name]
        return LayerInfo(
            name=name,
            kind=layer.kind,
            order=[known for known, _ in self._plan.layers].index(name),
            units=layer.units,
            activation_function=layer.activation_function,
            fan_in=None if drift is None else drift.fan_in.get(name),
            fan_out=None if drift is None else drift.fan_out.get(name),
            role=layer.role,
            framework="jax",
            witness="pre_activation" if gradients else "none",
            tokens=layer.tokens,
            weight_delta=method,
        )

    def _rescale(self, monitor: Monitor) -> None:
        """After a record: what counts as firing goes by the layers' sizes in it."""
        at = max((record.window.step for record in monitor.last_records.values()), default=NEVER)
        if at != self._scaled_at:
            self._scaled_at = at
            self._scales = {name: monitor.scale(name) for name, _ in self._plan.layers}

    def _check_step(self, step: object) -> None:
        check_whole("step", step, 0)
        if step < self._last:  # type: ignore[operator]  # checked to be a whole number
            raise InvalidArgumentError(
                f"step {step} comes after step {self._last}: steps never run backwards, begin a new writer"
            )

    def _check_statistics(self, statistics: object) -> None:
        if not isinstance(statistics, Statistics):
            raise InvalidArgumentError(
                f"statistics must be what the step returned for those of begin(), not a {type(statistics).__name__}"
            )
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(statistics)):
            raise InvalidArgumentError(
                "write() was called while a function is traced: return the statistics from the jitted step, "
                "and call write() outside of it"
            )
        if statistics.plan.layers != self._plan.layers:
            names = ", ".join(name for name, _ in statistics.plan.layers)
            raise InvalidArgumentError(
                f"these statistics are of other layers ({names}) than this writer's "
                f"({', '.join(name for name, _ in self._plan.layers)}): give the writer and init_statistics the same"
            )
        for name, fields in statistics.layers.items():
            if jnp.shape(fields["shift"]) != (self._plan.layer(name).units,):
                raise InvalidArgumentError(
                    f"the statistics of layer {name!r} have an axis too many, {jnp.shape(fields['shift'])}: carry them "
                    "through jax.lax.scan as state, and under jax.vmap and jax.pmap name the axis in observe() and "
                    "return them with out_axes=None"
                )


@dataclass(frozen=True, slots=True)
class _Observed:
    """What waits to be handed to the monitor."""

    step: int
    statistics: Statistics
    moved: Any
    learning_rate: LearningRate


def step_observation(statistics: Statistics) -> StepObservation:
    """What statistics that were fetched from the device tell of a step."""
    run, fields, calls = statistics.run, {}, []
    before, changed, differentiated = run["looked"]
    for at, (name, layer) in enumerate(statistics.plan.layers):
        of = {field: values for field, values in statistics.layers[name].items() if field not in FIELDS}
        looked = {"norm_in": before, "change": changed, "weight_gradient": differentiated}
        for field in looked:
            values = of.pop(field, None)
            if values is not None and looked[field]:
                fields[f"{name}:{field}"] = _vector(values)
        gradient = of.pop("gradient")
        if run["gradients"] > 0:
            of["gradient"] = gradient
        fields |= {f"{at}:{field}": _vector(values) for field, values in of.items()}
        calls.append(packed.Call(name, at, layer.trainable))
    fields["skipped"] = _vector(run["skipped"])
    if run["losses"] > 0:
        fields["loss"] = _vector(run["loss"] / run["losses"])
    if run["inputs"][0] > 0:
        fields["inputs"] = _vector(run["inputs"])
    relu_like = frozenset(at for at, (_, layer) in enumerate(statistics.plan.layers) if layer.relu_like)
    layout = packed.Layout({name: len(values) for name, values in fields.items()}, tuple(calls), relu_like)
    return packed.observation(layout, fields)


def _vector(values: Any) -> packed.Vector:
    return np.atleast_1d(np.asarray(values, np.float64))

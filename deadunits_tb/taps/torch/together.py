"""What the processes that train one model together have seen in a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from deadunits_tb.capture.monitor import Monitor
from deadunits_tb.capture.silent_monitor import SilentMonitor
from deadunits_tb.taps.torch.distributed import Processes
from deadunits_tb.taps.torch.pack import Fields
from deadunits_tb.taps.torch.step import Seen


class Met(NamedTuple):
    """How the processes have met.

    Attributes:
        merged: What all have seen; in the first process alone, and where there is something.
        alike: Whether all have called the same layers.
        failure: In this process.
    """

    merged: Seen | None = None
    alike: bool = True
    failure: Exception | None = None


def meet(
    together: Processes,
    monitor: Monitor | SilentMonitor,
    see: Callable[[], Seen | None],
    looked: Fields,
    scale: Callable[[str], float | None],
    *,
    next_step: int,
    device: Any,
) -> Met:
    """Put together what all have seen. All must call this in the same step, also where their monitor has stopped.

    Args:
        together: The processes.
        monitor: Of this one.
        see: Gives what this one has seen, None for nothing.
        looked: What was found beside the passes.
        scale: Root mean square of a layer's activations at the last record.
        next_step: That is to be observed, if this is the first process.
        device: Of the model.
    """
    seen, failure = None, None
    if not monitor.stopped:
        try:
            seen = see()
        except Exception as error:
            failure = error
    agreed = together.meet(
        well=failure is None and not monitor.stopped,
        layout=None if seen is None else [{name: one.numel() for name, one in seen.tensors.items()}, seen.layer_calls],
        next_step=next_step,
        looks=monitor.will_record(next_step),
        device=device,
    )
    if failure is not None:
        return Met(failure=failure)
    if not agreed.well:
        monitor.report("distributed", "the monitor of another process has failed, and all leave off together")
        return Met()
    if not agreed.alike:
        return Met(alike=False)
    if seen is None or not seen.layer_calls:
        return Met()
    units = {call.layer: seen.tensors[f"{call.tap}:shift"].numel() for call in seen.layer_calls}
    numbers, tensors = together.merge(seen.numbers, {**looked, **seen.tensors}, seen.relu_like, units)
    names = sorted(units)
    together.share_scales(names, [scale(name) for name in names], device)
    merged = Seen(numbers, tensors, seen.layer_calls, seen.relu_like)
    return Met(merged if together.first else None)

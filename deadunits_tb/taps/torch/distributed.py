"""Several processes that train one model together observe the same steps, and one of them writes.

At the end of an observed step all processes meet. They first tell each other whether they are well, whether they saw
the same layers, and which step is observed next, as the first process has decided; only if all agree the sums are
reduced. So a process whose monitor has failed holds up none: it comes to that meeting once more, says so, and all leave
off together.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from deadunits_tb.errors import InvalidArgumentError

Fields = dict[str, Any]
_ADDED = ("fired_examples", "fired_positions", "sum_abs", "saturated", "gradient")
_OF_WEIGHTS = frozenset({"norm_in", "norm_first", "change", "since_first", "weight_gradient"})
_NOT_YET = -1


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a meeting came to.

    Attributes:
        well: Whether no process has failed.
        alike: Whether all saw the same layers.
    """

    well: bool
    alike: bool


class Processes:
    """The processes that train a model together, each with a share of every batch.

    Args:
        group: Of them.
        averaged: Whether the gradients of the weights are averaged over them, as ``DistributedDataParallel`` and
            ``fully_shard`` do; then the loss is the mean of theirs.
        first_step: Observed by all.
    """

    def __init__(self, group: Any, *, averaged: bool, first_step: int) -> None:
        self._group = group
        self._averaged = averaged
        self.size: int = dist.get_world_size(group)
        self.first: bool = dist.get_rank(group) == 0
        """Whether this is the process that writes."""
        self.next_step = first_step
        """The next observed step; none once a process has failed."""
        self.looks = True
        """Whether it also looks at the weights."""
        self.scales: dict[str, float] = {}
        """Layer to the root mean square of its outputs that tells what has fired; the same in all processes."""

    def meet(self, *, well: bool, layout: object, next_step: int, looks: bool, device: Any) -> Agreement:
        """Agree with the others at the end of an observed step.

        Args:
            well: Whether this process can go on.
            layout: What it has seen; anything whose ``repr`` is the same where the same was seen.
            next_step: In the first process, the next observed step. Ignored in others.
            looks: In the first process, whether that looks at the weights.
            device: On which the processes talk.
        """
        digest = zlib.crc32(repr(layout).encode()) if well else 0
        mine = [
            int(not well),
            digest if well else 0,
            -digest if well else -(2**32),
            next_step if self.first else _NOT_YET,
            int(looks and self.first),
        ]
        told = torch.tensor(mine, dtype=torch.int64, device=device)
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self._group)
        failed, largest, smallest, self.next_step, self.looks = told.tolist()
        self.looks = bool(self.looks)
        if failed:
            self.next_step = _NOT_YET
        return Agreement(well=not failed, alike=largest == -smallest)

    def merge(
        self, numbers: Mapping[str, float], tensors: Fields, relu_like: frozenset[int], units: Mapping[str, int]
    ) -> tuple[Fields, Fields]:
        """Reduce what all have seen, as if one process had seen the whole batch; every process gets the result.

        Counts and sums add, extremes take the extreme. Moments are brought to one shift, that of the first process, in
        float64, as :func:`deadunits_tb.taps.merge.merge_fields` has it.

        Args:
            numbers: Field to a number that the host knows.
            tensors: Field to a tensor on the device.
            relu_like: Taps whose activation function is.
            units: Layer to how many it has.

        Returns:
            Both, merged.
        """
        taps = sorted(int(name.partition(":")[0]) for name in numbers if name.endswith(":examples"))
        device = next(iter(tensors.values())).device
        shifts = torch.cat([tensors[f"{tap}:shift"].double() for tap in taps])
        dist.broadcast(shifts, dist.get_global_rank(self._group, 0), group=self._group)
        sums: Fields = {}
        extremes: Fields = {}
        merged_shifts = dict(zip(taps, shifts.split([tensors[f"{tap}:shift"].numel() for tap in taps]), strict=True))
        for tap, shift in merged_shifts.items():
            of = {name.partition(":")[2]: value for name, value in tensors.items() if name.startswith(f"{tap}:")}
            sums |= {f"{tap}:{name}": of[name].double() for name in _ADDED if name in of}
            sums |= _about(of, shift, numbers[f"{tap}:positions"], tap, relu_like=tap in relu_like)
            if self._averaged and f"{tap}:gradient" in sums:  # of the mean of the losses, not of this process's own
                sums[f"{tap}:gradient"] = sums[f"{tap}:gradient"] / self.size**2
            extremes |= {f"{tap}:max": of["max"].float(), f"{tap}:min": -of["min"].float()}
        sums |= {name: torch.tensor([value], dtype=torch.float64) for name, value in numbers.items() if ":" in name}
        sums |= self._parts_of_weights(tensors, units)
        if "skipped" in tensors:
            extremes["skipped"] = tensors["skipped"].float().reshape(1)
        added = self._reduced(sums, dist.ReduceOp.SUM, device)
        peaks = self._reduced(extremes, dist.ReduceOp.MAX, device)
        for tap, shift in merged_shifts.items():
            peaks[f"{tap}:min"] = -peaks[f"{tap}:min"]
            added[f"{tap}:shift"] = shift
        if "inputs" in tensors:  # a row for each tensor and process; they are merged when they are unpacked
            rows = [torch.empty_like(tensors["inputs"]) for _ in range(self.size)]
            dist.all_gather(rows, tensors["inputs"].contiguous(), group=self._group)
            added["inputs"] = torch.cat(rows)
        everywhere = {name: float(added.pop(name)) for name in numbers if ":" in name}
        return {**numbers, **everywhere}, {**tensors, **added, **peaks}

    def share_scales(self, names: list[str], scales: list[float | None], device: Any) -> None:
        """Tell the others by which scale firing is told from now on.

        Args:
            names: Of layers, the same everywhere.
            scales: In the first process: of each, None if there is none yet. Ignored in others.
            device: On which the processes talk.
        """
        told = torch.tensor([-1.0 if scale is None else scale for scale in scales], dtype=torch.float64, device=device)
        dist.broadcast(told, dist.get_global_rank(self._group, 0), group=self._group)
        self.scales = {name: scale for name, scale in zip(names, told.tolist(), strict=True) if scale >= 0}

    def _parts_of_weights(self, tensors: Fields, units: Mapping[str, int]) -> Fields:
        """Of sharded weights each process has looked at its own rows: ``[units]`` with zeros for those of others."""
        whole: Fields = {}
        rank = dist.get_rank(self._group)
        for name, value in tensors.items():
            layer, _, what = name.rpartition(":")
            total = units.get(layer) if what in _OF_WEIGHTS else None
            if total is not None and value.numel() < total:
                each = -(-total // self.size)  # as torch.chunk has it
                start = min(rank * each, total)
                whole[name] = torch.zeros(total, dtype=torch.float64, device=value.device)
                whole[name][start : start + value.numel()] = value
        return whole

    def _reduced(self, parts: Fields, operation: Any, device: Any) -> Fields:
        """All of them in one call."""
        flat = torch.cat([part.reshape(-1).to(device) for part in parts.values()])
        dist.all_reduce(flat, operation, group=self._group)
        sizes = [part.numel() for part in parts.values()]
        return dict(zip(parts, flat.split(sizes), strict=True))


def group_of(wrappers: Sequence[Any], process_group: Any) -> Any:
    """The processes that train a model together, None where it is one alone.

    Args:
        wrappers: The model as the user has it, and what it wraps.
        process_group: That the user named, None to find it by the model.

    Raises:
        InvalidArgumentError: There is no process group yet, or the model is sharded in a way that cannot be watched.
    """
    if any(type(one).__name__ == "FullyShardedDataParallel" for one in wrappers):
        raise InvalidArgumentError(
            "models in FullyShardedDataParallel cannot be watched: shard them with torch.distributed.fsdp.fully_shard"
        )
    if process_group is not None:
        if not (dist.is_available() and dist.is_initialized()):
            raise InvalidArgumentError(
                "process_group was given, and there is none yet: call torch.distributed.init_process_group first"
            )
        found = process_group
    elif parallel := [one for one in wrappers if isinstance(one, torch.nn.parallel.DistributedDataParallel)]:
        found = parallel[0].process_group
    else:
        sharded = next((one for one in wrappers[-1].parameters() if is_sharded(one)), None)
        found = None if sharded is None else sharded.device_mesh.get_group(0)
    return found if found is not None and dist.get_world_size(found) > 1 else None


def is_sharded(tensor: Any) -> bool:
    """Whether each process holds only a part of a tensor."""
    return hasattr(tensor, "full_tensor") and hasattr(tensor, "device_mesh")


def own_part(tensor: Any) -> Any:
    """What this process holds of a tensor that may be sharded: some of its rows."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def _about(of: Fields, shift: Any, positions: float, tap: int, *, relu_like: bool) -> Fields:
    """Sums of a tap about another shift."""
    d, squares, total = of["shift"].double() - shift, of["squares"].double(), of["sum"].double()
    apart = total - positions * of["shift"].double() if relu_like else total
    apart = torch.where(squares == 0, 0.0, apart)  # no output differs from the first: rounding only
    return {
        f"{tap}:sum": total if relu_like else apart + positions * d,
        f"{tap}:squares": squares + 2 * d * apart + positions * d * d,
    }

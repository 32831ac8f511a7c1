"""What a TensorBoard ``DataProvider`` lists of our data, and reading one tag of it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorboard.data.provider import RunTagFilter

from deadunits_tb.errors import FormatError
from deadunits_tb.metadata import PLUGIN_NAME, RECORD_BLOCK, SUBDIRECTORY, TagInfo, parse, run_name
from deadunits_tb.reading.cache import Cache
from deadunits_tb.reading.notes import hidden_run
from deadunits_tb.reading.phrases import count
from deadunits_tb.reading.series import Point


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag of ours, as it is listed.

    Attributes:
        tensorboard_run: The run as TensorBoard calls it.
        name: Of the tag.
        info: What its metadata says.
        last_step: Largest step.
        last_wall_time: Largest wall time, in seconds since the epoch. Either changes with every record that is added.
    """

    tensorboard_run: str
    name: str
    info: TagInfo
    last_step: int
    last_wall_time: float

    @property
    def key(self) -> tuple[str, str]:
        """Names the tag within an experiment."""
        return self.tensorboard_run, self.name


@dataclass(frozen=True, slots=True)
class RunTags:
    """The tags of one run of the user's: at least one.

    Attributes:
        run: The directory that the user named.
        tags: All that are ours.
    """

    run: str
    tags: tuple[Tag, ...]

    @property
    def last_step(self) -> int:
        """Step of the last record: of the newest session, which may have begun anew at an earlier step."""
        newest = max(tag.info.session for tag in self.tags)
        return max(tag.last_step for tag in self.tags if tag.info.session == newest)

    @property
    def last_wall_time(self) -> float:
        """Seconds since the epoch at the last record."""
        return max(tag.last_wall_time for tag in self.tags)

    @property
    def version(self) -> str:
        """Changes whenever the run has grown; safe inside a URL."""
        return f"{len(self.tags)}.{self.last_step}.{self.last_wall_time:.6f}"


class Source:
    """One TensorBoard ``DataProvider``, of which only our data are seen.

    Args:
        provider: Any ``tensorboard.data.provider.DataProvider``.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._parsed: Cache[tuple[bytes, TagInfo | str]] = Cache(2**26, lambda pair: len(pair[0]) + 1000)

    def list(
        self, ctx: Any, experiment_id: str, note: Callable[[str, str], None], run: str | None = None
    ) -> dict[str, RunTags]:
        """List the runs that hold data of ours.

        Args:
            ctx: TensorBoard's ``RequestContext``.
            experiment_id: Of the experiment.
            note: Told of which run what was left out.
            run: List this run alone.

        Returns:
            Run to its tags, in natural order.
        """
        chosen = None if run is None else RunTagFilter(runs=_tensorboard_runs(run))
        listed = self._provider.list_tensors(
            ctx, experiment_id=experiment_id, plugin_name=PLUGIN_NAME, run_tag_filter=chosen
        )
        tags: dict[str, list[Tag]] = defaultdict(list)
        refused: Counter[tuple[str, str]] = Counter()
        emptied: set[tuple[str, int]] = set()
        for tensorboard_run, series in listed.items():
            name = run_name(tensorboard_run)
            for tag, known in series.items():
                info = self._parse(known.plugin_content)
                if isinstance(info, str):
                    refused[name, info] += 1
                elif known.max_step is not None and known.max_wall_time is not None:
                    tags[name].append(Tag(tensorboard_run, tag, info, int(known.max_step), float(known.max_wall_time)))
                else:
                    emptied.add((name, info.session))
        for (name, reason), times in refused.items():
            note(name, f"{count(times, 'tag')} left out: {reason}")
        shown = {(name, tag.info.session) for name, found in tags.items() for tag in found}
        for name, session in sorted(emptied - shown):
            note(name, hidden_run(session, "records", "a later run began again, and TensorBoard dropped them"))
        return {name: RunTags(name, tuple(tags[name])) for name in sorted(tags, key=natural)}

    def read(self, ctx: Any, experiment_id: str, tag: Tag, points: int = RECORD_BLOCK) -> Sequence[Point]:
        """Read one tag. One run and one tag a call, because TensorBoard's data server answers at most 256 MiB.

        Args:
            ctx: TensorBoard's ``RequestContext``.
            experiment_id: Of the experiment.
            tag: The tag.
            points: How many points at most; the last is always among them.

        Raises:
            FormatError: The provider cannot read it.
        """
        try:
            found = self._provider.read_tensors(
                ctx,
                experiment_id=experiment_id,
                plugin_name=PLUGIN_NAME,
                downsample=points,
                run_tag_filter=RunTagFilter(runs=[tag.tensorboard_run], tags=[tag.name]),
            )
        except Exception as error:  # of gRPC, of NumPy, of the provider: a stranger's tensor may be anything
            raise FormatError(f"TensorBoard cannot read it: {f'{type(error).__name__}: {error}':.200}") from error
        data = found.get(tag.tensorboard_run, {}).get(tag.name, [])
        return [Point(datum.step, datum.wall_time, np.asarray(datum.numpy)) for datum in data]

    def _parse(self, content: bytes) -> TagInfo | str:
        """What the metadata says, or why it says nothing."""

        def parsed() -> tuple[bytes, TagInfo | str]:
            try:
                return content, parse(content)
            except FormatError as error:
                return content, str(error)

        return self._parsed.get(content, parsed)[1]


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts as people count: ``run2`` before ``run10``."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _tensorboard_runs(run: str) -> list[str]:
    """How TensorBoard may call a run of the user's."""
    if run == ".":
        return [run, SUBDIRECTORY]
    return [run, f"{run}/{SUBDIRECTORY}", f"{run}\\{SUBDIRECTORY}"]

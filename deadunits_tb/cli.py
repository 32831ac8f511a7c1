"""The command ``deadunits``."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import click

from deadunits_tb import __version__
from deadunits_tb.errors import DeadUnitsError


class _Failure(click.ClickException):
    exit_code = 2


class _Commands(click.Group):
    """Turns what this package raises into one line and exit status 2, as click does with wrong arguments."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DeadUnitsError as error:
            from deadunits_tb.reading.phrases import printable

            raise _Failure(printable(str(error))) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deadunits")
def main() -> None:
    """Which units of a neural network are dying, since when, and why."""


@main.command()
@click.argument("logdir")
@click.option("--run", "pattern", metavar="REGEX", help="Only runs in whose name this is found.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def report(logdir: str, pattern: str | None, as_json: bool) -> None:
    """Print the verdicts on the runs in LOGDIR."""
    from deadunits_tb.reading import report as reports

    if not as_json:
        reports.print_report(logdir, pattern=pattern)
        return
    from deadunits_tb.reading.log_directory import LogDirectory
    from deadunits_tb.reading.phrases import printable

    directory = LogDirectory(logdir)
    runs = [directory.history(run) for run in directory.matching(pattern)]
    click.echo(json.dumps(reports.report(runs), allow_nan=False, indent=1))
    notes = [*directory.notes, *(f"run {run.run}: {note}" for run in runs for note in run.notes)]
    for note in notes:  # the object is for programs; what was left out is for whoever runs them
        click.echo(f"left out: {printable(note)}", err=True)


@main.command()
@click.option(
    "--logdir",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    default=pathlib.Path("runs", "demo"),
    show_default=True,
    help="Where the runs are written.",
)
@click.option("--no-serve", is_flag=True, help="End after the report.")
@click.option("--port", type=click.IntRange(0, 65535), help="For TensorBoard; by default a free one.")
def demo(logdir: pathlib.Path, no_serve: bool, port: int | None) -> None:
    """Train small networks that fail in different ways, and open TensorBoard on them."""
    from deadunits_tb import demo as networks

    networks.run(logdir, serve_after=not no_serve, port=port)

"""The command ``deadunits``."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Literal

import click

from deadunits_tb import __version__
from deadunits_tb.errors import DeadUnitsError, InvalidArgumentError


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
@click.argument("logdir")
@click.option("--max-dead", metavar="SHARE", help="Most dead units, such as 5%.")
@click.option("--max-dying", metavar="SHARE", help="Most dying units.")
@click.option(
    "--max",
    "others",
    metavar="STATE=SHARE",
    multiple=True,
    help="Most units in a state, or in the groups alarm and flagged.",
)
@click.option(
    "--per", type=click.Choice(["layer", "run"]), default="layer", show_default=True, help="What a limit is on."
)
@click.option("--at", type=click.Choice(["last", "any"]), default="last", show_default=True, help="At which record.")
@click.option("--run", "pattern", metavar="REGEX", help="Only runs in whose name this is found.")
@click.option("--layer", "layers", metavar="REGEX", help="Only layers in whose name this is found.")
@click.option("--baseline", metavar="LOGDIR", help="No more alarms and flagged units than there.")
@click.option("--tolerance", metavar="SHARE", default="0%", help="By how much the baseline may be surpassed.")
@click.option("--allow-unknown", is_flag=True, help="What cannot be told counts as within limits.")
@click.option(
    "--format", type=click.Choice(["text", "json", "junit"]), default="text", show_default=True, help="Of the answer."
)
@click.option("-o", "--output", type=click.Path(path_type=pathlib.Path, dir_okay=False), help="Where to write it.")
@click.pass_context
def check(
    ctx: click.Context,
    logdir: str,
    max_dead: str | None,
    max_dying: str | None,
    others: tuple[str, ...],
    per: Literal["layer", "run"],
    at: Literal["last", "any"],
    pattern: str | None,
    layers: str | None,
    baseline: str | None,
    tolerance: str,
    allow_unknown: bool,
    format: str,
    output: pathlib.Path | None,
) -> None:
    """Fail where the runs in LOGDIR go beyond limits.

    Exit status 0 within limits, 1 beyond them, 2 where it cannot be told. Without limits no finding may be an alarm.
    """
    from deadunits_tb.gate import answers, limits
    from deadunits_tb.gate import check as gate

    parsed = limits.parse_limits(max_dead, max_dying, others)
    if baseline is None and tolerance != "0%":
        raise InvalidArgumentError("--tolerance says by how much a baseline may be surpassed: name one with --baseline")
    if at == "any" and not parsed:
        raise InvalidArgumentError("--at any is for limits: give one, such as --max-dead 5%")
    if per == "run" and not parsed and baseline is None:
        raise InvalidArgumentError("--per run is for limits and baselines: give one, such as --max-dead 5%")
    terms = gate.Terms(
        limits=parsed,
        scope=per,
        at=at,
        layers=layers,
        baseline=baseline,
        tolerance=limits.parse_share(tolerance),
    )
    outcomes = gate.check(logdir, terms, pattern=pattern)
    if format == "text" and output is None:
        answers.print_answers(outcomes)
    else:
        text = answers.written(outcomes, format, allow_unknown=allow_unknown)
        if output is None:
            click.echo(text)
        else:
            _write(output, text)
    ctx.exit(gate.exit_code(outcomes, allow_unknown=allow_unknown))


@main.command()
@click.argument("logdir")
@click.argument("other", required=False)
@click.option(
    "--run", "runs", metavar="RUN", multiple=True, help="A run to compare, twice: its name, or a regular expression."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def compare(logdir: str, other: str | None, runs: tuple[str, ...], as_json: bool) -> None:
    """Compare two runs in LOGDIR, or one in LOGDIR and one in OTHER.

    Says how they were made differently, in which layers more units are dead, and whether chance explains that.
    """
    from deadunits_tb.reading.comparison import comparison_json
    from deadunits_tb.reading.comparison_table import compare_directories, print_comparison

    found = compare_directories(logdir, other, runs)
    if as_json:
        click.echo(json.dumps(comparison_json(found), allow_nan=False, indent=1))
    else:
        print_comparison(found)


@main.command()
@click.argument("logdir")
@click.option(
    "--format", type=click.Choice(["csv", "json", "parquet"]), help="Of the file; by default what its name ends in."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=pathlib.Path, dir_okay=False), required=True, help="The file."
)
@click.option("--run", "pattern", metavar="REGEX", help="Only runs in whose name this is found.")
@click.option(
    "--records",
    type=click.Choice(["last", "all"]),
    default="last",
    show_default=True,
    help="Which records of each layer.",
)
def export(
    logdir: str,
    format: Literal["csv", "json", "parquet"] | None,
    output: pathlib.Path,
    pattern: str | None,
    records: Literal["last", "all"],
) -> None:
    """Write the states and statistics of all units in LOGDIR as a table."""
    from deadunits_tb.gate.export import export as write_table
    from deadunits_tb.gate.export import format_of

    rows = write_table(logdir, output, format=format or format_of(output), pattern=pattern, records=records)
    click.echo(f"{rows:,} rows written to {output}", err=True)


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


def _write(path: pathlib.Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidArgumentError(f"cannot write {str(path)!r}: {error.strerror}") from error

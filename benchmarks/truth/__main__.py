"""How true are verdicts and causes? Real training runs with states and causes planted, beside healthy twins.

    python -m benchmarks.truth [--numpy-seeds 3] [--framework-seeds 1] [--frameworks numpy keras torch]
        [--only states/] [-v]

States: at every record, each hidden unit's state beside an exhaustive pass over the whole data set with the weights of
that step. Deaths: by the words of "wrong", "missed" and "onset". Causes: the first finding of a run, beside what was
planted in it. Healthy twins: no finding may be an alarm.
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.truth import catalogue
from benchmarks.truth.recipe import Recipe
from benchmarks.truth.scoring import Tally, read, score_causes, score_states
from deadunits_tb.units import UnitState

console = Console()

IN_FRAMEWORKS = (
    "states/",
    "sgd-3", "adam-0.1", "adam-1e-7", "mean--0.5", "zero", "huge", "sigmoid-deep-", "spike-0", "tanh-large",
    "tanh-bytes", "relu-bytes", "first-killed", "decay-adam", "one-class-0", "frozen-first", "pruned-0",
    "healthy/adam", "healthy/sgd", "healthy/gelu", "healthy/warm-up", "healthy/cosine-tail", "healthy/converged-0",
    "healthy/fine-tuning-0", "killed", "cnn", "lstm", "transformer", "healthy/cnn", "healthy/lstm",
    "healthy/transformer", "known-by-heart",
)  # fmt: skip
"""What is trained in every framework, by the beginning of its name; NumPy, the cheapest, trains every dense network."""


def recipes(framework: str, seeds: int, only: str = "", first_seed: int = 0) -> Iterator[Recipe]:
    """What to train in a framework.

    Units are held still, or cut off, within a step: that is done in NumPy alone. Nor is a weight made NaN elsewhere, as
    TensorFlow's ReLU makes a zero of NaN, and the exhaustive pass does not.
    """
    few = min(seeds, 2)
    every = [
        *catalogue.states(few), *catalogue.architectures(few), *catalogue.causes(seeds), *catalogue.healthy(few)
    ]  # fmt: skip
    for recipe in every:
        recipe = replace(recipe, seed=recipe.seed + first_seed)
        if not recipe.name.startswith(only):
            continue
        if framework == "numpy":
            if recipe.architecture == "dense":
                yield recipe
        elif recipe.name.startswith(IN_FRAMEWORKS):
            yield replace(recipe, plants=tuple(one for one in recipe.plants if one.kind not in ("hold", "cut", "nan")))


def run(
    framework: str, seeds: int, tally: Tally, *, only: str = "", first_seed: int = 0, verbose: bool = False
) -> None:
    """Train, read, and score."""
    train = importlib.import_module(f"benchmarks.truth.{framework}_training").train
    for recipe in recipes(framework, seeds, only, first_seed):
        with tempfile.TemporaryDirectory() as directory:
            # A planted cause is true by how the run was made; a state needs the exhaustive passes.
            exhaustive = recipe.cause is None
            truth = train(recipe, pathlib.Path(directory), exhaustive=exhaustive)
            history, findings = read(pathlib.Path(directory))
        tally.count(framework, recipe)
        if exhaustive:
            score_states(tally, truth, history)
        if not recipe.name.startswith("states/"):
            score_causes(tally, recipe, findings)
        if verbose:
            found = ", ".join(f"{f.cause} ({f.level.label})" for f in findings) or "nothing"
            console.print(f"{framework:6} {recipe.name:28} {recipe.cause or '':24} {found}", highlight=False)


def show(tally: Tally, seconds: float) -> None:
    """Print what came out."""
    table = Table(
        "state", "precision", "recall", "verdicts", "units in it", title="States, unit by unit, record by record"
    )
    for state in UnitState:
        if state != UnitState.DEAD and (tally.said[state] or tally.held[state]):
            table.add_row(
                state.label, f"{tally.precision(state):.3f}", f"{tally.recall(state):.3f}",
                f"{tally.said[state]:,}", f"{tally.held[state]:,}",
            )  # fmt: skip
    console.print(table)
    if tally.confused:
        off = ", ".join(f"{a.label} called {b.label}: {n:,}" for (a, b), n in tally.confused.most_common(5))
        console.print(f"disagreements: {off}")
    errors = np.abs(tally.onset_errors or [0])
    console.print(
        f"\nDeaths: {tally.dead} verdicts; wrong (fires more often than the stated bound): {tally.wrong} "
        f"({tally.wrong / max(tally.dead, 1):.1%}, at most 5 %); of these firing on more than 1 %: {tally.fires}; "
        f"missed: {len(tally.missed)}; onset off by at most {errors.max()} steps"
    )
    for one in tally.missed[:5]:
        console.print(f"  missed: {one}")
    matrix = Table("planted", "runs", "right", "instead", title="Causes: the first finding")
    for cause in sorted({cause for cause, _ in tally.causes}):
        of = {found: n for (planted, found), n in tally.causes.items() if planted == cause}
        wrong = ", ".join(f"{found} {n}" for found, n in of.items() if found != cause)
        matrix.add_row(cause, str(sum(of.values())), str(of.get(cause, 0)), wrong or "-")
    console.print(matrix)
    planted = sum(tally.causes.values())
    console.print(f"causes right: {tally.cause_score:.1%} of {planted} planted runs")
    console.print(f"healthy twins: {tally.healthy}, with an alarm: {len(tally.alarms)} {tally.alarms or ''}")
    console.print(f"runs: {dict(tally.frameworks)}; {seconds:.0f} s of processor time")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", default=["numpy", "keras", "torch"])
    parser.add_argument("--numpy-seeds", type=int, default=3)
    parser.add_argument("--framework-seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="train what begins with this: states/, healthy/, sgd-3")
    parser.add_argument("--first-seed", type=int, default=0, help="1000 gives runs that no rule was tuned on")
    parser.add_argument("--peers", action="store_true", help="instead: what other tools call dead in the same runs")
    parser.add_argument("-v", "--verbose", action="store_true")
    chosen = parser.parse_args()
    if chosen.peers:
        from benchmarks.truth import peers

        console.print(peers.show(peers.compare(chosen.framework_seeds, chosen.first_seed)))
        return
    total = Tally()
    began = time.process_time()
    for framework in chosen.frameworks:
        seeds = chosen.numpy_seeds if framework == "numpy" else chosen.framework_seeds
        run(framework, seeds, total, only=chosen.only, first_seed=chosen.first_seed, verbose=chosen.verbose)
    show(total, time.process_time() - began)


if __name__ == "__main__":
    main()

"""`python -m benchmarks`, which `make bench` runs: measure, print, and write docs/performance.md."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.command import check_names, forget_settings, run
from benchmarks.machine import describe, load_generator, prepare
from benchmarks.plan import FULL, QUICK
from benchmarks.progress import Progress
from benchmarks.report import Performance
from benchmarks.scenarios import SCENARIOS
from benchmarks.traffic import make_stage
from tests.live.servers import ROOT

NAMES = ", ".join(SCENARIOS)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Small numbers, to see that everything works.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of: {NAMES}. Can be given several times.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="How many alternating runs; default 5, quick 2.")] = None,
    seconds: Annotated[int | None, typer.Option(min=1, help="How long each run measures; default 5, quick 1.")] = None,
    flood_seconds: Annotated[int | None, typer.Option(min=2, help="How long the login flood is; default 60.")] = None,
    timing_samples: Annotated[
        int | None, typer.Option(min=2, help="How many refused logins of each kind; default 200, quick 20.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of performance.md, .json and .svg; default docs, for a quick run build/benchmarks."),
    ] = None,
) -> None:
    """
    Measure tornado_ds beside its peers, and write the report.

    Results of scenarios that are not run this time stay in the report as they were.

    Example: python -m benchmarks --quick --only storm --only flood
    """
    check_names(only, SCENARIOS)
    forget_settings()
    prepare()
    plan = (QUICK if quick else FULL).with_changes(
        rounds=rounds, seconds=seconds, flood_seconds=flood_seconds, timing_samples=timing_samples
    )
    report = Performance(output or ROOT / ("build/benchmarks" if quick else "docs"), machine=describe())
    console = Console(width=None if sys.stdout.isatty() else 160)
    with tempfile.TemporaryDirectory(prefix="tornado-ds-bench-") as folder, Progress(console) as progress:
        progress.step(f"the load comes from {load_generator()}")
        progress.step("issue tokens")
        stage = make_stage(Path(folder), plan)
        for name, scenario in SCENARIOS.items():
            if only and name not in only:
                continue
            progress.begin(name)
            started = time.monotonic()
            outcome = scenario(stage, plan, progress)
            report.add(name, outcome, is_quick=quick, seconds=time.monotonic() - started)
            report.print(console, name)
    report.write()
    console.print(f"Written to {report.folder}: performance.md, performance.json, performance.svg")


if __name__ == "__main__":
    sys.exit(run(main, "benchmarks"))

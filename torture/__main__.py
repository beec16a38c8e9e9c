"""`python -m torture`, which `make torture` runs: torment servers, print what held, and write docs/reliability.md."""

import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.command import check_names, forget_settings, run
from benchmarks.machine import allow_open_files, describe_ourselves
from benchmarks.progress import Progress
from benchmarks.traffic import Place
from tests.live.servers import ROOT
from torture.plan import FULL, QUICK
from torture.scenarios import SCENARIOS
from torture.scoreboard import Scoreboard

NAMES = ", ".join(SCENARIOS)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Small numbers, to see that everything works.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of: {NAMES}. Can be given several times.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="How long the soak is; default 30, quick 1.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of reliability.md and .json; default docs, for a quick run build/torture."),
    ] = None,
) -> None:
    """
    Do to tornado_ds what the world does, and write down what held.

    Everything but the soak runs if nothing is named. Each result is written as soon as it is there; those of
    scenarios that are not run this time stay in the report as they were.

    Example: python -m torture --quick --only sqlite --only postgresql
    """
    check_names(only, SCENARIOS)
    forget_settings()
    allow_open_files()
    plan = (QUICK if quick else FULL).with_changes(minutes=minutes)
    board = Scoreboard(output or ROOT / ("build/torture" if quick else "docs"), machine=describe_ourselves())
    console = Console(width=None if sys.stdout.isatty() else 160)
    chosen = only or [name for name in SCENARIOS if name != "soak"]
    with Progress(console) as progress:
        for name in chosen:
            progress.begin(name)
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix=f"tornado-ds-{name}-") as folder:
                place = Place(folder=Path(folder), secret=secrets.token_hex(32))
                outcome = SCENARIOS[name](place, plan, progress)
            seconds = time.monotonic() - started
            board.add(name, outcome, is_quick=quick, seconds=seconds)
            board.print(console, name)
            progress.step(f"took {seconds:.0f} s")
            board.write()
    console.print(f"Written to {board.folder}: reliability.md, reliability.json")


if __name__ == "__main__":
    sys.exit(run(main, "torture"))

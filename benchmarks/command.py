"""What the command lines of the suites share."""

import os
import sys
from collections.abc import Callable, Collection

import typer

from benchmarks.machine import MissingError


def run(main: Callable[..., None], package: str) -> int:
    """Run *main* as `python -m package`, and return its exit code; one line on stderr when something is missing."""
    try:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(main)
        app(prog_name=f"python -m {package}")
    except MissingError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


def check_names(given: Collection[str] | None, known: Collection[str]) -> None:
    """
    Accept names of scenarios.

    Raises:
        MissingError: There is no such scenario.
    """
    unknown = [name for name in given or [] if name not in known]
    if unknown:
        raise MissingError(f"there is no scenario {unknown[0]!a}, only {', '.join(known)}")


def forget_settings() -> None:
    """Leave the settings of whoever runs the suite out of it."""
    for name in [name for name in os.environ if name.startswith("TORNADO_DS_")]:
        del os.environ[name]

"""What a scenario found, in a form that a terminal, a JSON file and a page can show."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One promise and what was measured of it."""

    promise: str
    measured: str
    is_met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    One scenario's result.

    *values* are the raw figures, for scripts; *notes* say how it was measured.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    values: Mapping[str, Any]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = field(default=())


def median(values: Sequence[float]) -> float:
    """Return the median of *values*."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of *values* that *percent* of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * percent // 100).__int__() - 1))]


def count(value: float) -> str:
    """Return a number for people: no decimals, blanks between thousands."""
    return f"{value:,.0f}".replace(",", " ")


def milliseconds(seconds: float) -> str:
    """Return a duration for people."""
    return f"{1000 * seconds:.1f} ms" if 0 < seconds < 0.01 else f"{1000 * seconds:.0f} ms"


def mebibytes(value: float) -> str:
    """Return an amount of memory for people."""
    return f"{value:.1f} MiB"

"""How hard it gets, in a full run and in a quick one."""

from dataclasses import dataclass, replace
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sizes of all scenarios; a full run has those of the promises."""

    forged_tokens: int
    bodies: int
    slow_connections: int
    slow_seconds: float
    fault_seconds: float
    kills: int
    stops: int
    rotations: int
    clock_seconds: float
    minutes: float

    def with_changes(self, **changes: Any) -> Self:
        """Return the plan with those of *changes* that are not None."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


FULL = Plan(
    forged_tokens=4_000,
    bodies=10_000,
    slow_connections=900,
    slow_seconds=15,
    fault_seconds=5,
    kills=200,
    stops=50,
    rotations=20,
    # Longer than housekeeping waits until it prunes.
    clock_seconds=95,
    minutes=30,
)

QUICK = Plan(
    forged_tokens=600,
    bodies=800,
    slow_connections=300,
    slow_seconds=4,
    fault_seconds=2,
    kills=6,
    stops=3,
    rotations=2,
    clock_seconds=4,
    minutes=1,
)

"""How much is measured, in a full run and in a quick one."""

from dataclasses import dataclass, replace
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sizes of all scenarios; a full run has those that the targets name."""

    rounds: int
    seconds: int
    warm_up_seconds: int
    hot_tokens: int = 1_000
    fresh_tokens: int
    storm_tokens: int = 100_000
    storm_connections: int = 2_000
    storm_rounds: int
    burst_tokens: int = 10_000
    flood_seconds: int
    check_rate: int = 2_000
    restart_clients: int
    restart_rounds: int
    ended_one_by_one: int
    # Fewer, because each starts a program.
    ended_by_command: int
    ended_at_once: int
    ended_in_memory: int
    users: int
    timing_samples: int

    def with_changes(self, **changes: Any) -> Self:
        """Return the plan with those of *changes* that are not None."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


FULL = Plan(
    rounds=5,
    seconds=5,
    warm_up_seconds=3,
    fresh_tokens=400_000,
    storm_rounds=3,
    flood_seconds=60,
    restart_clients=2_000,
    restart_rounds=3,
    ended_one_by_one=200,
    ended_by_command=50,
    ended_at_once=1_000,
    ended_in_memory=50_000,
    users=100_000,
    timing_samples=200,
)

QUICK = Plan(
    rounds=2,
    seconds=1,
    warm_up_seconds=1,
    fresh_tokens=100_000,
    storm_rounds=1,
    flood_seconds=10,
    restart_clients=300,
    restart_rounds=1,
    ended_one_by_one=10,
    ended_by_command=5,
    ended_at_once=200,
    ended_in_memory=5_000,
    users=10_000,
    timing_samples=20,
)

"""What is measured, by the name that `--only` takes."""

from collections.abc import Callable

from benchmarks.outcome import Outcome
from benchmarks.plan import Plan
from benchmarks.progress import Progress
from benchmarks.scenarios import flood, live, restart, size, storm, throughput, timing
from benchmarks.traffic import Stage

Scenario = Callable[[Stage, Plan, Progress], Outcome]

SCENARIOS: dict[str, Scenario] = {
    "throughput": throughput.measure,
    "storm": storm.measure,
    "flood": flood.measure,
    "restart": restart.measure,
    "live": live.measure,
    "size": size.measure,
    "timing": timing.measure,
}

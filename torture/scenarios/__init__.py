"""What is done to the server, by the name that `--only` takes."""

from collections.abc import Callable

from benchmarks.outcome import Outcome
from benchmarks.progress import Progress
from benchmarks.traffic import Place
from torture.plan import Plan
from torture.scenarios import bodies, clock, crash, keys, postgresql, slow, soak, sqlite, stop, tokens

Scenario = Callable[[Place, Plan, Progress], Outcome]

SCENARIOS: dict[str, Scenario] = {
    "tokens": tokens.torment,
    "bodies": bodies.torment,
    "slow": slow.torment,
    "sqlite": sqlite.torment,
    "postgresql": postgresql.torment,
    "keys": keys.torment,
    "crash": crash.torment,
    "stop": stop.torment,
    "clock": clock.torment,
    "soak": soak.torment,
}

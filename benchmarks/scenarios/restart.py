"""deepstream with thousands of live clients, killed and started again: who comes back, and when."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.load.swarm import Member, Swarm
from benchmarks.machine import MissingError
from benchmarks.outcome import Outcome, Target, count, median
from benchmarks.plan import Plan
from benchmarks.programs import OurServer, express
from benchmarks.progress import Progress
from benchmarks.traffic import Stage
from tests.live.servers import Deepstream

# The client's own delays (0, 4, 8, 12 and 16 s) are over by then.
PATIENCE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """How one restart went; times are in seconds."""

    back: int
    lost: int
    since_kill: float
    since_up: float


def measure(stage: Stage, plan: Plan, progress: Progress) -> Outcome:
    """Kill deepstream under its clients, with us behind the webhook and with the tutorial's way."""
    runs: dict[str, list[Restart]] = {"ours": [], "express": []}
    for number in range(plan.restart_rounds):
        for name, start in (("ours", _ours), ("express", _theirs)):
            progress.step(f"round {number + 1} of {plan.restart_rounds}: {name}, {count(plan.restart_clients)} clients")
            runs[name].append(_run(stage, plan, start, stage.folder / f"restart-{name}-{number}"))
    return Outcome(
        title="deepstream killed and restarted",
        columns=["behind the webhook", "clients", "lost", "all back after the kill", "all back after deepstream is up"],
        rows=[
            ["tornado_ds", *_cells(runs["ours"])],
            ["tutorial's way: Express 4 + jsonwebtoken", *_cells(runs["express"])],
        ],
        values={
            name: [{"lost": r.lost, "since_kill": r.since_kill, "since_up": r.since_up} for r in restarts]
            for name, restarts in runs.items()
        },
        targets=[
            Target(
                promise="7. deepstream restarted: all clients back, 0 lost",
                measured=f"{max(r.lost for r in runs['ours'])} of {count(plan.restart_clients)} lost, all back"
                f" {median([r.since_kill for r in runs['ours']]):.1f} s after the kill"
                f" (Express: {max(r.lost for r in runs['express'])} lost,"
                f" {median([r.since_kill for r in runs['express']]):.1f} s)",
                is_met=all(r.lost == 0 for r in runs["ours"]),
            )
        ],
        notes=[
            f"{count(plan.restart_clients)} clients of @deepstream/client with its default options, each with a token"
            f" of its own; median of {plan.restart_rounds} rounds. deepstream gets SIGKILL and is started again at"
            " once, with the config of `config/deepstream`. Nothing is pinned to a core.",
            "The client tries again after 0 and 4 s, so most of the time is its own. A client counts as lost when it"
            f" is not connected {PATIENCE} s later.",
        ],
    )


def _run(stage: Stage, plan: Plan, start: "Behind", folder: Path) -> Restart:
    folder.mkdir()
    with start(stage, folder) as deepstream:
        deepstream.start()
        try:
            return _restart(deepstream, _members(stage, plan, deepstream))
        finally:
            deepstream.kill()


def _restart(deepstream: Deepstream, members: list[Member]) -> Restart:
    with Swarm(members) as swarm:
        if swarm.wait_until_open(seconds=PATIENCE) < len(members):
            raise MissingError(f"not all clients get into deepstream: {dict(swarm.states())}")
        killed = time.time()
        deepstream.kill()
        deepstream.start()
        up = time.time()
        back = swarm.wait_until_open(seconds=PATIENCE)
        last = swarm.last_opened()
    return Restart(back=back, lost=len(members) - back, since_kill=last - killed, since_up=max(0.0, last - up))


@contextmanager
def _ours(stage: Stage, folder: Path) -> Iterator[Deepstream]:
    with OurServer(stage) as server:
        yield Deepstream(folder, secret=stage.secret, internal=server.internal)


@contextmanager
def _theirs(stage: Stage, folder: Path) -> Iterator[Deepstream]:
    with express(stage) as server:
        webhook = f"http://{server.address}/check-token"
        yield Deepstream(folder, secret=stage.secret, internal=server.address, webhook=webhook)


Behind = Callable[[Stage, Path], AbstractContextManager[Deepstream]]


def _members(stage: Stage, plan: Plan, deepstream: Deepstream) -> list[Member]:
    with stage.fresh.open(encoding="ascii") as lines:
        tokens = [line.strip() for line in islice(lines, plan.restart_clients)]
    return [Member(str(number), deepstream.url, token) for number, token in enumerate(tokens)]


def _cells(restarts: Sequence[Restart]) -> list[str]:
    return [
        count(restarts[0].back + restarts[0].lost),
        count(max(restart.lost for restart in restarts)),
        f"{median([restart.since_kill for restart in restarts]):.1f} s",
        f"{median([restart.since_up for restart in restarts]):.1f} s",
    ]

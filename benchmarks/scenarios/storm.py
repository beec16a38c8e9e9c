"""A reconnect storm: everybody comes at once, each with a token that was not seen before."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from benchmarks.load import client
from benchmarks.load.client import Connection
from benchmarks.load.generator import make_load
from benchmarks.outcome import Outcome, Target, count, median, milliseconds, percentile
from benchmarks.plan import Plan
from benchmarks.programs import MeasuredServer, OurServer, express, pinned
from benchmarks.progress import Progress
from benchmarks.traffic import Stage, username_of, webhook_request

# A request, and what has to be in the answer.
Question = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """How one storm went; times are in seconds."""

    answers: int
    errors: int
    seconds: float
    connected_after: float
    p50: float
    p99: float
    slowest: float


def measure(stage: Stage, plan: Plan, progress: Progress) -> Outcome:
    """Let storms loose on tornado_ds, each on a process of its own, and the small one on the tutorial's way too."""
    questions = _questions(stage, plan)
    big, small, theirs = [], [], []
    for number in range(plan.storm_rounds):
        progress.step(f"round {number + 1} of {plan.storm_rounds}: {count(plan.storm_tokens)} tokens")
        big.append(_storm_on(OurServer(stage), stage, plan, questions))
        progress.step(f"round {number + 1} of {plan.storm_rounds}: {count(plan.burst_tokens)} tokens")
        small.append(_storm_on(OurServer(stage), stage, plan, questions[: plan.burst_tokens]))
        progress.step(f"round {number + 1} of {plan.storm_rounds}: {count(plan.burst_tokens)} tokens, Express")
        theirs.append(_storm_on(express(stage), stage, plan, questions[: plan.burst_tokens]))
    return Outcome(
        title="Reconnect storm",
        columns=["program", "tokens", "errors", "median answer", "99 %", "slowest answer", "all answered after"],
        rows=[
            ["tornado_ds, one worker", count(plan.storm_tokens), *_cells(big)],
            ["tornado_ds, one worker", count(plan.burst_tokens), *_cells(small)],
            ["tutorial's way: Express 4 + jsonwebtoken", count(plan.burst_tokens), *_cells(theirs)],
        ],
        values={
            "big": _values(big),
            "small": _values(small),
            "express": _values(theirs),
        },
        targets=_targets(big, small),
        notes=[
            f"{count(plan.storm_connections)} connections are opened at the same moment and share the tokens; each"
            " asks again when it has its answer. A connection's first answer is timed from before it connects.",
            f"Median of {plan.storm_rounds} rounds, each on a process of its own on one core, which has answered for"
            f" other tokens for {plan.warm_up_seconds} s; errors and slowest answer are the worst of all rounds. Wrong"
            " user ids count as errors.",
        ],
    )


def _questions(stage: Stage, plan: Plan) -> list[Question]:
    first = plan.hot_tokens + 20_000
    with stage.fresh.open(encoding="ascii") as lines:
        tokens = [line.strip() for line in islice(lines, plan.storm_tokens)]
    return [
        (webhook_request(token, authorization=stage.authorization), username_of(first + number).encode())
        for number, token in enumerate(tokens)
    ]


def _storm_on(server: MeasuredServer, stage: Stage, plan: Plan, questions: Sequence[Question]) -> Storm:
    with pinned(server):
        # Whoever meets a storm has been running for a while; these are other tokens.
        make_load(server.address, stage, stage.warm_up, seconds=plan.warm_up_seconds)
        return client.run(_storm(server.address, questions, plan.storm_connections))


async def _storm(address: str, questions: Sequence[Question], connections: int) -> Storm:
    started = time.perf_counter()
    times: list[float] = []
    connected: list[float] = []
    outcomes: Counter[bool] = Counter()

    async def ask(share: Sequence[Question]) -> None:
        asked = started
        try:
            connection = await Connection.open(address)
        except OSError:
            outcomes[False] += len(share)
            return
        connected.append(time.perf_counter() - started)
        for request, username in share:
            answer = await connection.ask(request)
            now = time.perf_counter()
            times.append(now - asked)
            outcomes[answer.status == 200 and username in answer.body] += 1
            asked = now
        connection.close()

    await asyncio.gather(*(ask(questions[first::connections]) for first in range(connections)))
    return Storm(
        answers=outcomes[True],
        errors=outcomes[False],
        seconds=time.perf_counter() - started,
        connected_after=max(connected, default=0),
        p50=percentile(times, 50),
        p99=percentile(times, 99),
        slowest=max(times),
    )


def _cells(storms: Sequence[Storm]) -> list[str]:
    return [
        count(max(storm.errors for storm in storms)),
        milliseconds(median([storm.p50 for storm in storms])),
        milliseconds(median([storm.p99 for storm in storms])),
        milliseconds(max(storm.slowest for storm in storms)),
        f"{median([storm.seconds for storm in storms]):.2f} s",
    ]


def _values(storms: Sequence[Storm]) -> list[dict[str, float]]:
    return [
        {"errors": s.errors, "seconds": s.seconds, "connected_after": s.connected_after, "slowest": s.slowest}
        for s in storms
    ]


def _targets(big: Sequence[Storm], small: Sequence[Storm]) -> list[Target]:
    errors = sum(storm.errors for storm in [*big, *small])
    slowest = max(storm.slowest for storm in big)
    seconds = median([storm.seconds for storm in small])
    return [
        Target(
            promise="5. storm of 100 000 tokens: 0 errors, no answer above 2 s",
            measured=f"{count(errors)} errors, slowest {milliseconds(slowest)}",
            is_met=errors == 0 and slowest <= 2,
        ),
        Target(promise="5. 10 000 tokens in under 1 s", measured=f"{seconds:.2f} s", is_met=seconds < 1),
    ]

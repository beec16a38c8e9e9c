"""Checks a second on one core, with tokens that were seen before and with tokens that were not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.answers import check_answers
from benchmarks.load.generator import CONNECTIONS, Load, make_load
from benchmarks.machine import MissingError, processor_time_of
from benchmarks.outcome import Outcome, Target, count, median, milliseconds
from benchmarks.plan import Plan
from benchmarks.programs import PROGRAMS, MeasuredServer, Program, pinned
from benchmarks.progress import Progress
from benchmarks.traffic import Stage

_COSTS = ("processor time, seen", "processor time, new", "99 % of answers, new")

Rates = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measurement; *cost* is the server's processor time for a request, in seconds."""

    load: Load
    cost: float


def measure(stage: Stage, plan: Plan, progress: Progress) -> Outcome:
    """Run all programs in turn, and again, so that a change of the machine's mood meets them all."""
    runs: dict[str, dict[str, list[Run]]] = {program.key: {"hot": [], "fresh": []} for program in PROGRAMS}
    for number in range(plan.rounds):
        for program in PROGRAMS:
            progress.step(f"round {number + 1} of {plan.rounds}: {program.label}")
            for mode, run in _run(program, stage, plan).items():
                runs[program.key][mode].append(run)
    rates = {
        key: {mode: median([run.load.rate for run in found]) for mode, found in modes.items()}
        for key, modes in runs.items()
    }
    return Outcome(
        title="Checks a second on one core",
        columns=["program", "each token seen before", "each token new", *_COSTS],
        rows=[_row(program, runs[program.key]) for program in PROGRAMS],
        values={
            "labels": {program.key: program.label for program in PROGRAMS},
            "rates": rates,
            "runs": _raw(runs),
        },
        targets=_targets(rates),
        notes=[
            f"Requests a second, median of {plan.rounds} alternating runs of {plan.seconds} s (lowest to highest),"
            f" {CONNECTIONS} keep-alive connections. The server has one core, the load another.",
            f"Every program gets the same request: the webhook body of a Chrome with our token in its cookie. Seen"
            f" before: {count(plan.hot_tokens)} tokens in turn. New: no token comes twice to the same process.",
            "Processor time is what one check costs the server on its core; on a busy machine it says more than the"
            " number of requests.",
            "Before it is measured, each program has to let the right user in and refuse a forged token with 403. Only"
            " tornado_ds also checks deepstream's password, the origin, and whether the session has ended.",
            *(f"{program.label}: `{program.how}`" for program in PROGRAMS),
        ],
    )


def _run(program: Program, stage: Stage, plan: Plan) -> dict[str, Run]:
    with pinned(program.make(stage)) as server:
        if program.checks_tokens:
            check_answers(server.address, stage, program.label)
        make_load(server.address, stage, stage.warm_up, seconds=plan.warm_up_seconds)
        make_load(server.address, stage, stage.hot, seconds=1)
        hot = _measure(server, stage, stage.hot, plan)
        fresh = _measure(server, stage, stage.fresh, plan)
    for load in (hot.load, fresh.load):
        if load.errors:
            raise MissingError(f"{program.label} failed {load.errors} of {load.requests} requests")
    if program.checks_tokens and fresh.load.sent > plan.fresh_tokens:
        raise MissingError(f"{program.label} was so fast that the new tokens ran out: give Plan more fresh_tokens")
    return {"hot": hot, "fresh": fresh}


def _measure(server: MeasuredServer, stage: Stage, tokens: Path, plan: Plan) -> Run:
    before = processor_time_of(server.pid)
    load = make_load(server.address, stage, tokens, seconds=plan.seconds)
    return Run(load=load, cost=(processor_time_of(server.pid) - before) / load.requests)


def _row(program: Program, runs: Mapping[str, list[Run]]) -> list[str]:
    return [
        program.label,
        _range(runs["hot"]),
        _range(runs["fresh"]),
        f"{1e6 * median([run.cost for run in runs['hot']]):.0f} \N{MICRO SIGN}s",
        f"{1e6 * median([run.cost for run in runs['fresh']]):.0f} \N{MICRO SIGN}s",
        milliseconds(median([run.load.p99 for run in runs["fresh"]])),
    ]


def _range(runs: list[Run]) -> str:
    rates = [run.load.rate for run in runs]
    return f"{count(median(rates))} ({count(min(rates))} to {count(max(rates))})"


def _raw(runs: Mapping[str, Mapping[str, list[Run]]]) -> dict[str, Any]:
    return {
        key: {mode: [{"rate": run.load.rate, "cost": run.cost} for run in found] for mode, found in modes.items()}
        for key, modes in runs.items()
    }


def _targets(rates: Rates) -> list[Target]:
    def target(promise: str, ours: float, theirs: float, factor: float) -> Target:
        times = ours / theirs
        return Target(promise=promise, measured=f"{times:.2f} times", is_met=times >= factor)

    internal = rates["internal"]
    slowest_way = rates["express"]["fresh"]
    return [
        target("1. hot: 2 times Fastify with its cache", internal["hot"], rates["fastify_cached"]["hot"], 2),
        target("1. hot: 30 times the tutorial's Express", internal["hot"], rates["express"]["hot"], 30),
        target("2. new: 1.3 times Fastify without cache", internal["fresh"], rates["fastify"]["fresh"], 1.3),
        target("3. hot: half of the limit", internal["hot"], rates["limit"]["hot"], 0.5),
        target("4. public listener: 3 times the tutorial's Express", rates["public"]["fresh"], slowest_way, 3),
    ]

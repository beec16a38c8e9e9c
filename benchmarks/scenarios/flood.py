"""A flood of the login form, with deepstream's checks going on beside it."""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle

import bcrypt

from benchmarks.load import client
from benchmarks.load.client import Connection
from benchmarks.load.generator import CONNECTIONS
from benchmarks.outcome import Outcome, Target, count, milliseconds, percentile
from benchmarks.people import PASSWORD, add_people
from benchmarks.plan import Plan
from benchmarks.programs import COST, REAL_HASHING, OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Stage, login_request, webhook_request

TIMES_CAPACITY = 10
_HASHING_SECONDS = 10.0
PEOPLE = 500


@dataclass(slots=True)
class Tally:
    """What came back: durations in seconds by status, 0 for a broken connection; all after *elapsed*."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    elapsed: float = 0

    def add(self, status: int, seconds: float) -> None:
        """Note one answer."""
        self.seconds.setdefault(status, []).append(seconds)

    def of(self, *statuses: int) -> list[float]:
        """Return the durations of answers with one of *statuses*."""
        return [duration for status in statuses for duration in self.seconds.get(status, [])]

    def failed(self, *good: int) -> int:
        """Return how many answers had another status than those."""
        return sum(len(durations) for status, durations in self.seconds.items() if status not in good)


def measure(stage: Stage, plan: Plan, progress: Progress) -> Outcome:
    """Flood tornado_ds with ten times the logins that the machine can hash; all have the right password."""
    folder = stage.folder / "flood"
    names = add_people(folder, PEOPLE, cost=COST)
    progress.step("how much the cores hash alone, before")
    alone = [_hashes_a_second()]
    with OurServer(stage, folder=folder, env=REAL_HASHING) as server:
        token = server.log_in(names[0], PASSWORD).partition("=")[2]
        check = webhook_request(token, authorization=stage.authorization)
        logins = [login_request(name, PASSWORD, server.url) for name in names]
        progress.step("checks alone")
        calm = client.run(_checks(server.internal, check, rate=plan.check_rate, seconds=5), pinned=False)
        progress.step("how much the cores hash beside the checks")
        beside = client.run(
            _hashes_beside(_checks(server.internal, check, rate=plan.check_rate, seconds=_HASHING_SECONDS + 1)),
            pinned=False,
        )
        progress.step(f"flood of {plan.flood_seconds} s")
        busy, flood = client.run(
            _both(
                _checks(server.internal, check, rate=plan.check_rate, seconds=plan.flood_seconds),
                _logins(server.public, logins, rate=TIMES_CAPACITY * alone[0], seconds=plan.flood_seconds),
            ),
            pinned=False,
        )
        errors = [line for line in server.output.splitlines() if "[error" in line]
    progress.step("how much the cores hash alone, after")
    alone.append(_hashes_a_second())
    return _outcome(plan, alone, beside, calm, busy, flood, errors)


def _outcome(
    plan: Plan, alone: Sequence[float], beside: float, calm: Tally, busy: Tally, flood: Tally, errors: Sequence[str]
) -> Outcome:
    capacity = sum(alone) / len(alone)
    # The last logins are done after the flood is over.
    done = len(flood.of(200)) / flood.elapsed
    excess = flood.of(503)
    failed_checks, failed_logins = busy.failed(200), flood.failed(200, 503, 429)
    checks = busy.of(200)
    return Outcome(
        title="Login flood",
        columns=["what", "how many", "median", "99 %", "slowest"],
        rows=[
            _row("checks, no flood", calm.of(200)),
            _row("checks during the flood", checks),
            _row("logins done", flood.of(200)),
            _row("logins turned away with 503", excess),
            _row("logins throttled with 429", flood.of(429)),
            ["failed checks", count(failed_checks), "", "", ""],
            ["logins that got no proper answer", count(failed_logins), "", "", ""],
        ],
        values={
            "hashes_a_second_alone": list(alone),
            "hashes_a_second_beside_the_checks": beside,
            "logins_a_second": done,
            "failed_checks": failed_checks,
            "failed_logins": failed_logins,
            "check_p50": percentile(checks, 50),
            "check_p99": percentile(checks, 99),
            "excess_p99": percentile(excess, 99) if excess else None,
            "excess_slowest": max(excess, default=None),
            "errors_in_the_log": list(errors[:20]),
        },
        targets=[
            Target(
                promise="6. flood: 0 failed checks, 99 % of the checks under 50 ms",
                measured=f"{count(failed_checks)} failed, 99 % within {milliseconds(percentile(checks, 99))}",
                is_met=failed_checks == 0 and percentile(checks, 99) < 0.05,
            ),
            Target(
                promise="6. flood: logins done at 90 % of what the cores can hash beside the checks",
                measured=f"{100 * done / beside:.0f} % ({done:.1f} of {beside:.1f} a second;"
                f" {100 * done / capacity:.0f} % of the {capacity:.1f} without checks)",
                is_met=done >= 0.9 * beside,
            ),
            Target(
                promise="6. flood: each login too many answered within 50 ms",
                measured=f"slowest {milliseconds(max(excess))}, 99 % within {milliseconds(percentile(excess, 99))}"
                if excess
                else "none was turned away",
                is_met=bool(excess) and max(excess) <= 0.05,
            ),
        ],
        notes=[
            f"{count(TIMES_CAPACITY * alone[0])} logins a second for {plan.flood_seconds} s, {TIMES_CAPACITY} times"
            f" what bcrypt at cost {COST} does on all cores with nothing else running ({alone[0]:.1f} a second before,"
            f" {alone[1]:.1f} after); right passwords of {PEOPLE} users, each login on a connection of its own.",
            f"What the cores can hash beside the checks, {beside:.1f} a second, is measured with the same checks and no"
            " log-in page; a program of its own hashes then, at the low priority of our hashing threads.",
            f"Beside it {count(plan.check_rate)} checks a second over {CONNECTIONS} keep-alive connections, each timed"
            " from the moment when it was due. Server and load share all cores; the load's own delays are included.",
        ],
    )


def _row(what: str, durations: list[float]) -> list[str]:
    if not durations:
        return [what, "0", "", "", ""]
    shown = [percentile(durations, 50), percentile(durations, 99), max(durations)]
    return [what, count(len(durations)), *(milliseconds(duration) for duration in shown)]


async def _hashes_beside(checks: Awaitable[Tally]) -> float:
    hashes, _ = await asyncio.gather(asyncio.to_thread(_hashes_a_second, niceness=10), checks)
    return hashes


def _hashes_a_second(seconds: float = _HASHING_SECONDS, *, niceness: int = 0) -> float:
    threads = os.cpu_count() or 1
    password_hash = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(COST))
    started = time.perf_counter()

    def work() -> int:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        done = 0
        while time.perf_counter() - started < seconds:
            bcrypt.checkpw(PASSWORD.encode(), password_hash)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(lambda _: work(), range(threads)))
    return done / (time.perf_counter() - started)


async def _both(first: Awaitable[Tally], second: Awaitable[Tally]) -> tuple[Tally, Tally]:
    one, other = await asyncio.gather(first, second)
    return one, other


async def _checks(address: str, request: bytes, *, rate: float, seconds: float) -> Tally:
    tally = Tally()
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(await Connection.open(address))

    async def check(due: float) -> None:
        connection = await idle.get()
        answer = await connection.ask(request)
        tally.add(answer.status, time.perf_counter() - due)
        idle.put_nowait(connection if connection.is_open else await Connection.open(address))

    await _at_rate(check, rate=rate, seconds=seconds)
    while not idle.empty():
        idle.get_nowait().close()
    return tally


async def _logins(address: str, requests: Sequence[bytes], *, rate: float, seconds: float) -> Tally:
    tally = Tally()
    next_request = cycle(requests)

    async def log_in(due: float) -> None:
        try:
            connection = await Connection.open(address)
        except OSError:
            tally.add(0, time.perf_counter() - due)
            return
        answer = await connection.ask(next(next_request))
        tally.add(answer.status, time.perf_counter() - due)
        connection.close()

    started = time.perf_counter()
    await _at_rate(log_in, rate=rate, seconds=seconds)
    tally.elapsed = time.perf_counter() - started
    return tally


async def _at_rate(action: Callable[[float], Awaitable[None]], *, rate: float, seconds: float) -> None:
    """Start *action* at its due times, however long the ones before take, and wait for all of them."""
    started = time.perf_counter()
    running: set[asyncio.Future[None]] = set()
    for number in range(int(rate * seconds)):
        due = started + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.ensure_future(action(due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)

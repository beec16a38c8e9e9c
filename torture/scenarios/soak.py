"""Half an hour of everything at once: memory, descriptors, threads and tasks stay where they are."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import client
from benchmarks.machine import memory_of
from benchmarks.outcome import Outcome, Target, count, mebibytes
from benchmarks.progress import Progress
from benchmarks.traffic import Place, settings_of
from tornado_ds.app import prepare_database
from torture.browser import Browser
from torture.cast import Cast, make_cast
from torture.insider import InsideServer
from torture.plan import Plan
from torture.probe import Probe, questions
from torture.scenarios.slow import KINDS, Crowd

BROWSERS = 4
DAWDLERS = 20
SAMPLE_SECONDS = 1.0

# Tokens and ends of sessions are remembered until they expire, so these do soon.
LIFETIMES = {"TORNADO_DS_SESSION__IDLE_TIMEOUT": "60s", "TORNADO_DS_SESSION__ABSOLUTE_TIMEOUT": "2m"}

# How much the last quarter may be above the second one.
MORE_MIB = 4.0
MORE_DESCRIPTORS = 10
MORE_TASKS = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at one moment."""

    mebibytes: float
    descriptors: int
    threads: int
    tasks: int


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Ask, log in and out, and dawdle, for as long as the plan says."""
    settings = settings_of(place.folder)
    asyncio.run(prepare_database(settings))
    cast = make_cast(settings)
    env = {"TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1", **LIFETIMES}
    with InsideServer(place, env=env) as server:
        samples, probe, logins = client.run(_soak(server, place, cast, plan, progress), pinned=False)
    return _outcome(plan, samples, probe, logins)


async def _soak(
    server: InsideServer, place: Place, cast: Cast, plan: Plan, progress: Progress
) -> tuple[list[Sample], Probe, Counter[int]]:
    samples: list[Sample] = []
    async with mixed_load(server, place, cast) as (probe, logins):
        until = time.monotonic() + 60 * plan.minutes
        while (left := until - time.monotonic()) > 0:
            if len(samples) % 60 == 0:
                progress.step(f"{left / 60:.0f} min left")
            await asyncio.sleep(SAMPLE_SECONDS)
            samples.append(_sample(server))
    return samples, probe, logins


@asynccontextmanager
async def mixed_load(server: InsideServer, place: Place, cast: Cast) -> AsyncIterator[tuple[Probe, Counter[int]]]:
    """Everything at once; a running probe, and the answers to logins and log-outs by status."""
    probe, logins = Probe(questions(server, place, cast)), Counter[int]()
    crowds = [
        Crowd(address, kind, kind.first(listener, place, cast.hot), size=DAWDLERS)
        for listener, address in (("internal", server.internal), ("public", server.public))
        for kind in KINDS
    ]
    browsers = [
        asyncio.create_task(_browse(server, cast.people[number], logins, address=f"11.0.0.{number}"))
        for number in range(BROWSERS)
    ]
    try:
        async with AsyncExitStack() as stack:
            for crowd in crowds:
                await stack.enter_async_context(crowd)
            await stack.enter_async_context(probe.running())
            yield probe, logins
    finally:
        for browser in browsers:
            browser.cancel()
        await asyncio.gather(*browsers, return_exceptions=True)


async def _browse(server: InsideServer, name: str, logins: Counter[int], *, address: str) -> None:
    """Log in and out, each time over a new connection."""
    while True:
        browser = await Browser.open(server.public)
        assert isinstance(browser, Browser)
        with closing(browser):
            logins[(await browser.log_in(name, server, address=address)).status] += 1
            logins[(await browser.log_out(server)).status] += 1
        await asyncio.sleep(0.2)


def _sample(server: InsideServer) -> Sample:
    folder = Path(f"/proc/{server.pid}")
    return Sample(
        mebibytes=memory_of(server.pid),
        descriptors=len(list((folder / "fd").iterdir())),
        threads=len(list((folder / "task").iterdir())),
        tasks=server.tasks,
    )


def _outcome(plan: Plan, samples: Sequence[Sample], probe: Probe, logins: Counter[int]) -> Outcome:
    quarter = len(samples) // 4
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]
    kinds: dict[str, Callable[[Sample], float]] = {
        "memory": lambda sample: sample.mebibytes,
        "descriptors": lambda sample: sample.descriptors,
        "threads": lambda sample: sample.threads,
        "tasks": lambda sample: sample.tasks,
    }
    medians = {
        name: (statistics.median(map(of, before)), statistics.median(map(of, after))) for name, of in kinds.items()
    }
    more = {name: last - first for name, (first, last) in medians.items()}
    wrong = Counter(f"{reply.question.name}: {reply.status}" for reply in probe.replies if not reply.is_right)
    failed = wrong.total() + sum(number for status, number in logins.items() if status not in (200, 204))
    asked = len(probe.replies) + logins.total()
    is_flat = (
        more["memory"] <= MORE_MIB
        and max(more["descriptors"], more["threads"]) <= MORE_DESCRIPTORS
        and more["tasks"] <= MORE_TASKS
    )
    return Outcome(
        title="Mixed load for a long time",
        columns=["what", "second quarter", "last quarter", "most"],
        rows=[
            ["memory", *(mebibytes(value) for value in (*medians["memory"], max(s.mebibytes for s in samples)))],
            *(
                [name, *(count(value) for value in (*medians[name], max(map(of, samples))))]
                for name, of in kinds.items()
                if name != "memory"
            ),
        ],
        values={
            "minutes": plan.minutes,
            "medians": medians,
            "wrong": dict(wrong),
            "memory": [round(sample.mebibytes, 1) for sample in samples[:: max(1, len(samples) // 60)]],
        },
        targets=[
            Target(
                promise="30 min mixed load: memory, descriptors and tasks flat",
                measured=f"{plan.minutes:g} min, {count(asked)} requests, {failed} not answered rightly; memory"
                f" {more['memory']:+.1f} MiB, descriptors {more['descriptors']:+.0f}, threads {more['threads']:+.0f},"
                f" tasks {more['tasks']:+.0f}",
                is_met=is_flat and failed == 0,
            )
        ],
        notes=[
            f"All that is asked under faults, {BROWSERS} browsers that log in and out, and {6 * DAWDLERS} slow"
            " connections of all kinds. Sessions live for one minute. Medians of a sample each second; tasks are those"
            " of the event loop that have not finished.",
        ],
    )

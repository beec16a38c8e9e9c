"""SIGTERM under load, again and again: every request that was under way is answered."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle

from benchmarks.load import client
from benchmarks.load.client import Connection
from benchmarks.outcome import Outcome, Target, count
from benchmarks.people import PASSWORD
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Place, login_request, settings_of, webhook_request
from tornado_ds.app import prepare_database
from torture.cast import Cast, make_cast
from torture.plan import Plan
from torture.requests import get_request

WORKERS = (1, 2)

# Of each kind, half of whom keep their connections.
CLIENTS = 4

# They think for up to so long between two requests.
THINK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What some clients ask, and where."""

    name: str
    address: str
    request: Callable[[], bytes]


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Stop a server of one worker, and one of two, and look at every request."""
    settings = settings_of(place.folder)
    asyncio.run(prepare_database(settings))
    cast = make_cast(settings)
    found: Counter[tuple[str, str]] = Counter()
    for number in range(plan.stops):
        if number % 10 == 0:
            progress.step(f"stop {number + 1} of {plan.stops}, with {' and '.join(map(str, WORKERS))} workers")
        for workers in WORKERS:
            env = {"TORNADO_DS_WORKERS": str(workers), "TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1"}
            with OurServer(place, env=env) as server:
                found += client.run(_stop_under_load(server, list(_kinds(server, place, cast))), pinned=False)
    return _outcome(plan, found)


async def _stop_under_load(server: OurServer, kinds: list[Kind]) -> Counter[tuple[str, str]]:
    """Return what became of each request, by kind and fate."""
    found: Counter[tuple[str, str]] = Counter()
    clients = [
        asyncio.create_task(_keep_asking(kind, found, stays=number % 2 == 0))
        for kind in kinds
        for number in range(CLIENTS)
    ]
    await asyncio.sleep(0.3 + 0.3 * random.random())
    await asyncio.to_thread(server.stop)
    await asyncio.gather(*clients)
    return found


async def _keep_asking(kind: Kind, found: Counter[tuple[str, str]], *, stays: bool) -> None:
    """Ask until nobody listens any more."""
    connection: Connection | None = None
    while True:
        try:
            if connection is None or not connection.is_open:
                connection = await Connection.open(kind.address)
        except OSError:
            return
        answer = await connection.ask(kind.request())
        fate = "lost" if answer.status == 0 else "answered" if answer.status in (200, 503) else f"{answer.status}"
        found[kind.name, fate] += 1
        if not stays:
            connection.close()
            connection = None
        await asyncio.sleep(THINK_SECONDS * random.random())


def _kinds(server: OurServer, place: Place, cast: Cast) -> Iterator[Kind]:
    check = webhook_request(cast.hot, authorization=place.authorization)
    page = get_request("/session", f"access_token={cast.hot}")
    logins = cycle(
        [
            login_request(name, PASSWORD, server.url, address=f"12.0.0.{number}")
            for number, name in enumerate(cast.people)
        ]
    )
    yield Kind(name="checks, internal listener", address=server.internal, request=lambda: check)
    yield Kind(name="checks, public listener", address=server.public, request=lambda: check)
    yield Kind(name="pages", address=server.public, request=lambda: page)
    yield Kind(name="logins", address=server.public, request=lambda: next(logins))


def _outcome(plan: Plan, found: Counter[tuple[str, str]]) -> Outcome:
    names = sorted({name for name, _ in found})
    lost = sum(number for (_, fate), number in found.items() if fate != "answered")
    stops = plan.stops * len(WORKERS)
    return Outcome(
        title="SIGTERM under load",
        columns=["requests", "answered", "lost", "other answers"],
        rows=[
            [
                name,
                count(found[name, "answered"]),
                count(found[name, "lost"]),
                ", ".join(
                    f"{number} times {fate}"
                    for (each, fate), number in found.items()
                    if each == name and fate.isdigit()
                ),
            ]
            for name in names
        ],
        values={f"{name}: {fate}": number for (name, fate), number in sorted(found.items())},
        targets=[
            Target(
                promise="SIGTERM under load, 50 times: 0 requests in flight failed",
                measured=f"{stops} stops, {lost} of {count(found.total())} requests without their answer",
                is_met=lost == 0,
            )
        ],
        notes=[
            f"Each time a server of {' and one of '.join(map(str, WORKERS))} workers. {CLIENTS} clients of each kind,"
            " half of whom keep their connections, ask until nobody listens any more. Lost is a request that was sent"
            " over a connection that stood, and got no whole answer. Each time the server ends with exit code 0.",
        ],
    )

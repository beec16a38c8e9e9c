"""Connections by the hundred at either listener of a real server; the long version is `make torture`."""

import asyncio
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path

import pytest

from benchmarks.load.client import Connection
from benchmarks.programs import OurServer
from benchmarks.traffic import Place, webhook_request
from tests.live.servers import fetch, wait_for
from tests.web.test_metrics import figures
from torture.cast import Cast
from torture.insider import InsideServer
from torture.probe import Probe, questions
from torture.requests import get_request
from torture.scenarios.slow import KINDS, Crowd, old_and_new
from torture.scenarios.soak import BROWSERS, mixed_load

# Each login comes from an address of its own.
ENV = {"TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1"}

SLOW = 60
MANY = 1000

pytestmark = pytest.mark.untraced


@pytest.fixture
def _many_descriptors() -> Iterator[None]:
    """This process, and what it starts, may have as many open files as all connections need."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, 3 * MANY), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@pytest.mark.parametrize("listener", ["internal", "public"])
def test_everybody_is_served_when_many_are_slow(place: Place, cast: Cast, listener: str) -> None:
    """A crowd that never ends its headers, or its bodies, or does not read, is in nobody's way."""

    async def ask() -> Probe:
        probe = Probe(old_and_new(questions(server, place, cast)))
        address = {"internal": server.internal, "public": server.public}[listener]
        crowds = [Crowd(address, kind, kind.first(listener, place, cast.hot), size=SLOW) for kind in KINDS]
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            for crowd in crowds:
                await stack.enter_async_context(crowd)
            for crowd in crowds:
                await crowd.gathered()
            async with probe.running():
                await probe.until_well()
        return probe

    with OurServer(place, env=ENV) as server:
        probe = asyncio.run(ask())

    assert [] == [(reply.question.name, reply.status) for reply in probe.replies if reply.is_wrong]


@pytest.mark.usefixtures("_many_descriptors")
def test_everybody_is_served_when_a_thousand_connect_at_once(place: Place, cast: Cast) -> None:
    """At each listener, each of a thousand connections that stay open gets its answer."""

    async def ask() -> Counter[tuple[str, int]]:
        requests = {
            server.internal: webhook_request(cast.hot, authorization=place.authorization),
            server.public: get_request("/session", f"access_token={cast.hot}"),
        }
        everybody = asyncio.Barrier(MANY * len(requests))
        async with asyncio.timeout(60):
            statuses = await asyncio.gather(
                *(_ask(address, request, everybody) for address, request in requests.items() for _ in range(MANY))
            )
        return Counter(statuses)

    with OurServer(place) as server:
        statuses = asyncio.run(ask())

    assert {(server.internal, 200): MANY, (server.public, 200): MANY} == statuses


def test_nothing_is_left_when_a_mixed_load_is_over(place: Place, cast: Cast) -> None:
    """Connections, followers, hashing, tasks and sockets are as many as before."""

    async def ask() -> tuple[Probe, Counter[int]]:
        async with asyncio.timeout(60), mixed_load(server, place, cast) as (probe, logins):
            await probe.until_well()
            while logins[204] < BROWSERS:
                await probe.round()
        return probe, logins

    def is_as_before() -> bool:
        standings.append(_standing(server))
        return standings[-1] == before

    standings: list[dict[str, float] | None] = []
    with InsideServer(place, env=ENV) as server:
        before = wait_for(lambda: _standing(server))
        probe, logins = asyncio.run(ask())
        with suppress(TimeoutError):
            wait_for(is_as_before)

    assert before == standings[-1]
    assert [] == [(reply.question.name, reply.status) for reply in probe.replies if reply.is_wrong]
    assert set(logins) <= {200, 204, 503}


async def _ask(address: str, request: bytes, everybody: asyncio.Barrier) -> tuple[str, int]:
    """Return the status of an answer; asked and hung up once *everybody* has got so far."""
    with closing(await Connection.open(address)) as connection:
        await everybody.wait()
        answer = await connection.ask(request)
        await everybody.wait()
    return address, answer.status


def _standing(server: InsideServer) -> dict[str, float] | None:
    """
    Return how many there are of all that comes and goes; None if it says that somebody is connected.

    Open files are not in it: connections to the database stay open once they were needed.
    """
    metrics = figures(fetch(f"http://{server.internal}/metrics").body)
    if any(value for key, value in metrics.items() if key.startswith("tornado_ds_connections")):
        return None
    # The second time it has noticed for long that we, who asked, have gone.
    tasks = [server.count_tasks() for _ in range(2)][-1]
    return {
        "followers": metrics["tornado_ds_feed_followers"],
        "hashing": metrics["tornado_ds_hashing_pending"],
        "tasks": tasks,
        "sockets": sum(map(_is_socket, Path(f"/proc/{server.pid}/fd").iterdir())),
    }


def _is_socket(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except FileNotFoundError:
        # Closed since it was listed.
        return False

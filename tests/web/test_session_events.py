"""The change feed over HTTP, as deepstream's plugin follows it: the real internal listener, raw sockets."""

import asyncio
import socket
import sqlite3
import tracemalloc
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson
import pytest
from structlog.testing import capture_logs
from tornado.netutil import bind_sockets
from tornado.platform.asyncio import AsyncIOLoop

from tests.fakes import ManualClock
from tests.unit.test_llhttp import Pipe, turns
from tests.web.browser import PASSWORD
from tests.web.conftest import SECRET
from tests.web.wire import get
from tornado_ds.errors import StorageError
from tornado_ds.feed import Feed
from tornado_ds.handlers.routes import make_internal_app
from tornado_ds.limits import Limits
from tornado_ds.llhttp.connection import Connection
from tornado_ds.llhttp.server import Server as LLHTTPServer
from tornado_ds.services import Services
from tornado_ds.snapshot import SessionEvent
from tornado_ds.storage.database import COMMAND_SECONDS, Database, parse_url
from tornado_ds.storage.memory import MemorySessionStore
from tornado_ds.storage.sql import SQLSessionStore
from tornado_ds.users import User, UserChanges

T = TypeVar("T")

AUTHORIZATION = f"Basic {b64encode(f'deepstream:{SECRET}'.encode()).decode()}"
NOW = 1_800_000_000
HOUR = 3600

pytestmark = pytest.mark.gen_test(timeout=30)


@dataclass(frozen=True, slots=True)
class Message:
    """One event of the stream."""

    name: str
    data: dict[str, Any]
    id: int | None = None


class Follower:
    """Somebody who reads the stream, or does not; `status` and `headers` are those of the answer."""

    status: int
    headers: dict[str, str]

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._text = b""

    @classmethod
    async def connect(
        cls, port: int, *, last_id: object = None, authorization: str | None = AUTHORIZATION, method: str = "GET"
    ) -> Self:
        """Ask for the stream, and return once the head of the answer is there."""
        follower = cls(*await asyncio.open_connection("127.0.0.1", port))
        follower.ask(last_id=last_id, authorization=authorization, method=method)
        head = (await follower._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        follower.status = int(first.split()[1])
        follower.headers = dict(line.lower().split(": ", 1) for line in lines)
        return follower

    def ask(self, *, last_id: object = None, authorization: str | None = AUTHORIZATION, method: str = "GET") -> None:
        """Send the request."""
        headers = {"Host": "localhost", "Authorization": authorization, "Last-Event-ID": last_id}
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        self._writer.write("\r\n".join([f"{method} /session-events HTTP/1.1", *lines, "", ""]).encode())

    async def block(self) -> str | None:
        """Return what comes up to the next empty line; None at the end of the stream."""
        while b"\n\n" not in self._text:
            size = int(await self._reader.readline() or b"0", 16)
            self._text += await self._reader.readexactly(size)
            await self._reader.readline()
            if not size:
                return None
        block, _, self._text = self._text.partition(b"\n\n")
        return block.decode()

    async def take(self, number: int) -> list[Message]:
        """Return the next *number* events, past all signs of life."""
        messages: list[Message] = []
        while len(messages) < number:
            block = await self.block()
            assert block is not None, f"the stream ended after {messages}"
            if not block.startswith(":"):
                messages.append(_message(block))
        return messages

    async def rest(self) -> list[Message]:
        """Return all events up to the end of the stream."""
        blocks = [block async for block in self._blocks()]
        return [_message(block) for block in blocks if not block.startswith(":")]

    async def until_closed(self) -> None:
        """Return when the server has closed the connection, however it did."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    async def leave(self) -> None:
        """Hang up."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _blocks(self) -> AsyncIterator[str]:
        while (block := await self.block()) is not None:
            yield block


class FailingStore(MemorySessionStore):
    """A store that answers only so often, and then fails."""

    def __init__(self, *, answers: int, error: Exception) -> None:
        super().__init__()
        self._answers = answers
        self._error = error

    async def events(self, **which: Any) -> Sequence[SessionEvent]:
        self._answers -= 1
        if self._answers < 0:
            raise self._error
        return await super().events(**which)


@pytest.fixture
def port(io_loop: AsyncIOLoop, services: Services) -> Iterator[int]:
    """The port of the internal application."""
    stack = AsyncExitStack()
    yield io_loop.run_sync(lambda: stack.enter_async_context(serving(services)))
    io_loop.run_sync(stack.aclose)


@pytest.fixture
def follow(io_loop: AsyncIOLoop, services: Services, port: int) -> Iterator[Callable[..., Awaitable[Follower]]]:
    """Open followers; they hang up after the test, and the server lets go of them."""
    followers: list[Follower] = []

    async def follow(**options: Any) -> Follower:
        followers.append(await Follower.connect(port, **options))
        return followers[-1]

    yield follow

    for follower in followers:
        io_loop.run_sync(follower.leave)
    io_loop.run_sync(lambda: until(lambda: services.feed.followers == 0))


Follow = Callable[..., Awaitable[Follower]]


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param("Basic", id="empty"),
        pytest.param("Bearer " + SECRET, id="bearer"),
        pytest.param("Basic " + b64encode(b"deepstream:wrong").decode(), id="wrong-secret"),
        pytest.param("Basic " + b64encode(f"alice:{SECRET}".encode()).decode(), id="wrong-name"),
        pytest.param("Basic " + SECRET, id="not-encoded"),
    ],
)
async def test_stranger_is_refused(follow: Follow, services: Services, authorization: str | None) -> None:
    """Whoever does not know the webhook's secret hears nothing of anybody's session."""
    follower = await follow(authorization=authorization)

    assert follower.status == 401
    assert follower.headers["www-authenticate"] == 'basic realm="deepstream"'
    assert services.feed.followers == 0


async def test_answer_is_an_event_stream(follow: Follow) -> None:
    """The answer begins at once, even if there is nothing to tell, so that the follower knows that it follows."""
    follower = await follow()

    assert follower.status == 200
    assert follower.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert follower.headers["cache-control"] == "no-store"
    assert await follower.block() == ": still here"


async def test_other_methods_are_refused(follow: Follow) -> None:
    """The feed is only read."""
    follower = await follow(method="POST")

    assert follower.status == 405


async def test_follower_hears_of_ends_renewals_and_changes(
    follow: Follow, services: Services, alice: User, clock: ManualClock
) -> None:
    """Each event is numbered and says what the plugin needs to know, times in milliseconds."""
    opened = await services.accounts.log_in("alice", PASSWORD)
    follower = await follow()
    clock.advance(1)

    renewed = await services.accounts.renew(opened.claims)
    await services.accounts.change("alice", UserChanges(server_data={"roles": []}))
    await services.sessions.end(opened.session.sid, reason="logout")
    await services.feed.read()

    session = {"sid": opened.session.sid, "username": "alice", "expiresAt": renewed.claims.expires_at * 1000}
    assert await follower.take(3) == [
        Message("session.renewed", session, id=1),
        Message("user.changed", {"username": "alice", "version": 2}, id=2),
        Message("session.ended", {**session, "reason": "logout"}, id=3),
    ]


async def test_new_follower_hears_all_that_still_matters(
    follow: Follow, services: Services, clock: ManualClock
) -> None:
    """Whoever comes without an id gets every event of a token that can still be shown, and no other."""
    store = store_of(services)
    await store.record([ended("over", expires_at=NOW + 1), ended("one"), ended("two")])
    clock.advance(2)

    follower = await follow()

    assert sids(await follower.take(2)) == ["one", "two"]


@pytest.mark.parametrize(
    "last_id",
    [
        pytest.param("", id="empty"),
        pytest.param("one", id="word"),
        pytest.param("-1", id="negative"),
        pytest.param("1.0", id="fraction"),
        pytest.param("9" * 19, id="larger-than-any-number"),
        pytest.param("9" * 5000, id="very-long"),
    ],
)
async def test_follower_counts_as_new_when_its_id_is_none(follow: Follow, services: Services, last_id: str) -> None:
    """An id that was never ours is as good as no id."""
    await store_of(services).record([ended("one")])

    follower = await follow(last_id=last_id)

    assert [message.name for message in await follower.take(1)] == ["session.ended"]


async def test_returning_follower_hears_what_it_missed(follow: Follow, services: Services, clock: ManualClock) -> None:
    """After a while only what is behind the last id comes, in order, and then what is new."""
    store = store_of(services)
    await store.record([ended("one"), ended("two"), ended("three")])
    clock.advance(Feed.OVERLAP_SECONDS + 1)
    await store.record([ended("four", created_at=int(clock.now()))])
    await services.feed.read()

    follower = await follow(last_id=2)
    await store.record([ended("five", created_at=int(clock.now()))])
    await services.feed.read()

    assert sids(await follower.take(3)) == ["three", "four", "five"]


async def test_returning_follower_hears_again_what_is_recent(follow: Follow, services: Services) -> None:
    """What was written within the overlap may have become visible behind the follower's back, so it comes again."""
    store = store_of(services)
    await store.record([ended("old", created_at=NOW - Feed.OVERLAP_SECONDS - 1)])
    await store.record([ended("one"), ended("two")])

    follower = await follow(last_id=3)

    assert sids(await follower.take(2)) == ["one", "two"]


@pytest.mark.parametrize(
    ("last_id", "pruned_at"),
    [
        pytest.param(1, NOW + 1, id="too-old"),
        pytest.param(9, NOW, id="from-the-future"),
        pytest.param(10**17, NOW, id="of-another-database"),
    ],
)
async def test_follower_is_reset_when_its_id_means_nothing(
    follow: Follow, services: Services, last_id: int, pruned_at: int
) -> None:
    """Events that are not kept any more may be missing, so it is told to check everything, and then everything."""
    store = store_of(services)
    await store.record([ended("one", expires_at=NOW), ended("two", expires_at=NOW), ended("three"), ended("four")])
    await store.prune(events_before=pruned_at, sessions_before=0, limit=10)

    follower = await follow(last_id=last_id)

    first, *others = await follower.take(3)
    assert first == Message("reset", {})
    assert sids(others) == ["three", "four"]


async def test_follower_is_not_reset_when_nothing_is_missing(follow: Follow, services: Services) -> None:
    """The number before the first that is kept is old, but nothing behind it is lost."""
    store = store_of(services)
    await store.record([ended("one", expires_at=NOW + 1), ended("two")])
    await store.prune(events_before=NOW + 2, sessions_before=0, limit=10)

    follower = await follow(last_id=1)

    assert sids(await follower.take(1)) == ["two"]


async def test_follower_is_reset_when_the_database_is_empty(follow: Follow) -> None:
    """Another database, without a single event, is another database all the same."""
    follower = await follow(last_id=5)

    assert await follower.take(1) == [Message("reset", {})]


async def test_follower_gets_signs_of_life_when_nothing_happens(follow: Follow, services: Services) -> None:
    """A comment now and then tells the follower that the line is not dead."""
    services.feed.HEARTBEAT_SECONDS = 0
    follower = await follow()

    blocks = [await follower.block() for _ in range(3)]

    assert blocks == [": still here"] * 3


async def test_late_number_reaches_a_follower_that_has_a_later_one(services: Services, postgresql_url: str) -> None:
    """In PostgreSQL a lower number can become visible last: those who follow hear of it, and those who come back."""
    async with AsyncExitStack() as stack:
        slow, quick = [await stack.enter_async_context(store_at(postgresql_url)) for _ in range(2)]
        feed = Feed(quick, snapshot=services.snapshot, clock=services.clock)
        await feed.read()
        port = await stack.enter_async_context(serving(replace(services, feed=feed)))
        staying, leaving = await Follower.connect(port), await Follower.connect(port)

        async with slow.transaction():
            (low,) = await slow.record([ended("low")])
            (high,) = await quick.record([ended("high")])
            await feed.read()
            seen = await leaving.take(1)
            await leaving.leave()
        back = await Follower.connect(port, last_id=high.seq)
        await feed.read()

        assert low.seq < high.seq
        assert sids(seen) == ["high"]
        assert sids(await staying.take(2)) == ["high", "low"]
        assert sids(await back.take(2)) == ["low", "high"]
        await staying.leave()
        await back.leave()


@pytest.mark.untraced
async def test_two_hundred_followers_hear_of_an_end(follow: Follow, services: Services) -> None:
    """Every node of a large cluster follows at once, and leaves nothing behind when it goes."""
    followers = await asyncio.gather(*(follow() for _ in range(200)))
    at_work = services.feed.followers

    await store_of(services).record([ended("one")])
    await services.feed.read()
    heard = await asyncio.gather(*(follower.take(1) for follower in followers))
    await asyncio.gather(*(follower.leave() for follower in followers))
    await until(lambda: services.feed.followers == 0)

    assert at_work == 200
    assert [sids(messages) for messages in heard] == [["one"]] * 200


async def test_followers_are_forgotten_in_whatever_turn_of_the_loop_they_hang_up(services: Services) -> None:
    """Those who go while their first event is written are not kept until the next sign of life."""
    # In memory, so that the first event is written within those turns.
    feed = Feed(MemorySessionStore(), snapshot=services.snapshot, clock=services.clock)
    feed.HEARTBEAT_SECONDS = 3600
    app = make_internal_app(replace(services, feed=feed))
    request = get("/session-events", f"Authorization: {AUTHORIZATION}")
    pipes = [Pipe() for _ in range(50)]

    for count, pipe in enumerate(pipes):
        connection = Connection(LLHTTPServer(app))
        connection.connection_made(pipe)
        connection.data_received(request)
        await turns(count)
        pipe.abort()
        connection.connection_lost(None)
    await turns()

    assert b": still here" in pipes[-1].written
    assert feed.followers == 0


async def test_follower_who_reads_nothing_holds_up_nobody(services: Services) -> None:
    """Others get thousands of events meanwhile, and whoever takes nothing for too long is let go."""
    store = MemorySessionStore()
    feed = Feed(store, snapshot=services.snapshot, clock=services.clock)
    await feed.read()

    async with serving(replace(services, feed=feed), limits=Limits(write=0.2, tick=0.05)) as port:
        deaf, other = await deaf_follower(port), await Follower.connect(port)
        await until(lambda: feed.followers == 2)
        for start in range(0, 20_000, 2_000):
            await store.record([ended(f"s{number}") for number in range(start, start + 2_000)])
            await feed.read()
            heard = await other.take(2_000)
        await until(lambda: feed.followers == 1)

        assert heard[-1].data["sid"] == "s19999"
        await deaf.until_closed()
        await deaf.leave()
        await other.leave()


async def test_follower_who_reads_nothing_costs_no_more_memory(services: Services) -> None:
    """However much happens while it does not read, what waits for it is one batch."""
    store = MemorySessionStore()
    feed = Feed(store, snapshot=services.snapshot, clock=services.clock)
    await feed.read()

    async def publish(batches: int) -> None:
        for _ in range(batches):
            await store.record([ended("the same") for _ in range(1_000)])
            await feed.read()
            await asyncio.sleep(0)
            await store.prune(events_before=NOW * 2, sessions_before=0, limit=1_000)

    async with serving(replace(services, feed=feed)) as port:
        deaf = [await deaf_follower(port) for _ in range(3)]
        await until(lambda: feed.followers == 3)
        tracemalloc.start()
        await publish(12)
        before, _ = tracemalloc.get_traced_memory()
        await publish(12)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        # Twelve batches for each of the three would be some five megabytes.
        assert after - before < 500_000
        for follower in deaf:
            await follower.leave()


async def test_follower_too_far_behind_is_sent_away_and_finds_everything(services: Services) -> None:
    """More events at once than are kept in memory: the stream ends, and the last id leads back into it."""
    store = MemorySessionStore()
    feed = Feed(store, snapshot=services.snapshot, clock=services.clock)
    await feed.read()

    async with serving(replace(services, feed=feed)) as port:
        follower = await Follower.connect(port)
        await store.record([ended(f"s{number}") for number in range(Feed.MAX_RECENT + 500)])
        await feed.read()
        missed = await follower.rest()
        back = await Follower.connect(port)

        assert missed == []
        assert len(await back.take(Feed.MAX_RECENT + 500)) == Feed.MAX_RECENT + 500
        await follower.leave()
        await back.leave()


async def test_streams_end_at_once_when_the_server_stops(services: Services) -> None:
    """Followers are let go before anybody would have to cut them off, and find another server."""
    server = LLHTTPServer(make_internal_app(services))
    port = await start(server)
    followers = [await Follower.connect(port) for _ in range(20)]

    services.feed.close()
    async with asyncio.timeout(2):
        _, *rests = await asyncio.gather(server.drain(5), *(follower.rest() for follower in followers))

    assert rests == [[]] * 20
    for follower in followers:
        await follower.leave()


async def test_answer_is_503_when_the_database_is_away(follow: Follow, sqlite_file: Path) -> None:
    """A follower that cannot be served is told so, and not with an empty stream."""
    with sqlite3.connect(sqlite_file) as database:
        database.execute("ALTER TABLE session_events RENAME TO gone")
    database.close()

    follower = await follow()

    assert follower.status == 503


@pytest.mark.parametrize("error", [StorageError("the database does not answer"), ZeroDivisionError("a slip")])
async def test_stream_ends_when_it_cannot_go_on(services: Services, error: Exception) -> None:
    """In the middle of a replay the stream ends, and the log says why; the last id leads back to the same place."""
    store = FailingStore(answers=1, error=error)
    feed = Feed(store, snapshot=services.snapshot, clock=services.clock)
    feed.PAGE = 2
    await store.record([ended("one"), ended("two"), ended("three")])

    async with serving(replace(services, feed=feed)) as port:
        with capture_logs() as logs:
            follower = await Follower.connect(port)
            messages = await follower.rest()
        await follower.leave()

    assert sids(messages) == ["one", "two"]
    assert [entry["log_level"] for entry in logs if entry["log_level"] != "info"] == ["error"]


def ended(sid: str, *, expires_at: int = NOW + HOUR, created_at: int = NOW) -> SessionEvent:
    """Return the end of alice's session *sid*."""
    return SessionEvent(
        kind="session.ended", username="alice", sid=sid, expires_at=expires_at, created_at=created_at, reason="logout"
    )


def sids(messages: Collection[Message]) -> list[str]:
    """Return whose ends the messages tell of."""
    return [message.data["sid"] for message in messages]


def store_of(services: Services) -> SQLSessionStore:
    """Return the store that the feed of *services* reads."""
    return services.feed._store  # type: ignore[return-value]


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[SQLSessionStore]:
    """A store with connections of its own."""
    database = Database(parse_url(url), seconds=COMMAND_SECONDS)
    try:
        yield SQLSessionStore(database)
    finally:
        await database.close()


@asynccontextmanager
async def serving(services: Services, *, limits: Limits | None = None) -> AsyncIterator[int]:
    """Serve the internal application; yields its port."""
    server = LLHTTPServer(make_internal_app(services), limits=limits)
    try:
        yield await start(server)
    finally:
        services.feed.close()
        await server.drain(0.5)


async def start(server: LLHTTPServer) -> int:
    """Start *server*, with little room on the wire, and return its port."""
    (listening,) = bind_sockets(0, "127.0.0.1")
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    port = int(listening.getsockname()[1])
    await server.start([listening])
    return port


async def deaf_follower(port: int) -> Follower:
    """Return a follower that never reads, not even the head of the answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1)
    follower = Follower(reader, writer)
    follower.ask()
    return follower


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as *condition* holds; the test's own time limit says when to give up."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def _message(block: str) -> Message:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    number = fields.get("id")
    return Message(fields["event"], orjson.loads(fields["data"]), id=None if number is None else int(number))

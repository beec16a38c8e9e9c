"""PostgreSQL killed, stopped, locked and read-only, and a line to it that is cut, dead or slow."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.load import client
from benchmarks.outcome import Outcome, Target
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Place, settings_of
from tests.postgresql import PostgreSQL, run_server, upgrade_now
from tests.proxy import Proxy
from tornado_ds.errors import StorageError
from tornado_ds.settings import Settings
from tornado_ds.storage.database import parse_url
from torture.cast import Cast, end_session, make_cast, open_session
from torture.faults import BACK_WITHIN, COLUMNS, Endured, Fault, blocking, endure, fault_targets
from torture.plan import Plan
from torture.probe import Probe, check_question, questions

STALE_SECONDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A session that was ended elsewhere while the server could not know; *seconds* after the fault it was refused."""

    fault: str
    seconds: float
    came_back: bool


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Let everything happen that can happen to a database server, and to the line to it."""
    with run_server() as postgresql:
        name = postgresql.create()
        upgrade_now(postgresql.url(name))
        settings = settings_of(place.folder).model_copy(update={"database_url": SecretStr(postgresql.url(name))})
        cast = make_cast(settings)
        play = Play(
            place=place, plan=plan, progress=progress, postgresql=postgresql, name=name, settings=settings, cast=cast
        )
        endured, endings, stale = client.run(play.run(), pinned=False)
    return _outcome(endured, endings, stale)


@dataclass(frozen=True, kw_only=True)
class Play:
    """One server behind a proxy to one PostgreSQL."""

    place: Place
    plan: Plan
    progress: Progress
    postgresql: PostgreSQL
    name: str
    settings: Settings
    cast: Cast

    async def run(self) -> tuple[list[Endured], list[Ending], list[float]]:
        """Return how the faults were endured, how endings got through, and when answers from memory ended."""
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(Proxy(self._connect))
            server = OurServer(self.place, env=self._environment(proxy))
            await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
            probe = Probe(questions(server, self.place, self.cast))
            endured, endings = [], []
            async with probe.running():
                for fault in self._faults(proxy):
                    self.progress.step(fault.name)
                    one, ending = await self._endure(probe, fault, server)
                    endured.append(one)
                    endings.append(ending)
            self.progress.step(f"an outage longer than webhook.stale_for, {STALE_SECONDS} s here")
            stale = await self._outlast(proxy)
        return endured, endings, stale

    async def _endure(self, probe: Probe, fault: Fault, server: OurServer) -> tuple[Endured, Ending]:
        sid, token = await asyncio.to_thread(open_session, self.settings, "hot")
        witness = Probe([check_question("witness", server, self.place, token)])

        async def begin() -> None:
            await fault.begin()
            await asyncio.to_thread(self._try_to_end, sid)

        async def end() -> None:
            await fault.end()
            await asyncio.to_thread(self._try_to_end, sid)

        async with witness.running():
            endured = await endure(probe, Fault(name=fault.name, begin=begin, end=end), seconds=self.plan.fault_seconds)
        refused = [reply.asked for reply in witness.replies if reply.status == 403]
        accepted = [reply.answered for reply in witness.replies if reply.status == 200]
        return endured, Ending(
            fault=fault.name,
            seconds=max(0.0, max(accepted) - endured.healed) if refused else float("inf"),
            came_back=bool(refused) and max(accepted) > min(refused),
        )

    async def _outlast(self, proxy: Proxy) -> list[float]:
        """Return when the last 200 and the first 503 came after the line died, and the last 503 after it came back."""
        env = self._environment(proxy) | {"TORNADO_DS_WEBHOOK__STALE_FOR": str(STALE_SECONDS)}
        server = OurServer(self.place, folder=self.place.folder, env=env)
        await asyncio.to_thread(server.start)
        probe = Probe([check_question("hot", server, self.place, self.cast.hot)])
        try:
            async with probe.running():
                await asyncio.sleep(1)
                died = time.monotonic()
                proxy.hole()
                await asyncio.sleep(STALE_SECONDS + 2)
                proxy.fill()
                healed = time.monotonic()
                await asyncio.sleep(3)
        finally:
            await asyncio.to_thread(server.stop)
        assert {reply.status for reply in probe.replies} == {200, 503}
        unknown = [reply for reply in probe.replies if reply.status == 503]
        from_memory = [reply.asked for reply in probe.replies if reply.status == 200 and reply.asked < healed]
        return [max(from_memory) - died, unknown[0].asked - died, max(0.0, unknown[-1].answered - healed)]

    def _environment(self, proxy: Proxy) -> dict[str, str]:
        return {
            "TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1",
            "TORNADO_DS_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{proxy.port}/{self.name}",
        }

    def _try_to_end(self, sid: str) -> None:
        with suppress(StorageError):
            end_session(self.settings, sid)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        folder = self.postgresql.url(self.name).partition("?host=")[2]
        return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")

    def _faults(self, proxy: Proxy) -> list[Fault]:
        return [
            killed(self.postgresql),
            Fault(
                name="stopped, started again", begin=blocking(self.postgresql.stop), end=blocking(self.postgresql.start)
            ),
            locked(self.postgresql, self.name),
            read_only(self.postgresql),
            Fault(name="line dead, and alive again", begin=_act(proxy.hole), end=_act(proxy.fill)),
            Fault(name="line dead, connections forgotten", begin=_act(proxy.hole), end=_act(proxy.forget, proxy.fill)),
            Fault(
                name="connections reset, new ones refused",
                begin=_act(proxy.refuse, proxy.reset),
                end=_act(proxy.accept),
            ),
            Fault(name="connections cut once", begin=_act(proxy.cut), end=_act()),
            Fault(
                name="0.1 s for each way",
                begin=_act(partial(setattr, proxy, "delay", 0.1)),
                end=_act(partial(setattr, proxy, "delay", 0)),
            ),
            Fault(
                name="1 s for each way",
                begin=_act(partial(setattr, proxy, "delay", 1.0)),
                end=_act(partial(setattr, proxy, "delay", 0)),
            ),
        ]


def killed(postgresql: PostgreSQL) -> Fault:
    """Return the fault that ends all of its processes at once."""
    return Fault(
        name="killed with SIGKILL, started again", begin=blocking(postgresql.kill), end=blocking(postgresql.start)
    )


def locked(postgresql: PostgreSQL, name: str) -> Fault:
    """Return the fault that lets nobody at the tables of the database *name*."""
    lock = Lock(postgresql.url(name))
    return Fault(name="tables locked", begin=lock.take, end=lock.release)


def read_only(postgresql: PostgreSQL) -> Fault:
    """Return the fault that lets nobody write."""

    def set_to(value: str) -> Callable[[], Awaitable[None]]:
        return blocking(
            partial(
                postgresql.execute,
                "SET default_transaction_read_only = off",
                f"ALTER SYSTEM SET default_transaction_read_only = {value}",
                "SELECT pg_reload_conf()",
            )
        )

    return Fault(name="read-only", begin=set_to("on"), end=set_to("off"))


class Lock:
    """A transaction of somebody else that locks our tables and does not come to an end."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(parse_url(url))

    async def take(self) -> None:
        self._connection = await self._engine.connect()
        # In the order in which a login comes to them, or the two would wait for each other.
        await self._connection.exec_driver_sql("LOCK TABLE throttle_buckets, users, sessions, session_events")

    async def release(self) -> None:
        await self._connection.close()
        await self._engine.dispose()


def _act(*functions: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        for function in functions:
            function()

    return act


def _outcome(endured: list[Endured], endings: list[Ending], stale: list[float]) -> Outcome:
    last_ok, first_unknown, back = stale
    slowest = max(ending.seconds for ending in endings)
    return Outcome(
        title="PostgreSQL under faults",
        columns=[*COLUMNS, "end heard of after"],
        rows=[[*each.row(), f"{ending.seconds:.2f} s"] for each, ending in zip(endured, endings, strict=True)],
        values={each.name: each.values() for each in endured} | {"stale": stale},
        targets=[
            *fault_targets("PostgreSQL", endured),
            Target(
                promise="a session ended elsewhere meanwhile is refused 2 s after the fault, and never accepted again",
                measured=f"accepted for up to {slowest:.2f} s, {sum(ending.came_back for ending in endings)} came back",
                is_met=slowest <= BACK_WITHIN and not any(ending.came_back for ending in endings),
            ),
            Target(
                promise="outage: tokens are checked from memory for `webhook.stale_for`, then 503; back within 2 s",
                measured=f"of {STALE_SECONDS} s: last 200 after {last_ok:.2f} s, first 503 after {first_unknown:.2f} s,"
                f" back {back:.2f} s after the outage",
                is_met=last_ok <= STALE_SECONDS + 0.5 <= STALE_SECONDS + 1 >= first_unknown and back <= BACK_WITHIN,
            ),
        ],
        notes=[
            "As for SQLite; between server and PostgreSQL is a TCP proxy of ours. Each time a session is ended beside"
            " the server, over another way: at once where that is possible, otherwise when the fault is over.",
            "A line that is dead carries nothing and tells nobody; a forgotten connection stays dead when new ones work"
            " again, as behind a firewall that lost its table.",
        ],
    )

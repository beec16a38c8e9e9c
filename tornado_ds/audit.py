"""The audit trail: who did what to which account or session, and from where; in the database and in the log."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import structlog

from tornado_ds.clock import Clock, SteadyClock
from tornado_ds.errors import StorageError
from tornado_ds.escape import escaped

log = structlog.get_logger("audit")
_stdlib_log = logging.getLogger("audit")

Event = Literal[
    "login.succeeded",
    "login.failed",
    "login.throttled",
    "session.opened",
    "session.ended",
    "password.changed",
    "user.added",
    "user.removed",
    "user.disabled",
    "user.enabled",
    "user.changed",
    "users.seeded",
    "throttle.cleared",
    "key.rotated",
    "key.retired",
    "database.upgraded",
]
EVENTS: tuple[Event, ...] = get_args(Event)

# What strangers can cause as often as they like.
FAILURES: tuple[Event, ...] = ("login.failed", "login.throttled")

# An attempt that is throttled costs the attacker nothing, and so is one row a minute at most.
THROTTLED_SECONDS = 60

MAX_NAME = 128
MAX_ADDRESS = 64
MAX_USER_AGENT = 256
MAX_DETAIL = 256

_LOGGED = ("username", "actor", "sid", "address", "user_agent", "detail")

SYSTEM = "system"
ANONYMOUS = "anonymous"


def user_actor(username: str) -> str:
    """Return the name of a user as one who acts."""
    return f"user:{username}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts: `user:NAME`, `operator:NAME`, `system` or `anonymous`; and, of somebody at a browser, from where."""

    name: str
    sid: str | None = None
    address: str = ""
    user_agent: str = ""


_actor: ContextVar[Actor] = ContextVar("actor")


def act_as(actor: Actor) -> None:
    """What this task does from now on, and tasks that it starts, is done by *actor*."""
    _actor.set(actor)


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """What is done inside is done by *actor*."""
    reset = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(reset)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """
    Something that happened, to *username* or to the session *sid*, at *created_at* (seconds since the epoch).

    *username* is that of a user who exists or existed, otherwise None: what
    was typed as a name may be a password. *count* is how often it happened.
    """

    event: Event
    username: str | None = None
    sid: str | None = None
    detail: str = ""
    actor: str = ""
    address: str = ""
    user_agent: str = ""
    created_at: int = 0
    count: int = 1


class AuditStore(Protocol):
    """Where entries are kept; `StorageError` from any method when it cannot be reached."""

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """All or nothing for what is done inside, and for all stores of the same database."""
        ...

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        """Append *entries*."""
        ...

    async def list(
        self, *, username: str | None = None, since: int = 0, events: Collection[Event] = (), limit: int
    ) -> Sequence[AuditEntry]:
        """Return up to *limit* entries, newest first: of one user or of all, from *since* on, of some events or all."""
        ...

    async def prune(self, *, before: int, events: Collection[Event], keep: int, limit: int) -> int:
        """
        Forget up to *limit* entries, the oldest first, and return how many went.

        Those from *before* that moment go, or else those of *events* beyond the newest *keep*.
        """
        ...


class Audit:
    """
    Writes down what happened.

    A change is recorded in the transaction that makes it. A failed login changes nothing, and
    strangers decide how many there are: those are noted, and written together a moment later.
    """

    # So many failures are kept, some 25 MB; older ones make room.
    MAX_FAILURES = 100_000

    # So many that differ wait to be written; of more only the number is kept.
    MAX_WAITING = 1000

    FLUSH_SECONDS = 1.0
    RETRY_SECONDS = 30.0

    def __init__(self, store: AuditStore, *, clock: Clock, keep: int) -> None:
        self._store = store
        self._clock = clock
        self._steady_clock = SteadyClock(clock)
        self._keep = keep
        self._noted: dict[AuditEntry, AuditEntry] = {}
        self._recorded: ContextVar[list[AuditEntry] | None] = ContextVar("recorded", default=None)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """All or nothing for what is done inside; what is recorded there is logged once it is committed."""
        if self._recorded.get() is not None:
            yield
            return
        recorded: list[AuditEntry] = []
        reset = self._recorded.set(recorded)
        try:
            async with self._store.transaction():
                yield
        finally:
            self._recorded.reset(reset)
        for entry in recorded:
            _log(entry)

    async def record(self, *entries: AuditEntry) -> None:
        """
        Append *entries*, in the transaction that is under way if there is one.

        They need not say when it was, nor by whom and from where: that is the one who acts.
        """
        completed = [self._completed(entry) for entry in entries]
        async with self.transaction():
            await self._store.add(completed)
            recorded = self._recorded.get()
            assert recorded is not None
            recorded += completed

    def note(self, failure: AuditEntry) -> None:
        """Log one of `FAILURES` at once, and append it soon; those that are alike as one entry with their number."""
        entry = self._completed(failure)
        _log(entry)
        if entry.event == "login.throttled":
            # Nothing was looked at, so what the browser says of itself tells nothing apart.
            entry = replace(entry, user_agent="")
        kind = replace(entry, created_at=0)
        if kind not in self._noted and len(self._noted) >= self.MAX_WAITING:
            kind = AuditEntry(event=entry.event, actor=ANONYMOUS, detail="more than could be told apart")
            entry = replace(kind, created_at=entry.created_at)
        self._wait(kind, entry)

    async def flush(self) -> None:
        """
        Append what was noted.

        Raises:
            StorageError: The database did not answer; what was noted waits.
        """
        await self._append(list(self._noted))

    async def run(self) -> None:
        """Append what was noted again and again, until cancelled."""
        seconds = self.FLUSH_SECONDS
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._append([kind for kind, entry in self._noted.items() if self._is_due(entry)])
                seconds = self.FLUSH_SECONDS
            # Not only StorageError: a slip of ours must not end it for good.
            except Exception as exc:
                is_slip = not isinstance(exc, StorageError)
                log.warning("failed logins wait to be written", reason=str(exc), exc_info=is_slip)
                seconds = self.RETRY_SECONDS

    async def close(self) -> None:
        """Append what was noted, if the database is there; the log has it in any case."""
        try:
            await self.flush()
        except StorageError as exc:
            log.warning("failed logins not written", number=len(self._noted), reason=str(exc))

    async def list(
        self, *, username: str | None = None, since: int = 0, events: Collection[Event] = (), limit: int
    ) -> Sequence[AuditEntry]:
        """Return up to *limit* entries, newest first: of one user or of all, from *since* on, of some events or all."""
        stored_name = None if username is None else escaped(username, MAX_NAME)
        return await self._store.list(username=stored_name, since=since, events=events, limit=limit)

    async def prune(self, *, limit: int) -> int:
        """Forget up to *limit* entries that are too old, or failures that are too many; return how many went."""
        before = int(self._steady_clock.now()) - self._keep
        return await self._store.prune(before=before, events=FAILURES, keep=self.MAX_FAILURES, limit=limit)

    def _completed(self, entry: AuditEntry) -> AuditEntry:
        actor = _actor.get(Actor(name=SYSTEM))
        return AuditEntry(
            event=entry.event,
            username=None if entry.username is None else escaped(entry.username, MAX_NAME),
            sid=entry.sid or actor.sid,
            detail=escaped(entry.detail, MAX_DETAIL),
            actor=escaped(entry.actor or actor.name, MAX_NAME + len("operator:")),
            address=escaped(actor.address, MAX_ADDRESS),
            user_agent=escaped(actor.user_agent, MAX_USER_AGENT),
            created_at=int(self._clock.now()),
        )

    def _is_due(self, entry: AuditEntry) -> bool:
        # Of the clock only the distance counts, for it can be set back.
        return entry.event != "login.throttled" or abs(self._clock.now() - entry.created_at) >= THROTTLED_SECONDS

    async def _append(self, kinds: Sequence[AuditEntry]) -> None:
        entries = {kind: self._noted.pop(kind) for kind in kinds}
        if not entries:
            return
        try:
            await self._store.add(list(entries.values()))
        except BaseException:
            for kind, entry in entries.items():
                self._wait(kind, entry)
            raise

    def _wait(self, kind: AuditEntry, entry: AuditEntry) -> None:
        known = self._noted.get(kind)
        if known is not None:
            entry = replace(known, created_at=min(known.created_at, entry.created_at), count=known.count + entry.count)
        self._noted[kind] = entry


def _log(entry: AuditEntry) -> None:
    level = logging.WARNING if entry.event in FAILURES else logging.INFO
    # Asked first: a command that ends all sessions would put together a line for each that nobody wants.
    if _stdlib_log.isEnabledFor(level):
        values = {name: getattr(entry, name) for name in _LOGGED}
        log.log(level, entry.event, **{name: value for name, value in values.items() if value})

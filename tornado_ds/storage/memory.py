"""Everything that is stored, in memory: for tests, and for a server that may forget."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice

from tornado_ds.audit import AuditEntry, Event
from tornado_ds.clock import Clock, SystemClock
from tornado_ds.errors import UserExistsError, UserNotFoundError
from tornado_ds.sessions import Session
from tornado_ds.snapshot import SessionEvent
from tornado_ds.storage.database import Database
from tornado_ds.throttle import Bucket
from tornado_ds.users import User, UserChanges, username_key


class MemoryUserStore:
    """Users in a dictionary; the database that every store is offered goes unused."""

    def __init__(self, database: Database | None = None, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._users: dict[str, User] = {}
        self._last_versions: dict[str, int] = {}

    async def get(self, username: str) -> User | None:
        return self._users.get(username_key(username))

    async def get_many(self, usernames: Collection[str]) -> dict[str, User]:
        return {name: user for name in usernames if (user := self._users.get(username_key(name))) is not None}

    async def list(self, *, after: str | None = None, limit: int = 100) -> Sequence[User]:
        start = "" if after is None else username_key(after)
        keys = (key for key in sorted(self._users) if key > start)
        return [self._users[key] for key in islice(keys, limit)]

    async def add(self, users: Sequence[User]) -> None:
        now = self._now()
        added = {}
        for user in users:
            key = username_key(user.username)
            if key in self._users or key in added:
                raise UserExistsError(f"there is a user {user.username!a} already")
            version = self._last_versions.get(key, 0) + 1
            added[key] = replace(
                user, version=version, created_at=user.created_at or now, updated_at=user.updated_at or now
            )
        self._users.update(added)

    async def update(self, username: str, changes: UserChanges) -> User:
        user = self._found(username)
        changed = {
            name: value
            for name in ("password_hash", "server_data", "client_data")
            if (value := getattr(changes, name)) is not None
        }
        if changes.disabled is not None:
            changed["disabled_at"] = (user.disabled_at or self._now()) if changes.disabled else None
        user = replace(user, **changed, version=user.version + 1, updated_at=self._now())
        self._users[username_key(username)] = user
        return user

    async def rehash(self, username: str, *, old: str, new: str) -> None:
        user = self._users.get(username_key(username))
        if user is not None and user.password_hash == old:
            self._users[username_key(username)] = replace(user, password_hash=new)

    async def remove(self, username: str) -> User:
        user = self._found(username)
        del self._users[username_key(username)]
        self._last_versions[username_key(username)] = user.version
        return user

    def _found(self, username: str) -> User:
        user = self._users.get(username_key(username))
        if user is None:
            raise UserNotFoundError(f"there is no user {username!a}")
        return user

    def _now(self) -> int:
        return int(self._clock.now())


class MemorySessionStore:
    """Sessions and events in dictionaries; a transaction is one step of the event loop here, and nothing rolls back."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._events: list[SessionEvent] = []

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield

    async def add(self, session: Session) -> None:
        self._sessions[session.sid] = session

    async def get(self, sid: str) -> Session | None:
        return self._sessions.get(sid)

    async def list(
        self, *, username: str | None = None, live_at: int | None = None, limit: int | None = None
    ) -> Sequence[Session]:
        matching = (
            session
            for session in self._sessions.values()
            if username in (None, session.username) and (live_at is None or session.is_live(live_at))
        )
        return sorted(matching, key=lambda session: (-session.created_at, session.sid))[:limit]

    async def count(self, *, live_at: int) -> int:
        return len(await self.list(live_at=live_at))

    async def renew(self, sid: str, *, renewed_at: int, token_expires_at: int) -> None:
        self._sessions[sid] = replace(self._sessions[sid], renewed_at=renewed_at, token_expires_at=token_expires_at)

    async def end(
        self, *, at: int, reason: str, sid: str | None = None, username: str | None = None, keep: str | None = None
    ) -> Sequence[Session]:
        ended = [
            replace(session, ended_at=at, end_reason=reason)
            for session in self._sessions.values()
            if session.is_live(at)
            and sid in (None, session.sid)
            and username in (None, session.username)
            and session.sid != keep
        ]
        self._sessions.update((session.sid, session) for session in ended)
        return ended

    async def last_expiry(self, username: str) -> int | None:
        return max(
            (session.token_expires_at for session in self._sessions.values() if session.username == username),
            default=None,
        )

    async def record(self, events: Sequence[SessionEvent]) -> Sequence[SessionEvent]:
        first = self._events[-1].seq + 1 if self._events else 1
        recorded = [replace(event, seq=seq) for seq, event in enumerate(events, first)]
        self._events += recorded
        return recorded

    async def events(
        self, *, after: int, also: Collection[int] = (), alive_at: int | None = None, limit: int | None = None
    ) -> Sequence[SessionEvent]:
        matching = (
            event
            for event in self._events
            if (event.seq > after or event.seq in also) and (alive_at is None or event.expires_at > alive_at)
        )
        return list(islice(matching, limit))

    async def kept_events(self) -> tuple[int, int]:
        return (self._events[0].seq, self._events[-1].seq) if self._events else (0, 0)

    async def position_at(self, moment: int) -> int:
        since = (event.seq - 1 for event in self._events if event.created_at >= moment)
        return next(since, self._events[-1].seq if self._events else 0)

    async def prune(self, *, events_before: int, sessions_before: int, limit: int) -> int:
        events = {event.seq for event in islice((e for e in self._events[:-1] if e.expires_at < events_before), limit)}
        over = [session.sid for session in self._sessions.values() if session.token_expires_at < sessions_before]
        self._events = [event for event in self._events if event.seq not in events]
        for sid in over[:limit]:
            del self._sessions[sid]
        return len(events) + len(over[:limit])


class MemoryThrottleStore:
    """Failed logins in a dictionary; a transaction is one step of the event loop here, and nothing rolls back."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield

    async def take(self, buckets: Sequence[Bucket]) -> Sequence[Bucket]:
        return [replace(self._buckets.get(bucket.key, bucket), username=bucket.username) for bucket in buckets]

    async def put(self, buckets: Sequence[Bucket]) -> None:
        for bucket in buckets:
            self._buckets.pop(bucket.key, None)
            if bucket.failures:
                self._buckets[bucket.key] = bucket

    async def list(self, *, limit: int) -> Sequence[Bucket]:
        order = sorted(self._buckets.values(), key=lambda bucket: (-bucket.blocked_until, -bucket.failures, bucket.key))
        return order[:limit]

    async def clear(self, key: str | None = None) -> int:
        over = [k for k in self._buckets if key is None or k == key or k.startswith(f"{key}/")]
        return self._forget(over)

    async def prune(self, *, expired_at: int, keep: int, limit: int) -> int:
        expired = [bucket.key for bucket in self._buckets.values() if bucket.expires_at <= expired_at]
        if expired:
            return self._forget(expired[:limit])
        least = sorted(self._buckets.values(), key=lambda bucket: (bucket.failures, bucket.expires_at))
        return self._forget([bucket.key for bucket in least[: min(limit, max(len(least) - keep, 0))]])

    def _forget(self, keys: Collection[str]) -> int:
        for key in keys:
            del self._buckets[key]
        return len(keys)


class MemoryAuditStore:
    """Entries in a list; a transaction is one step of the event loop here, and nothing rolls back."""

    def __init__(self) -> None:
        self._entries: list[AuditEntry] = []

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        self._entries += entries

    async def list(
        self, *, username: str | None = None, since: int = 0, events: Collection[Event] = (), limit: int
    ) -> Sequence[AuditEntry]:
        newest_first = sorted(enumerate(self._entries), key=lambda pair: (pair[1].created_at, pair[0]), reverse=True)
        matching = (
            entry
            for _, entry in newest_first
            if entry.created_at >= since
            and username in (None, entry.username)
            and (not events or entry.event in events)
        )
        return list(islice(matching, limit))

    async def prune(self, *, before: int, events: Collection[Event], keep: int, limit: int) -> int:
        old = [number for number, entry in enumerate(self._entries) if entry.created_at < before]
        of_events = [number for number, entry in enumerate(self._entries) if entry.event in events]
        over = (old or of_events[: max(len(of_events) - keep, 0)])[:limit]
        self._entries = [entry for number, entry in enumerate(self._entries) if number not in over]
        return len(over)

"""Sessions: opened at login, renewed while they are used, ended once and everywhere."""

import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from tornado_ds.audit import MAX_ADDRESS, MAX_USER_AGENT, SYSTEM, Audit, AuditEntry, user_actor
from tornado_ds.clock import Clock
from tornado_ds.errors import SessionNotFoundError, UserDataError
from tornado_ds.escape import escaped
from tornado_ds.snapshot import SessionEvent, SessionSnapshot
from tornado_ds.tokens import Claims, TokenService
from tornado_ds.users import User

if TYPE_CHECKING:
    from tornado_ds.metrics import Metrics

EndReason = Literal[
    "logout", "ended_by_user", "ended_by_operator", "password_changed", "disabled", "removed", "replaced"
]

# Nobody asked for these ends by name: something else that somebody did, and that is audited, led to them.
_CONSEQUENCES: frozenset[EndReason] = frozenset({"password_changed", "disabled", "removed", "replaced"})

# Fits into a line of `sessions list` and of the account page.
MAX_LABEL = 100

# More changes than a user will ever see.
_HIGHEST_VERSION = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """
    One login. Times are whole seconds since the epoch.

    *token_expires_at* is when the newest token runs out, *expires_at* when the
    session is over whatever happens.
    """

    sid: str
    username: str
    created_at: int
    expires_at: int
    renewed_at: int
    token_expires_at: int
    address: str = ""
    user_agent: str = ""
    label: str | None = None
    ended_at: int | None = None
    end_reason: str | None = None

    def is_live(self, now: float) -> bool:
        """True if a token of this session can be good at *now* (seconds)."""
        return self.ended_at is None and now < self.token_expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """A live session with a token for it, and its user as they are now."""

    session: Session
    user: User
    claims: Claims
    token: str


@dataclass(slots=True)
class _Changes:
    """What a transaction does, to act on once it is committed."""

    events: list[SessionEvent] = field(default_factory=list)
    opened: int = 0


class SessionStore(Protocol):
    """Where sessions and the change feed live; `StorageError` from any method when it cannot be reached."""

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """All or nothing for what is done inside, by this store and a user store of the same database."""
        ...

    async def add(self, session: Session) -> None:
        """Store a new session."""
        ...

    async def get(self, sid: str) -> Session | None:
        """Return the session, ended or not; inside a transaction nobody else changes it until that is over."""
        ...

    async def list(
        self, *, username: str | None = None, live_at: int | None = None, limit: int | None = None
    ) -> Sequence[Session]:
        """Return sessions, newest first: of one user or of all, live at a moment or ended ones too."""
        ...

    async def count(self, *, live_at: int) -> int:
        """Return how many sessions live at a moment."""
        ...

    async def renew(self, sid: str, *, renewed_at: int, token_expires_at: int) -> None:
        """Note a renewal."""
        ...

    async def end(
        self, *, at: int, reason: str, sid: str | None = None, username: str | None = None, keep: str | None = None
    ) -> Sequence[Session]:
        """End the sessions that match and live (all of them if nothing narrows it) and return them."""
        ...

    async def last_expiry(self, username: str) -> int | None:
        """Return when the last token of the user's sessions runs out."""
        ...

    async def record(self, events: Sequence[SessionEvent]) -> Sequence[SessionEvent]:
        """Append *events* to the feed and return them with their numbers."""
        ...

    async def events(
        self, *, after: int, also: Collection[int] = (), alive_at: int | None = None, limit: int | None = None
    ) -> Sequence[SessionEvent]:
        """Return the events numbered above *after* or in *also*, in order; all, or those that matter at *alive_at*."""
        ...

    async def kept_events(self) -> tuple[int, int]:
        """Return the numbers of the first and the last event that are kept, 0 and 0 if there is none."""
        ...

    async def position_at(self, moment: int) -> int:
        """Return the number before the first event since *moment* (seconds), the last number if there is none."""
        ...

    async def prune(self, *, events_before: int, sessions_before: int, limit: int) -> int:
        """
        Forget up to *limit* events that ran out, and sessions that were over, before these moments (seconds).

        The newest event stays, so that numbers go on from it. Returns how many rows went.
        """
        ...


class Sessions:
    """Opens, renews and ends sessions, and tells the feed of it in the same transaction."""

    def __init__(
        self,
        store: SessionStore,
        *,
        tokens: TokenService,
        snapshot: SessionSnapshot,
        audit: Audit,
        clock: Clock,
        idle_timeout: int,
        absolute_timeout: int,
        metrics: "Metrics",
        max_per_user: int | None = None,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._snapshot = snapshot
        self._audit = audit
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._absolute_timeout = absolute_timeout
        self._max_per_user = max_per_user
        self._metrics = metrics
        self._changes: ContextVar[_Changes | None] = ContextVar("changes", default=None)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """
        All or nothing for what is done inside, with users of the same database too.

        Once it is committed, this process acts on it; others follow by the feed.
        """
        if self._changes.get() is not None:
            yield
            return
        changes = _Changes()
        reset = self._changes.set(changes)
        try:
            async with self._audit.transaction(), self._store.transaction():
                yield
        finally:
            self._changes.reset(reset)
        self._snapshot.apply(changes.events)
        self._count(changes)

    async def open(
        self,
        user: User,
        *,
        address: str = "",
        user_agent: str = "",
        lifetime: int | None = None,
        label: str | None = None,
        is_login: bool = False,
    ) -> OpenSession:
        """
        Open a session for *user*; with *lifetime* (seconds) one that needs no renewal until then.

        It is audited as a login of the user with *is_login*, else as opened by the one who acts.

        Raises:
            UserDataError: The user's data make the token longer than a cookie may be, or the label is too long.
        """
        if label is not None and len(label) > MAX_LABEL:
            raise UserDataError(f"the label has {len(label)} characters, {MAX_LABEL} are the most")
        now = self._now()
        expires_at = now + (lifetime or self._absolute_timeout)
        session = Session(
            # Hexadecimal, so that no command takes a sid for an option.
            sid=secrets.token_hex(16),
            username=user.username,
            created_at=now,
            expires_at=expires_at,
            renewed_at=now,
            token_expires_at=expires_at if lifetime else min(now + self._idle_timeout, expires_at),
            address=escaped(address, MAX_ADDRESS),
            user_agent=escaped(user_agent, MAX_USER_AGENT),
            label=None if label is None else escaped(label, MAX_LABEL),
        )
        opened = self._with_token(session, user)
        async with self.transaction():
            await self._store.add(session)
            self._changed().opened += 1
            await self._audit.record(_opening(session, is_login=is_login))
            await self._make_room(session)
        return opened

    async def renew(self, sid: str, user: User) -> OpenSession:
        """
        Move the session's idle limit and return a token with the user's data as they are now.

        Raises:
            SessionNotFoundError: It has ended, or never was.
        """
        now = self._now()
        async with self.transaction():
            session = await self._live(sid)
            token_expires_at = max(session.token_expires_at, min(now + self._idle_timeout, session.expires_at))
            renewed = replace(session, renewed_at=now, token_expires_at=token_expires_at)
            opened = self._with_token(renewed, user)
            await self._store.renew(sid, renewed_at=now, token_expires_at=token_expires_at)
            # Whoever renews in a loop would fill the feed, which all servers read.
            if token_expires_at > session.token_expires_at:
                await self._record(_event("session.renewed", renewed, at=now))
        return opened

    async def end(self, sid: str, *, reason: EndReason, username: str | None = None) -> bool:
        """End one session (of *username*, if given); False if there was no such live session."""
        return bool(await self._end(sid=sid, username=username, reason=reason))

    async def end_all(self, username: str | None, *, reason: EndReason, keep: str | None = None) -> Sequence[Session]:
        """End all sessions of *username*, or of everybody for None, but for the session *keep*; return them."""
        return await self._end(username=username, reason=reason, keep=keep)

    async def announce(self, user: User) -> None:
        """Tell everyone that tokens older than *user*'s version carry stale data."""
        now = self._now()
        last_expiry = await self._store.last_expiry(user.username) or 0
        await self._record(
            SessionEvent(
                kind="user.changed",
                username=user.username,
                version=user.version,
                created_at=now,
                expires_at=max(last_expiry, now + self._absolute_timeout),
            )
        )

    async def list(self, username: str | None = None, *, include_ended: bool = False) -> Sequence[Session]:
        """Return the sessions of *username*, or of everybody, newest first."""
        return await self._store.list(username=username, live_at=None if include_ended else self._now())

    def check_room(self, user: User) -> None:
        """
        Accept a user whose name and data leave room for all else that is in a token.

        Raises:
            UserDataError: They do not; a login would fail.
        """
        # Versions grow, and a user who can log in today has to be able to in years.
        user = replace(user, version=_HIGHEST_VERSION)
        self._tokens.check_length(_claims(user, sid="0" * 32, issued_at=self._now(), expires_at=self._now()))

    def needs_renewal(self, claims: Claims) -> bool:
        """True once half of the idle time has gone."""
        return claims.expires_at - self._clock.now() < self._idle_timeout / 2

    async def _end(self, *, reason: EndReason, **which: str | None) -> Sequence[Session]:
        now = self._now()
        async with self.transaction():
            ended = await self._store.end(at=now, reason=reason, **which)
            await self._record(*(_event("session.ended", session, at=now) for session in ended))
            await self._audit.record(*(_ending(session, reason) for session in ended))
        return ended

    async def _make_room(self, opened: Session) -> None:
        """End the oldest sessions of a user who has more than are allowed, but not the one just opened."""
        if self._max_per_user is None:
            return
        others = [session for session in await self.list(opened.username) if session.sid != opened.sid]
        for session in others[self._max_per_user - 1 :]:
            await self._end(sid=session.sid, reason="replaced")

    async def _live(self, sid: str) -> Session:
        session = await self._store.get(sid)
        if session is None or not session.is_live(self._clock.now()):
            raise SessionNotFoundError("the session has ended")
        return session

    async def _record(self, *events: SessionEvent) -> None:
        async with self.transaction():
            self._changed().events += await self._store.record(events)

    def _changed(self) -> _Changes:
        changes = self._changes.get()
        assert changes is not None
        return changes

    def _count(self, changes: _Changes) -> None:
        self._metrics.sessions_opened.inc(changes.opened)
        for event in changes.events:
            if event.kind == "session.ended":
                self._metrics.sessions_ended.labels(event.reason).inc()

    def _with_token(self, session: Session, user: User) -> OpenSession:
        claims = _claims(user, sid=session.sid, issued_at=self._now(), expires_at=session.token_expires_at)
        return OpenSession(session=session, user=user, claims=claims, token=self._tokens.issue(claims))

    def _now(self) -> int:
        return int(self._clock.now())


def _claims(user: User, *, sid: str, issued_at: int, expires_at: int) -> Claims:
    return Claims(
        username=user.username,
        sid=sid,
        version=user.version,
        issued_at=issued_at,
        expires_at=expires_at,
        server_data=user.server_data,
        client_data=user.client_data,
    )


def _event(kind: Literal["session.ended", "session.renewed"], session: Session, *, at: int) -> SessionEvent:
    return SessionEvent(
        kind=kind,
        username=session.username,
        sid=session.sid,
        reason=session.end_reason,
        created_at=at,
        expires_at=session.token_expires_at,
    )


def _opening(session: Session, *, is_login: bool) -> AuditEntry:
    return AuditEntry(
        event="login.succeeded" if is_login else "session.opened",
        username=session.username,
        sid=session.sid,
        actor=user_actor(session.username) if is_login else "",
        detail=session.label or "",
    )


def _ending(session: Session, reason: EndReason) -> AuditEntry:
    return AuditEntry(
        event="session.ended",
        username=session.username,
        sid=session.sid,
        actor=SYSTEM if reason in _CONSEQUENCES else "",
        detail=reason,
    )

"""Accounts: who somebody is, and the changes that a live session must hear of."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from tornado_ds.audit import ANONYMOUS, Actor, Audit, AuditEntry, Event, acting_as
from tornado_ds.errors import (
    AuthenticationError,
    ReadOnlyUserStoreError,
    SessionNotFoundError,
    StorageError,
    ThrottledError,
    UserNotFoundError,
)
from tornado_ds.passwords import PasswordHasher, can_be_hashed, check_password, check_password_hash, is_password_hash
from tornado_ds.sessions import OpenSession, Sessions
from tornado_ds.throttle import Attempt, Source, SourceOf, Throttle, unknown_source
from tornado_ds.tokens import Claims
from tornado_ds.users import (
    User,
    UserChanges,
    UserStore,
    check_data,
    check_username,
    is_username,
    with_data,
)

if TYPE_CHECKING:
    from tornado_ds.metrics import Metrics


# A login asks the database several times; deepstream waits 2 s for all of it.
PATIENCE_SECONDS = 1.3


class Accounts:
    """Authenticates users, and changes them so that their sessions follow."""

    def __init__(
        self,
        users: UserStore,
        *,
        passwords: PasswordHasher,
        throttle: Throttle,
        sessions: Sessions,
        audit: Audit,
        min_password_length: int,
        metrics: "Metrics",
    ) -> None:
        self._users = users
        self._throttle = throttle
        self._crowds: WeakValueDictionary[str, _Crowd] = WeakValueDictionary()
        self._passwords = passwords
        self._sessions = sessions
        self._audit = audit
        self._min_password_length = min_password_length
        self._metrics = metrics

    async def authenticate(self, username: str, password: str, *, source: SourceOf = unknown_source) -> User:
        """
        Return the user that *username* and *password* are of.

        Raises:
            AuthenticationError: They are not good; one error and one duration for every reason.
            ThrottledError: Too many were not good lately; the password was not looked at.
            OverloadedError: Too many logins at once; the password was not looked at.
            StorageError: The database does not answer, or too slowly.
        """
        async with self._verified(username, password, source) as (user, attempt, patience), patience.limit():
            await self._throttle.forgive(attempt)
        return user

    async def log_in(
        self,
        username: str,
        password: str,
        *,
        address: str = "",
        user_agent: str = "",
        source: SourceOf = unknown_source,
    ) -> OpenSession:
        """
        Authenticate and open a session.

        *address* is noted in the session; failures count by *source*.

        Raises:
            AuthenticationError, ThrottledError, OverloadedError, StorageError: As `authenticate` says.
        """
        with self._metrics.login(), acting_as(Actor(name=ANONYMOUS, address=address, user_agent=user_agent)):
            async with (
                self._verified(username, password, source) as (user, attempt, patience),
                patience.limit(),
                self._sessions.transaction(),
            ):
                await self._throttle.forgive(attempt)
                # Hashing took its time: a password or account that was changed
                # meanwhile must not get a session that its change did not end.
                current = await self._users.get(user.username)
                if current is None or current.is_disabled or _has_new_password(user, current):
                    raise self._failure(user, "account changed during the login")
                opened = await self._sessions.open(current, address=address, user_agent=user_agent, is_login=True)
        return opened

    async def renew(self, claims: Claims) -> OpenSession:
        """
        Renew the session of *claims*, with the user's data as they are now.

        Raises:
            SessionNotFoundError: The session has ended, or the user is gone or disabled.
        """
        user = await self._users.get(claims.username)
        if user is None or user.is_disabled:
            raise SessionNotFoundError("the session has ended")
        return await self._sessions.renew(claims.sid, user)

    async def add(
        self,
        username: str,
        password: str,
        *,
        server_data: Mapping[str, Any] | None = None,
        client_data: Mapping[str, Any] | None = None,
    ) -> User:
        """
        Add a user.

        Raises:
            UserExistsError: The name is taken.
            UserDataError: The name, password or data breaks a rule.
        """
        user = User(
            check_username(username),
            await self._new_hash(username, password),
            server_data=server_data or {},
            client_data=client_data or {},
        )
        self.check(user)
        async with self._sessions.transaction():
            await self._users.add([user])
            added = await self._existing(username)
            await self._audit.record(AuditEntry(event="user.added", username=added.username, detail=_roles(added)))
        return added

    def check(self, user: User) -> None:
        """
        Accept a user whose data follow the rules and fit into a token.

        Raises:
            UserDataError: They do not.
        """
        check_data(user.server_data, user.client_data)
        self._sessions.check_room(user)

    async def change(self, username: str, changes: UserChanges) -> User:
        """
        Change a user's data, or disable or enable the account; live sessions follow.

        Disabling ends all sessions of the user, a new hash likewise.

        Raises:
            UserNotFoundError: There is no such user.
            UserDataError: The data break a rule.
        """
        return await self._change(username, changes, keep=None)

    async def set_password(self, username: str, password: str, *, keep: str | None = None) -> User:
        """
        Set a new password, and end all sessions of the user but *keep*.

        Raises:
            UserNotFoundError: There is no such user.
            UserDataError: The password breaks a rule.
        """
        user = await self._existing(username)
        password_hash = await self._new_hash(user.username, password)
        return await self._change(username, UserChanges(password_hash=password_hash), keep=keep)

    async def change_password(self, username: str, *, current: str, new: str, keep: str | None) -> User:
        """
        Set the password *new* for somebody who knows *current*, and end all their sessions but *keep*.

        Returns the user with that password.

        Raises:
            AuthenticationError: *current* is not right.
            ThrottledError: That was so too often lately, in the session *keep*.
            UserDataError: *new* breaks a rule.
        """
        # Counted by the session: whoever guesses at the login cannot keep the
        # owner from changing the password, nor does a stolen session get more guesses.
        user = await self.authenticate(username, current, source=lambda _: Source(device=keep))
        return await self.set_password(user.username, new, keep=keep)

    async def remove(self, username: str) -> User:
        """
        Remove a user and end all of their sessions.

        Raises:
            UserNotFoundError: There is no such user.
        """
        async with self._sessions.transaction():
            user = await self._users.remove(username)
            await self._audit.record(AuditEntry(event="user.removed", username=user.username))
            await self._sessions.end_all(user.username, reason="removed")
        return user

    @asynccontextmanager
    async def _verified(
        self, username: str, password: str, source: SourceOf
    ) -> AsyncIterator[tuple[User, Attempt, "_Patience"]]:
        """
        The user, the attempt that the body has to forgive, and how long it may ask the database for that.

        Until the body is over, the attempt is under way.
        """
        patience = _Patience()
        with ExitStack() as under_way:
            with self._passwords.place():
                async with patience.limit():
                    user = await self._users.get(username) if is_username(username) else None
                attempt = self._throttle.attempt(username, source(user), user=user)
                for crowd in await self._count(attempt, user, patience):
                    under_way.enter_context(crowd.note())
                with self._owing(attempt), self._metrics.hashing_seconds.time():
                    is_right = await self._passwords.verify(
                        password,
                        user.password_hash if user else None,
                        is_welcome=user is not None and not user.is_disabled,
                    )
            if user is None or not is_right or user.is_disabled:
                raise self._failure(user, _why_not(user, is_right=is_right))
            with self._owing(attempt):
                if self._passwords.needs_rehash(user.password_hash):
                    await self._rehash(user, password, patience)
                yield user, attempt, patience

    @contextmanager
    def _owing(self, attempt: Attempt) -> Iterator[None]:
        """An attempt that is cut short in the body is forgiven later: it may have been good, and nobody heard of it."""
        try:
            yield
        except (StorageError, asyncio.CancelledError):
            self._throttle.owe(attempt)
            raise

    async def _count(self, attempt: Attempt, user: User | None, patience: "_Patience") -> Collection["_Crowd"]:
        """Count *attempt*, and return the crowds that it belongs to from then on."""
        crowds: dict[str, _Crowd] = {
            bucket.kind: self._crowds.setdefault(bucket.key, _Crowd()) for bucket in attempt.buckets
        }
        # An attempt counts as failed until it has proved good, so many good
        # logins at one moment look like guesses: wait how the others end.
        while True:
            ended = {kind: crowd.ended for kind, crowd in crowds.items()}
            try:
                async with patience.limit():
                    await self._throttle.count(attempt)
                return crowds.values()
            except ThrottledError as exc:
                crowd = crowds[exc.kind]
                if crowd.under_way:
                    await asyncio.wait(crowd.under_way, return_when=asyncio.FIRST_COMPLETED)
                elif crowd.ended == ended[exc.kind]:
                    self._note("login.throttled", user, f"by {exc.kind}")
                    raise

    async def _change(self, username: str, changes: UserChanges, *, keep: str | None) -> User:
        if changes.password_hash is not None:
            check_password_hash(changes.password_hash)
        before = await self._existing(username)
        # What is stored already may be as it is: nothing must keep an account from being disabled.
        if changes.server_data is not None or changes.client_data is not None:
            self.check(with_data(before, server_data=changes.server_data, client_data=changes.client_data))
        async with self._sessions.transaction():
            user = await self._users.update(username, changes)
            await self._audit.record(*_changes_of(user, changes))
            if changes.disabled:
                await self._sessions.end_all(user.username, reason="disabled")
            elif changes.password_hash is not None:
                await self._sessions.end_all(user.username, reason="password_changed", keep=keep)
            await self._sessions.announce(user)
        return user

    def _failure(self, user: User | None, reason: str) -> AuthenticationError:
        """Note a failed login, and return the error; the reason is not for whoever tries."""
        self._note("login.failed", user, reason)
        return AuthenticationError("the username or the password is not right")

    def _note(self, event: Event, user: User | None, detail: str) -> None:
        self._audit.note(AuditEntry(event=event, username=None if user is None else user.username, detail=detail))

    async def _rehash(self, user: User, password: str, patience: "_Patience") -> None:
        # A legacy hash can be of a password that bcrypt cannot take; it stays.
        if not can_be_hashed(password):
            return
        new = await self._passwords.hash(password)
        # A store that is managed elsewhere keeps the hash it has.
        with contextlib.suppress(ReadOnlyUserStoreError):
            async with patience.limit():
                await self._users.rehash(user.username, old=user.password_hash, new=new)

    async def _new_hash(self, username: str, password: str) -> str:
        check_password(password, username=username, min_length=self._min_password_length)
        return await self._passwords.hash(password)

    async def _existing(self, username: str) -> User:
        user = await self._users.get(username)
        if user is None:
            raise UserNotFoundError(f"there is no user {username!a}")
        return user


def _why_not(user: User | None, *, is_right: bool) -> str:
    if user is None:
        return "unknown name"
    if is_right:
        return "account disabled"
    return "wrong password" if is_password_hash(user.password_hash) else "unusable password hash"


def _has_new_password(before: User, now: User) -> bool:
    """True if the password was changed in between; a re-hash of the same one leaves the version alone."""
    return before.version != now.version and before.password_hash != now.password_hash


def _changes_of(user: User, changes: UserChanges) -> Iterator[AuditEntry]:
    """Yield what is to be audited of *changes*, after which *user* is as it is."""
    if changes.password_hash is not None:
        yield AuditEntry(event="password.changed", username=user.username)
    if changes.disabled is not None:
        yield AuditEntry(event="user.disabled" if changes.disabled else "user.enabled", username=user.username)
    changed = [name for name in ("server_data", "client_data") if getattr(changes, name) is not None]
    if changed:
        detail = ", ".join(changed) + (f"; {roles}" if (roles := _roles(user)) else "")
        yield AuditEntry(event="user.changed", username=user.username, detail=detail)


def _roles(user: User) -> str:
    """Return the roles of *user* as text; other data can be anything, so they are not written down."""
    roles = user.server_data.get("roles")
    return f"roles: {', '.join(map(str, roles))}" if isinstance(roles, list) else ""


class _Patience:
    """How long one login may wait for the database, all in all; hashing takes the time it takes."""

    def __init__(self) -> None:
        self._left = PATIENCE_SECONDS

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """The body has what is left."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(self._left):
                yield
        except TimeoutError as exc:
            raise StorageError("the database is too slow for a login") from exc
        finally:
            self._left -= loop.time() - started


class _Crowd:
    """The attempts in this process that count in one place: an account, a device or an address."""

    def __init__(self) -> None:
        self.ended = 0
        self.under_way: set[asyncio.Future[None]] = set()

    @contextmanager
    def note(self) -> Iterator[None]:
        """A counted attempt is under way meanwhile."""
        future = asyncio.get_running_loop().create_future()
        self.under_way.add(future)
        try:
            yield
        finally:
            self.under_way.discard(future)
            self.ended += 1
            future.set_result(None)

"""Users, sessions and the change feed in SQLite or PostgreSQL."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from tornado_ds.errors import UserExistsError, UserNotFoundError
from tornado_ds.sessions import Session
from tornado_ds.snapshot import SessionEvent
from tornado_ds.storage.database import Database
from tornado_ds.storage.models import session_events, sessions, users
from tornado_ds.users import User, UserChanges, username_key

# Both databases limit how many values one statement can carry (some 32 000).
_CHUNK = 1000

# Made once: to put a statement together takes longer than to run it, and every login needs these.
_USER = select(users).where(users.c.username_key == bindparam("of_key"))
_LOCKED_USER = _USER.with_for_update(read=True)
_ADD_SESSION = insert(sessions)

_Item = TypeVar("_Item")


class SQLAlchemyUserStore:
    """The built-in user store. A user that is read inside a transaction stays as it is until the end of that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, username: str) -> User | None:
        query = _LOCKED_USER if self._database.is_in_transaction else _USER
        async with self._database.read() as connection:
            row = (await connection.execute(query, {"of_key": username_key(username)})).one_or_none()
        return None if row is None else _user(row)

    async def get_many(self, usernames: Collection[str]) -> dict[str, User]:
        keys = {name: username_key(name) for name in usernames}
        found: dict[str, User] = {}
        async with self._database.read() as connection:
            for chunk in _chunks(sorted(set(keys.values()))):
                rows = await connection.execute(select(users).where(users.c.username_key.in_(chunk)))
                found.update((row.username_key, _user(row)) for row in rows)
        return {name: found[key] for name, key in keys.items() if key in found}

    async def list(self, *, after: str | None = None, limit: int = 100) -> Sequence[User]:
        query = select(users).order_by(users.c.username_key).limit(limit)
        if after is not None:
            query = query.where(users.c.username_key > username_key(after))
        async with self._database.read() as connection:
            return [_user(row) for row in await connection.execute(query)]

    async def add(self, users: Sequence[User]) -> None:
        async with self._database.transaction():
            for chunk in _chunks(users):
                await self._add_chunk(chunk)

    async def update(self, username: str, changes: UserChanges) -> User:
        values = {
            "password_hash": changes.password_hash,
            "server_data": changes.server_data,
            "client_data": changes.client_data,
        }
        set_values: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if changes.disabled is not None:
            set_values["disabled_at"] = func.coalesce(users.c.disabled_at, _now()) if changes.disabled else None
        statement = (
            update(users)
            .where(users.c.username_key == username_key(username))
            .values(**set_values, version=users.c.version + 1, updated_at=_now())
            .returning(*users.c)
        )
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return _found(row, username)

    async def rehash(self, username: str, *, old: str, new: str) -> None:
        statement = (
            update(users)
            .where(users.c.username_key == username_key(username), users.c.password_hash == old)
            .values(password_hash=new)
        )
        async with self._database.transaction() as connection:
            await connection.execute(statement)

    async def remove(self, username: str) -> User:
        statement = delete(users).where(users.c.username_key == username_key(username)).returning(*users.c)
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return _found(row, username)

    async def _add_chunk(self, chunk: Sequence[User]) -> None:
        names = [user.username for user in chunk]
        taken = await self.get_many(names)
        if taken:
            raise UserExistsError(f"there is a user {next(iter(taken.values())).username!a} already")
        versions = await self._last_versions(names)
        rows = [_values(user, version=versions.get(user.username, 0) + 1) for user in chunk]
        async with self._database.transaction() as connection:
            try:
                await connection.execute(insert(users), rows)
            except IntegrityError as exc:
                raise UserExistsError("a user of the same name is there already, or is added at this moment") from exc

    async def _last_versions(self, names: Collection[str]) -> dict[str, int]:
        """Return the versions that the feed knows of users of these names who were removed."""
        query = (
            select(session_events.c.username, func.max(session_events.c.version))
            .where(session_events.c.username.in_(names), session_events.c.version.is_not(None))
            .group_by(session_events.c.username)
        )
        async with self._database.read() as connection:
            return dict((await connection.execute(query)).all())


class SQLSessionStore:
    """Sessions, and the feed that says what happened to them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        return self._database.transaction()

    async def add(self, session: Session) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_ADD_SESSION, _session_values(session))

    async def get(self, sid: str) -> Session | None:
        query = select(sessions).where(sessions.c.sid == sid)
        if self._database.is_in_transaction:
            query = query.with_for_update()
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Session(**row._mapping)

    async def list(
        self, *, username: str | None = None, live_at: int | None = None, limit: int | None = None
    ) -> Sequence[Session]:
        query = select(sessions).order_by(sessions.c.created_at.desc(), sessions.c.sid).limit(limit)
        if username is not None:
            query = query.where(sessions.c.username == username)
        if live_at is not None:
            query = query.where(*_is_live(live_at))
        async with self._database.read() as connection:
            return [Session(**row._mapping) for row in await connection.execute(query)]

    async def count(self, *, live_at: int) -> int:
        query = select(func.count()).select_from(sessions).where(*_is_live(live_at))
        async with self._database.read() as connection:
            return await connection.scalar(query) or 0

    async def renew(self, sid: str, *, renewed_at: int, token_expires_at: int) -> None:
        statement = (
            update(sessions)
            .where(sessions.c.sid == sid)
            .values(renewed_at=renewed_at, token_expires_at=token_expires_at)
        )
        async with self._database.transaction() as connection:
            await connection.execute(statement)

    async def end(
        self, *, at: int, reason: str, sid: str | None = None, username: str | None = None, keep: str | None = None
    ) -> Sequence[Session]:
        statement = update(sessions).where(*_is_live(at)).values(ended_at=at, end_reason=reason)
        if sid is not None:
            statement = statement.where(sessions.c.sid == sid)
        if username is not None:
            statement = statement.where(sessions.c.username == username)
        if keep is not None:
            statement = statement.where(sessions.c.sid != keep)
        async with self._database.transaction() as connection:
            return [Session(**row._mapping) for row in await connection.execute(statement.returning(*sessions.c))]

    async def last_expiry(self, username: str) -> int | None:
        query = select(func.max(sessions.c.token_expires_at)).where(sessions.c.username == username)
        async with self._database.read() as connection:
            expiry: int | None = await connection.scalar(query)
        return expiry

    async def record(self, events: Sequence[SessionEvent]) -> Sequence[SessionEvent]:
        if not events:
            return []
        # Sorted here: asked to keep the order, SQLAlchemy gives SQLite one row at a time.
        statement = insert(session_events).returning(*session_events.c)
        async with self._database.transaction() as connection:
            rows = await connection.execute(statement, [_event_values(event) for event in events])
            return sorted((_event(row) for row in rows), key=lambda event: event.seq)

    async def events(
        self, *, after: int, also: Collection[int] = (), alive_at: int | None = None, limit: int | None = None
    ) -> Sequence[SessionEvent]:
        is_new: ColumnElement[bool] = session_events.c.seq > after
        query = select(session_events).order_by(session_events.c.seq).limit(limit)
        query = query.where(or_(is_new, session_events.c.seq.in_(also)) if also else is_new)
        if alive_at is not None:
            query = query.where(session_events.c.expires_at > alive_at)
        async with self._database.read() as connection:
            return [_event(row) for row in await connection.execute(query)]

    async def kept_events(self) -> tuple[int, int]:
        query = select(func.min(session_events.c.seq), func.max(session_events.c.seq))
        async with self._database.read() as connection:
            first, last = (await connection.execute(query)).one()
        return first or 0, last or 0

    async def position_at(self, moment: int) -> int:
        query = select(func.min(session_events.c.seq)).where(session_events.c.created_at >= moment)
        async with self._database.read() as connection:
            first = await connection.scalar(query)
        return first - 1 if first else (await self.kept_events())[1]

    async def prune(self, *, events_before: int, sessions_before: int, limit: int) -> int:
        newest = select(func.max(session_events.c.seq)).scalar_subquery()
        old_events = (
            select(session_events.c.seq)
            .where(session_events.c.expires_at < events_before, session_events.c.seq < newest)
            .limit(limit)
        )
        old_sessions = select(sessions.c.sid).where(sessions.c.token_expires_at < sessions_before).limit(limit)
        async with self._database.transaction() as connection:
            events = await connection.execute(delete(session_events).where(session_events.c.seq.in_(old_events)))
            over = await connection.execute(delete(sessions).where(sessions.c.sid.in_(old_sessions)))
        return events.rowcount + over.rowcount


def _is_live(at: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return sessions.c.ended_at.is_(None), sessions.c.token_expires_at > at


def _user(row: Row[Any]) -> User:
    return User(**{name: value for name, value in row._mapping.items() if name != "username_key"})


def _found(row: Row[Any] | None, username: str) -> User:
    if row is None:
        raise UserNotFoundError(f"there is no user {username!a}")
    return _user(row)


def _values(user: User, *, version: int) -> dict[str, Any]:
    now = _now()
    return {
        "username_key": username_key(user.username),
        "username": user.username,
        "password_hash": user.password_hash,
        "server_data": dict(user.server_data),
        "client_data": dict(user.client_data),
        "version": version,
        "disabled_at": user.disabled_at,
        "created_at": user.created_at or now,
        "updated_at": user.updated_at or now,
    }


def _session_values(session: Session) -> dict[str, Any]:
    return {column.name: getattr(session, column.name) for column in sessions.c}


def _event_values(event: SessionEvent) -> dict[str, Any]:
    return {column.name: getattr(event, column.name) for column in session_events.c if column.name != "seq"}


def _event(row: Row[Any]) -> SessionEvent:
    return SessionEvent(**row._mapping)


def _chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _now() -> int:
    return int(time.time())

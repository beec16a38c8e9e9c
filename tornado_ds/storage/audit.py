"""The audit trail in SQLite or PostgreSQL."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select

from tornado_ds.audit import AuditEntry, Event
from tornado_ds.storage.database import Database
from tornado_ds.storage.models import audit

_columns = audit.c
# Not by the number alone: failed logins that are noted together come later than what they are from.
_NEWEST = (_columns.created_at.desc(), _columns.id.desc())
_ENTRY = [column for column in _columns if column.name != "id"]


class SQLAuditStore:
    """Entries of all servers on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        return self._database.transaction()

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        if not entries:
            return
        async with self._database.transaction() as connection:
            await connection.execute(insert(audit), [asdict(entry) for entry in entries])

    async def list(
        self, *, username: str | None = None, since: int = 0, events: Collection[Event] = (), limit: int
    ) -> Sequence[AuditEntry]:
        query = select(*_ENTRY).where(_columns.created_at >= since).order_by(*_NEWEST).limit(limit)
        if username is not None:
            query = query.where(_columns.username == username)
        if events:
            query = query.where(_columns.event.in_(events))
        async with self._database.read() as connection:
            return [AuditEntry(**row._mapping) for row in await connection.execute(query)]

    async def prune(self, *, before: int, events: Collection[Event], keep: int, limit: int) -> int:
        pruned = await self._delete(_columns.created_at < before, _columns.created_at, limit)
        if pruned:
            return pruned
        # Counted outside of a transaction, for which others would have to wait.
        of_events = _columns.event.in_(events)
        async with self._database.read() as connection:
            number = await connection.scalar(select(func.count()).select_from(audit).where(of_events)) or 0
        return await self._delete(of_events, _columns.id, min(limit, number - keep)) if number > keep else 0

    async def _delete(self, which: ColumnElement[bool], order: ColumnElement[int], limit: int) -> int:
        oldest = select(_columns.id).where(which).order_by(order).limit(limit)
        async with self._database.transaction() as connection:
            return (await connection.execute(delete(audit).where(_columns.id.in_(oldest)))).rowcount

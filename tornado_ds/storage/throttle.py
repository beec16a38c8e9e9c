"""Failed logins in SQLite or PostgreSQL."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tornado_ds.storage.database import Database
from tornado_ds.storage.models import throttle_buckets
from tornado_ds.throttle import Bucket

_columns = throttle_buckets.c

_NAMES = [column.name for column in _columns]

# Made once: to put a statement together takes longer than to run it, and every login needs these.
_UPDATE = update(throttle_buckets).where(_columns.key == bindparam("of_key"))
_UPDATE = _UPDATE.values({column: bindparam(column.name) for column in _columns if not column.primary_key})
_DELETE = delete(throttle_buckets).where(_columns.key.in_(bindparam("of_keys", expanding=True)))


class SQLThrottleStore:
    """Buckets that all servers on one database share."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        return self._database.transaction()

    async def take(self, buckets: Sequence[Bucket]) -> Sequence[Bucket]:
        # An insert that meets a row updates and so locks it; one that meets the
        # insert of another transaction waits for the end of that. To read first
        # and then write would let attempts on a new name pass side by side.
        async with self._database.transaction() as connection:
            rows = await connection.execute(_upsert(connection.dialect.name), [_values(bucket) for bucket in buckets])
            taken = {row.key: Bucket(**row._mapping) for row in rows}
        return [taken[bucket.key] for bucket in buckets]

    async def put(self, buckets: Sequence[Bucket]) -> None:
        async with self._database.transaction() as connection:
            if kept := [_values(bucket) for bucket in buckets if bucket.failures]:
                await connection.execute(_UPDATE, [{"of_key": values.pop("key"), **values} for values in kept])
            if forgotten := [bucket.key for bucket in buckets if not bucket.failures]:
                await connection.execute(_DELETE, {"of_keys": forgotten})

    async def list(self, *, limit: int) -> Sequence[Bucket]:
        order = (_columns.blocked_until.desc(), _columns.failures.desc(), _columns.key)
        async with self._database.read() as connection:
            rows = await connection.execute(select(throttle_buckets).order_by(*order).limit(limit))
            return [Bucket(**row._mapping) for row in rows]

    async def clear(self, key: str | None = None) -> int:
        statement = delete(throttle_buckets)
        if key is not None:
            statement = statement.where(or_(_columns.key == key, _columns.key.startswith(f"{key}/", autoescape=True)))
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).rowcount

    async def prune(self, *, expired_at: int, keep: int, limit: int) -> int:
        expired = select(_columns.key).where(_columns.expires_at <= expired_at)
        async with self._database.transaction() as connection:
            pruned = await _delete(connection, expired.limit(limit))
            if pruned:
                return pruned
            number = await connection.scalar(select(func.count()).select_from(throttle_buckets)) or 0
            if number <= keep:
                return 0
            least = select(_columns.key).order_by(_columns.failures, _columns.expires_at)
            return await _delete(connection, least.limit(min(limit, number - keep)))


@cache
def _upsert(dialect: str) -> Any:
    """Return the INSERT that can meet a row, and returns what is stored; only that of the database in use is loaded."""
    insert: Any
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert
    statement = insert(throttle_buckets)
    statement = statement.on_conflict_do_update(
        index_elements=[_columns.key], set_={"username": statement.excluded.username}
    )
    return statement.returning(*_columns)


def _values(bucket: Bucket) -> dict[str, Any]:
    return {name: getattr(bucket, name) for name in _NAMES}


async def _delete(connection: AsyncConnection, keys: Select[tuple[str]]) -> int:
    # Rows that somebody is using are left for the next time: waiting for them
    # could be for ever, if that somebody waits for one of ours.
    locked = (await connection.scalars(keys.with_for_update(skip_locked=True))).all()
    await connection.execute(delete(throttle_buckets).where(_columns.key.in_(locked)))
    return len(locked)

"""The database: is it there, has it our tables, does it agree about the time, is anybody in it."""

from tornado_ds.app import check_not_lost, is_first_start, open_database
from tornado_ds.clock import Clock
from tornado_ds.doctor.clocks import compare_clocks
from tornado_ds.doctor.findings import Finding, ok, warning, wrong
from tornado_ds.errors import SchemaError, StorageError, TornadoDSError
from tornado_ds.settings import Settings
from tornado_ds.storage import schema
from tornado_ds.storage.database import Database
from tornado_ds.storage.sql import SQLAlchemyUserStore

TOPIC = "database"


async def examine_database(settings: Settings, clock: Clock) -> list[Finding]:
    """Return what is to be said of the database; it is only read."""
    if is_first_start(settings) and not settings.sqlite_path.exists():
        return [warning(TOPIC, f"there is no {settings.sqlite_path} yet", "The first start of the server makes it.")]
    try:
        check_not_lost(settings)
    except StorageError as exc:
        return [wrong(TOPIC, str(exc), "With an empty one nobody can log in, and ended sessions count again.")]
    try:
        async with open_database(settings) as database:
            await schema.check_schema(database)
            text = f"reachable, and at revision {schema.head_revision()}"
            return [ok(TOPIC, text), *await _clock(database, clock), *await _users(settings, database)]
    except SchemaError as exc:
        return [wrong(TOPIC, str(exc), "The server does not start with other tables than its own.")]
    except StorageError as exc:
        return [wrong(TOPIC, str(exc), "See that it runs, and that database_url and the rights on it are right.")]
    except TornadoDSError as exc:
        return [wrong(TOPIC, str(exc), "The server does not start before this is put right.")]


async def _clock(database: Database, clock: Clock) -> list[Finding]:
    """Compare with a database that can be on another machine."""
    if database.url.get_backend_name() == "sqlite":
        return []
    return [compare_clocks("the database", await database.now(), clock.now())]


async def _users(settings: Settings, database: Database) -> list[Finding]:
    """Look into our own store; one of somebody else's may take its time to list users, or list none."""
    if settings.user_store != "sqlalchemy" or await SQLAlchemyUserStore(database).list(limit=1):
        return []
    advice = "Add somebody: python -m tornado_ds users add NAME, or seed FILE."
    return [warning("users", "there are none, so nobody can log in", advice)]

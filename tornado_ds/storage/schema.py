"""
Brings a database to the tables of this version, and says whether it has them.

Alembic is imported only where something is to be migrated: to load it takes
longer than a server may take to start.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Connection, column, inspect, select, table

from tornado_ds.errors import SchemaError
from tornado_ds.resources import resource
from tornado_ds.storage.database import Database
from tornado_ds.storage.models import REVISION

if TYPE_CHECKING:
    from alembic.config import Config

# Where Alembic notes which revision a database is at.
_NOTE = table("alembic_version", column("version_num"))


async def upgrade(database: Database, revision: str = "head") -> None:
    """
    Apply the migrations up to *revision*; nothing if there are none to apply.

    Raises:
        SchemaError: The database was made by a newer version.
        StorageError: It cannot be reached.
    """
    from alembic import command

    _refuse_newer(await current_revision(database))
    await _run(database, lambda config: command.upgrade(config, revision))


async def downgrade(database: Database, revision: str) -> None:
    """Undo the migrations behind *revision* (`base` for all); errors as for `upgrade`."""
    from alembic import command

    _refuse_newer(await current_revision(database))
    await _run(database, lambda config: command.downgrade(config, revision))


async def find_drift(database: Database) -> str | None:
    """Return how the tables differ from `tornado_ds.storage.models`, None if they do not."""
    from alembic import command

    try:
        await _run(database, command.check)
    except SchemaError as exc:
        return str(exc)
    return None


async def current_revision(database: Database) -> str | None:
    """Return the revision that the database is at, None if it is empty."""
    async with database.read() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table(_NOTE.name)):
            return None
        revision: str | None = await connection.scalar(select(_NOTE.c.version_num))
    return revision


def head_revision() -> str:
    """Return the revision that this version needs."""
    return REVISION


async def check_schema(database: Database) -> None:
    """
    Accept a database that is at the revision of this version.

    Raises:
        SchemaError: It is not; the text names the command that helps.
    """
    current = await current_revision(database)
    if current == REVISION:
        return
    _refuse_newer(current)
    raise SchemaError(
        f"the database is at revision {current or 'none'}, this version needs {REVISION}:"
        " run `python -m tornado_ds db upgrade`"
    )


def is_newer(revision: str | None) -> bool:
    """True for the *revision* of a database that a newer version has changed."""
    return revision not in {None, REVISION} and revision not in _known_revisions()


def _refuse_newer(revision: str | None) -> None:
    if is_newer(revision):
        raise SchemaError(
            f"the database is at revision {revision}, which only a newer version of tornado_ds knows:"
            " install that version, or restore the backup"
        )


async def _run(database: Database, migrate: "Callable[[Config], None]") -> None:
    from alembic.util import CommandError

    def run(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        migrate(config)

    try:
        async with database.transaction() as connection:
            await connection.run_sync(run)
    except CommandError as exc:
        raise SchemaError(f"the migrations cannot be applied: {exc}") from exc


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> "Config":
    from alembic.config import Config

    # Alembic reports to a person at a terminal; ours is told by the command that called.
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(resource("migrations")).replace("%", "%%"))
    return config

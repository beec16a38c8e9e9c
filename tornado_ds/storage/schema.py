"""Brings a database to the tables of this version, and says whether it has them."""

import io
from collections.abc import Callable

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from tornado_ds.errors import SchemaError
from tornado_ds.resources import resource
from tornado_ds.storage.database import Database


async def upgrade(database: Database, revision: str = "head") -> None:
    """
    Apply the migrations up to *revision*; nothing if there are none to apply.

    Raises:
        SchemaError: The database was made by a newer version.
        StorageError: It cannot be reached.
    """
    await _run(database, lambda config: command.upgrade(config, revision))


async def downgrade(database: Database, revision: str) -> None:
    """Undo the migrations behind *revision* (`base` for all); errors as for `upgrade`."""
    await _run(database, lambda config: command.downgrade(config, revision))


async def find_drift(database: Database) -> str | None:
    """Return how the tables differ from `tornado_ds.storage.models`, None if they do not."""
    try:
        await _run(database, command.check)
    except SchemaError as exc:
        return str(exc)
    return None


async def current_revision(database: Database) -> str | None:
    """Return the revision that the database is at, None if it is empty."""
    async with database.read() as connection:
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def head_revision() -> str | None:
    """Return the revision that this version needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def check_schema(database: Database) -> None:
    """
    Accept a database that is at the revision of this version.

    Raises:
        SchemaError: It is not; the text names the command that helps.
    """
    current, head = await current_revision(database), head_revision()
    if current == head:
        return
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current is not None and current not in known:
        raise SchemaError(f"the database is at revision {current}, which only a newer version of tornado_ds knows")
    raise SchemaError(
        f"the database is at revision {current or 'none'}, this version needs {head}:"
        " run `python -m tornado_ds db upgrade`"
    )


async def _run(database: Database, migrate: Callable[[Config], None]) -> None:
    def run(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        migrate(config)

    try:
        async with database.transaction() as connection:
            await connection.run_sync(run)
    except CommandError as exc:
        raise SchemaError(f"the migrations cannot be applied: {exc}") from exc


def _config() -> Config:
    # Alembic reports to a person at a terminal; ours is told by the command that called.
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(resource("migrations")).replace("%", "%%"))
    return config

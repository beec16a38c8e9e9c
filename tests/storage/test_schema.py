"""Migrations: up, down and up again on both databases, and what is said when the tables do not fit."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, inspect, text
from tornado.ioloop import IOLoop

from tornado_ds.app import open_database, prepare_database
from tornado_ds.errors import SchemaError, StorageError
from tornado_ds.resources import resource
from tornado_ds.settings import Settings
from tornado_ds.storage import schema
from tornado_ds.storage.database import COMMAND_SECONDS, Database, parse_url, sqlite_url
from tornado_ds.storage.sql import SQLAlchemyUserStore

pytestmark = pytest.mark.gen_test(timeout=60)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path, io_loop: IOLoop) -> Iterator[Database]:
    """A database without tables, of either kind."""
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/empty.sqlite3" if is_sqlite else request.getfixturevalue("empty_postgresql_url")
    database = Database(parse_url(url, may_create=True), seconds=COMMAND_SECONDS)
    yield database
    io_loop.run_sync(database.close)


async def test_upgrade_makes_the_tables_of_the_models(empty_database: Database) -> None:
    """What the migrations make is what the code expects, column by column."""
    await schema.upgrade(empty_database)

    assert await schema.find_drift(empty_database) is None
    await schema.check_schema(empty_database)


async def test_find_drift_tells_when_a_table_differs(database: Database) -> None:
    """A column that nobody migrated is found."""
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE sessions ADD COLUMN colour TEXT"))

    drift = await schema.find_drift(database)

    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE sessions DROP COLUMN colour"))
    assert drift is not None
    assert "colour" in drift


async def test_upgrade_changes_nothing_when_it_is_repeated(database: Database) -> None:
    """Applying the migrations to a database that has them is no error."""
    before = await _tables(database)

    await schema.upgrade(database)

    assert await _tables(database) == before


async def test_downgrade_undoes_every_step_of_upgrade(empty_database: Database) -> None:
    """Each migration can be taken back, down to nothing, and applied again."""
    states = [await _tables(empty_database)]
    while await schema.current_revision(empty_database) != schema.head_revision():
        await schema.upgrade(empty_database, "+1")
        states.append(await _tables(empty_database))

    undone = [states[-1]]
    while await schema.current_revision(empty_database) is not None:
        await schema.downgrade(empty_database, "-1")
        undone.append(await _tables(empty_database))
    await schema.upgrade(empty_database)

    assert undone[::-1] == states
    assert await _tables(empty_database) == states[-1]
    assert await schema.find_drift(empty_database) is None


async def test_upgrade_keeps_users_when_the_tables_are_those_of_the_first_version(empty_database: Database) -> None:
    """Whoever could log in before an upgrade can do so after it."""
    await schema.upgrade(empty_database, "0001")
    async with empty_database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO users (username_key, username, password_hash, server_data, client_data,"
                " version, created_at, updated_at) VALUES ('alice', 'Alice', 'hash', '{\"a\": 1}', '{}', 7, 1, 2)"
            )
        )

    await schema.upgrade(empty_database)

    user = await SQLAlchemyUserStore(empty_database).get("ALICE")
    assert user is not None
    assert (user.username, user.server_data, user.version) == ("Alice", {"a": 1}, 7)


async def test_upgrade_is_done_once_when_two_processes_start_together(tmp_path: Path) -> None:
    """Two servers that make the same embedded database do not get into each other's way."""
    databases = [
        Database(sqlite_url(str(tmp_path / "new.sqlite3"), may_create=True), seconds=COMMAND_SECONDS) for _ in range(2)
    ]

    await asyncio.gather(*(schema.upgrade(database) for database in databases))

    for database in databases:
        await schema.check_schema(database)
        await database.close()


async def test_check_schema_names_the_command_when_there_are_no_tables(empty_database: Database) -> None:
    """Whoever runs the server is told what to type."""
    with pytest.raises(SchemaError) as caught:
        await schema.check_schema(empty_database)

    assert str(caught.value) == (
        f"the database is at revision none, this version needs {schema.head_revision()}:"
        " run `python -m tornado_ds db upgrade`"
    )


async def test_check_schema_names_the_command_when_the_tables_are_old(empty_database: Database) -> None:
    """The same for tables of an older version."""
    await schema.upgrade(empty_database, "0001")

    with pytest.raises(SchemaError, match=r"^the database is at revision 0001, .*`python -m tornado_ds db upgrade`$"):
        await schema.check_schema(empty_database)


async def test_newer_tables_are_refused_and_left_alone(database: Database) -> None:
    """A database that a newer version has changed is neither used nor changed by this one."""
    await _set_revision(database, "9999")
    before = await _tables(database)

    messages = []
    for use in (schema.check_schema, schema.upgrade, lambda database: schema.downgrade(database, "0001")):
        with pytest.raises(SchemaError) as caught:
            await use(database)
        messages.append(str(caught.value))

    after = await _tables(database)
    await _set_revision(database, schema.head_revision())
    assert after == before
    assert (
        3
        * [
            "the database is at revision 9999, which only a newer version of tornado_ds knows:"
            " install that version, or restore the backup"
        ]
        == messages
    )


async def test_prepare_database_makes_the_embedded_one(settings: Settings) -> None:
    """With no configuration at all, the database is there after the first start, for its owner alone."""
    await prepare_database(settings)

    assert settings.sqlite_path.stat().st_size > 0
    assert settings.data_dir.stat().st_mode & 0o077 == 0


async def test_prepare_database_makes_a_file_for_its_owner_when_the_folder_is_open_to_all(settings: Settings) -> None:
    """Neither the database nor what SQLite puts beside it is for others to read, whatever folder was there before."""
    settings.data_dir.mkdir()
    settings.data_dir.chmod(0o755)

    await prepare_database(settings)
    async with open_database(settings) as database, database.transaction():
        modes = {file.name: file.stat().st_mode & 0o777 for file in settings.data_dir.iterdir()}

    name = settings.sqlite_path.name
    assert dict.fromkeys([name, f"{name}-wal", f"{name}-shm"], 0o600) == modes
    assert settings.data_dir.stat().st_mode & 0o777 == 0o755


async def test_prepare_database_leaves_the_mode_of_a_file_alone(settings: Settings) -> None:
    """Somebody who lets a group read the database, say for backups, goes on doing so."""
    settings.data_dir.mkdir()
    settings.sqlite_path.touch()
    settings.sqlite_path.chmod(0o640)

    await prepare_database(settings)

    assert settings.sqlite_path.stat().st_mode & 0o777 == 0o640


async def test_prepare_database_refuses_a_missing_sqlite_file_when_it_is_not_the_embedded_one(
    settings: Settings, tmp_path: Path
) -> None:
    """A file that the configuration names is not made by starting."""
    url = SecretStr(f"sqlite:///{tmp_path}/mine.sqlite3")

    with pytest.raises(StorageError):
        await prepare_database(settings.model_copy(update={"database_url": url}))

    assert "mine.sqlite3" not in os.listdir(tmp_path)  # noqa: PTH208


async def _tables(database: Database) -> dict[str, list[str]]:
    """Return all tables with their columns and indexes, as text that can be compared."""

    def describe(connection: Connection) -> dict[str, list[str]]:
        inspector = inspect(connection)
        return {
            table: [
                *(
                    f"{column['name']} {column['type']!r} {column['nullable']}"
                    for column in inspector.get_columns(table)
                ),
                *sorted(f"{index['name']} {index['column_names']}" for index in inspector.get_indexes(table)),
                str(inspector.get_pk_constraint(table)),
            ]
            for table in inspector.get_table_names()
            if table != "alembic_version"
        }

    async with database.read() as connection:
        return await connection.run_sync(describe)


async def _set_revision(database: Database, revision: str | None) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def test_models_name_the_newest_migration() -> None:
    """The revision that the code needs is the last one that the migrations lead to."""
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")))

    assert [schema.head_revision()] == ScriptDirectory.from_config(config).get_heads()

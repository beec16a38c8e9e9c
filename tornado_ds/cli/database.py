"""`db`: the tables."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import structlog
import typer

from tornado_ds.app import check_not_lost, is_first_start, open_database
from tornado_ds.audit import Audit, AuditEntry, acting_as
from tornado_ds.cli.common import ask, check_installed, current_settings, operator
from tornado_ds.clock import SystemClock
from tornado_ds.logs import configure_logging
from tornado_ds.settings import Settings, make_data_dir
from tornado_ds.storage import schema
from tornado_ds.storage.audit import SQLAuditStore
from tornado_ds.storage.database import COMMAND_SECONDS, Database

app = typer.Typer(no_args_is_help=True, help="Look after the database's tables.")

log = structlog.get_logger("audit")

_Result = TypeVar("_Result")


@app.command()
def upgrade() -> None:
    """
    Bring the database to the tables of this version; an SQLite file that is not there is made, with nobody in it.

    Example: python -m tornado_ds db upgrade
    """
    _with_database(_upgrade, may_create=True)
    typer.echo(f"The database is at revision {schema.head_revision()}.")


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="The revision to go back to; `base` removes all tables.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """
    Take the database back to an older revision. Data that only newer tables hold are lost.

    Example: python -m tornado_ds db downgrade 0001 --yes
    """
    if not yes:
        ask(f"Take the database back to {revision}, and lose what newer tables hold?")
    _with_database(lambda settings, database: _downgrade(database, revision))
    typer.echo(f"The database is at revision {revision}.")


@app.command()
def current() -> None:
    """
    Say which revision the database is at, and which one this version needs.

    Example: python -m tornado_ds db current
    """
    revision = _with_database(lambda settings, database: schema.current_revision(database))
    newer = ", which only a newer version knows" if schema.is_newer(revision) else ""
    typer.echo(f"The database is at revision {revision or 'none'}{newer}; this version needs {schema.head_revision()}.")


async def _upgrade(settings: Settings, database: Database) -> None:
    audit = Audit(SQLAuditStore(database), clock=SystemClock(), keep=settings.audit.keep)
    async with audit.transaction():
        before, after = await schema.current_revision(database), schema.head_revision()
        await schema.upgrade(database)
        if before != after:
            await audit.record(AuditEntry(event="database.upgraded", detail=f"{before or 'none'} to {after}"))


async def _downgrade(database: Database, revision: str) -> None:
    before = await schema.current_revision(database)
    await schema.downgrade(database, revision)
    after = await schema.current_revision(database)
    if before != after:
        # No entry in the trail, which may be among what is gone.
        log.warning("database.downgraded", actor=operator().name, detail=f"{before} to {after or 'none'}")


def _with_database(action: Callable[[Settings, Database], Awaitable[_Result]], *, may_create: bool = False) -> _Result:
    async def run() -> _Result:
        settings = current_settings()
        configure_logging(settings.log_format, level="warning")
        if settings.uses_embedded_database and not may_create:
            check_installed(settings)
            check_not_lost(settings)
        make_data_dir(settings)
        may_make = may_create or is_first_start(settings)
        async with open_database(settings, seconds=COMMAND_SECONDS, may_create=may_make) as database:
            with acting_as(operator()):
                return await action(settings, database)

    return asyncio.run(run())

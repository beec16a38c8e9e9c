"""`db`: the tables."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from tornado_ds.app import check_not_lost, is_first_start, open_database
from tornado_ds.cli.common import current_settings
from tornado_ds.settings import make_data_dir
from tornado_ds.storage import schema
from tornado_ds.storage.database import COMMAND_SECONDS, Database

app = typer.Typer(no_args_is_help=True, help="Look after the database's tables.")

_Result = TypeVar("_Result")


@app.command()
def upgrade() -> None:
    """
    Bring the database to the tables of this version; an SQLite file that is not there is made, with nobody in it.

    Example: python -m tornado_ds db upgrade
    """
    _with_database(schema.upgrade, may_create=True)
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
        typer.confirm(f"Take the database back to {revision}, and lose what newer tables hold?", abort=True)
    _with_database(lambda database: schema.downgrade(database, revision))
    typer.echo(f"The database is at revision {revision}.")


@app.command()
def current() -> None:
    """
    Say which revision the database is at, and which one this version needs.

    Example: python -m tornado_ds db current
    """
    revision = _with_database(schema.current_revision)
    typer.echo(f"The database is at revision {revision or 'none'}; this version needs {schema.head_revision()}.")


def _with_database(action: Callable[[Database], Awaitable[_Result]], *, may_create: bool = False) -> _Result:
    async def run() -> _Result:
        settings = current_settings()
        make_data_dir(settings)
        if not may_create:
            check_not_lost(settings)
        may_make = may_create or is_first_start(settings)
        async with open_database(settings, seconds=COMMAND_SECONDS, may_create=may_make) as database:
            return await action(database)

    return asyncio.run(run())

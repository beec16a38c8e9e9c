"""What all commands share: settings, services, and how they print."""

import asyncio
import json
import os
import pwd
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console, ConsoleDimensions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tornado_ds.app import has_database, missing_files, open_services, prepare_database
from tornado_ds.audit import Actor, acting_as
from tornado_ds.errors import StorageError, TornadoDSError
from tornado_ds.logs import configure_logging
from tornado_ds.services import Services
from tornado_ds.settings import MAX_DURATION, Settings, load_settings, parse_duration
from tornado_ds.storage.database import COMMAND_SECONDS
from tornado_ds.users import is_username

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

_Result = TypeVar("_Result")

# Wider than any table of ours.
_NO_WIDTH = 1_000_000

# The file that `--config` named.
config_file: ContextVar[Path | None] = ContextVar("config_file", default=None)


def current_settings() -> Settings:
    """Return the settings, from the file that `--config` named if it did."""
    return load_settings(config_file.get())


def with_services(action: Callable[[Services], Awaitable[_Result]], *, may_create: bool = False) -> _Result:
    """
    Run *action* with all services over the database of the settings, and return its result.

    Works whether or not a server is running; running ones follow by the feed. Where there is
    no installation yet the command ends, unless it *may_create* one.
    """

    async def run() -> _Result:
        settings = current_settings()
        if settings.uses_embedded_database and not may_create:
            check_installed(settings)
            check_complete(settings)
        configure_logging(settings.log_format, level="warning")
        await prepare_database(settings)
        async with open_services(settings, seconds=COMMAND_SECONDS) as services:
            with acting_as(operator()):
                return await action(services)

    return asyncio.run(run())


def check_installed(settings: Settings) -> None:
    """End the command where there is no data_dir: in another folder it would answer for an installation of nobody."""
    try:
        settings.data_dir.stat()
    except (FileNotFoundError, NotADirectoryError):
        fail(
            f"there is no data_dir {settings.data_dir}: run this where the server runs, or name its file with --config"
        )
    except OSError:
        # Whoever opens it says better what is wrong with it.
        return


def check_complete(settings: Settings) -> None:
    """End the command where the database has lost its keys or secret: others that it made, no running server knows."""
    for file in missing_files(settings) if has_database(settings) else ():
        fail_without(file)


def fail_without(file: Path) -> NoReturn:
    """End the command because *file*, which only a start may make, is not there."""
    fail(f"there is no {file}: restore it (docs/backup-and-upgrade.md); a start of the server makes another one")


def operator() -> Actor:
    """Return whoever runs this process, as the audit trail names them."""
    return Actor(name=f"operator:{_login_name()}")


def with_users(action: Callable[[Services], Awaitable[_Result]], *, may_create: bool = False) -> _Result:
    """Do the same with an *action* on users; where no command reaches them, the command ends."""
    if current_settings().user_store == "memory":
        fail("user_store: the users of `memory` are within the server's process, and no command reaches them")
    return with_services(action, may_create=may_create)


async def check_known(services: Services, name: str) -> None:
    """End the command if there is no user *name*, nor any session that such a user has left: it is mistyped."""
    if await services.sessions.list(name, include_ended=True):
        return
    # Where nobody can tell, the name may well be right.
    if services.settings.user_store == "memory":
        return
    try:
        is_there = is_username(name) and await services.users.get(name) is not None
    except StorageError:
        return
    if not is_there:
        fail(f"there is no user {name!a}")


async def stored_name(services: Services, name: str | None) -> str | None:
    """
    Return *name* as the user store spells it, and as sessions are noted; that of nobody there as it is.

    It is taken as it is typed, too, while a store of somebody else is down: what
    is in our own database must be within reach just then.
    """
    if name is None or not is_username(name):
        return name
    try:
        user = await services.users.get(name)
    except StorageError as exc:
        warning = f"warning: {exc}: {name!a} is taken as it is typed, so type it as `sessions list` shows it"
        typer.echo(visible(warning), err=True)
        return name
    return name if user is None else user.username


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print *rows* as a table of *columns*, or all they hold as a JSON array."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        typer.echo("There are none.")
        return
    cells = {column: [_cell(row[column]) for row in rows] for column in columns}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, texts in cells.items():
        header = column.replace("_", " ")
        # What has no blank is one thing to copy, such as an id or a time.
        is_whole = not any(" " in text.plain for text in texts)
        table.add_column(header, overflow="fold", no_wrap=is_whole, min_width=len(header))
    for row_of_cells in zip(*cells.values(), strict=True):
        table.add_row(*row_of_cells)
    print_table(table)


def print_table(table: Table) -> None:
    """Print *table* as wide as the terminal, or as its longest words need; where it is piped, never wrapped."""
    console = Console()
    least, most = Measurement.get(console, console.options.update(max_width=_NO_WIDTH), table)
    # The size as a whole: rich takes a width alone for nothing on terminals that it does not know.
    width = max(console.width, least) if sys.stdout.isatty() else most
    console.size = ConsoleDimensions(width, console.height)
    console.print(table)


def print_json(value: object) -> None:
    """Print *value* as JSON."""
    typer.echo(
        "\n".join(visible(line, _json_escape) for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"))
    )


def arguments_for(*words: str) -> list[str]:
    """Return the arguments with which Python runs the command *words* with the settings of this one."""
    file = config_file.get()
    named = [] if file is None else ["--config", str(file)]
    return ["-m", "tornado_ds", *named, *words]


def fail(message: str) -> NoReturn:
    """End the command with *message* as its one line on stderr."""
    raise TornadoDSError(message)


def ask(question: str) -> None:
    """Ask *question* at the terminal; anything but a yes ends the command."""
    if not sys.stdin.isatty():
        fail("there is no terminal to ask whether you are sure: say --yes")
    typer.confirm(visible(question), abort=True, err=True)


def seconds_of(duration: str, *, least: int = 1) -> int:
    """Return the seconds of a duration such as 90d; a command with another one ends."""
    seconds = parse_duration(duration)
    if not isinstance(seconds, int) or seconds < least:
        fail(f"{duration!a} is no time; write 90d, 12h, 30m or 45s")
    if seconds > MAX_DURATION:
        fail(f"{duration!a} is too long; {MAX_DURATION // 86400}d is the longest")
    return seconds


def visible(text: str, escape: Callable[[str], str] = lambda character: ascii(character)[1:-1]) -> str:
    """Return *text* with everything escaped that a terminal would obey instead of showing it, or that it has not."""
    if text.isprintable() and _can_be_written(text):
        return text
    return "".join(c if c.isprintable() and _can_be_written(c) else escape(c) for c in text)


def _login_name() -> str:
    """Return the name of whoever runs this process; the number, where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _can_be_written(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def _cell(value: object) -> Text:
    # Text, because in a plain string rich takes [square brackets] for its markup.
    if value is None:
        return Text("")
    return Text(visible(json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)))

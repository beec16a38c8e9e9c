"""`keys`: what tokens are signed with, and the change of it."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tornado_ds.app import is_first_start, prepare_database
from tornado_ds.audit import AuditEntry
from tornado_ds.cli.common import (
    JsonOption,
    check_installed,
    current_settings,
    fail,
    print_json,
    print_rows,
    seconds_of,
    with_services,
)
from tornado_ds.clock import SystemClock, iso
from tornado_ds.errors import TornadoDSError
from tornado_ds.key_file import add_key, check_retirement, read_keys, retire_key
from tornado_ds.keys import Key, KeyRing
from tornado_ds.seed import CHUNK, TURN_SECONDS
from tornado_ds.services import Services
from tornado_ds.sessions import Session
from tornado_ds.settings import Settings

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Show, rotate and retire the keys that sign tokens.")

_COLUMNS = ["kid", "algorithm", "state", "created_at", "signs_from", "retired_at"]


@app.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """
    Show the keys, oldest first, but nothing that is secret about them.

    One is signing; those that are verifying have signed before; the next one
    will sign; unused ones are for another token.algorithm; retired ones are
    good for nothing.

    Example: python -m tornado_ds keys list
    """
    settings = current_settings()
    check_installed(settings)
    rows = _rows(settings)
    if rows or as_json:
        print_rows(rows, _COLUMNS, as_json=as_json)
    else:
        typer.echo("There are no keys: a start of the server makes one.")


@app.command()
def rotate(
    after: Annotated[
        str, typer.Option(metavar="TIME", help="When it begins to sign: all nodes must have the file by then.")
    ] = "10s",
    as_json: JsonOption = False,
) -> None:
    """
    Add a key that signs from in a moment on; nobody is logged out.

    Servers that run notice it by themselves. Where the key file is copied to
    other nodes, or lies on a network file system, give it longer.

    Example: python -m tornado_ds keys rotate --after 10m
    """
    settings, delay = current_settings(), seconds_of(after, least=0)
    if is_first_start(settings):
        # Beside the key, a database that is not there would count as lost.
        asyncio.run(prepare_database(settings))
    key = add_key(settings.key_file, settings.token.algorithm, now=_now(), delay=delay)
    _audit(AuditEntry(event="key.rotated", detail=key.kid))
    if as_json:
        print_json(_row_of(settings, key.kid))
        return
    typer.echo(f"The key {key.kid} signs from {iso(key.signs_from)} on.")
    typer.echo("Tokens of older keys stay good until `keys retire`.")


@app.command()
def retire(
    kid: Annotated[str, typer.Argument(metavar="KID", help="The key, as `keys list` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Retire a key for good: tokens that it signed are refused, and their sessions end.

    Asks first if there are any. Once the last of them has run out or was
    renewed, nobody notices.

    Example: python -m tornado_ds keys retire 0f1e2d3c4b5a6978
    """
    settings = current_settings()
    check_installed(settings)
    key = check_retirement(settings.key_file, kid, settings.token.algorithm, now=_now())
    if not yes and (sessions := with_services(lambda services: _signed_by(key, services))):
        _ask(key, sessions)

    async def run(services: Services) -> int:
        # First the sessions, which no token of this key prolongs any more: what is cut short can be repeated.
        sessions = await _signed_by(key, services)
        await _end(sessions, services)
        async with services.audit.transaction():
            await services.audit.record(AuditEntry(event="key.retired", detail=kid))
            retire_key(settings.key_file, kid, settings.token.algorithm, now=_now())
        return len(sessions)

    ended = with_services(run)
    if as_json:
        print_json({**_row_of(settings, kid), "ended": ended})
    else:
        typer.echo(f"The key {kid} is retired; {_counted(ended)} ended.")


def _audit(entry: AuditEntry) -> None:
    # A key that leaked must be replaced whether or not the database is there.
    try:
        with_services(lambda services: services.audit.record(entry), may_create=True)
    except TornadoDSError as exc:
        typer.echo(f"warning: this is not in the audit trail: {exc}", err=True)


async def _signed_by(key: Key, services: Services) -> Sequence[Session]:
    """Return the live sessions whose newest token was signed by *key*."""
    keys = services.tokens.keys
    until = keys.signs_until(key) if key in keys.keys else None
    if until is None:
        return []
    return [session for session in await services.sessions.list() if key.signs_from <= session.renewed_at < until]


async def _end(sessions: Sequence[Session], services: Services) -> None:
    for start in range(0, len(sessions), CHUNK):
        async with services.sessions.transaction():
            for session in sessions[start : start + CHUNK]:
                await services.sessions.end(session.sid, reason="ended_by_operator")
        await asyncio.sleep(TURN_SECONDS)


def _ask(key: Key, sessions: Sequence[Session]) -> None:
    last = iso(max(session.token_expires_at for session in sessions))
    warning = f"{_counted(len(sessions))} with a token of the key {key.kid} would end; after {last} it is safe"
    if not sys.stdin.isatty():
        fail(f"{warning}: wait, or say --yes")
    typer.echo(f"{warning}.", err=True)
    typer.confirm("Retire it now?", abort=True, err=True)


def _rows(settings: Settings) -> list[dict[str, Any]]:
    keys, now = read_keys(settings.key_file), _now()
    usable = [key for key in keys if key.retired_at is None and key.algorithm == settings.token.algorithm]
    signing = KeyRing(usable).signing_key_at(now) if usable else None
    return [
        {
            "kid": key.kid,
            "algorithm": key.algorithm,
            "state": _state(key, usable=key in usable, signs=key == signing, now=now),
            "created_at": iso(key.created_at),
            "signs_from": iso(key.signs_from),
            "retired_at": None if key.retired_at is None else iso(key.retired_at),
        }
        for key in keys
    ]


def _row_of(settings: Settings, kid: str) -> dict[str, Any]:
    return next(row for row in _rows(settings) if row["kid"] == kid)


def _state(key: Key, *, usable: bool, signs: bool, now: float) -> str:
    if not usable:
        return "unused" if key.retired_at is None else "retired"
    if signs:
        return "signing"
    return "verifying" if key.signs_from <= now else "next"


def _counted(sessions: int) -> str:
    return f"{sessions} session{'' if sessions == 1 else 's'}"


def _now() -> int:
    return int(SystemClock().now())

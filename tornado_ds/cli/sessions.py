"""`sessions`: who is logged in, and the end of it."""

from typing import Annotated, Any

import typer

from tornado_ds.browsers import browser_name
from tornado_ds.cli.common import (
    JsonOption,
    check_known,
    fail,
    print_json,
    print_rows,
    seconds_of,
    stored_name,
    with_services,
    with_users,
)
from tornado_ds.clock import iso
from tornado_ds.errors import UserNotFoundError
from tornado_ds.services import Services
from tornado_ds.sessions import OpenSession, Session

app = typer.Typer(no_args_is_help=True, help="Show, end and open sessions; live connections follow within a second.")

_COLUMNS = ["sid", "username", "address", "browser", "created_at", "renewed_at", "runs_out_at", "ended_at"]


@app.command("list")
def list_sessions(
    user: Annotated[str | None, typer.Option(help="Only the sessions of this user.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Show sessions, newest first.

    Example: python -m tornado_ds sessions list --user alice
    """

    async def run(services: Services) -> list[dict[str, Any]]:
        username = await stored_name(services, user)
        return [_row(session) for session in await services.sessions.list(username, include_ended=everything)]

    print_rows(with_services(run), _COLUMNS, as_json=as_json)


@app.command()
def end(
    sid: Annotated[str | None, typer.Argument(help="The session to end.")] = None,
    user: Annotated[str | None, typer.Option(help="End all sessions of this user.")] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="End all sessions of all users.")] = False,
    as_json: JsonOption = False,
) -> None:
    """
    End sessions: on pages, in the API and on every deepstream node.

    Example: python -m tornado_ds sessions end --user alice
    """
    if [sid is not None, user is not None, everybody].count(True) != 1:
        fail("name one of: a session, --user NAME, --everybody")

    async def run(services: Services) -> int:
        if sid is not None:
            return int(await services.sessions.end(sid, reason="ended_by_operator"))
        username = await stored_name(services, user)
        ended = await services.sessions.end_all(username, reason="ended_by_operator")
        if username is not None and not ended:
            await check_known(services, username)
        return len(ended)

    ended = with_services(run)
    if sid is not None and not ended:
        fail(f"there is no live session {sid!a}; `sessions list` shows them")
    _print({"ended": ended}, f"Ended {ended} session{'' if ended == 1 else 's'}.", as_json=as_json)


@app.command("open")
def open_session(
    user: Annotated[str, typer.Argument(help="Whose session it is.")],
    lifetime: Annotated[str, typer.Option(help="How long the token is good, such as 90d or 12h.")],
    label: Annotated[str | None, typer.Option(help="What it is for, to be recognised in lists.")] = None,
    as_json: JsonOption = False,
) -> None:
    """
    Print a token for a backend or a device, which logs in to deepstream with {token: ...}.

    Example: python -m tornado_ds sessions open backend --lifetime 90d --label "invoice printer"
    """
    seconds = seconds_of(lifetime)

    async def run(services: Services) -> OpenSession:
        # An account that is disabled or removed meanwhile must not get a session that this did not end.
        async with services.sessions.transaction():
            found = await services.users.get(user)
            if found is None or found.is_disabled:
                raise UserNotFoundError(f"there is no user {user!a} who may log in")
            return await services.sessions.open(found, lifetime=seconds, label=label or "token")

    opened = with_users(run)
    _print({**_row(opened.session), "token": opened.token}, opened.token, as_json=as_json)


def _row(session: Session) -> dict[str, Any]:
    return {
        "sid": session.sid,
        "username": session.username,
        "label": session.label,
        "address": session.address,
        "browser": session.label or browser_name(session.user_agent),
        "user_agent": session.user_agent,
        "created_at": _iso(session.created_at),
        "renewed_at": _iso(session.renewed_at),
        "runs_out_at": _iso(session.token_expires_at),
        "ended_at": _iso(session.ended_at),
        "end_reason": session.end_reason,
    }


def _iso(seconds: int | None) -> str | None:
    return None if seconds is None else iso(seconds)


def _print(values: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(values)
    else:
        typer.echo(text)

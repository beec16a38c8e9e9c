"""`audit`: who did what, and from where."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from tornado_ds.audit import EVENTS, AuditEntry, Event
from tornado_ds.cli.common import JsonOption, fail, print_rows, stored_name, with_services
from tornado_ds.clock import iso
from tornado_ds.services import Services
from tornado_ds.settings import parse_duration

app = typer.Typer(no_args_is_help=True, help="Show logins, ends of sessions, changes of users, and who did it.")

_COLUMNS = ["time", "event", "username", "actor", "address", "detail", "count"]


@app.command("list")
def list_entries(
    user: Annotated[str | None, typer.Option(help="Only what is about this user.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only since so long ago, as 24h, or since a date, as 2026-11-01.")
    ] = None,
    event: Annotated[list[str] | None, typer.Option(help="Only this one; can be said several times.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Show so many at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """
    Show the audit trail, newest first. Failed logins appear a moment later, throttled ones within a minute.

    Example: python -m tornado_ds audit list --user alice --since 24h --event login.failed
    """

    events = _events(event or [])

    async def run(services: Services) -> list[dict[str, Any]]:
        username = await stored_name(services, user)
        start = 0 if since is None else _moment(since, now=int(services.clock.now()))
        return [
            _row(entry)
            for entry in await services.audit.list(username=username, since=start, events=events, limit=limit)
        ]

    print_rows(with_services(run), _COLUMNS, as_json=as_json)


def _events(names: Sequence[str]) -> list[Event]:
    unknown = sorted(set(names).difference(EVENTS))
    if unknown:
        fail(f"there is no event {unknown[0]!a}; there are {', '.join(EVENTS)}")
    return [event for event in EVENTS if event in names]


def _moment(text: str, *, now: int) -> int:
    """Return the moment (seconds since the epoch) so long ago, or of that date in UTC."""
    wrong = f"{text!a} is no time; write 24h, 7d, 2026-11-01 or 2026-11-01T18:30:00Z"
    if text.isdecimal():
        # It would be seconds, and is more likely a year.
        fail(wrong)
    ago = parse_duration(text)
    if isinstance(ago, int):
        return now - ago
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except ValueError:
        fail(wrong)


def _row(entry: AuditEntry) -> dict[str, Any]:
    fields = asdict(entry)
    return {"time": iso(fields.pop("created_at")), **fields}

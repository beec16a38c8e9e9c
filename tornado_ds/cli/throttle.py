"""`throttle`: who has failed to log in too often, and how to let them try again."""

from ipaddress import ip_address, ip_network
from math import ceil
from typing import Annotated, Any

import typer

from tornado_ds.addresses import UNIX, network_of
from tornado_ds.audit import AuditEntry
from tornado_ds.cli.common import JsonOption, check_known, fail, print_json, print_rows, stored_name, with_services
from tornado_ds.clock import iso
from tornado_ds.services import Services
from tornado_ds.throttle import Bucket, Throttle

app = typer.Typer(no_args_is_help=True, help="Show and clear failed logins, which are forgotten after a day.")

_COLUMNS = ["kind", "who", "failures", "wait_seconds", "blocked_until", "expires_at"]


@app.command("list")
def list_failures(
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Show so many at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """
    Show failed logins by account, device and address, those that are blocked longest first.

    A name that nobody has is shown as a code: what is typed as a name may be a password.

    Example: python -m tornado_ds throttle list --limit 20
    """

    async def run(services: Services) -> list[dict[str, Any]]:
        now = services.clock.now()
        return [_row(bucket, now) for bucket in await services.throttle.list(limit=limit)]

    print_rows(with_services(run), _COLUMNS, as_json=as_json)


@app.command()
def clear(
    user: Annotated[str | None, typer.Argument(help="Forget the failures of this name and its devices.")] = None,
    address: Annotated[str | None, typer.Option(help="Forget the failures from this address.")] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="Forget all failures.")] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Forget failed logins, so that the next attempt is let through at once.

    Example: python -m tornado_ds throttle clear alice
    """
    if [user is not None, address is not None, everybody].count(True) != 1:
        fail("name one of: a user, --address ADDRESS, --everybody")
    if address is not None:
        _check_address(address)

    async def run(services: Services) -> int:
        whose = "everybody" if user is None and address is None else "account" if address is None else address
        name = await stored_name(services, user)
        async with services.sessions.transaction():
            cleared = await _clear(services.throttle, user, address)
            if name is not None and not cleared:
                await check_known(services, name)
            entry = AuditEntry(event="throttle.cleared", username=name, detail=f"{cleared} of {whose}")
            await services.audit.record(entry)
        return cleared

    cleared = with_services(run)
    if as_json:
        print_json({"cleared": cleared})
    else:
        typer.echo(f"Cleared {cleared} counter{'' if cleared == 1 else 's'}.")


async def _clear(throttle: Throttle, user: str | None, address: str | None) -> int:
    if user is not None:
        return await throttle.clear_account(user)
    if address is not None:
        return await throttle.clear_address(address.partition("/")[0])
    return await throttle.clear_all()


def _check_address(text: str) -> None:
    """End the command unless *text* is an address, or what `throttle list` shows of one."""
    if text == UNIX:
        return
    address, slash, _ = text.partition("/")
    try:
        counted = ip_network(network_of(str(ip_address(address))))
        is_one = not slash or ip_network(text, strict=False) == counted
    except ValueError:
        is_one = False
    if not is_one:
        fail(f"{text!a} is not what failures are counted by: write an address, or what `throttle list` shows of it")


def _row(bucket: Bucket, now: float) -> dict[str, Any]:
    wait = ceil(bucket.wait(now))
    who = bucket.username or (bucket.key if bucket.kind == "address" else f"unknown name {bucket.key[:8]}")
    return {
        "kind": bucket.kind,
        "who": who,
        "username": bucket.username,
        "address": bucket.key if bucket.kind == "address" else None,
        "failures": bucket.failures,
        "wait_seconds": wait,
        "blocked_until": iso(bucket.blocked_until) if wait else None,
        "expires_at": iso(bucket.expires_at),
    }

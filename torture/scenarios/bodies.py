"""Bodies that no webhook expects: wrong types, depths, surrogates, sizes, noise."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from benchmarks.load import client
from benchmarks.load.client import Connection
from benchmarks.outcome import Outcome, Target, count
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import ORIGIN, Place, settings_of
from tornado_ds.app import prepare_database
from torture.cast import make_cast
from torture.plan import Plan
from torture.requests import check_request

# What deepstream takes for what it is. 400 is for requests that are no HTTP, which these are not.
ALLOWED = {200, 401, 403, 405, 413, 415, 429, 503}
CONNECTIONS = 8

_NAMES = ["connectionData", "authData", "headers", "cookie", "origin", "token", "username", "password", "remoteAddress"]
_TEXTS = [
    "",
    "\ud800",
    "\udfff\ud800",
    "\0",
    "access_token=",
    "null",
    "a" * 5000,
    "é" * 200,
    "\u202e",
    "1e999",
    "person-1",
]
_NUMBERS = [0, -1, 1e308, 2**63, 10**400, 0.1, True, False, None]


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Send them to both listeners."""
    settings = settings_of(place.folder)
    asyncio.run(prepare_database(settings))
    token = make_cast(settings).hot
    found: dict[str, Counter[int]] = {}
    with OurServer(place, env={"TORNADO_DS_WEBHOOK__CREDENTIALS_LOGIN": "true"}) as server:
        for name, address in (("internal", server.internal), ("public", server.public)):
            progress.step(f"{count(plan.bodies)} bodies to the {name} listener")
            bodies = list(islice(_bodies(token, random.Random(name)), plan.bodies))
            found[name] = client.run(_send_all(address, [check_request(body, place) for body in bodies]), pinned=False)
        errors = [line for line in server.output.splitlines() if "Traceback" in line or "gate failed" in line]
    strange = sum(number for each in found.values() for status, number in each.items() if status not in ALLOWED)
    total = sum(each.total() for each in found.values())
    return Outcome(
        title="Strange webhook bodies",
        columns=["listener", "bodies", "answers"],
        rows=[
            [
                name,
                count(each.total()),
                ", ".join(f"{count(number)} times {status}" for status, number in sorted(each.items())),
            ]
            for name, each in found.items()
        ],
        values={"answers": {name: dict(each) for name, each in found.items()}, "errors_in_the_log": errors[:20]},
        targets=[
            Target(
                promise="any webhook body: a status from the allowed set only, never 500",
                measured=f"{count(total)} bodies, {strange} other answers, {len(errors)} slips in the log",
                is_met=strange == 0 and not errors,
            )
        ],
        notes=[
            "Random JSON around the names that deepstream uses, values of wrong types, nesting to 100 000 levels, lone"
            " surrogates, broken and random octets, up to 1 MiB. Passwords are accepted (`webhook.credentials_login`).",
        ],
    )


async def _send_all(address: str, requests: list[bytes]) -> Counter[int]:
    found: Counter[int] = Counter()

    async def send(share: list[bytes]) -> None:
        connection = await Connection.open(address)
        for request in share:
            if not connection.is_open:
                connection = await Connection.open(address)
            try:
                async with asyncio.timeout(10):
                    found[(await connection.ask(request)).status] += 1
            except TimeoutError:
                found[0] += 1
                connection.close()
        connection.close()

    await asyncio.gather(*(send(requests[first::CONNECTIONS]) for first in range(CONNECTIONS)))
    return found


def _bodies(token: str, dice: random.Random) -> Iterator[bytes]:
    kinds: list[Callable[[], bytes]] = [
        lambda: _encode({"connectionData": _value(dice, 4), "authData": _value(dice, 4)}),
        lambda: _encode({"connectionData": _connection(token, dice), "authData": _value(dice, 3)}),
        lambda: _encode({"connectionData": {}, "authData": {"token": _value(dice, 2)}}),
        lambda: _encode({"connectionData": {}, "authData": {"username": _value(dice, 1), "password": _value(dice, 1)}}),
        lambda: _encode(_value(dice, 6)),
        lambda: _damaged(_encode({"connectionData": _connection(token, dice), "authData": {}}), dice),
        lambda: dice.randbytes(dice.randrange(300)),
        lambda: dice.choice([b"[", b'{"a":', b'{"authData":[']) * dice.choice([10, 1000, 20_000]),
        lambda: _encode({"authData": {"token": "x" * dice.choice([4096, 60_000, 70_000, 2**20])}}),
    ]
    while True:
        yield dice.choice(kinds)()


def _encode(value: object) -> bytes:
    return json.dumps(value).encode()


def _connection(token: str, dice: random.Random) -> dict[str, Any]:
    headers: dict[str, Any] = {"cookie": f"access_token={token}", "origin": ORIGIN}
    headers[dice.choice(["cookie", "origin", "host", "x-forwarded-for"])] = _value(dice, 2)
    return {"headers": headers, "remoteAddress": _value(dice, 1)}


def _value(dice: random.Random, depth: int) -> Any:
    kind = dice.randrange(6 if depth else 4)
    if kind < 2:
        return dice.choice(_TEXTS)
    if kind < 4:
        return dice.choice(_NUMBERS)
    if kind == 4:
        return [_value(dice, depth - 1) for _ in range(dice.randrange(4))]
    return {dice.choice(_NAMES + _TEXTS): _value(dice, depth - 1) for _ in range(dice.randrange(5))}


def _damaged(body: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(body))
    return body[:place] + dice.choice([b"", b"\0", b"\xff", b"\\", b'"', b"}"]) + body[place + dice.randrange(3) :]

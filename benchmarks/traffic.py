"""What deepstream sends: the webhook body of a browser's connection, and tokens to put into its cookie."""

import asyncio
import json
import secrets
import time
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.plan import Plan
from tornado_ds.app import open_services, prepare_database
from tornado_ds.services import Services
from tornado_ds.settings import Settings
from tornado_ds.tokens import Claims

ORIGIN = "http://app.example.test"
AUDIENCE = "deepstream"
ISSUER = "tornado_ds"

SERVER_DATA = {"roles": ["editor", "author"], "tenant": "north"}
CLIENT_DATA = {"name": "Somebody With A Name", "colour": "green"}

TOKEN = "@TOKEN@"

_CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)

# A WebSocket upgrade of Chrome as deepstream's Node service hands it over, among other cookies of the site.
WEBHOOK_BODY = json.dumps(
    {
        "connectionData": {
            "remoteAddress": "203.0.113.17",
            "headers": {
                "host": "app.example.test:6020",
                "connection": "Upgrade",
                "pragma": "no-cache",
                "cache-control": "no-cache",
                "user-agent": _CHROME,
                "upgrade": "websocket",
                "origin": ORIGIN,
                "sec-websocket-version": "13",
                "accept-encoding": "gzip, deflate, br, zstd",
                "accept-language": "en-GB,en;q=0.9,de;q=0.8",
                "cookie": f"theme=dark; access_token={TOKEN}; _ga=GA1.2.1284659120.1716213371; consent=necessary",
                "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
                "sec-websocket-extensions": "permessage-deflate; client_max_window_bits",
            },
        },
        "authData": {},
    },
    separators=(",", ":"),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder for all that a server writes, and deepstream's password."""

    folder: Path
    secret: str = field(repr=False)

    @property
    def authorization(self) -> str:
        """The header that our webhook wants."""
        return f"Basic {b64encode(f'deepstream:{self.secret}'.encode()).decode()}"


@dataclass(frozen=True, kw_only=True)
class Stage(Place):
    """
    What all scenarios share.

    *hot*, *warm_up* and *fresh* are files with one token a line, all signed by the
    key *jwk* in *folder*; no token is in two of them.
    """

    jwk: str = field(repr=False)
    hot: Path
    warm_up: Path
    fresh: Path

    def settings(self) -> Settings:
        """Return the settings of commands beside a server in *folder*."""
        return settings_of(self.folder)


def make_stage(folder: Path, plan: Plan) -> Stage:
    """Return a stage in *folder*, with its tokens issued."""
    hot, warm_up, fresh = (folder / f"{name}.tokens" for name in ("hot", "warm-up", "fresh"))
    counts = {hot: plan.hot_tokens, warm_up: 20_000, fresh: max(plan.fresh_tokens, plan.storm_tokens)}
    start = 0
    for path, many in counts.items():
        path.write_text("\n".join(issue_tokens(folder, range(start, start + many))) + "\n", encoding="ascii")
        start += many
    jwk = json.loads(settings_of(folder).key_file.read_text(encoding="utf-8"))["keys"][-1]
    return Stage(
        folder=folder, secret=secrets.token_hex(32), jwk=json.dumps(jwk), hot=hot, warm_up=warm_up, fresh=fresh
    )


def settings_of(folder: Path) -> Settings:
    """Return the settings of commands beside an `AuthServer` in *folder*."""
    return Settings(data_dir=folder / "data")


def issue_tokens(folder: Path, numbers: Iterable[int]) -> list[str]:
    """Return a valid token for each of *numbers*: a session of its own, that no table has to know."""

    async def run() -> list[str]:
        await prepare_database(settings_of(folder))
        async with open_services(settings_of(folder)) as services:
            return [_issue(services, number) for number in numbers]

    return asyncio.run(run())


def username_of(number: int) -> str:
    """Return the name in token *number*."""
    return f"user-{number:07}"


def webhook_body(token: str) -> bytes:
    """Return what deepstream posts about a browser with *token* in its cookie."""
    return WEBHOOK_BODY.replace(TOKEN, token).encode()


def webhook_request(token: str, *, authorization: str) -> bytes:
    """Return a whole HTTP request with the headers of deepstream's HTTP client."""
    body = webhook_body(token)
    head = (
        "POST /check-token HTTP/1.1\r\n"
        "Accept: */*\r\n"
        "User-Agent: Needle/3.3.1 (Node.js v20.20.2; linux x64)\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
        f"Authorization: {authorization}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Host: 127.0.0.1:8001\r\n"
        "Connection: keep-alive\r\n"
        "\r\n"
    )
    return head.encode() + body


def login_request(name: str, password: str, origin: str, *, address: str | None = None) -> bytes:
    """Return the log-in form as a browser at *origin* posts it, from *address* if a proxy says so."""
    body = f"username={name}&password={password}".encode()
    forwarded = f"X-Forwarded-For: {address}\r\n" if address else ""
    head = (
        "POST /handle-login HTTP/1.1\r\n"
        f"Host: {origin.removeprefix('http://')}\r\n"
        f"Origin: {origin}\r\n"
        f"{forwarded}"
        "Accept: application/json\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    )
    return head.encode() + body


def forge(token: str) -> str:
    """Return *token* with one letter of its signature changed."""
    place = len(token) - 20
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


def _issue(services: Services, number: int) -> str:
    now = int(time.time())
    return services.tokens.issue(
        Claims(
            username=username_of(number),
            sid=f"{number:032x}",
            version=1,
            issued_at=now,
            expires_at=now + 12 * 3600,
            server_data=SERVER_DATA,
            client_data=CLIENT_DATA,
        )
    )

"""Tokens that nobody issued, of every family, where tokens are shown; the long version is `make torture`."""

import json
from base64 import b64encode
from itertools import islice

import pytest

from tests.forgeries import forgeries
from tests.web.browser import Browser
from tests.web.conftest import SECRET
from tornado_ds.gate import Verdict
from tornado_ds.services import Services
from tornado_ds.users import User

MANY = 300

AUTHORIZATION = f"Basic {b64encode(f'deepstream:{SECRET}'.encode()).decode()}"

pytestmark = pytest.mark.gen_test(timeout=30)


async def test_webhook_accepts_no_forged_token(services: Services, alice: User) -> None:
    """Neither as a cookie nor as a credential; the token that all are made from is accepted."""
    opened = await services.sessions.open(alice)
    key = services.tokens.keys.oldest_key

    accepted = [
        (forged.family, forged.token)
        for forged in islice(forgeries(opened.token, key), MANY)
        for status in _statuses(services, forged.token)
        if status != 403
    ]

    assert accepted == []
    assert _statuses(services, opened.token) == [200, 200]


async def test_page_accepts_no_forged_token(services: Services, browser: Browser, alice: User) -> None:
    """Whatever can stand in a Cookie header is answered with 401, and never with an error of ours."""
    opened = await services.sessions.open(alice)
    forged = [each.token for each in islice(forgeries(opened.token, services.tokens.keys.oldest_key), MANY)]
    headers = [token for token in forged if token.isascii() and token.isprintable() and len(token) < 8000]

    statuses = {(await browser.ask("/auth/verify", Cookie=f"access_token={token}")).code for token in headers[::4]}

    assert statuses == {401}
    assert (await browser.ask("/auth/verify", Cookie=f"access_token={opened.token}")).code == 204


def _statuses(services: Services, token: str) -> list[int]:
    headers = {"cookie": f"access_token={token}", "origin": "http://localhost:8000"}
    bodies = [
        {"connectionData": {}, "authData": {"token": token}},
        {"connectionData": {"headers": headers}, "authData": {}},
    ]
    verdicts = [
        services.gate.decide(json.dumps(body).encode(), authorization=AUTHORIZATION, content_type="application/json")
        for body in bodies
    ]
    return [verdict.status for verdict in verdicts if isinstance(verdict, Verdict)]

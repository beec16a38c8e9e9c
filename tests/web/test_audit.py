"""What real requests leave in the audit trail."""

import logging
import sqlite3
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from tests.fakes import ManualClock
from tests.web.browser import PASSWORD, Browser
from tests.web.conftest import SECRET, NewBrowser
from tornado_ds.audit import AuditEntry
from tornado_ds.gate import Verdict
from tornado_ds.services import Services
from tornado_ds.settings import WebhookSettings
from tornado_ds.users import User

WRONG = "canary-wrong-password"
NEW = "a purple elephant in the rain"
AUTHORIZATION = f"Basic {b64encode(f'deepstream:{SECRET}'.encode()).decode()}"

pytestmark = [pytest.mark.gen_test(timeout=30), pytest.mark.usefixtures("alice")]


@pytest.fixture
def overrides() -> dict[str, Any]:
    """A server where credentials may come through deepstream."""
    return {"webhook": WebhookSettings(secret=SECRET, credentials_login=True)}  # type: ignore[arg-type]


async def entries(services: Services) -> Sequence[AuditEntry]:
    """Return what is in the audit trail since alice was added, oldest first."""
    await services.audit.flush()
    added, *others = reversed(await services.audit.list(limit=100))
    assert added.event == "user.added"
    return others


async def test_login_leaves_one_entry_with_the_session_and_where_it_came_from(
    browser: Browser, services: Services, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A form leaves what JSON leaves, and the log says the same in one line."""
    caplog.set_level(logging.INFO, logger="audit")
    with capture_logs() as lines:
        await browser.submit("/handle-login", {"username": "ALICE", "password": PASSWORD}, User_Agent="Firefox/140")
    (session,) = await services.sessions.list("alice")

    expected = AuditEntry(
        event="login.succeeded",
        username="alice",
        sid=session.sid,
        actor="user:alice",
        address="127.0.0.1",
        user_agent="Firefox/140",
        created_at=int(clock.now()),
    )
    assert [expected] == await entries(services)
    assert [
        {
            "event": "login.succeeded",
            "log_level": "info",
            "username": "alice",
            "actor": "user:alice",
            "sid": session.sid,
            "address": "127.0.0.1",
            "user_agent": "Firefox/140",
        }
    ] == [line for line in lines if line["event"].startswith(("login", "session"))]


@pytest.mark.parametrize("way", ["form", "json", "deepstream"])
async def test_failed_and_throttled_logins_leave_entries_by_every_way(
    browser: Browser, services: Services, way: str
) -> None:
    """Five that failed one by one, and one for all that were not even tried."""
    for _ in range(9):
        await try_to_log_in(browser, services, way)

    failed, throttled = await entries(services)
    client = {"deepstream": ("203.0.113.9", "deepstream")}.get(way, ("127.0.0.1", "curl/8"))
    assert (failed.event, failed.username, failed.detail, failed.count) == (
        "login.failed",
        "alice",
        "wrong password",
        5,
    )
    assert (failed.actor, failed.sid, (failed.address, failed.user_agent)) == ("anonymous", None, client)
    assert (throttled.event, throttled.username, throttled.detail) == ("login.throttled", "alice", "by account")
    assert (throttled.count, throttled.address) == (4, client[0])


async def test_failed_login_says_why_to_the_operator_alone(
    browser: Browser, services: Services, clock: ManualClock
) -> None:
    """The browser gets the same answer for each."""
    await services.users.add([User("broken", "no hash"), User("gone", "no hash", disabled_at=1)])
    user = await services.users.get("alice")
    assert user is not None
    await services.users.add([User("carol", user.password_hash, disabled_at=1)])

    bodies = {
        (await browser.send("/handle-login", {"username": name, "password": password})).body
        for name, password in (("alice", WRONG), ("nobody", PASSWORD), ("broken", PASSWORD), ("carol", PASSWORD))
    }

    assert len(bodies) == 1
    assert [(entry.username, entry.detail) for entry in await entries(services)] == [
        ("alice", "wrong password"),
        (None, "unknown name"),
        ("broken", "unusable password hash"),
        ("carol", "account disabled"),
    ]


async def test_audit_holds_no_secret_and_no_name_that_nobody_has(
    browser: Browser, services: Services, sqlite_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the database nor the log has what was typed, nor a token that was given out."""
    caplog.set_level(logging.INFO, logger="audit")
    with capture_logs() as lines:
        await browser.log_in("alice", WRONG)
        await browser.log_in("canary-in-the-wrong-field", WRONG)
        await browser.log_in()
        token = browser.cookies["access_token"]
        form = {"current_password": WRONG, "new_password": NEW}
        await browser.submit("/account/password", form)
        await browser.submit("/account/password", form | {"current_password": PASSWORD})
        await services.audit.flush()

    written = "\n".join(audit_rows(sqlite_file)) + repr(lines)
    assert "password.changed" in written
    for secret in ("canary", token, token.split(".")[2], PASSWORD, NEW):
        assert secret not in written


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a\r\nevent=login.succeeded username=alice", id="line"),
        pytest.param("\x1b[2J\x1b]0;owned\x07", id="terminal"),
        pytest.param("\u202eecila", id="bidi"),
        pytest.param("'; DROP TABLE audit; --", id="sql"),
        pytest.param("[bold red]alice[/]", id="markup"),
        pytest.param("x" * 1000, id="long"),
    ],
)
async def test_name_that_is_an_attack_leaves_a_harmless_entry(
    browser: Browser, services: Services, sqlite_file: Path, name: str
) -> None:
    """It is counted as a name that nobody has, and nothing of it is kept."""
    await browser.log_in(name, WRONG)

    assert [(entry.event, entry.username) for entry in await entries(services)] == [("login.failed", None)]
    assert all(row.isprintable() for row in audit_rows(sqlite_file))


async def test_browser_that_calls_itself_an_attack_leaves_a_harmless_entry(
    browser: Browser, services: Services
) -> None:
    """What can come through HTTP is shortened, and shown as it is written in Python."""
    agent = "\x85\x9b2J\xa0" + "y" * 2000
    await browser.submit("/handle-login", {"username": "alice", "password": PASSWORD}, User_Agent=agent)

    (entry,) = await entries(services)
    assert entry.user_agent.isprintable()
    assert len(entry.user_agent) == 256
    assert entry.user_agent.startswith("\\x")


async def test_logout_is_audited_once(alices: Browser, services: Services) -> None:
    """A second click ends nothing."""
    await alices.submit("/logout", {})
    await alices.submit("/logout", {})

    login, logout = await entries(services)
    assert (logout.event, logout.detail, logout.actor) == ("session.ended", "logout", "user:alice")
    assert (logout.username, logout.sid, logout.address) == ("alice", login.sid, "127.0.0.1")


async def test_account_page_is_audited_as_the_user(
    alices: Browser, new_browser: NewBrowser, services: Services
) -> None:
    """A session ended, the others ended, a wrong and a right current password, and what that led to."""
    for _ in range(3):
        await new_browser().log_in()
    first = (await entries(services))[1]
    assert first.sid is not None
    await alices.submit("/account/end-session", {"sid": first.sid})
    await alices.submit("/account/end-others", {})
    await new_browser().log_in()
    for current in (WRONG, PASSWORD):
        await alices.submit("/account/password", {"current_password": current, "new_password": NEW})

    trail = (await entries(services))[4:]

    assert [(entry.event, entry.actor, entry.detail) for entry in trail] == [
        ("session.ended", "user:alice", "ended_by_user"),
        ("session.ended", "user:alice", "ended_by_user"),
        ("session.ended", "user:alice", "ended_by_user"),
        ("login.succeeded", "user:alice", ""),
        ("password.changed", "user:alice", ""),
        ("session.ended", "system", "password_changed"),
        # Written a moment later than it was.
        ("login.failed", "user:alice", "wrong password"),
    ]
    assert {entry.username for entry in trail} == {"alice"}
    assert {entry.address for entry in trail} == {"127.0.0.1"}


async def test_second_login_of_a_browser_is_audited_with_the_session_that_it_replaces(
    alices: Browser, services: Services
) -> None:
    """The system ends what nobody could end any more."""
    await alices.log_in()

    first, second, replaced = await entries(services)

    assert (second.event, second.actor) == ("login.succeeded", "user:alice")
    assert (replaced.event, replaced.actor, replaced.detail) == ("session.ended", "system", "replaced")
    assert (replaced.sid, replaced.address) == (first.sid, "127.0.0.1")


async def test_login_is_refused_when_it_cannot_be_audited(
    browser: Browser, services: Services, sqlite_file: Path
) -> None:
    """It is our trouble, and nobody is logged in; a wrong password stays one."""
    execute(sqlite_file, "DROP TABLE audit")

    responses = [await browser.log_in("alice", password) for password in (PASSWORD, WRONG)]

    assert [response.code for response in responses] == [503, 403]
    assert await services.sessions.list() == []


async def try_to_log_in(browser: Browser, services: Services, way: str) -> None:
    """Send a wrong password in one of the ways that there are."""
    fields = {"username": "alice", "password": WRONG}
    if way == "form":
        await browser.submit("/handle-login", fields, User_Agent="curl/8")
    elif way == "json":
        await browser.send("/handle-login", fields, User_Agent="curl/8")
    else:
        pending = services.gate.decide(
            orjson.dumps({"connectionData": {"remoteAddress": "203.0.113.9"}, "authData": fields}),
            authorization=AUTHORIZATION,
            content_type="application/json",
        )
        assert not isinstance(pending, Verdict)
        await pending


def execute(file: Path, statement: str) -> None:
    """Do something to the database behind the server's back."""
    connection = sqlite3.connect(file)
    connection.execute(statement)
    connection.commit()
    connection.close()


def audit_rows(file: Path) -> list[str]:
    """Return what the table holds, as text."""
    connection = sqlite3.connect(file)
    rows = [" ".join(map(str, row)) for row in connection.execute("SELECT * FROM audit")]
    connection.close()
    return rows

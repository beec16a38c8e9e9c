"""Too many failed logins, as browsers and deepstream see it."""

import asyncio
import hashlib
import sqlite3
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.ioloop import IOLoop

from tests.fakes import ManualClock
from tests.web.browser import PASSWORD, Browser, json_of
from tests.web.conftest import SECRET, NewBrowser
from tornado_ds.app import open_services
from tornado_ds.errors import ThrottledError
from tornado_ds.gate import Verdict
from tornado_ds.passwords import legacy_hash
from tornado_ds.services import Services
from tornado_ds.settings import Settings, WebhookSettings
from tornado_ds.users import User

WRONG = "incorrect horse battery staple"
NEW = "a purple elephant in the rain"
AUTHORIZATION = f"Basic {b64encode(f'deepstream:{SECRET}'.encode()).decode()}"

pytestmark = [pytest.mark.gen_test(timeout=30), pytest.mark.usefixtures("alice", "bob")]


@pytest.fixture
def overrides() -> dict[str, Any]:
    """A server behind a proxy, where credentials may come through deepstream."""
    return {
        "trusted_proxies": ("127.0.0.1",),
        "webhook": WebhookSettings(secret=SECRET, credentials_login=True),  # type: ignore[arg-type]
    }


@pytest.fixture
def bob(io_loop: IOLoop, services: Services) -> User:
    """Another user, with the same password."""
    user: User = io_loop.run_sync(lambda: services.accounts.add("bob", PASSWORD))
    return user


@pytest.fixture
def crowd(io_loop: IOLoop, browser: Browser) -> Iterator[Browser]:
    """A browser that asks fifty times at once, which the usual client does not."""
    client = AsyncHTTPClient(force_instance=True, max_clients=50)
    yield Browser(client, browser.base_url)
    client.close()


async def log_in(
    browser: Browser, username: str, password: str = PASSWORD, *, address: str = "203.0.113.9"
) -> HTTPResponse:
    """Send the form from *address*."""
    fields = {"username": username, "password": password}
    return await browser.submit("/handle-login", fields, X_Forwarded_For=address)


async def fail(browser: Browser, times: int, username: str = "alice") -> list[int]:
    """Return the statuses of that many logins with a wrong password."""
    return [(await log_in(browser, username, WRONG)).code for _ in range(times)]


async def test_login_answers_429_and_says_how_long_after_five_failures(browser: Browser) -> None:
    """The page names the wait, for people and in a header, and keeps the name."""
    failures = await fail(browser, 5)

    response = await log_in(browser, "alice")

    assert failures == [403] * 5
    assert response.code == 429
    assert response.headers["Retry-After"] == "1"
    page = response.body.decode()
    assert "There were too many failed logins. Please try again in 1 second." in page
    assert 'role="alert"' in page
    assert 'value="alice"' in page
    assert "Set-Cookie" not in response.headers


async def test_login_says_the_wait_in_minutes_when_it_is_long(browser: Browser, clock: ManualClock) -> None:
    """Nobody counts nine hundred seconds."""
    while (response := await log_in(browser, "alice", WRONG)).headers.get("Retry-After") != "900":
        clock.advance(int(response.headers.get("Retry-After", "0")))

    assert "Please try again in 15 minutes." in response.body.decode()


async def test_login_answers_json_when_it_is_asked_for(browser: Browser) -> None:
    """Scripts get a code and the header."""
    await fail(browser, 5)

    response = await browser.send("/handle-login", {"username": "alice", "password": PASSWORD})

    assert (response.code, response.headers["Retry-After"]) == (429, "1")
    assert json_of(response) == {"error": "throttled"}


async def test_login_answers_the_same_for_unknown_names(browser: Browser) -> None:
    """How failures add up does not tell which names are taken."""
    answers = {
        name: [
            (response.code, response.headers.get("Retry-After"), response.body)
            for response in [
                await browser.send("/handle-login", {"username": name, "password": WRONG}) for _ in range(8)
            ]
        ]
        for name in ("alice", "nobody")
    }

    assert answers["alice"] == answers["nobody"]
    assert [status for status, _, _ in answers["nobody"]] == [403] * 5 + [429] * 3


async def test_login_works_again_after_the_wait_and_starts_from_zero(
    browser: Browser, new_browser: NewBrowser, clock: ManualClock
) -> None:
    """Whoever waits and then types the right password has nothing left to fear."""
    await fail(browser, 9)
    clock.advance(1)

    response = await log_in(browser, "alice")

    assert response.code == 303
    assert await fail(new_browser(), 5) == [403] * 5


@pytest.mark.untraced
async def test_login_hashes_five_of_fifty_passwords_that_come_at_once(crowd: Browser, services: Services) -> None:
    """Attempts are counted before they are tried; what waits for a thread counts too."""
    responses = await asyncio.gather(*(log_in(crowd, "alice", WRONG) for _ in range(50)))

    statuses = Counter(response.code for response in responses)
    assert statuses[403] == 5
    assert set(statuses) <= {403, 429, 503}
    assert services.passwords.pending == 0


@pytest.mark.untraced
async def test_all_logins_are_good_when_one_account_logs_in_many_times_at_once(crowd: Browser) -> None:
    """Attempts that are under way are no guesses yet: whoever has the right password waits, and gets in."""
    responses = await asyncio.gather(*(log_in(crowd, "alice") for _ in range(16)))

    assert Counter(response.code for response in responses) == {303: 16}


@pytest.mark.untraced
async def test_all_logins_are_good_when_many_people_at_one_address_log_in_at_once(
    browser: Browser, crowd: Browser, services: Services
) -> None:
    """An office in which some mistype throttles nobody whose password is right: they wait how the others end."""
    people = [User(f"user{number}", await services.passwords.hash(PASSWORD)) for number in range(16)]
    await services.users.add(people)
    assert [(await log_in(browser, f"name{number}", WRONG)).code for number in range(28)] == [403] * 28

    responses = await asyncio.gather(*(log_in(crowd, each.username) for each in people))

    assert Counter(response.code for response in responses) == {303: 16}


@pytest.mark.untraced
async def test_login_tries_two_of_sixteen_names_when_an_address_has_two_attempts_left(
    browser: Browser, crowd: Browser, services: Services
) -> None:
    """Whoever waits at an address, how the others end, is turned away when these were wrong too."""
    assert [(await log_in(browser, f"name{number}", WRONG)).code for number in range(28)] == [403] * 28

    responses = await asyncio.gather(*(log_in(crowd, f"other{number}", WRONG) for number in range(16)))

    assert Counter(response.code for response in responses) == {403: 2, 429: 14}
    assert services.passwords.pending == 0


async def test_login_counts_nothing_when_all_places_are_taken(browser: Browser, services: Services) -> None:
    """An overloaded server answers 503, and holds it against nobody."""
    is_over = asyncio.Event()
    crowd = [asyncio.create_task(take_place(services, is_over)) for _ in range(200)]
    await asyncio.sleep(0)

    response = await log_in(browser, "alice", WRONG)

    is_over.set()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert response.code == 503
    assert await services.throttle.list(limit=10) == []


async def test_login_still_works_in_a_known_browser_when_strangers_have_failed(
    browser: Browser, new_browser: NewBrowser
) -> None:
    """Nobody can lock somebody out who has logged in there before, not even from the same address."""
    await log_in(browser, "alice")
    del browser.cookies["access_token"]
    stranger = new_browser()
    for name in ["alice"] * 5 + [f"name{number}" for number in range(25)]:
        assert (await log_in(stranger, name, WRONG)).code == 403

    assert (await log_in(stranger, "alice")).code == 429
    assert (await log_in(browser, "alice", WRONG)).code == 403
    assert (await log_in(browser, "alice")).code == 303
    assert (await log_in(stranger, "alice")).code == 429


async def test_login_blocks_a_known_browser_alone_when_it_fails(browser: Browser, new_browser: NewBrowser) -> None:
    """Somebody at a stolen laptop gets as few attempts as anybody, and hinders nobody."""
    await log_in(browser, "alice")
    del browser.cookies["access_token"]

    statuses = await fail(browser, 6)

    assert statuses == [403] * 5 + [429]
    assert (await log_in(new_browser(), "alice")).code == 303
    assert (await log_in(browser, "alice")).code == 429
    assert (await log_in(browser, "bob")).code == 303


async def test_login_forgets_devices_when_the_password_was_changed(
    browser: Browser, new_browser: NewBrowser, services: Services
) -> None:
    """Whoever logged in twenty times with a leaked password has five guesses at the next one, as anybody has."""
    known = [new_browser() for _ in range(20)]
    for each in known:
        await log_in(each, "alice")
        del each.cookies["access_token"]
    await services.accounts.set_password("alice", NEW)

    statuses = [(await log_in(each, "alice", WRONG)).code for each in known]

    assert statuses == [403] * 5 + [429] * 15


async def test_login_still_knows_the_browser_in_which_the_password_was_changed(
    browser: Browser, new_browser: NewBrowser
) -> None:
    """Strangers cannot keep somebody out who has a new password."""
    await log_in(browser, "alice")
    await browser.submit("/account/password", {"current_password": PASSWORD, "new_password": NEW})
    await browser.submit("/logout", {})
    assert await fail(new_browser(), 6) == [403] * 5 + [429]

    response = await log_in(browser, "alice", NEW)

    assert response.code == 303


async def test_login_still_knows_a_browser_when_its_login_replaced_the_hash(
    browser: Browser, new_browser: NewBrowser, services: Services
) -> None:
    """A better hash of the same password is no new password."""
    await services.users.add([User("carol", hash_of_deepstream(PASSWORD))])
    await log_in(browser, "carol")
    del browser.cookies["access_token"]
    assert await fail(new_browser(), 6, "carol") == [403] * 5 + [429]

    response = await log_in(browser, "carol")

    assert response.code == 303


async def test_login_treats_a_known_browser_as_a_stranger_when_the_account_is_gone(
    browser: Browser, new_browser: NewBrowser, services: Services
) -> None:
    """Its answers are those for a name that never was, and they are counted together with a stranger's."""
    await log_in(browser, "alice")
    del browser.cookies["access_token"]
    await services.accounts.remove("alice")

    statuses = await fail(browser, 3) + await fail(new_browser(), 3)

    assert statuses == [403] * 5 + [429]


async def test_login_sets_a_device_cookie_that_survives_the_logout(browser: Browser) -> None:
    """It lasts, is out of reach for scripts, and does not say whose it is."""
    response = await log_in(browser, "alice")

    await browser.submit("/logout", {})

    header = next(header for header in response.headers.get_list("Set-Cookie") if header.startswith("device="))
    value, *attributes = header.split("; ")
    assert set(attributes) == {"Expires=Sat, 19 Feb 2028 08:00:00 GMT", "Path=/", "HttpOnly", "SameSite=Lax"}
    assert "alice" not in header
    assert browser.cookies == {"device": value.removeprefix("device=")}


async def test_login_throttles_an_address_that_tries_many_names(
    browser: Browser, new_browser: NewBrowser, clock: ManualClock
) -> None:
    """Thirty failures a minute; other addresses go on, other spellings of this one do not."""
    for number in range(30):
        assert (await log_in(browser, f"name{number}", WRONG)).code == 403

    response = await log_in(browser, "alice")

    assert (response.code, response.headers["Retry-After"]) == (429, "60")
    assert (await log_in(new_browser(), "alice", address="203.0.113.10")).code == 303
    assert (await log_in(new_browser(), "alice", address="::ffff:203.0.113.9")).code == 429
    clock.advance(60)
    assert (await log_in(browser, "alice")).code == 303


async def test_login_stays_throttled_when_the_server_was_restarted(
    browser: Browser, settings: Settings, clock: ManualClock
) -> None:
    """What was counted is in the database, and whoever opens that next goes on from there."""
    await fail(browser, 5)

    async with open_services(settings, clock=clock) as restarted:
        with pytest.raises(ThrottledError):
            await restarted.accounts.log_in("alice", PASSWORD)


async def test_login_answers_503_when_failures_cannot_be_counted(
    browser: Browser, services: Services, sqlite_file: Path
) -> None:
    """Neither does the right password pass uncounted, nor is it called wrong."""
    execute(sqlite_file, "DROP TABLE throttle_buckets")

    responses = [await log_in(browser, "alice", password) for password in (PASSWORD, WRONG)]

    assert [response.code for response in responses] == [503, 503]
    assert await services.sessions.list() == []


async def test_login_answers_503_when_the_database_is_locked(
    browser: Browser, services: Services, sqlite_file: Path
) -> None:
    """It is our trouble, not a wrong password."""
    lock = sqlite3.connect(sqlite_file, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")

    response = await log_in(browser, "alice")

    lock.close()
    assert response.code == 503
    assert (await log_in(browser, "alice")).code == 303


async def test_login_writes_no_typed_name_anywhere_unless_somebody_has_it(browser: Browser, sqlite_file: Path) -> None:
    """A password that was typed where the name belongs is neither in the log nor in the database."""
    with capture_logs() as lines:
        for name in ("swordfish-in-the-wrong-field", "alice"):
            await fail(browser, 6, name)

    throttled = [line for line in lines if line["event"] == "login.throttled"]
    assert [line.get("username") for line in throttled] == [None, "alice"]
    assert "swordfish" not in str(lines)
    assert "swordfish" not in dump(sqlite_file)
    assert WRONG not in dump(sqlite_file) + str(lines)


async def test_password_change_is_throttled_by_session(browser: Browser, new_browser: NewBrowser) -> None:
    """Whoever finds an open session cannot guess at the password, and hinders nobody else."""
    await log_in(browser, "alice")
    form = {"current_password": WRONG, "new_password": NEW}

    responses = [await browser.submit("/account/password", form) for _ in range(6)]

    assert [response.code for response in responses] == [403] * 5 + [429]
    assert responses[-1].headers["Retry-After"] == "1"
    assert "wrong too often. Please try again in 1 second." in responses[-1].body.decode()
    assert (await log_in(new_browser(), "alice")).code == 303


async def test_password_change_works_while_strangers_guess_at_the_login(
    browser: Browser, new_browser: NewBrowser
) -> None:
    """The owner of an account under attack can do something about it."""
    await log_in(browser, "alice")
    assert await fail(new_browser(), 6) == [403] * 5 + [429]

    response = await browser.submit("/account/password", {"current_password": PASSWORD, "new_password": NEW})

    assert (response.code, response.headers["Location"]) == (303, "/account?notice=password")


async def test_webhook_answers_throttled_after_five_failures_of_an_account(services: Services) -> None:
    """A client of deepstream gets the code, and deepstream a 403, which it does not ask again for."""
    verdicts = [await ask(services, "alice", WRONG) for _ in range(5)] + [await ask(services, "alice")]

    assert [(v.status, v.body) for v in verdicts] == [(403, b"invalid_credentials")] * 5 + [(403, b"throttled")]


async def test_webhook_is_never_throttled_by_address(services: Services) -> None:
    """All calls come from deepstream, and remoteAddress is what the client likes."""
    verdicts = [await ask(services, f"name{number}", WRONG) for number in range(40)]

    assert {b"invalid_credentials"} == {verdict.body for verdict in verdicts}
    assert (await ask(services, "alice")).status == 200


async def test_webhook_checks_tokens_without_the_throttle(
    browser: Browser, services: Services, sqlite_file: Path
) -> None:
    """A browser with both cookies is let in at once, also while logins cannot be counted."""
    await log_in(browser, "alice")
    execute(sqlite_file, "DROP TABLE throttle_buckets")
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())

    verdict = decide(services, {"headers": {"cookie": cookie, "origin": "http://localhost:8000"}}, {})

    assert isinstance(verdict, Verdict)
    assert verdict.status == 200


async def test_housekeeping_forgets_failures_when_a_day_has_gone(
    browser: Browser, services: Services, clock: ManualClock
) -> None:
    """Old failures take no room."""
    await fail(browser, 5)
    clock.advance(86400)

    pruned = await services.housekeeping.prune()

    assert pruned == 2
    assert await services.throttle.list(limit=10) == []


async def test_count_takes_a_login_back_that_was_good(browser: Browser, services: Services) -> None:
    """Good logins leave nothing in the throttle."""
    for name in ("alice", "bob"):
        await log_in(browser, name, PASSWORD)

    assert await services.throttle.list(limit=10) == []


def hash_of_deepstream(password: str) -> str:
    """Return a hash of deepstream's own kind, which the next login replaces."""
    key = hashlib.pbkdf2_hmac("sha1", password.encode(), b"salt", 10, 32)
    return legacy_hash(f"{b64encode(key).decode()}salt", algorithm="sha1", iterations=10, key_length=32)


async def take_place(services: Services, is_over: asyncio.Event) -> None:
    """Be one of those who log in at this moment."""
    with services.passwords.place():
        await is_over.wait()


async def ask(services: Services, username: str, password: str = PASSWORD) -> Verdict:
    """Return the verdict about credentials that came through deepstream."""
    pending = decide(services, {"remoteAddress": "203.0.113.9"}, {"username": username, "password": password})
    assert not isinstance(pending, Verdict)
    return await pending


def decide(services: Services, connection: object, auth: object) -> Verdict | Awaitable[Verdict]:
    """Ask the gate as deepstream does."""
    return services.gate.decide(
        orjson.dumps({"connectionData": connection, "authData": auth}),
        authorization=AUTHORIZATION,
        content_type="application/json",
    )


def execute(file: Path, statement: str) -> None:
    """Do something to the database behind the server's back."""
    connection = sqlite3.connect(file)
    connection.execute(statement)
    connection.commit()
    connection.close()


def dump(file: Path) -> str:
    """Return all that is in the database."""
    connection = sqlite3.connect(file)
    text = "\n".join(connection.iterdump())
    connection.close()
    return text

import asyncio
import hashlib
import html
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import bcrypt
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tornado.httpclient import HTTPResponse
from tornado.platform.asyncio import AsyncIOLoop

from tests.fakes import ManualClock
from tests.unit.test_passwords import SAMPLE_HASH, hash_at
from tests.web.browser import FORM, JSON, PAGE, PASSWORD, SCRIPT, Browser, json_of, session_cookie
from tornado_ds.errors import OverloadedError
from tornado_ds.handlers.login import local_path
from tornado_ds.services import Services
from tornado_ds.settings import PasswordSettings
from tornado_ds.users import User, UserChanges

EXPIRES = "Fri, 15 Jan 2027 20:00:00 GMT"  # 12 hours after ManualClock begins.


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How much was worked out so far: rounds of bcrypt's, which are 2 to the power of the cost, and of PBKDF2's."""
    done: Counter[str] = Counter()
    for name in ("checkpw", "hashpw"):
        monkeypatch.setattr(bcrypt, name, counted(getattr(bcrypt, name), done))
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counted_pbkdf2(done))
    return done


def counted(bcrypts: Callable[[bytes, bytes], Any], done: Counter[str]) -> Callable[[bytes, bytes], Any]:
    """Return *bcrypts* so that it counts its rounds."""

    def count(password: bytes, salt: bytes) -> Any:
        done["bcrypt"] += 1 << int(salt[4:6])
        return bcrypts(password, salt)

    return count


def counted_pbkdf2(done: Counter[str]) -> Callable[[str, bytes, bytes, int, int], bytes]:
    """Return PBKDF2 so that it counts its rounds."""
    pbkdf2 = hashlib.pbkdf2_hmac

    def count(digest: str, password: bytes, salt: bytes, iterations: int, length: int) -> bytes:
        # With one round it is only asked whether there is such a digest.
        done["pbkdf2"] += iterations if iterations > 1 else 0
        return pbkdf2(digest, password, salt, iterations, length)

    return count


def input_value(page: HTTPResponse, name: str) -> str:
    """What stands in a field of the form."""
    match = re.search(rf'<input[^>]*name="{name}"[^>]*value="([^"]*)"', page.body.decode())
    assert match is not None
    return html.unescape(match[1])


@pytest.mark.gen_test
async def test_login_page_has_the_form(browser: Browser) -> None:
    """The form is one that password managers understand, and works without scripts."""
    page = await browser.get("/login?next=/records%3Fpage=2")

    text = page.body.decode()
    assert page.code == 200
    assert 'action="/handle-login"' in text
    assert 'autocomplete="username"' in text
    assert 'autocomplete="current-password"' in text
    assert 'role="alert"' not in text
    assert input_value(page, "next") == "/records?page=2"


@pytest.mark.gen_test
async def test_login_sets_the_cookie_and_goes_on_when_the_password_is_right(browser: Browser, alice: User) -> None:
    """A good login is a redirect with exactly our cookie."""
    response = await browser.log_in(next="/records?page=2")

    assert (response.code, response.headers["Location"]) == (303, "/records?page=2")
    cookie = session_cookie(response)
    assert cookie is not None
    assert re.fullmatch(
        rf"access_token=[\w-]+\.[\w-]+\.[\w-]+; Expires={EXPIRES}; Path=/; HttpOnly; SameSite=Lax", cookie
    )
    assert (await browser.get("/")).code == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("overrides", [{"public_url": "https://app.example.com"}])
async def test_login_sets_a_host_cookie_when_the_site_is_https(
    browser: Browser, alice: User, overrides: dict[str, Any]
) -> None:
    """Behind https every cookie is Secure and bound to the host, and the answer asks for https only."""
    response = await browser.log_in()

    cookies = response.headers.get_list("Set-Cookie")
    assert [cookie for cookie in cookies if cookie.startswith("__Host-access_token=")]
    for cookie in cookies:
        assert cookie.startswith("__Host-")
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    assert response.headers["Strict-Transport-Security"].startswith("max-age=31536000")


@pytest.mark.parametrize(
    ("expected", "target"),
    [
        pytest.param("/", "/", id="root"),
        pytest.param("/a/b?c=d&e=%2F#f", "/a/b?c=d&e=%2F#f", id="path-and-query"),
        pytest.param("/a:b@c", "/a:b@c", id="colon-behind-the-slash"),
        pytest.param("/" + "a" * 2047, "/" + "a" * 2047, id="longest"),
        pytest.param("/", "/" + "a" * 2048, id="too-long"),
        pytest.param("/", "", id="empty"),
        pytest.param("/", "records", id="relative"),
        pytest.param("/", "https://evil.example/", id="absolute"),
        pytest.param("/", "https:evil.example", id="scheme-without-slashes"),
        pytest.param("/", "//evil.example", id="two-slashes"),
        pytest.param("/", "///evil.example", id="three-slashes"),
        pytest.param("/", "/a//evil.example", id="two-slashes-later"),
        pytest.param("/", "/\\evil.example", id="backslash"),
        pytest.param("/", "\\/evil.example", id="backslash-first"),
        pytest.param("/", "/\t/evil.example", id="tab"),
        pytest.param("/", "/\n/evil.example", id="line-feed"),
        pytest.param("/", "\n//evil.example", id="line-feed-first"),
        pytest.param("/", "/\r\nSet-Cookie: a=b", id="header-injection"),
        pytest.param("/", " //evil.example", id="blank-first"),
        pytest.param("/", "/a b", id="blank"),
        pytest.param("/", "javascript:alert(1)", id="script"),
        pytest.param("/", "data:text/html,x", id="data"),
        pytest.param("/", "/\u00e4", id="not-ascii"),
        pytest.param("/", "/\u2044evil.example", id="fraction-slash"),
        pytest.param("/", "/\0", id="nul"),
        pytest.param("/", "/\x7f", id="delete"),
        pytest.param("/", "/\ud800", id="surrogate"),
    ],
)
def test_local_path_keeps_only_paths_of_this_server(expected: str, target: str) -> None:
    """Whatever a browser might take for another site is `/`."""
    assert expected == local_path(target)


@given(target=st.text("/\\\\ab.:@?#%2F\t\r\n\u2044", max_size=12) | st.text(st.characters(codec=None), max_size=40))
def test_local_path_leads_nowhere_else_whatever_the_text(target: str) -> None:
    """Whatever `next` says, a browser stays on this server."""
    path = local_path(target)

    assert path.isascii()
    assert path.isprintable()
    assert "app.example.com" == urlsplit(urljoin("https://app.example.com/login", path)).netloc


# What a form or a script can send for the fields, and what it should.
FIELDS = st.sampled_from(["username", "password", "next", "username[]", ""])
TEXTS = st.sampled_from(["alice", "\0", "\r\nSet-Cookie: a=b", "a" * 2000, "/"]) | st.text(st.characters(codec=None))
BODIES = (
    st.binary(max_size=60)
    | st.lists(st.tuples(FIELDS, TEXTS), max_size=4).map(lambda f: urlencode(f, errors="surrogatepass").encode())
    | st.dictionaries(FIELDS, TEXTS | st.none() | st.integers() | st.lists(TEXTS), max_size=4).map(
        lambda fields: json.dumps(fields).encode()
    )
)


@given(body=BODIES, kind=st.sampled_from([FORM, JSON, {"Content-Type": "multipart/form-data; boundary=a"}, {}]))
@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_login_says_no_whatever_is_sent(
    io_loop: AsyncIOLoop, browser: Browser, alice: User, clock: ManualClock, body: bytes, kind: dict[str, str]
) -> None:
    """No body lets anybody in without the password, and none is an error of ours."""
    clock.advance(3600)  # Nobody is throttled by then.

    response = io_loop.run_sync(
        lambda: browser.fetch("POST", "/handle-login", body=body, headers=PAGE | kind), timeout=10
    )

    assert response.code in (400, 403, 413, 415)
    assert session_cookie(response) is None


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("multipart/form-data; boundary=a", id="as-browsers-write-it"),
        pytest.param("Multipart/Form-Data; boundary=a", id="capitals"),
        pytest.param("multipart/form-data", id="no-boundary"),
        pytest.param("multipart/mixed; boundary=a", id="mixed"),
    ],
)
async def test_login_is_refused_when_the_form_is_multipart(browser: Browser, alice: User, kind: str) -> None:
    """Nobody needs that parser to log in, so strangers do not get at it, even with the right password."""
    part = '--a\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    body = part.format("username", "alice") + part.format("password", PASSWORD) + "--a--\r\n"

    response = await browser.fetch("POST", "/handle-login", headers=PAGE | {"Content-Type": kind}, body=body.encode())

    assert response.code == 415
    assert session_cookie(response) is None
    assert "This address does not take files" in response.body.decode()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "/\t/evil.example", "/\r\nX: y", "\0"]
)
async def test_login_goes_nowhere_else_when_next_is_a_trap(browser: Browser, alice: User, target: str) -> None:
    """Neither the form nor a page for somebody who is logged in already redirects to another site."""
    page = f"/login?next={quote(target, safe='')}"

    before = await browser.get(page)
    login = await browser.log_in(next=target)
    after = await browser.get(page)

    assert input_value(before, "next") == "/"
    assert (login.code, login.headers["Location"]) == (303, "/")
    assert (after.code, after.headers["Location"]) == (303, "/")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("alice", id="usual"),
        pytest.param("nobody", id="unknown"),
        pytest.param('"><script>alert(1)</script>', id="markup"),
        pytest.param("Jürgen 😀", id="not-ascii"),
        pytest.param("{{ secret }}", id="template"),
    ],
)
async def test_login_comes_back_with_the_name_when_the_password_is_wrong(
    browser: Browser, alice: User, name: str
) -> None:
    """The form says what is wrong to everybody, screen readers included, and keeps the name and the target."""
    response = await browser.log_in(name, "wrong password", next="/records")

    text = response.body.decode()
    assert response.code == 403
    assert response.headers.get_list("Set-Cookie") == []
    assert 'role="alert"' in text
    assert "<script>alert" not in text
    assert "wrong password" not in text
    assert (name, "/records") == (input_value(response, "username"), input_value(response, "next"))


BAD_LOGINS = [
    pytest.param(b"username=nobody&password=whatever", id="unknown-user"),
    pytest.param(b"username=alice&password=whatever", id="wrong-password"),
    pytest.param(b"username=alice&password=", id="empty-password"),
    pytest.param(b"username=alice", id="no-password"),
    pytest.param(b"password=whatever", id="no-username"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"username=alice&password=correct+horse+battery+staple+", id="blank-behind"),
    pytest.param(b"username=alice&password=+correct+horse+battery+staple", id="blank-before"),
    pytest.param(b"username=alice+&password=correct+horse+battery+staple", id="blank-behind-the-name"),
    pytest.param(b"username=alice&password=correct+horse+battery+staple%00", id="nul"),
    pytest.param(b"username=alice%00&password=correct+horse+battery+staple", id="nul-in-the-name"),
    pytest.param(b"username=alice&password=%ff%fe", id="invalid-utf-8"),
    pytest.param(b"username=%ff&password=correct+horse+battery+staple", id="invalid-utf-8-in-the-name"),
    pytest.param(b"username=alice&password=%ed%a0%80", id="surrogate"),
    pytest.param(b"username=alice&password=" + b"x" * 73, id="73-bytes"),
    pytest.param(b"username=alice&password=" + b"x" * 1025, id="over-long"),
    pytest.param(b"username=" + b"a" * 1025 + b"&password=x", id="over-long-name"),
    pytest.param(b"username=alice&password=x&password=correct+horse+battery+staple", id="password-twice"),
    pytest.param(b"username=bob&username=alice&password=correct+horse+battery+staple", id="name-twice"),
    pytest.param(b"username=OPEN&password=correct+horse+battery+staple", id="open"),
    pytest.param(b"&&&=;%&%zz", id="garbage"),
]


@pytest.mark.gen_test
@pytest.mark.parametrize("body", BAD_LOGINS)
async def test_login_refuses_all_alike_when_the_fields_are_not_good(browser: Browser, alice: User, body: bytes) -> None:
    """One status, one body but for the name that was typed, for every reason."""
    plain = await browser.submit("/handle-login", {"username": "somebody", "password": "else"})
    response = await browser.fetch("POST", "/handle-login", body=body, headers=PAGE | FORM)

    name = html.escape(input_value(response, "username"))
    field = 'name="username" type="text" value="'
    expected = plain.body.decode().replace(f"{field}somebody", f"{field}{name}")
    actual = response.body.decode()
    assert (plain.code, response.code) == (403, 403)
    # An empty name has the cursor in its own field, as on the first visit.
    assert [line.replace("autofocus", "").rstrip(" >") for line in expected.splitlines()] == [
        line.replace("autofocus", "").rstrip(" >") for line in actual.splitlines()
    ]
    assert set(plain.headers) == set(response.headers)


@pytest.mark.gen_test
async def test_login_refuses_a_disabled_account_like_a_wrong_password(
    browser: Browser, alice: User, services: Services
) -> None:
    """Nobody learns by the login which accounts are disabled."""
    wrong = await browser.log_in("alice", "wrong password")
    await services.accounts.change("alice", UserChanges(disabled=True))

    disabled = await browser.log_in("alice", PASSWORD)

    assert (wrong.code, disabled.code) == (403, 403)
    assert wrong.body == disabled.body


@pytest.mark.gen_test
@pytest.mark.parametrize("overrides", [{"passwords": PasswordSettings(bcrypt_cost=6, allow_weak_cost=True)}])
@pytest.mark.parametrize(
    ("password", "password_hash"),
    [
        pytest.param(PASSWORD, hash_at(4, PASSWORD), id="cheaper-than-ours"),
        pytest.param(PASSWORD, hash_at(6, PASSWORD), id="as-dear-as-ours"),
        pytest.param("password", SAMPLE_HASH, id="legacy"),
    ],
)
async def test_login_works_as_hard_for_a_disabled_account_as_for_a_wrong_password(
    browser: Browser, services: Services, work: Counter[str], password: str, password_hash: str
) -> None:
    """Nobody learns by the time it takes that the password of a disabled account was right."""
    await services.users.add([User("alice", password_hash), User("bob", password_hash, disabled_at=1)])
    wrong = await browser.log_in("alice", "wrong password")
    for_a_wrong_one = Counter(work)
    work.clear()

    disabled = await browser.log_in("bob", password)

    assert (wrong.code, disabled.code) == (403, 403)
    assert for_a_wrong_one == work
    assert work["bcrypt"] == 2**6


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "password", ["  blanks around it  ", "\ttabs\tand\r\nlines", "\u00a0no-break space\u00a0", "n\u0303 and ñ are two"]
)
async def test_login_takes_a_password_exactly_as_it_was_typed(
    browser: Browser, services: Services, password: str
) -> None:
    """Blanks and control characters are part of a password, in a form and in JSON."""
    await services.accounts.add("bob", password)

    assert (await browser.log_in("bob", password)).code == 303
    assert (await browser.send("/handle-login", {"username": "bob", "password": password})).code == 200
    assert (await browser.log_in("bob", password.strip() + "!")).code == 403
    assert (await browser.log_in("bob", password.replace("\t", " "))).code == (303 if "\t" not in password else 403)


@pytest.mark.gen_test
async def test_login_finds_the_user_when_the_name_is_spelled_otherwise(browser: Browser, alice: User) -> None:
    """Equivalent spellings of a name are one user, whose own spelling is shown."""
    assert (await browser.log_in("ALICE", PASSWORD)).code == 303

    assert json_of(await browser.ask("/session"))["username"] == "alice"


@pytest.mark.gen_test
async def test_login_answers_json_when_json_is_asked_for(browser: Browser, alice: User, clock: ManualClock) -> None:
    """A script gets the name and the expiry in milliseconds, and the browser the cookie."""
    response = await browser.send("/handle-login", {"username": "alice", "password": PASSWORD})

    expected = {"username": "alice", "expiresAt": (int(clock.now()) + 12 * 3600) * 1000}
    assert (200, expected) == (response.code, json_of(response))
    assert session_cookie(response) is not None
    assert (await browser.ask("/session")).code == 200


@pytest.mark.gen_test
async def test_login_takes_a_form_from_a_script_and_json_from_a_page(browser: Browser, alice: User) -> None:
    """What is sent and what is answered are chosen apart."""
    fields = {"username": "alice", "password": PASSWORD}
    from_script = await browser.submit("/handle-login", fields, Accept="application/json")
    from_page = await browser.send("/handle-login", fields, Accept="text/html")

    assert (from_script.code, from_page.code) == (200, 303)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'"alice"', id="text"),
        pytest.param(b"{", id="not-json"),
        pytest.param(b"[" * 60_000, id="deep"),
        pytest.param(b'{"username": "alice"}', id="no-password"),
        pytest.param(b'{"username": "alice", "password": null}', id="null-password"),
        pytest.param(b'{"username": "alice", "password": ["correct horse battery staple"]}', id="array-password"),
        pytest.param(b'{"username": {"$gt": ""}, "password": {"$gt": ""}}', id="objects"),
        pytest.param(b'{"username": "alice", "password": true}', id="true"),
        pytest.param(b'{"username": "alice", "password": "\\ud800"}', id="surrogate"),
        pytest.param(b'{"username": "alice", "password": "\xff"}', id="invalid-utf-8"),
        pytest.param(b'{"username": "alice", "password": "' + b"x" * 60_000 + b'"}', id="long"),
        pytest.param(b"username=alice&password=correct+horse+battery+staple", id="form"),
    ],
)
async def test_login_refuses_json_when_it_says_something_else(browser: Browser, alice: User, body: bytes) -> None:
    """Wrong types are wrong credentials, and no server error."""
    response = await browser.fetch("POST", "/handle-login", body=body, headers=SCRIPT | JSON)

    assert (response.code, json_of(response)) == (403, {"error": "invalid_credentials"})
    assert session_cookie(response) is None


@pytest.mark.gen_test(timeout=30)
async def test_login_takes_no_time_when_the_name_in_json_is_long(browser: Browser) -> None:
    """What is longer than the form lets it be is not looked at: to bring so many accents into order takes seconds."""
    name = 15_000 * "\u0300" + 15_000 * "\u0316"
    # Of this process alone: the machine may be busy.
    started = time.process_time()

    response = await browser.send("/handle-login", {"username": name, "password": PASSWORD})

    assert (response.code, json_of(response)) == (403, {"error": "invalid_credentials"})
    assert time.process_time() - started < 1


@pytest.mark.gen_test
async def test_login_says_come_back_when_too_many_passwords_wait(
    browser: Browser, alice: User, services: Services
) -> None:
    """A full queue is a 503 with Retry-After, for pages and scripts, and nothing was hashed."""
    done = asyncio.Event()
    is_full = asyncio.Event()

    async def wait_in_line() -> None:
        try:
            with services.passwords.place():
                await done.wait()
        except OverloadedError:
            is_full.set()

    line = [asyncio.ensure_future(wait_in_line()) for _ in range(200)]
    await is_full.wait()
    page = await browser.log_in(next="/records")
    script = await browser.send("/handle-login", {"username": "alice", "password": PASSWORD})
    done.set()
    await asyncio.gather(*line)

    assert (page.code, script.code) == (503, 503)
    assert int(page.headers["Retry-After"]) > 0
    assert int(script.headers["Retry-After"]) > 0
    assert json_of(script) == {"error": "unavailable"}
    assert 'role="alert"' in page.body.decode()
    assert (input_value(page, "username"), input_value(page, "next")) == ("alice", "/records")
    assert (await browser.log_in()).code == 303


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="fetch-metadata"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, id="neighbour-host"),
        pytest.param({"Origin": "https://evil.example"}, id="origin"),
        pytest.param({"Origin": "null"}, id="opaque-origin"),
        pytest.param({"Origin": "http://["}, id="origin-that-nobody-parses"),
        pytest.param({"Origin": "http://localhost:1"}, id="other-port"),
    ],
)
async def test_login_refuses_a_post_when_another_site_sent_it(
    browser: Browser, alice: User, headers: dict[str, str]
) -> None:
    """Nobody can be logged in from a stranger's page."""
    body = f"username=alice&password={PASSWORD.replace(' ', '+')}"
    honest = {"Sec-Fetch-Site": ""} if "Origin" in headers else {}

    response = await browser.fetch(
        "POST", "/handle-login", body=body, headers={**FORM, "Accept": "text/html", **honest, **headers}
    )

    assert response.code == 403
    assert session_cookie(response) is None


@pytest.mark.gen_test
@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"}])
async def test_login_takes_a_post_when_no_other_site_sent_it(
    browser: Browser, alice: User, headers: dict[str, str]
) -> None:
    """Old browsers and scripts without a browser say nothing of where they are."""
    body = f"username=alice&password={PASSWORD.replace(' ', '+')}"

    assert (await browser.fetch("POST", "/handle-login", body=body, headers=FORM | headers)).code == 303


@pytest.mark.gen_test
async def test_login_ends_the_session_that_the_browser_had_before(alices: Browser, services: Services) -> None:
    """A session whose cookie is overwritten could never be ended by its owner."""
    before = alices.cookies["access_token"]

    await alices.log_in()

    assert alices.cookies["access_token"] != before
    alices.cookies["access_token"] = before
    assert json_of(await alices.ask("/session")) == {"error": "session_ended"}
    assert len(await services.sessions.list("alice")) == 1


@pytest.mark.gen_test
async def test_login_page_sends_on_when_somebody_is_logged_in(alices: Browser) -> None:
    """Nobody has to log in twice."""
    response = await alices.get("/login?next=/records")

    assert (response.code, response.headers["Location"]) == (303, "/records")


@pytest.mark.gen_test
async def test_login_replaces_a_legacy_hash_when_the_password_is_right(browser: Browser, services: Services) -> None:
    """A user of deepstream's own file logs in with the old password, from then on by bcrypt."""
    await services.users.add([User("userA", SAMPLE_HASH)])
    assert (await browser.log_in("userA", "wrong")).code == 403
    untouched = await services.users.get("userA")
    assert untouched is not None
    assert untouched.password_hash == SAMPLE_HASH

    assert (await browser.log_in("userA", "password")).code == 303

    user = await services.users.get("userA")
    assert user is not None
    assert user.password_hash.startswith("$2b$04$")
    assert user.version == untouched.version
    assert (await browser.ask("/session")).code == 200
    assert (await browser.log_in("userA", "password")).code == 303


@pytest.mark.gen_test
async def test_login_fails_kindly_when_the_stored_hash_is_damaged(browser: Browser, services: Services) -> None:
    """A damaged row is a wrong password for its user, and a line in the log for the operator."""
    await services.users.add([User("bob", "$2b$04$" + "z" * 53)])

    with capture_logs() as logs:
        response = await browser.log_in("bob", PASSWORD)

    assert response.code == 403
    assert [(entry["username"], entry["detail"]) for entry in logs if entry["event"] == "login.failed"] == [
        ("bob", "unusable password hash")
    ]


@pytest.mark.gen_test
async def test_login_notes_where_and_with_what_somebody_logged_in(
    browser: Browser, alice: User, services: Services
) -> None:
    """The session remembers the address and the browser, cut and without control characters."""
    fields = {"username": "alice", "password": PASSWORD}
    await browser.submit("/handle-login", fields, User_Agent="Firefox/140 \u00e4" + "x" * 500)

    [session] = await services.sessions.list("alice")
    assert session.address == "127.0.0.1"
    assert session.user_agent.startswith("Firefox/140 ")
    assert len(session.user_agent) == 256
    assert session.user_agent.isprintable()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("expected", "overrides"),
    [("127.0.0.1", {}), ("198.51.100.1", {"trusted_proxies": ["127.0.0.1"]})],
    ids=["stranger", "proxy"],
)
async def test_login_believes_a_forwarded_address_only_of_a_proxy(
    browser: Browser, alice: User, services: Services, expected: str
) -> None:
    """X-Forwarded-For counts when the peer is trusted, X-Real-Ip never."""
    fields = {"username": "alice", "password": PASSWORD}
    await browser.submit(
        "/handle-login", fields, X_Forwarded_For="1.2.3.4, 198.51.100.1", X_Real_Ip="6.6.6.6", Forwarded="for=7.7.7.7"
    )

    assert [expected] == [session.address for session in await services.sessions.list("alice")]


@pytest.mark.gen_test
async def test_login_writes_no_secret_into_the_log(browser: Browser, alice: User) -> None:
    """Passwords, wrong and right ones, and tokens are in no log line."""
    with capture_logs() as logs:
        await browser.log_in("alice", "canary-wrong-password")
        await browser.fetch("POST", "/handle-login", body=b"username=alice&password=canary%ff", headers=PAGE | FORM)
        await browser.fetch("POST", "/handle-login", body=b'{"password": "canary', headers=SCRIPT | JSON)
        await browser.log_in()
        await browser.get(f"/?token={browser.cookies['access_token']}")

    assert logs
    assert "canary" not in repr(logs)
    assert PASSWORD not in repr(logs)
    assert browser.cookies["access_token"] not in repr(logs)

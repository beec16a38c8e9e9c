"""Who gets into deepstream, and as whom: the real server, the real client, our config."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.live.clients import ClientError
from tests.live.conftest import PASSWORD, Connect
from tests.live.servers import AuthServer, Deepstream, Response, fetch, wait_for


@pytest.fixture
def cookie(auth_server: AuthServer) -> str:
    """The cookie of a session of alice, who is an editor."""
    return auth_server.log_in("alice", PASSWORD)


def test_login_hands_the_client_its_data(connect: Connect, cookie: str) -> None:
    """The cookie of a browser is enough to log in, and brings the user's client data."""
    client = connect(cookie=cookie)

    data = client.login()

    assert {key: data[key] for key in data if key != "expiresAt"} == {"colour": "green", "username": "alice"}
    assert time.time() * 1000 < data["expiresAt"]


def test_rule_sees_the_username(connect: Connect, cookie: str) -> None:
    """A Valve rule on user.id lets alice into her own corner only."""
    client = connect(cookie=cookie)
    client.login()

    client.write("users/alice/colours", {"favourite": "green"})

    assert client.read("users/alice/colours") == {"favourite": "green"}
    assert is_denied(lambda: client.write("users/bob/colours", {}))
    assert is_denied(lambda: client.read("users/bob/colours"))


def test_rule_sees_the_roles(auth_server: AuthServer, connect: Connect, cookie: str) -> None:
    """A Valve rule on user.data lets an editor write the news, and everybody else only read them."""
    editor, reader = connect(cookie=cookie), connect(cookie=auth_server.log_in("bob", PASSWORD))
    editor.login()
    reader.login()

    editor.write("news/today", {"title": "sunny"})

    assert reader.read("news/today") == {"title": "sunny"}
    assert is_denied(lambda: reader.write("news/today", {"title": "rainy"}))


def test_rule_takes_no_text_for_roles(auth_server: AuthServer, connect: Connect) -> None:
    """Roles that another program stored as a text give nothing away: `subeditor` is no editor."""
    auth_server.cli("seed", "-", text=json.dumps([{"username": "suzy", "password": PASSWORD}]))
    file = Path(auth_server.settings["TORNADO_DS_DATA_DIR"]) / "tornado_ds.sqlite3"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("""UPDATE users SET server_data = '{"roles": "subeditor"}' WHERE username = 'suzy'""")
    client = connect(cookie=auth_server.log_in("suzy", PASSWORD))
    client.login()

    assert is_denied(lambda: client.write("news/today", {"title": "mine"}))


def test_change_reaches_other_clients(auth_server: AuthServer, connect: Connect, cookie: str) -> None:
    """Two users see each other's changes of the demo's record."""
    alice, bob = connect(cookie=cookie), connect(cookie=auth_server.log_in("bob", PASSWORD))
    alice.login()
    bob.login()
    bob.subscribe("demo/test")

    alice.write("demo/test", {"text": "hello"})

    assert bob.wait_for("record demo/test", lambda values: values[0] != {}) == [{"text": "hello"}]


def test_record_is_denied_that_no_rule_allows(connect: Connect, cookie: str) -> None:
    """What permissions.yml does not name, nobody may do."""
    client = connect(cookie=cookie)
    client.login()

    denied = is_denied(lambda: client.write("anything", {}))

    assert denied


@pytest.mark.parametrize(
    "origin",
    [
        pytest.param(None, id="missing"),
        pytest.param("", id="empty"),
        pytest.param("null", id="null"),
        pytest.param("http://localhost:1", id="other-port"),
        pytest.param("https://localhost:{port}", id="other-scheme"),
        pytest.param("http://127.0.0.1:{port}", id="other-name"),
        pytest.param("http://localhost:{port}.evil.example", id="suffix"),
        pytest.param("http://localhost:{port}, http://evil.example", id="list"),
    ],
)
def test_cookie_is_refused_from_another_origin(
    auth_server: AuthServer, connect: Connect, cookie: str, origin: str | None
) -> None:
    """A page of another origin cannot use the cookie that the browser sends along."""
    port = auth_server.url.rpartition(":")[2]
    client = connect(cookie=cookie, origin=origin and origin.replace("{port}", port))

    with pytest.raises(ClientError) as refused:
        client.login()

    assert refusal("origin_denied") == refused.value.args[0]


def test_token_logs_in_without_an_origin(connect: Connect, cookie: str) -> None:
    """A backend or device gives its token itself, so it needs no origin."""
    client = connect(origin=None)

    data = client.login({"token": token_of(cookie)})

    assert data["username"] == "alice"


def test_credentials_open_a_session_whose_token_logs_in_again(connect: Connect) -> None:
    """The tutorial's simple way: a name and a password once, then the token."""
    data = connect(origin=None).login({"username": "bob", "password": PASSWORD})

    again = connect(origin=None).login({"token": data["token"]})

    assert again["username"] == "bob"


@pytest.mark.parametrize(
    ("auth_data", "reason"),
    [
        pytest.param(None, "not_logged_in", id="nothing"),
        pytest.param({"username": "bob", "password": "wrong password"}, "invalid_credentials", id="wrong-password"),
        pytest.param({"username": "eve", "password": PASSWORD}, "invalid_credentials", id="unknown-user"),
        pytest.param({"token": "no token"}, "session_invalid", id="no-token"),
    ],
)
def test_stranger_is_refused(connect: Connect, auth_data: dict[str, str] | None, reason: str) -> None:
    """Without a session or good credentials nobody gets in, and the client hears why."""
    client = connect()

    with pytest.raises(ClientError) as refused:
        client.login(auth_data)

    assert refusal(reason) == refused.value.args[0]


def test_ended_session_is_refused(auth_server: AuthServer, connect: Connect, cookie: str) -> None:
    """After the log-out neither cookie nor token is good any more."""
    auth_server.log_out(cookie)

    with pytest.raises(ClientError) as by_cookie:
        connect(cookie=cookie).login()
    with pytest.raises(ClientError) as by_token:
        connect().login({"token": token_of(cookie)})

    assert refusal("session_ended") == by_cookie.value.args[0] == by_token.value.args[0]


def test_expired_session_is_refused(auth_server: AuthServer, connect: Connect) -> None:
    """A session that nobody renewed is over when its time is."""
    with auth_server.sibling({"TORNADO_DS_SESSION__IDLE_TIMEOUT": "1s"}) as hasty:
        cookie = hasty.log_in("alice", PASSWORD)
    expiry = time.time() + 1
    wait_for(lambda: time.time() > expiry + 1)

    with pytest.raises(ClientError) as refused:
        connect(cookie=cookie, origin=auth_server.url).login()

    assert refusal("session_expired") == refused.value.args[0]


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda token: token[:-1] + ("A" if token[-1] != "A" else "E"), id="signature"),
        pytest.param(lambda token: ".".join(token.split(".")[:2]) + ".", id="no-signature"),
        pytest.param(lambda token: ".".join(["eyJhbGciOiJub25lIn0", token.split(".")[1], ""]), id="alg-none"),
        pytest.param(lambda token: token + "=", id="padding"),
    ],
)
def test_forged_token_is_refused(connect: Connect, cookie: str, forge: Callable[[str], str]) -> None:
    """A token that is not byte for byte ours is none."""
    client = connect()

    with pytest.raises(ClientError) as refused:
        client.login({"token": forge(token_of(cookie))})

    assert refusal("session_invalid") == refused.value.args[0]


def test_client_is_cut_off_after_three_refusals(connect: Connect) -> None:
    """deepstream closes a connection whose logins fail, so that nobody guesses for long on one."""
    client = connect()

    for _ in range(3):
        with pytest.raises(ClientError):
            client.login({"token": "guess"})

    assert client.wait_for("connectionStateChanged", lambda values: values == ["TOO_MANY_AUTH_ATTEMPTS"]) == [
        "TOO_MANY_AUTH_ATTEMPTS"
    ]


def test_http_api_takes_a_token(deepstream: Deepstream, cookie: str) -> None:
    """A backend writes through deepstream's HTTP API with its token."""
    response = write_over_http(deepstream, "users/alice/http", {"via": "http"}, token=token_of(cookie))

    assert (response.json()["result"], response.status) == ("SUCCESS", 200)


def test_http_api_obeys_the_rules(deepstream: Deepstream, cookie: str) -> None:
    """The same Valve rules hold over HTTP."""
    response = write_over_http(deepstream, "users/bob/http", {}, token=token_of(cookie))

    assert response.json()["result"] == "FAILURE"


def test_http_api_takes_a_cookie_only_from_our_origin(
    deepstream: Deepstream, auth_server: AuthServer, cookie: str
) -> None:
    """The cookie alone logs an HTTP call in, so the origin counts there too."""
    ours = write_over_http(deepstream, "demo/http", {}, headers={"Cookie": cookie, "Origin": auth_server.url})
    foreign = write_over_http(deepstream, "demo/http", {}, headers={"Cookie": cookie, "Origin": "http://localhost:1"})
    nameless = write_over_http(deepstream, "demo/http", {}, headers={"Cookie": cookie})

    assert [ours.status, foreign.status, nameless.status] == [200, 401, 401]


def test_http_api_refuses_a_stranger(deepstream: Deepstream) -> None:
    """Without a token there is nothing to be had over HTTP."""
    response = write_over_http(deepstream, "demo/http", {})

    assert response.status == 401


def test_http_login_hands_out_a_token(deepstream: Deepstream, connect: Connect) -> None:
    """`POST /api/auth` turns credentials into a token that logs in anywhere."""
    url = f"{deepstream.http_url}/api/auth"
    answer = fetch(url, method="POST", body={"username": "bob", "password": PASSWORD})

    data = connect(origin=None).login({"token": answer.json()["token"]})

    assert data["username"] == "bob"


def test_http_login_refuses_a_wrong_password(deepstream: Deepstream) -> None:
    """`POST /api/auth` gives nothing for a wrong password."""
    url = f"{deepstream.http_url}/api/auth"

    response = fetch(url, method="POST", body={"username": "bob", "password": "wrong password"})

    assert response.status == 401


def refusal(code: str) -> dict[str, object]:
    """Return what deepstream's client makes of a denial code."""
    return {"reason": {"error": code}}


def token_of(cookie: str) -> str:
    """Return the token that a cookie carries."""
    return cookie.partition("=")[2]


def is_denied(action: Callable[[], Any]) -> bool:
    """True if a Valve rule denies *action*."""
    try:
        action()
    except ClientError as error:
        return bool(error.args[0] == "MESSAGE_DENIED")
    return False


def write_over_http(
    deepstream: Deepstream,
    record: str,
    data: object,
    *,
    token: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Write a record through deepstream's HTTP API."""
    message = {"topic": "record", "action": "write", "recordName": record, "data": data}
    body = {"body": [message], **({} if token is None else {"token": token})}
    return fetch(f"{deepstream.http_url}/api", method="POST", headers=headers, body=body)

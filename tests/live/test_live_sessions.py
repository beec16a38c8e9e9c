"""A session that ends, expires or changes takes its live connections along: real servers, real clients."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.live.clients import Client, Driver
from tests.live.conftest import PASSWORD, Connect
from tests.live.servers import AuthServer, Deepstream, fetch, wait_for
from tests.live.test_connections import is_denied

NEW_PASSWORD = "a purple elephant in the rain"

NAMES = ["ended", "disabled", "renamed", "removed", "promoted", "demoted", "described", "away", "device", "late"]


@pytest.fixture(scope="module", autouse=True)
def _users(auth_server: AuthServer) -> None:
    """A user for each test that does something to a user."""
    users = [{"username": name, "password": PASSWORD} for name in NAMES]
    users[NAMES.index("demoted")]["roles"] = ["editor"]  # type: ignore[assignment]
    auth_server.cli("seed", "-", text=json.dumps(users))


@pytest.fixture
def witness(connect: Connect, auth_server: AuthServer) -> Client:
    """A connection of bob's, who has nothing to do with it."""
    client = connect(cookie=auth_server.log_in("bob", PASSWORD))
    client.login()
    return client


@pytest.mark.parametrize(
    ("name", "command", "text", "reason"),
    [
        pytest.param("ended", ["sessions", "end", "--user", "ended"], "", "session_ended", id="end"),
        pytest.param("disabled", ["users", "disable", "disabled"], "", "account_disabled", id="disable"),
        pytest.param(
            "renamed", ["users", "passwd", "renamed", "--password-stdin"], NEW_PASSWORD, "session_ended", id="password"
        ),
        pytest.param("removed", ["users", "remove", "removed", "--yes"], "", "session_ended", id="remove"),
    ],
)
def test_command_closes_the_connections_of_a_user(
    auth_server: AuthServer, connect: Connect, witness: Client, name: str, command: list[str], text: str, reason: str
) -> None:
    """Every connection of the user is closed and stays out with the right reason; nobody else's is touched."""
    first, second = [connect(cookie=auth_server.log_in(name, PASSWORD)) for _ in range(2)]
    first.login()
    second.login()

    auth_server.cli(*command, text=text)

    assert [why_out(first), why_out(second)] == [reason, reason]
    assert is_undisturbed(witness)


def test_logout_closes_the_connections_of_that_session_only(
    auth_server: AuthServer, connect: Connect, witness: Client
) -> None:
    """All tabs of the browser that logged out are closed; the other browser of the same person is not."""
    cookie, other_cookie = [auth_server.log_in("alice", PASSWORD) for _ in range(2)]
    tabs = [connect(cookie=cookie), connect(cookie=cookie)]
    other = connect(cookie=other_cookie)
    for client in (*tabs, other):
        client.login()

    auth_server.log_out(cookie)

    assert [why_out(tab) for tab in tabs] == ["session_ended", "session_ended"]
    assert is_undisturbed(other)
    assert is_undisturbed(witness)


def test_closed_connection_receives_nothing_more(auth_server: AuthServer, connect: Connect, witness: Client) -> None:
    """What a subscription would still have brought after the end never comes."""
    cookie = auth_server.log_in("alice", PASSWORD)
    client = connect(cookie=cookie)
    client.login()
    client.subscribe("demo/secret")
    witness.subscribe("demo/secret")

    auth_server.log_out(cookie)
    why_out(client)
    witness.write("demo/secret", {"text": "not for you"})
    witness.wait_for("record demo/secret", lambda values: values == [{"text": "not for you"}])

    assert [{"text": "not for you"}] not in client.events("record demo/secret")


def test_session_that_nobody_renews_takes_its_connection_along(auth_server: AuthServer, connect: Connect) -> None:
    """The connection is closed when the session runs out, without anybody doing anything."""
    with auth_server.sibling({"TORNADO_DS_SESSION__IDLE_TIMEOUT": "2s"}) as hasty:
        cookie = hasty.log_in("alice", PASSWORD)
    client = connect(cookie=cookie)
    expires_at = client.login()["expiresAt"]

    reason = why_out(client)

    assert reason == "session_expired"
    assert expires_at <= time.time() * 1000


def test_renewal_keeps_a_connection_alive_past_its_first_expiry(auth_server: AuthServer, connect: Connect) -> None:
    """The very same connection goes on, Valve lets it write, and the second expiry closes it."""
    with auth_server.sibling({"TORNADO_DS_SESSION__IDLE_TIMEOUT": "3s"}) as hasty:
        cookie = hasty.log_in("alice", PASSWORD)
        client = connect(cookie=cookie)
        first_expiry = client.login()["expiresAt"]
        wait_for(lambda: time.time() * 1000 > first_expiry - 1000)
        second_expiry = renew(hasty, cookie)

    wait_for(lambda: time.time() * 1000 > first_expiry + 500)
    client.write("users/alice/renewed", {"still": "here"})
    undisturbed = is_undisturbed(client)
    reason = why_out(client)

    assert undisturbed
    assert reason == "session_expired"
    assert first_expiry < second_expiry <= time.time() * 1000


@pytest.mark.parametrize(
    ("name", "roles", "expected"),
    [
        pytest.param("promoted", ["editor"], [True, False], id="given"),
        pytest.param("demoted", ["--clear"], [False, True], id="taken"),
    ],
)
def test_change_of_roles_reaches_a_live_connection(
    auth_server: AuthServer, connect: Connect, witness: Client, name: str, roles: list[str], expected: list[bool]
) -> None:
    """A Valve rule that read the old roles reads the new ones, without a new login, and subscriptions are kept."""
    client = connect(cookie=auth_server.log_in(name, PASSWORD))
    client.login()
    client.subscribe(f"demo/{name}")
    client.clear_events()

    before = is_denied(lambda: client.write("news/roles", {"by": name}))
    auth_server.cli("users", "roles", name, *roles)
    client.wait_for("connectionStateChanged", lambda values: values == ["OPEN"])
    after = is_denied(lambda: client.write("news/roles", {"by": name}))
    witness.write(f"demo/{name}", {"text": "still there?"})

    assert [before, after] == expected
    assert client.wait_for(f"record demo/{name}", lambda values: values == [{"text": "still there?"}])
    assert is_undisturbed(witness)


def test_change_of_data_reaches_a_live_client(auth_server: AuthServer, connect: Connect) -> None:
    """The client is told its new data, as at a login."""
    client = connect(cookie=auth_server.log_in("described", PASSWORD))
    client.login()
    client.clear_events()

    auth_server.cli("users", "set-data", "described", "--client-data", '{"colour": "red"}')

    (data,) = client.wait_for("clientDataChanged", lambda values: "colour" in values[0])
    assert data["colour"] == "red"


def test_printed_token_logs_in_and_ends(auth_server: AuthServer, connect: Connect) -> None:
    """A backend's token from the command line logs in, and ends like any session."""
    opened = json.loads(auth_server.cli("sessions", "open", "device", "--lifetime", "90d", "--json"))
    client = connect(origin=None)

    data = client.login({"token": opened["token"]})
    auth_server.cli("sessions", "end", opened["sid"])
    reason = why_out(client)

    assert data["username"] == "device"
    assert reason == "session_ended"


def test_connection_that_logs_in_just_after_the_end_is_closed(
    tmp_path: Path, auth_server: AuthServer, driver: Driver, secret: str
) -> None:
    """The webhook said yes, the session ended, and only then the login came through: it does not last."""
    cookie = auth_server.log_in("late", PASSWORD)
    headers = {"cookie": cookie, "origin": auth_server.url}

    with (
        slow_webhook(f"http://{auth_server.internal}/check-token") as webhook,
        Deepstream(
            tmp_path,
            secret=secret,
            internal=auth_server.internal,
            webhook=f"http://deepstream:{secret}@127.0.0.1:{webhook.server_port}/check-token",
        ) as deepstream,
        ThreadPoolExecutor() as pool,
    ):
        early, late = [driver.open(deepstream.url, headers=headers) for _ in range(2)]
        early.login()
        webhook.hold()
        login = pool.submit(late.login)
        webhook.has_held.wait(10)
        auth_server.log_out(cookie)
        why_out(early)
        webhook.release()
        data = login.result()
        reason = why_out(late)
        for client in (early, late):
            client.close()

    assert data["username"] == "late"
    assert reason == "session_ended"


def test_end_is_caught_up_with_when_the_feed_was_away(
    tmp_path: Path, auth_server: AuthServer, driver: Driver, secret: str
) -> None:
    """The auth server was down for five seconds while a session was ended: closed once it is back, and no other."""
    restarting = auth_server.sibling({})
    cookies = [auth_server.log_in(name, PASSWORD) for name in ("away", "bob")]

    with restarting, Deepstream(tmp_path, secret=secret, internal=restarting.internal) as deepstream:
        wait_for(lambda: "following http://" in deepstream.output)
        client, other = [
            driver.open(deepstream.url, headers={"cookie": cookie, "origin": auth_server.url}) for cookie in cookies
        ]
        client.login()
        other.login()
        restarting.stop()
        gone_at = time.monotonic()
        auth_server.cli("sessions", "end", "--user", "away")
        wait_for(lambda: time.monotonic() > gone_at + 5)
        meanwhile = is_undisturbed(client)
        restarting.start()
        reason = why_out(client)
        undisturbed = is_undisturbed(other)
        log = deepstream.output
        client.close()
        other.close()

    assert meanwhile
    assert reason == "session_ended"
    assert undisturbed
    assert [log.count("following http://"), log.count("lost http://")] == [2, 1]


def test_clients_are_all_back_after_a_restart_of_deepstream(
    tmp_path: Path, auth_server: AuthServer, driver: Driver, secret: str
) -> None:
    """Three hundred live clients of thirty sessions come back, and those whose session ended meanwhile stay out."""
    cookies = [auth_server.log_in("alice", PASSWORD) for _ in range(31)]
    deepstream = Deepstream(tmp_path, secret=secret, internal=auth_server.internal)

    def enter(cookie: str) -> Client:
        headers = {"cookie": cookie, "origin": auth_server.url}
        client = driver.open(deepstream.url, headers=headers, maxReconnectAttempts=1000, maxReconnectInterval=500)
        client.login()
        return client

    with deepstream, ThreadPoolExecutor(8) as pool:
        clients = list(pool.map(enter, cookies * 10))
        ended, live = clients[::31], [client for number, client in enumerate(clients) if number % 31]
        for client in clients:
            client.clear_events()
        deepstream.stop()
        auth_server.log_out(cookies[0])
        deepstream.start()
        for client in live:
            client.wait_for("connectionStateChanged", lambda values: values == ["OPEN"])
        reasons = [why_out(client) for client in ended]
        for client in live:
            client.write("demo/restart", {})
        lost = [client for client in live if client.events("reauthenticationFailure")]
        for client in clients:
            client.close()

    assert (len(live), lost) == (300, [])
    assert reasons == ["session_ended"] * 10


def why_out(client: Client) -> str:
    """Return the reason for which a connection that was closed does not get in again."""
    (failure,) = client.wait_for("reauthenticationFailure")
    return str(failure["reason"]["error"])


def is_undisturbed(client: Client) -> bool:
    """True if the connection never changed its state since it was opened, and works."""
    states = [state for (state,) in client.events("connectionStateChanged")]
    client.write("demo/undisturbed", {})
    return states[states.index("OPEN") :] == ["OPEN"]


def renew(server: AuthServer, cookie: str) -> int:
    """Renew the session as a page does; return its new end, in milliseconds."""
    headers = {"Cookie": cookie, "Origin": server.settings["TORNADO_DS_PUBLIC_URL"]}
    response = fetch(f"{server.url}/session/renew", method="POST", headers=headers, body={})
    assert response.status == 200, response
    return int(response.json()["expiresAt"])


class SlowWebhook(ThreadingHTTPServer):
    """Hands requests on to the webhook at *target*, and holds the answers back when it is told to."""

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = target
        self.has_held = Event()
        self._may_answer = Event()
        self._may_answer.set()

    def hold(self) -> None:
        """Keep the next answers."""
        self._may_answer.clear()

    def release(self) -> None:
        """Let the answers go."""
        self._may_answer.set()

    def pass_on(self) -> None:
        """Return once an answer may go, before deepstream gives up on it."""
        if not self._may_answer.is_set():
            self.has_held.set()
            self._may_answer.wait(1.5)


class _Forward(BaseHTTPRequestHandler):
    server: SlowWebhook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {"Authorization": self.headers["Authorization"]}
        answer = fetch(self.server.target, method="POST", headers=headers, body=body)
        self.server.pass_on()
        self.send_response(answer.status)
        self.send_header("Content-Type", next(text for name, text in answer.headers if name == "Content-Type"))
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def slow_webhook(target: str) -> Iterator[SlowWebhook]:
    """A `SlowWebhook` at work."""
    with SlowWebhook(target) as webhook:
        thread = Thread(target=webhook.serve_forever)
        thread.start()
        try:
            yield webhook
        finally:
            webhook.shutdown()
            thread.join()

"""Two auth servers over one PostgreSQL, and two deepstream nodes: what ends anywhere ends everywhere."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.live.clients import Client, Driver
from tests.live.conftest import PASSWORD
from tests.live.servers import AuthServer, Deepstream, wait_for
from tests.live.test_live_sessions import is_undisturbed, why_out
from tests.postgresql import PostgreSQL, upgrade_now

USERS = [{"username": name, "password": PASSWORD} for name in ("alice", "bob")]

Enter = Callable[[Deepstream, str], Client]


@dataclass(frozen=True, slots=True)
class Nodes:
    """Each deepstream node asks the auth server of its own number, and prefers its feed."""

    auth: tuple[AuthServer, AuthServer]
    deepstream: tuple[Deepstream, Deepstream]


@pytest.fixture(scope="module")
def database_url(postgresql: PostgreSQL) -> Iterator[str]:
    """The URL of a database for these servers."""
    name = postgresql.create()
    upgrade_now(postgresql.url(name))
    yield postgresql.url(name)
    postgresql.drop(name)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, secret: str, database_url: str) -> Iterator[Nodes]:
    """The servers, with the users alice and bob."""
    env = {"TORNADO_DS_DATABASE_URL": database_url}
    first = AuthServer(tmp_path_factory.mktemp("auth"), secret=secret, deepstream_port=1, env=env)
    first.cli("seed", "-", text=json.dumps(USERS))
    auth = (first, first.sibling(env))
    feeds = [f"http://{server.internal}/session-events" for server in auth]
    with ExitStack() as stack:
        for server in auth:
            stack.enter_context(server)
        deepstream = tuple(
            stack.enter_context(
                Deepstream(
                    tmp_path_factory.mktemp("deepstream"),
                    secret=secret,
                    internal=server.internal,
                    feed=", ".join(order),
                )
            )
            for server, order in zip(auth, (feeds, feeds[::-1]), strict=True)
        )
        assert len(deepstream) == 2
        yield Nodes(auth, deepstream)


@pytest.fixture
def enter(driver: Driver, nodes: Nodes) -> Iterator[Enter]:
    """Connect a client to a node with a cookie; it leaves after the test."""
    clients: list[Client] = []

    def enter(deepstream: Deepstream, cookie: str) -> Client:
        clients.append(driver.open(deepstream.url, headers={"cookie": cookie, "origin": nodes.auth[0].url}))
        clients[-1].login()
        return clients[-1]

    yield enter

    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("opened_at", "end"),
    [
        pytest.param(0, lambda nodes, cookie: nodes.auth[0].log_out(cookie), id="logout-where-it-was-opened"),
        pytest.param(0, lambda nodes, cookie: nodes.auth[1].log_out(cookie), id="logout-at-the-second"),
        pytest.param(1, lambda nodes, cookie: nodes.auth[0].log_out(cookie), id="logout-at-the-first"),
        pytest.param(0, lambda nodes, _: nodes.auth[1].cli("sessions", "end", "--user", "alice"), id="command"),
    ],
)
def test_end_typed_anywhere_closes_connections_everywhere(
    nodes: Nodes, enter: Enter, opened_at: int, end: Callable[[Nodes, str], object]
) -> None:
    """A session that was opened at either auth server is good at both nodes, and over at both."""
    cookie = nodes.auth[opened_at].log_in("alice", PASSWORD)
    bobs = nodes.auth[opened_at].log_in("bob", PASSWORD)
    clients = [enter(deepstream, cookie) for deepstream in nodes.deepstream]
    others = [enter(deepstream, bobs) for deepstream in nodes.deepstream]

    end(nodes, cookie)

    assert [why_out(client) for client in clients] == ["session_ended", "session_ended"]
    assert all(is_undisturbed(other) for other in others)


def test_auth_server_that_stops_hands_its_followers_to_another(nodes: Nodes, enter: Enter) -> None:
    """The node whose auth server is gone follows the other one, closes what ends there, and nothing else."""
    auth, (deepstream, _) = nodes.auth, nodes.deepstream
    cookie, bobs = auth[1].log_in("alice", PASSWORD), auth[1].log_in("bob", PASSWORD)
    client, other = enter(deepstream, cookie), enter(deepstream, bobs)

    auth[0].stop()
    wait_for(lambda: f"following http://{auth[1].internal}/session-events" in deepstream.output)
    auth[1].log_out(cookie)
    client.wait_for("connectionStateChanged", lambda values: values == ["RECONNECTING"])
    undisturbed = is_undisturbed(other)
    auth[0].start()

    assert undisturbed
    assert why_out(client) == "session_ended"

"""A deepstream that is wired up wrongly lets nobody in."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live.clients import ClientError, Driver
from tests.live.conftest import PASSWORD
from tests.live.servers import AuthServer, Deepstream, wait_for


@pytest.mark.parametrize(
    "webhook",
    [
        pytest.param("http://deepstream:{secret}@{internal}/check-tokens", id="wrong-path"),
        pytest.param("http://deepstream:{secret}@{internal}/", id="no-path"),
        pytest.param("http://deepstream:wrong@{internal}/check-token", id="wrong-secret"),
        pytest.param("http://{internal}/check-token", id="no-secret"),
        pytest.param("{public}/login", id="login-page"),
        pytest.param("{public}/", id="app"),
        pytest.param("{public}/handle-login", id="login-form"),
        pytest.param("{public}/session", id="session"),
        pytest.param("{public}/auth/verify", id="proxy-check"),
    ],
)
def test_nobody_gets_in_when_the_webhook_is_another_url(
    tmp_path: Path, auth_server: AuthServer, driver: Driver, secret: str, webhook: str
) -> None:
    """deepstream takes any 200, and follows redirects: no other address of ours may answer with one."""
    url = webhook.format(secret=secret, internal=auth_server.internal, public=auth_server.url)
    cookie = auth_server.log_in("alice", PASSWORD)

    with Deepstream(tmp_path, secret=secret, internal=auth_server.internal, webhook=url) as deepstream:
        client = driver.open(deepstream.url, headers={"cookie": cookie, "origin": auth_server.url})
        with pytest.raises(ClientError):
            client.login({"token": cookie.partition("=")[2]})
        client.close()

    assert "AUTH_UNSUCCESSFUL" in deepstream.output


def test_webhook_on_the_public_listener_works(
    tmp_path: Path, auth_server: AuthServer, driver: Driver, secret: str
) -> None:
    """As in the tutorial, deepstream may also ask where the pages are."""
    url = auth_server.url.replace("http://localhost", f"http://deepstream:{secret}@127.0.0.1") + "/check-token"
    cookie = auth_server.log_in("alice", PASSWORD)

    with Deepstream(tmp_path, secret=secret, internal=auth_server.internal, webhook=url) as deepstream:
        client = driver.open(deepstream.url, headers={"cookie": cookie, "origin": auth_server.url})
        data = client.login()
        client.close()

    assert data["username"] == "alice"


def test_client_waits_for_an_auth_server_that_restarts(
    tmp_path: Path, secret: str, auth_server: AuthServer, driver: Driver
) -> None:
    """While the auth server is away, a login takes longer instead of failing."""
    cookie = auth_server.log_in("alice", PASSWORD)
    restarting = auth_server.sibling({})

    with Deepstream(tmp_path, secret=secret, internal=restarting.internal) as deepstream, ThreadPoolExecutor() as pool:
        client = driver.open(deepstream.url, headers={"cookie": cookie, "origin": auth_server.url})
        login = pool.submit(client.login)
        wait_for(lambda: "http auth error" in deepstream.output)
        with restarting:
            data = login.result()
        client.close()

    assert data["username"] == "alice"

"""Logins and checks all the time, while keys are rotated and retired."""

import json
import random
import threading
from base64 import b64encode, urlsafe_b64decode
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.live.servers import AuthServer, fetch, session_cookie, wait_for

# Older tokens that are checked again and again beside the new ones.
REMEMBERED = 200


@dataclass(slots=True)
class Traffic:
    """
    What was asked of *nodes* as *username*, and each check that had the wrong answer.

    Tokens of the keys in *leaving* may be refused, and are not checked any more.
    """

    nodes: Sequence[AuthServer]
    username: str
    password: str
    logins: int = 0
    turned_away: int = 0
    checks: int = 0
    kids: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, *, threads: int) -> Iterator[None]:
        """Log in and check meanwhile."""
        stop = threading.Event()
        with ThreadPoolExecutor(threads) as pool:
            tasks = [pool.submit(self._keep_asking, stop, number) for number in range(threads)]
            try:
                yield
            finally:
                stop.set()
        _raise_from(tasks)

    def _keep_asking(self, stop: threading.Event, number: int) -> None:
        tokens: deque[str] = deque(maxlen=REMEMBERED)
        while not stop.is_set():
            number += 1
            token = self._log_in(self.nodes[number % len(self.nodes)])
            if token is None:
                continue
            tokens.append(token)
            # Every node has to know at once what any of them has signed.
            for node in self.nodes:
                for each in (token, random.choice(tokens)):
                    self._check(node, each)

    def _log_in(self, node: AuthServer) -> str | None:
        response = node.send_login(self.username, self.password)
        if response.status != 200:
            # All wait for one database, which has other things to do as well.
            self.turned_away += 1
            return None
        token = session_cookie(response).partition("=")[2]
        self.kids.add(kid_of(token))
        self.logins += 1
        return token

    def _check(self, node: AuthServer, token: str) -> None:
        kid = kid_of(token)
        if kid in self.leaving:
            return
        status, code = check(node, token)
        self.checks += 1
        # The key may have been given up while the answer was on its way.
        if status != 200 and kid not in self.leaving:
            self.wrong.append(f"{status} {code} for a token of {kid}")


def rotate_under(traffic: Traffic, *, after: str) -> None:
    """
    Rotate the keys of all nodes, and retire the one that signed before.

    Each step waits until *traffic* has seen it: *after* (such as 3s) is when the new key signs.
    """
    command = traffic.nodes[0]
    tokens = [node.log_in(traffic.username, traffic.password).partition("=")[2] for node in traffic.nodes]
    old = kid_of(tokens[0])
    wait_for(lambda: old in traffic.kids)
    new = json.loads(command.cli("keys", "rotate", "--after", after, "--json"))["kid"]
    wait_for(lambda: new in traffic.kids)
    seen = traffic.checks
    wait_for(lambda: traffic.checks > seen + 100)
    traffic.leaving.add(old)
    command.cli("keys", "retire", old, "--yes")
    # Several times, because workers share a port.
    wait_for(lambda: {check(node, token)[0] for node in traffic.nodes for token in tokens for _ in range(5)} == {403})


def check(node: AuthServer, token: str) -> tuple[int, str]:
    """Return what the webhook says of *token*, over a new connection."""
    credentials = b64encode(f"deepstream:{node.settings['TORNADO_DS_WEBHOOK__SECRET']}".encode()).decode()
    answer = fetch(
        f"http://{node.internal}/check-token",
        method="POST",
        headers={"Authorization": f"Basic {credentials}"},
        body={"connectionData": {}, "authData": {"token": token}},
    )
    return answer.status, "" if answer.status == 200 else answer.body.decode()


def kid_of(token: str) -> str:
    """Return the key that a token says it is signed with."""
    header = token.partition(".")[0]
    return str(json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def _raise_from(tasks: Sequence[Future[None]]) -> None:
    for task in tasks:
        task.result()

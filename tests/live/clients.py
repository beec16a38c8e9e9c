"""Real deepstream clients, driven from Python."""

import itertools
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, Queue
from threading import Condition, Lock, Thread
from types import TracebackType
from typing import Any, Self

from tests.live.servers import NODE

DRIVER = Path(__file__).with_name("client.mjs")

SECONDS = 20


class ClientError(Exception):
    """What the deepstream client was told instead of a result, in `args[0]`."""


class Client:
    """One deepstream client; every call returns when deepstream has answered."""

    def __init__(self, driver: "Driver", name: str) -> None:
        self._driver = driver
        self._name = name
        self._changed = Condition()
        self._events: list[tuple[str, list[Any]]] = []

    def login(self, auth_data: Mapping[str, Any] | None = None) -> Any:
        """
        Return the client data that comes with a successful login.

        Raises:
            ClientError: It was refused.
        """
        return self._call("login", auth_data)

    def read(self, record: str) -> Any:
        """
        Return a record's data.

        Raises:
            ClientError: Not allowed.
        """
        return self._call("read", record)

    def write(self, record: str, data: Any) -> None:
        """
        Set a record's data.

        Raises:
            ClientError: Not allowed.
        """
        self._call("write", record, data)

    def subscribe(self, record: str) -> None:
        """From now on, changes of the record are events named `record <name>`."""
        self._call("subscribe", record)

    def close(self) -> None:
        """Disconnect for good."""
        self._call("close")

    def events(self, name: str) -> list[list[Any]]:
        """Return the values of each event of that name so far."""
        with self._changed:
            return [values for event, values in self._events if event == name]

    def wait_for(
        self, name: str, wanted: Callable[[list[Any]], bool] = lambda values: True, *, seconds: float = SECONDS
    ) -> list[Any]:
        """Return the values of the first event of that name that is wanted, as soon as there is one."""

        def find() -> list[Any] | None:
            return next((values for values in self.events(name) if wanted(values)), None)

        with self._changed:
            found = self._changed.wait_for(find, seconds)
        assert found, f"no such {name} within {seconds} s: {self._events}"
        return found

    def clear_events(self) -> None:
        """Forget the events so far."""
        with self._changed:
            self._events.clear()

    def add_event(self, name: str, values: list[Any]) -> None:
        """Called by the driver."""
        with self._changed:
            self._events.append((name, values))
            self._changed.notify_all()

    def _call(self, command: str, *args: Any) -> Any:
        return self._driver.call(command, self._name, *args)


class Driver:
    """A Node process that holds the clients; it ends with the `with` block."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._clients: dict[str, Client] = {}
        self._results: dict[int, Queue[dict[str, Any]]] = {}
        self._writing = Lock()

    def open(self, url: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> Client:
        """
        Return a client that connects to *url* with *headers*, such as the cookie and the origin of a page.

        *options* are deepstream's own, such as `maxReconnectAttempts`.
        """
        name = f"client {next(self._numbers)}"
        client = self._clients[name] = Client(self, name)
        self.call("open", name, url, dict(headers or {}), options)
        return client

    def call(self, command: str, *args: Any) -> Any:
        """Return the result of one command to the driver."""
        number = next(self._numbers)
        result = self._results[number] = Queue()
        assert self._process.stdin is not None
        with self._writing:
            self._process.stdin.write(json.dumps({"id": number, "command": command, "args": args}) + "\n")
            self._process.stdin.flush()
        try:
            answer = result.get(timeout=SECONDS)
        except Empty:
            raise TimeoutError(f"no answer to {command} {args} within {SECONDS} s") from None
        if "error" in answer:
            raise ClientError(answer["error"])
        return answer.get("result")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [NODE, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(SECONDS)
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "client" in message:
                self._clients[message["client"]].add_event(message["event"], message["values"])
            else:
                self._results.pop(message["id"]).put(message)

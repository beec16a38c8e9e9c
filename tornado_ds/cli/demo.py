"""`demo`: the auth server and a real deepstream server, wired together; what `make run` starts."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from tornado_ds.cli.common import arguments_for, current_settings, fail, with_users
from tornado_ds.cli.deepstream import DEEPSTREAM_PORT, reachable
from tornado_ds.resources import deepstream_server, resource
from tornado_ds.services import Services
from tornado_ds.settings import Address, Settings, variable_of, webhook_secret

USERS = {"wolfram": ["editor"], "chris": []}

# As config/deepstream/config.yml has it.
DEMO_PATH = "/deepstream"

START_SECONDS = 60
STOP_SECONDS = 10


def demo() -> None:
    """
    Start the auth server and, from the npm packages of a checkout, a deepstream server wired to it.

    Makes two users at the first start, and follows the same settings as `serve`.

    Example: python -m tornado_ds demo
    """
    settings = current_settings()
    _check_path(settings)
    passwords = with_users(_add_users, may_create=True)
    asyncio.run(_run(settings, passwords))


def _check_path(settings: Settings) -> None:
    path = urlsplit(settings.deepstream_url).path
    if path != DEMO_PATH:
        fail(f"deepstream_url: the deepstream of the demo answers at {DEMO_PATH} only, not at {path or '/'}")


async def _add_users(services: Services) -> dict[str, str]:
    """Add the demo users who are not there, and return their new passwords."""
    passwords = {}
    for name, roles in USERS.items():
        if await services.users.get(name) is None:
            passwords[name] = secrets.token_urlsafe(12)
            await services.accounts.add(name, passwords[name], server_data={"roles": roles})
    return passwords


async def _run(settings: Settings, passwords: dict[str, str]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    programs = [
        Program("the auth server", [sys.executable, *arguments_for("serve")], reachable(settings.internal_listen))
    ]
    deepstream = _deepstream(settings)
    if deepstream is not None:
        programs.append(deepstream)
    try:
        for program in programs:
            await program.start(stop)
        if not stop.is_set():
            _say_where(settings, passwords, has_deepstream=deepstream is not None)
        await _first(stop.wait(), *(program.wait() for program in programs))
    finally:
        for program in reversed(programs):
            await program.stop()
    if not stop.is_set():
        fail("; ".join(program.epitaph for program in programs if program.epitaph))


class Program:
    """One of the programs: started, watched, and stopped whatever happens."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        address: Address,
        *,
        environment: dict[str, str] | None = None,
        log: Path | None = None,
        patience: float = STOP_SECONDS,
    ) -> None:
        self._name = name
        self._command = command
        self._address = address
        self._environment = {**os.environ, **(environment or {})}
        self._log = log
        self._patience = patience
        self._process: asyncio.subprocess.Process | None = None
        self.epitaph: str | None = None

    async def start(self, stop: asyncio.Event) -> None:
        """Start it and return once it accepts connections, or *stop* is set."""
        output = None if self._log is None else os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # A session of its own keeps Ctrl-C from it: it is told in its turn.
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdout=output, stderr=output, start_new_session=True
        )
        if output is not None:
            os.close(output)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await _first(stop.wait(), self.wait(), self._accepts())
                return
        fail(f"{self._name} did not start within {START_SECONDS} seconds")

    async def wait(self) -> None:
        """Return once it has ended."""
        if self._process is not None:
            code = await self._process.wait()
            self.epitaph = f"{self._name} ended with exit code {code}" + (f", see {self._log}" if self._log else "")

    async def stop(self) -> None:
        """Ask it to end, and see to it."""
        if self._process is None or self._process.returncode is not None:
            return
        # Of the polite signals, deepstream knows only this one.
        self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), self._patience)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _accepts(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self._address.host, self._address.port)
                writer.close()
                return
            await asyncio.sleep(0.05)


def _deepstream(settings: Settings) -> Program | None:
    """Return the deepstream server of this checkout, None without Node or without the npm packages."""
    node, server = shutil.which("node"), deepstream_server()
    if node is None or server is None:
        return None
    port = urlsplit(settings.deepstream_url).port or DEEPSTREAM_PORT
    config = resource("config") / "deepstream" / "config.yml"
    return Program(
        "deepstream",
        [node, server, "start", "-c", config, "--port", str(port)],
        Address("127.0.0.1", port),
        environment={
            variable_of("internal_listen"): str(reachable(settings.internal_listen)),
            variable_of("webhook.secret"): webhook_secret(settings),
        },
        # deepstream writes the webhook's URL, with the secret in it, to its log.
        log=settings.data_dir / "deepstream.log",
    )


def _say_where(settings: Settings, passwords: dict[str, str], *, has_deepstream: bool) -> None:
    console = Console(highlight=False)
    console.print(f"\n[bold]Open {settings.public_url}[/bold] and log in as one of")
    for name in USERS:
        console.print(f"    {name:<10}{passwords.get(name, '(password as printed at the first start)')}")
    if passwords:
        console.print("These passwords are shown only now. `python -m tornado_ds users passwd NAME` sets another.")
    if has_deepstream:
        console.print(f"deepstream listens at {settings.deepstream_url}, its log is {settings.data_dir}/deepstream.log")
    else:
        console.print(
            "deepstream is not running: Node.js 18+ and `npm ci` are needed for it. The auth server runs alone."
        )
    console.print("Ctrl-C stops everything.\n")


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Return as soon as one of *waits* is over, and give up on the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

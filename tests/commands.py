"""Our commands, run in this process: as a program of its own, each would take a second to start."""

import io
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TypeVar

import pytest
import structlog

from tests.postgresql import run_now
from tornado_ds import cli
from tornado_ds.app import open_services
from tornado_ds.clock import Clock
from tornado_ds.key_file import open_key_ring
from tornado_ds.services import Services
from tornado_ds.settings import Settings, webhook_secret
from tornado_ds.storage.database import COMMAND_SECONDS

_Result = TypeVar("_Result")


def run_command(*arguments: str, env: Mapping[str, str], text: str = "") -> str:
    """Return what a command prints that succeeds; it finds *env* in the environment, and *text* on standard input."""
    # In a thread: where Playwright is at work, a loop runs in this one.
    with _environment(env), _stdin(text), logging_as_before(), ThreadPoolExecutor(1) as pool:
        output, complaint = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(complaint):
            code = pool.submit(cli.run, list(arguments)).result(timeout=60)
    assert code == 0, output.getvalue() + complaint.getvalue()
    return output.getvalue()


def with_services(
    settings: Settings, action: Callable[[Services], Awaitable[_Result]], *, clock: Clock | None = None
) -> _Result:
    """Do something beside the commands, as another process over the same database would."""

    async def run() -> _Result:
        async with open_services(settings, seconds=COMMAND_SECONDS, clock=clock) as services:
            return await action(services)

    return run_now(run)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails, and return the one line that it says."""
    code = cli.run(list(arguments))

    output = capsys.readouterr()
    assert (1, "", 1) == (code, output.out, output.err.count("\n"))
    assert output.err.startswith("error: ")
    return output.err.removeprefix("error: ").strip()


def make_secrets(settings: Settings, *, now: int) -> None:
    """Make the webhook's secret and a key of the time *now*, as a first start does."""
    webhook_secret(settings)
    open_key_ring(settings.key_file, settings.token.algorithm, now=now)


@contextmanager
def logging_as_before() -> Iterator[None]:
    """Whatever is done to the log meanwhile is undone at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
        # A logger of ours keeps the configuration that it was used with first.
        for name, module in sys.modules.items():
            if name.startswith("tornado_ds.") and hasattr(module, "log"):
                vars(module.log).pop("bind", None)


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in before:
        if name.startswith("TORNADO_DS_"):
            del os.environ[name]
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _stdin(text: str) -> Iterator[None]:
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    try:
        yield
    finally:
        sys.stdin = before

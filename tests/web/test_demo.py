"""The programs that `demo` starts."""

import asyncio
import sys

import pytest

from tests.live.servers import free_port
from tornado_ds.cli.demo import Program
from tornado_ds.settings import Address

STUBBORN = """
import signal, socket, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(60)
"""


@pytest.mark.gen_test
async def test_program_is_killed_when_it_does_not_end_by_itself() -> None:
    """Nothing is left running, whatever it thinks of it."""
    port = free_port()
    command = [sys.executable, "-S", "-c", STUBBORN, str(port)]
    program = Program("the stubborn one", command, Address("127.0.0.1", port), patience=0.1)
    await program.start(asyncio.Event())

    await program.stop()

    await program.wait()
    assert "the stubborn one ended with exit code -9" == program.epitaph

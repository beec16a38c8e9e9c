"""A terminal in which a command runs, and somebody who answers what it asks."""

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finished:
    """The exit code of a command, and all that was on the screen."""

    code: int
    screen: str


def run_in_terminal(arguments: Sequence[str], answers: Sequence[tuple[str, str]] = ()) -> Finished:
    """
    Run `python -m tornado_ds` with *arguments* in a terminal of its own.

    *answers* are typed in turn, each as soon as the text before it is on the screen.
    """
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "tornado_ds", *arguments]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    try:
        screen = ""
        for question, answer in answers:
            screen += _read_until(ours, question)
            os.write(ours, answer.encode())
        screen += _read_until(ours, None)
        return Finished(process.wait(timeout=30), screen.replace("\r\n", "\n"))
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_until(terminal: int, end: str | None) -> str:
    """Return what comes to the screen up to *end*, or to the end of the command."""
    seen = b""
    while end is None or end.encode() not in seen:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            # Linux reports a terminal whose last user has gone in this way.
            piece = b""
        if not piece:
            break
        seen += piece
    return seen.decode()

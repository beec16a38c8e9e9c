"""The commands. Each prints one line on stderr and exits non-zero when it fails, never a traceback."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from tornado_ds import __version__
from tornado_ds.cli import (
    audit,
    configuration,
    database,
    deepstream,
    demo,
    doctor,
    keys,
    seeding,
    serving,
    sessions,
    throttle,
    users,
)
from tornado_ds.cli.common import config_file, visible
from tornado_ds.errors import ReadOnlyUserStoreError, TornadoDSError

# What a full disk, a broken device or a descriptor that is open for reading only say to whoever writes. Files of
# ours fail with errors of ours, so it is the output.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}

app = typer.Typer(
    name="python -m tornado_ds",
    help="The auth server for deepstream.io. Without a command it serves.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serving.serve)
app.command()(seeding.seed)
app.add_typer(users.app, name="users")
app.add_typer(sessions.app, name="sessions")
app.add_typer(throttle.app, name="throttle")
app.add_typer(audit.app, name="audit")
app.add_typer(keys.app, name="keys")
app.add_typer(database.app, name="db")
app.add_typer(configuration.app, name="config")
app.command("deepstream-config")(deepstream.deepstream_config)
app.command()(doctor.doctor)
app.command()(demo.demo)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="The configuration file; default config/tornado_ds.yml, if there is one.", dir_okay=False),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Serve, unless a command says otherwise."""
    if version:
        typer.echo(f"tornado_ds {__version__}")
        raise typer.Exit
    config_file.set(config)
    if context.invoked_subcommand is None:
        serving.serve()


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    _replace_closed_streams()
    try:
        result = app(arguments, prog_name="python -m tornado_ds", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as exc:
        return _complain(_hint(exc.format_message()), exc.exit_code)
    except typer.Abort:
        return _complain("nothing was done", 1)
    except ReadOnlyUserStoreError as exc:
        return _complain(f"change users where they are managed, this user store is read-only: {exc}", 1)
    except TornadoDSError as exc:
        return _complain(str(exc), 1)
    except OSError as exc:
        if exc.filename is not None or exc.errno not in _UNWRITABLE:
            raise
        _give_up_output()
        # Commands do first, and report then.
        return _complain(f"standard output cannot be written: {exc.strerror}; nothing but the output is missing", 1)
    return result if isinstance(result, int) else 0


def _hint(message: str) -> str:
    """Return what typer says, with more where it is true of one place only."""
    if re.match(r"No such option: --config(?![\w-])", message):
        return "--config FILE stands before the command: python -m tornado_ds --config FILE users list"
    return message


def _replace_closed_streams() -> None:
    """Let whatever our caller has closed be there: nothing to read, and nobody who sees what is written."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for the rest of the process


def _give_up_output() -> None:
    # What is still buffered would fail once more at the exit, and be reported there.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _complain(message: str, code: int) -> int:
    """Say what is wrong in one line; there is nothing to say after a help page."""
    if message:
        typer.echo(visible(f"error: {' '.join(message.split())}"), err=True)
    return code

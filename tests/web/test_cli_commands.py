"""What all commands have in common: help with an example, and one line when they are called wrong."""

import io
import json
import os
import pwd
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest
import typer
import yaml

from tests.commands import complaint
from tornado_ds import cli
from tornado_ds.settings import Settings


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command below *group*, as one types it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


TREE: Any = typer.main.get_command(cli.app)
COMMANDS = sorted(commands(TREE))
GROUPS = sorted(name for name, command in TREE.commands.items() if hasattr(command, "commands"))


# Whatever a command should do in spite of all, it does to the data of the test.
pytestmark = pytest.mark.usefixtures("command_settings")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_an_example(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """A line that can be pasted, for this very command."""
    code = cli.run([*command, "--help"])

    output = capsys.readouterr()
    assert (code, output.err) == (0, "")
    example = rf"Example: python -m tornado_ds (--config \S+ )?{' '.join(command)}\b"
    assert re.search(example, " ".join(output.out.split()))


@pytest.mark.parametrize("group", GROUPS)
def test_group_shows_its_commands_when_none_is_named(capsys: pytest.CaptureFixture[str], group: str) -> None:
    """The help page says it all; no empty error follows."""
    code = cli.run([group])

    output = capsys.readouterr()
    assert (code, output.err) == (2, "")
    assert all(name in output.out for path in COMMANDS if path[0] == group for name in path[1:])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["no-such"], "No such command 'no-such'", id="command"),
        pytest.param(["users", "no-such"], "No such command 'no-such'", id="sub-command"),
        pytest.param(["seed"], "Missing argument 'FILE'", id="argument"),
        pytest.param(["users", "list", "--no-such"], "No such option", id="option"),
        pytest.param(["users", "list", "--config", "a"], "--config FILE stands before the command", id="config-behind"),
        pytest.param(["--configg", "a", "users", "list"], "No such option: --configg", id="config-misspelt"),
        pytest.param(["users", "list", "--limit", "0"], "Invalid value for '--limit'", id="limit-0"),
        pytest.param(["users", "list", "--limit", "9" * 20], "Invalid value for '--limit'", id="limit-huge"),
        pytest.param(["throttle", "list", "--limit", "9" * 20], "Invalid value for '--limit'", id="limit-of-throttle"),
        pytest.param(["seed", "-", "--format", "toml"], "Invalid value for '--format'", id="format"),
    ],
)
def test_command_exits_2_when_it_is_misspelt(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    """One line on stderr says what is not understood."""
    code = cli.run(arguments)

    output = capsys.readouterr()
    assert (code, output.out, output.err.count("\n")) == (2, "", 1)
    assert output.err.startswith(f"error: {expected}")


def test_complaint_does_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What a complaint quotes is shown, not obeyed."""
    code = cli.run(["seed", "\u202e\x07.yml"])

    complaint = capsys.readouterr().err
    assert 1 == code
    assert r"\u202e\x07.yml" in complaint


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["seed", "-"], "line 1: a seed file is a list of users, or names each with its entry", id="seed"),
        pytest.param(["users", "add", "bob", "--password-stdin"], "the password needs at least 12", id="password"),
        pytest.param(["users", "add", "bob"], "there is no terminal to ask for the password", id="prompt"),
    ],
)
def test_command_fails_in_one_line_when_standard_input_is_closed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    """Some schedulers start programs with nothing to read from; Python then has no standard input at all."""
    monkeypatch.setattr(sys, "stdin", None)

    code = cli.run(arguments)

    sys.stdin.close()
    output = capsys.readouterr()
    assert (code, output.out, output.err.count("\n")) == (1, "", 1)
    assert output.err.startswith(f"error: {expected}")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["users", "list"], id="list"),
        pytest.param(["users", "add", "bob", "--password-stdin"], id="add"),
        pytest.param(["seed", "-"], id="seed"),
        pytest.param(["sessions", "open", "bob", "--lifetime", "1h"], id="open"),
        pytest.param(["demo"], id="demo"),
    ],
)
def test_command_fails_when_users_are_within_the_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Nobody is to believe that a user was added who is forgotten when the command ends."""
    monkeypatch.setenv("TORNADO_DS_USER_STORE", "memory")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[]")))

    code = cli.run(arguments)

    output = capsys.readouterr()
    assert (code, output.out) == (1, "")
    assert output.err.startswith("error: user_store: the users of `memory` are within the server's process")


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"DATABASE_URL": "postgresql://alice:pw@nowhere.invalid/auth"}, id="database-away"),
        pytest.param({"USER_STORE": "tornado_ds.storage.memory:MemoryUserStore"}, id="own-store"),
    ],
)
def test_config_check_says_so_when_all_is_good(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Nothing is opened, so a database may be away."""
    for name, value in variables.items():
        monkeypatch.setenv(f"TORNADO_DS_{name}", value)

    code = cli.run(["config", "check"])

    output = capsys.readouterr()
    assert (code, output.out, output.err) == (0, "The configuration is good.\n", "")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        pytest.param({"DATABASE_URL": "mysql://localhost/auth"}, "database_url: mysql is not supported", id="database"),
        pytest.param({"USER_STORE": "no_such_module:Store"}, "user_store: no_such_module:Store cannot be", id="store"),
        pytest.param({"USER_STORE": "os:sep"}, "user_store: os:sep is str: name what makes a store", id="no-store"),
        pytest.param({"DATA_DIR": __file__}, f"data_dir: {__file__} is no folder", id="file"),
        pytest.param({"LISTEN": "127.0.0.1:8001"}, "settings: listen and internal_listen are both 127", id="listen"),
        pytest.param(
            {"TLS__CERTIFICATE": "no.crt", "TLS__KEY": "no.key", "PUBLIC_URL": "https://localhost"},
            "tls.certificate: cannot read no.crt",
            id="certificate",
        ),
    ],
)
def test_config_check_fails_when_what_is_named_cannot_be_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """What would end the start is known before, as when a unit checks before it restarts the server."""
    for name, value in variables.items():
        monkeypatch.setenv(f"TORNADO_DS_{name}", value)

    code = cli.run(["config", "check"])

    output = capsys.readouterr()
    assert (code, output.out, output.err.count("\n")) == (1, "", 1)
    assert output.err.startswith(f"error: {expected}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("keys.json", "is no key file of ours; restore it (docs/backup-and-upgrade.md)", id="keys"),
        pytest.param("webhook.secret", "webhook.secret: ", id="secret"),
    ],
)
def test_config_check_fails_when_a_file_of_ours_is_damaged(
    capsys: pytest.CaptureFixture[str], command_settings: Settings, name: str, expected: str
) -> None:
    """A start would end there, so it is known before."""
    file = command_settings.data_dir / name
    file.write_text("{")
    file.chmod(0o600)

    assert expected in complaint(capsys, "config", "check")


@pytest.mark.parametrize("name", ["keys.json", "webhook.secret"])
@pytest.mark.parametrize("command", [["users", "list"], ["sessions", "end", "--everybody"]], ids=" ".join)
def test_command_makes_no_file_anew_that_was_lost(
    capsys: pytest.CaptureFixture[str], command_settings: Settings, command: list[str], name: str
) -> None:
    """No server that runs would know it: tokens of such a key are refused, and so is deepstream with such a secret."""
    file = command_settings.data_dir / name
    file.unlink()

    said = complaint(capsys, *command)

    assert said.startswith(f"there is no {file}: restore it (docs/backup-and-upgrade.md)")
    assert not file.exists()


def test_deepstream_config_makes_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command_settings: Settings, tmp_path: Path
) -> None:
    """What is pasted is good for the server that runs, or there is nothing to paste."""
    command_settings.secret_file.unlink()
    lost = complaint(capsys, "deepstream-config")
    monkeypatch.setenv("TORNADO_DS_DATA_DIR", str(tmp_path / "elsewhere"))
    elsewhere = complaint(capsys, "deepstream-config")
    by_name = cli.run(["deepstream-config", "--secret-from-env"])

    assert lost.startswith(f"there is no {command_settings.secret_file}: restore it")
    assert elsewhere.startswith(f"there is no data_dir {tmp_path / 'elsewhere'}: run this where")
    assert by_name == 0
    assert not (tmp_path / "elsewhere").exists()


def test_deepstream_config_follows_deepstream_url(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pasted answers where the pages let browsers look."""
    monkeypatch.setenv("TORNADO_DS_DEEPSTREAM_URL", "ws://localhost:7000/realtime")
    cli.run(["deepstream-config"])
    plain = yaml.safe_load(capsys.readouterr().out)
    monkeypatch.setenv("TORNADO_DS_DEEPSTREAM_URL", "wss://app.example.com:8443/realtime")
    cli.run(["deepstream-config"])
    behind_proxy = yaml.safe_load(capsys.readouterr().out)

    assert (7000, 6020) == tuple(text["httpServer"]["options"]["port"] for text in (plain, behind_proxy))
    assert ["/realtime"] * 2 == [text["connectionEndpoints"][0]["options"]["urlPath"] for text in (plain, behind_proxy)]


def test_demo_fails_when_its_deepstream_would_not_be_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command_settings: Settings
) -> None:
    """Its config.yml has one path, and pages would look at another one; nobody gets a password that nobody sees."""
    monkeypatch.setenv("TORNADO_DS_DEEPSTREAM_URL", "ws://localhost:6020/realtime")

    code = cli.run(["demo"])

    output = capsys.readouterr()
    assert (code, output.err.count("\n")) == (1, 1)
    assert output.err.startswith("error: deepstream_url: the deepstream of the demo answers at /deepstream only")
    with closing(sqlite3.connect(command_settings.sqlite_path)) as database:
        assert database.execute("SELECT count(*) FROM users").fetchone() == (0,)


def test_db_downgrade_says_how_to_do_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a script there is nobody to ask."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    assert "say --yes" in complaint(capsys, "db", "downgrade", "0002")


# The signal may come when the file is open, and before anybody holds it who would close it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_command_exits_130_when_it_is_interrupted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Ctrl-C is no mistake, so nothing is said; shells know this code."""
    pipe = tmp_path / "users.csv"
    os.mkfifo(pipe)

    def interrupt() -> None:
        # Opens once the command reads, and ends what it reads should the signal be lost.
        with pipe.open("wb"):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    code = cli.run(["seed", str(pipe)])

    output = capsys.readouterr()
    assert (130, "", "") == (code, output.out, output.err)


def test_command_ends_quietly_when_nobody_reads_on() -> None:
    """As in `... | head -1`: no traceback follows."""
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "tornado_ds", "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )

    os.close(writer)
    assert (1, b"") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--help"], id="help"),
        pytest.param(["users", "list"], id="table"),
        pytest.param(["users", "list", "--json"], id="json"),
        pytest.param(["deepstream-config"], id="text"),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_command_fails_in_one_line_when_the_disk_is_full(arguments: list[str], unbuffered: str) -> None:
    """A report that nobody got is no success; what else was done is, and the line says so."""
    with open("/dev/full", "wb") as full:
        done = program(arguments, stdout=full, environment={"PYTHONUNBUFFERED": unbuffered})

    line = "error: standard output cannot be written: No space left on device; nothing but the output is missing\n"
    assert (1, line) == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["users", "list"], id="table"),
        pytest.param(["users", "list", "--json"], id="json"),
        pytest.param(["config", "show"], id="config"),
    ],
)
def test_command_does_its_work_when_standard_output_is_closed(arguments: list[str]) -> None:
    """Whoever closes it wants no report; Python then has no standard output at all."""
    done = program(["-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "tornado_ds", *arguments], command=["sh"])

    assert (0, "") == (done.returncode, done.stderr)


def test_command_exits_130_when_it_is_interrupted_while_it_starts() -> None:
    """Ctrl-C is no mistake at that moment either."""
    interrupted = """
import sys
class Interrupt:
    def find_spec(self, name, *others):
        if name == "tornado_ds.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from tornado_ds.__main__ import main
main()
"""

    done = program(["-c", interrupted], command=[sys.executable])

    assert (130, "") == (done.returncode, done.stderr)


def program(
    arguments: list[str],
    *,
    command: Sequence[str] = (sys.executable, "-m", "tornado_ds"),
    stdout: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command as a program of its own, and return how it ended."""
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, **(environment or {})},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_db_current_says_when_only_a_newer_version_knows_the_revision(
    capsys: pytest.CaptureFixture[str], command_settings: Settings
) -> None:
    """After a downgrade of the program, whoever looks learns that the number is not an old one."""
    with closing(sqlite3.connect(command_settings.sqlite_path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()

    code = cli.run(["db", "current"])

    output = capsys.readouterr().out
    assert code == 0
    assert output.startswith("The database is at revision 9999, which only a newer version knows; this version needs")


def test_operator_is_a_number_when_the_account_has_no_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a container, the user may be in no list."""

    def unknown(number: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a purple elephant\n")))
    assert cli.run(["users", "add", "bob", "--password-stdin"]) == 0
    capsys.readouterr()

    code = cli.run(["audit", "list", "--json"])

    [entry] = json.loads(capsys.readouterr().out)
    assert (0, f"operator:{os.getuid()}") == (code, entry["actor"])

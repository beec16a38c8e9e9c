"""The server as it is started, over a database that is ready for it or not."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tornado_ds.storage import schema

START = [sys.executable, "-m", "tornado_ds"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Settings for a server of the test's own, on ports that are free."""
    return os.environ | {
        "TORNADO_DS_DATA_DIR": str(tmp_path / "var"),
        "TORNADO_DS_LISTEN": "127.0.0.1:0",
        "TORNADO_DS_INTERNAL_LISTEN": "127.0.0.1:0",
        "TORNADO_DS_LOG_FORMAT": "json",
    }


def test_serve_makes_its_tables_when_the_database_is_embedded(environment: dict[str, str], tmp_path: Path) -> None:
    """The first start needs no other command; what it makes is for its owner alone."""
    with _serving(environment, tmp_path):
        pass

    folder = tmp_path / "var"
    with closing(sqlite3.connect(folder / "tornado_ds.sqlite3")) as database:
        revision = database.execute("SELECT version_num FROM alembic_version").fetchone()
    assert revision == (schema.head_revision(),)
    assert folder.stat().st_mode & 0o077 == 0


def test_serve_says_what_it_made_when_it_starts_for_the_first_time(environment: dict[str, str], tmp_path: Path) -> None:
    """Whoever tries it out learns where everything is, but no secret; later starts have nothing to say."""
    with _serving(environment, tmp_path) as first:
        pass
    with _serving(environment, tmp_path) as second:
        pass

    folder = tmp_path / "var"
    files = {
        "database": str(folder / "tornado_ds.sqlite3"),
        "keys": str(folder / "keys.json"),
        "webhook_secret": str(folder / "webhook.secret"),
    }
    made = [line for line in first if line["event"] == "files made"]
    assert [files] == [{name: line.get(name) for name in files} for line in made]
    assert "files made" not in [line["event"] for line in second]
    assert (folder / "webhook.secret").read_text().strip() not in json.dumps(first)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["serve"], id="serve"),
        pytest.param(["users", "list"], id="users-list"),
        pytest.param(["db", "current"], id="db-current"),
        pytest.param(["db", "downgrade", "0002", "--yes"], id="db-downgrade"),
    ],
)
def test_lost_database_is_refused_and_not_made_again(
    environment: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    """An empty one would know of no session that has ended, and their tokens are good by the keys that are left."""
    folder = _installation(environment, tmp_path)
    _lose_database(folder)

    refused = _run(command, environment, tmp_path)

    assert (1, "") == (refused.returncode, refused.stdout)
    assert refused.stderr == (
        f"error: {folder} has keys but no database: restore it from a backup,"
        " or `python -m tornado_ds db upgrade` makes an empty one\n"
    )
    assert [] == list(folder.glob("tornado_ds.sqlite3*"))


@pytest.mark.parametrize("command", [["users", "list"], ["db", "current"]], ids=" ".join)
def test_database_without_tables_is_refused_beside_keys(
    environment: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    """A file that was emptied is as lost as one that is gone, and stays as it is."""
    folder = _installation(environment, tmp_path)
    _lose_database(folder)
    (folder / "tornado_ds.sqlite3").touch()

    refused = _run(command, environment, tmp_path)

    assert refused.returncode == 1
    assert "has keys but no database" in refused.stderr
    assert (folder / "tornado_ds.sqlite3").read_bytes() == b""


def test_serve_starts_without_the_lost_database_when_the_operator_says_so(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The command that the refusal names makes an empty one."""
    _lose_database(_installation(environment, tmp_path))

    upgraded = _run(["db", "upgrade"], environment, tmp_path)

    assert (0, "") == (upgraded.returncode, upgraded.stderr)
    with _serving(environment, tmp_path):
        pass


def test_serve_starts_when_the_first_start_was_cut_short(environment: dict[str, str], tmp_path: Path) -> None:
    """The database is made first, and may be half made; without keys no token of anybody is good."""
    folder = _installation(environment, tmp_path)
    for name in ("keys.json", "tornado_ds.sqlite3"):
        (folder / name).unlink()
    (folder / "tornado_ds.sqlite3").touch()

    with _serving(environment, tmp_path):
        pass


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["keys", "rotate"], id="keys-rotate"),
        pytest.param(["config", "check"], id="config-check"),
        pytest.param(["config", "show"], id="config-show"),
        pytest.param(["db", "upgrade"], id="db-upgrade"),
        pytest.param(["seed", "users.json"], id="seed"),
    ],
)
def test_serve_starts_whatever_command_was_the_first(
    environment: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    """In a fresh folder every command that may be the first leaves nothing that stops a start."""
    (tmp_path / "users.json").write_text("[]")

    first = _run(command, environment, tmp_path)

    assert (0, "") == (first.returncode, first.stderr)
    with _serving(environment, tmp_path):
        pass


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["users", "list"], id="users-list"),
        pytest.param(["sessions", "end", "--everybody"], id="sessions-end"),
        pytest.param(["sessions", "open", "alice", "--lifetime", "1d"], id="sessions-open"),
        pytest.param(["keys", "list"], id="keys-list"),
        pytest.param(["keys", "retire", "0f1e2d3c4b5a6978"], id="keys-retire"),
        pytest.param(["audit", "list"], id="audit-list"),
        pytest.param(["throttle", "clear", "--everybody"], id="throttle-clear"),
        pytest.param(["db", "current"], id="db-current"),
        pytest.param(["db", "downgrade", "0002", "--yes"], id="db-downgrade"),
    ],
)
def test_command_refuses_a_folder_in_which_no_server_was_started(
    environment: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    """An operator in the wrong folder must not read that all sessions have ended, and leaves nothing there."""
    refused = _run(command, environment, tmp_path)

    assert (1, "") == (refused.returncode, refused.stdout)
    assert refused.stderr == (
        f"error: there is no data_dir {tmp_path}/var: run this where the server runs, or name its file with --config\n"
    )
    assert [] == list(tmp_path.iterdir())


def test_command_says_what_is_wrong_with_a_data_dir_that_nobody_can_look_at(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """A link to itself is there, and no folder: to look for the right one would not help."""
    (tmp_path / "var").symlink_to(tmp_path / "var")

    refused = _run(["sessions", "list"], environment, tmp_path)

    assert (1, "") == (refused.returncode, refused.stdout)
    assert re.fullmatch(r"error: data_dir: .*var cannot be made: File exists\n", refused.stderr)


def test_command_reaches_postgresql_from_any_folder(
    environment: dict[str, str], tmp_path: Path, postgresql_url: str
) -> None:
    """Where the users and sessions are says the URL, and not the folder."""
    listed = _run(["users", "list"], environment | {"TORNADO_DS_DATABASE_URL": postgresql_url}, tmp_path)

    assert (0, "There are no users.\n", "") == (listed.returncode, listed.stdout, listed.stderr)


def test_serve_refuses_when_postgresql_has_no_tables(
    environment: dict[str, str], tmp_path: Path, empty_postgresql_url: str
) -> None:
    """Another database than the embedded one is never changed by starting; one line says what to do."""
    environment = environment | {"TORNADO_DS_DATABASE_URL": empty_postgresql_url}

    refused = _run(["serve"], environment, tmp_path)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.endswith("run `python -m tornado_ds db upgrade`\n")


def test_serve_starts_when_the_command_that_it_named_was_run(
    environment: dict[str, str], tmp_path: Path, empty_postgresql_url: str
) -> None:
    """The command that the refusal names is the one that helps."""
    environment = environment | {"TORNADO_DS_DATABASE_URL": empty_postgresql_url}

    upgraded = _run(["db", "upgrade"], environment, tmp_path)

    assert (upgraded.returncode, upgraded.stderr) == (0, "")
    with _serving(environment, tmp_path):
        pass


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        pytest.param({"TORNADO_DS_DATABASE_URL": "postgresql://me:canary@127.0.0.1:1/x"}, "the database ", id="away"),
        pytest.param({"TORNADO_DS_USER_STORE": "no.such:Store"}, "user_store: ", id="unknown-module"),
    ],
)
def test_serve_says_one_line_when_storage_cannot_be_used(
    environment: dict[str, str], tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    """A mistake in the settings is one line without passwords, never a traceback."""
    refused = _run(["serve"], environment | variables, tmp_path)

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {message}")
    assert len(refused.stderr.splitlines()) == 1
    assert "canary" not in refused.stderr


def _run(arguments: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*START, *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def _installation(environment: dict[str, str], folder: Path) -> Path:
    """Return the data folder of a server that has been in use."""
    (folder / "nobody.json").write_text("[]")
    added = _run(["seed", "nobody.json"], environment, folder)
    assert added.returncode == 0
    return folder / "var"


def _lose_database(folder: Path) -> None:
    for file in folder.glob("tornado_ds.sqlite3*"):
        file.unlink()


@contextmanager
def _serving(environment: dict[str, str], folder: Path) -> Iterator[list[dict[str, Any]]]:
    """A server that is ready, with what it has logged by then, and that stops cleanly afterwards."""
    with subprocess.Popen(START, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield _log_until_ready(server)
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert server.returncode == 0


def _log_until_ready(server: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert server.stderr is not None
    lines = []
    for line in iter(server.stderr.readline, ""):
        lines.append(json.loads(line))
        if lines[-1]["event"] == "ready":
            return lines
    pytest.fail(f"the server is not ready: {lines}")

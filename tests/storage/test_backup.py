"""The backup of docs/backup-and-upgrade.md, made while the server works."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tornado_ds.app import open_services, prepare_database
from tornado_ds.key_file import add_key, read_keys, retire_key
from tornado_ds.settings import PasswordSettings, Settings


def settings_in(folder: Path) -> Settings:
    """Settings with an embedded database in *folder*."""
    return Settings(data_dir=folder, passwords=PasswordSettings(bcrypt_cost=4, allow_weak_cost=True))


@pytest.mark.gen_test
async def test_backup_has_all_that_was_acknowledged_when_it_is_made_of_a_running_server(tmp_path: Path) -> None:
    """Whoever was there when it was made can log in at a server that starts with it; nobody else."""
    running, restored = settings_in(tmp_path / "running"), settings_in(tmp_path / "restored")
    restored.data_dir.mkdir(mode=0o700)
    await prepare_database(running)

    async with open_services(running) as services:
        await services.accounts.add("alice", "correct horse battery staple")
        source = sqlite3.connect(running.sqlite_path)
        source.execute("VACUUM INTO ?", [str(restored.sqlite_path)])
        source.close()
        await services.accounts.add("bob", "correct horse battery staple")
        await services.accounts.log_in("alice", "correct horse battery staple")

    await prepare_database(restored)
    async with open_services(restored) as services:
        opened = await services.accounts.log_in("alice", "correct horse battery staple")
        bob = await services.users.get("bob")

    assert ("alice", None) == (opened.claims.username, bob)


@pytest.mark.gen_test
async def test_token_from_after_the_backup_counts_until_its_key_is_retired(tmp_path: Path) -> None:
    """The restored database knows nothing of its session, which therefore cannot be ended: step 4 of the page."""
    settings, backup = settings_in(tmp_path / "var"), tmp_path / "backup.sqlite3"
    await prepare_database(settings)
    async with open_services(settings) as services:
        await services.accounts.add("alice", "correct horse battery staple")
        with closing(sqlite3.connect(settings.sqlite_path)) as source:
            source.execute("VACUUM INTO ?", [str(backup)])
        token = (await services.accounts.log_in("alice", "correct horse battery staple")).token
    for suffix in ("-wal", "-shm"):
        settings.sqlite_path.with_name(settings.sqlite_path.name + suffix).unlink(missing_ok=True)
    backup.replace(settings.sqlite_path)

    async with open_services(settings) as services:
        await services.sessions.end_all(None, reason="ended_by_operator")
        await services.feed.read()
        before = services.checker.check(token)
    now, (old,) = int(time.time()), read_keys(settings.key_file)
    add_key(settings.key_file, "HS256", now=now, delay=0)
    retire_key(settings.key_file, old.kid, "HS256", now=now)
    async with open_services(settings) as services:
        await services.feed.read()
        after = services.checker.check(token)

    assert (before.denial, after.denial) == (None, "session_invalid")

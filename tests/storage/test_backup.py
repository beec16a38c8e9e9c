"""The backup of docs/backup-and-upgrade.md, made while the server works."""

import sqlite3
from pathlib import Path

import pytest

from tornado_ds.app import open_services, prepare_database
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

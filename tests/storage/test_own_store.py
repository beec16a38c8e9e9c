"""The user store of docs/user-stores.md, as a reader would copy it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from pydantic import SecretStr

from tests.fakes import ManualClock
from tornado_ds.app import open_services
from tornado_ds.errors import AuthenticationError, ReadOnlyUserStoreError, SettingsError
from tornado_ds.settings import Settings
from tornado_ds.users import UserChanges

PAGE = Path(__file__).parents[2] / "docs" / "user-stores.md"

PASSWORD = "correct horse battery staple"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A folder with the programs of the page."""
    for name, program in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        (tmp_path / name).write_text(program)
    return tmp_path


@pytest.fixture
def own_settings(
    examples: Path, settings: Settings, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings that name the store of the page; its user alice has a hash that is cheaper than ours."""
    password_hash = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (examples / "htpasswd").write_text(f"Alice:{password_hash}\n")
    monkeypatch.setenv("HTPASSWD", str(examples / "htpasswd"))
    monkeypatch.syspath_prepend(examples)
    yield settings.model_copy(
        update={
            "database_url": SecretStr(sqlite_url),
            "user_store": "htpasswd_store:open_store",
            "passwords": settings.passwords.model_copy(update={"bcrypt_cost": 5}),
        }
    )
    sys.modules.pop("htpasswd_store", None)


@pytest.mark.untraced
def test_contract_holds_for_the_stores_of_the_page(examples: Path) -> None:
    """Both test files of the page pass as they are printed, in a project that knows nothing of ours."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", examples, examples],
        cwd=examples,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    assert sorted(path.name for path in examples.glob("*.py")) == [
        "htpasswd_store.py",
        "test_htpasswd_store.py",
        "test_memory_store.py",
    ]


@pytest.mark.gen_test
async def test_store_of_the_page_is_refused_with_the_kind_of_error_when_its_variable_is_missing(
    own_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever forgets the variable is told more than its name."""
    monkeypatch.delenv("HTPASSWD")

    with pytest.raises(SettingsError) as caught:
        async with open_services(own_settings):
            pass

    assert str(caught.value) == "user_store: htpasswd_store:open_store cannot be opened: KeyError: 'HTPASSWD'"


@pytest.mark.gen_test
async def test_log_in_opens_a_session_when_users_are_managed_elsewhere(
    own_settings: Settings, clock: ManualClock
) -> None:
    """Somebody of a foreign store logs in, although a better hash of the password cannot be kept there."""
    async with open_services(own_settings, clock=clock) as services:
        opened = await services.accounts.log_in("ALICE", PASSWORD)
        await services.feed.read()

        check = services.checker.check(opened.token)

    assert check.claims is not None
    assert check.claims.username == "Alice"


@pytest.mark.gen_test
async def test_changes_are_refused_when_users_are_managed_elsewhere(own_settings: Settings, clock: ManualClock) -> None:
    """A change that the store refuses ends no session."""
    async with open_services(own_settings, clock=clock) as services:
        await services.accounts.log_in("alice", PASSWORD)

        with pytest.raises(ReadOnlyUserStoreError):
            await services.accounts.change("alice", UserChanges(disabled=True))
        sessions = await services.sessions.list("Alice")

    assert len(sessions) == 1


@pytest.mark.gen_test
async def test_log_in_fails_when_the_user_was_removed_elsewhere(
    own_settings: Settings, clock: ManualClock, examples: Path
) -> None:
    """What is changed in the foreign place counts for the next login."""
    async with open_services(own_settings, clock=clock) as services:
        _empty(examples / "htpasswd")

        with pytest.raises(AuthenticationError):
            await services.accounts.log_in("alice", PASSWORD)


def _empty(file: Path) -> None:
    file.write_text("")

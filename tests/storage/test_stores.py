"""The user store that the settings name: built in, by a dotted path, or an entry point of another package."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tornado_ds.errors import SettingsError
from tornado_ds.storage.database import Database, sqlite_url
from tornado_ds.storage.memory import MemoryUserStore
from tornado_ds.storage.sql import SQLAlchemyUserStore
from tornado_ds.stores import open_user_store

MODULE = """
from tornado_ds.storage.memory import MemoryUserStore

class OurStore(MemoryUserStore):
    pass

def open_store(database):
    store = OurStore(database)
    store.database = database
    return store

def fail(database):
    raise ConnectionError("the directory\\nis not\\nthere")
"""

METADATA = "Metadata-Version: 2.1\nName: our-store\nVersion: 1\n"
ENTRY_POINTS = """
[tornado_ds.user_stores]
ours = our_store:open_store
broken = our_store:missing
"""


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A database that nobody connects to."""
    return Database(sqlite_url(str(tmp_path / "unused.sqlite3")))


@pytest.fixture(autouse=True)
def _our_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that is installed in a folder of the test, with a store and entry points for it."""
    info = tmp_path / "our_store-1.dist-info"
    info.mkdir()
    (tmp_path / "our_store.py").write_text(MODULE)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("our_store", None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("sqlalchemy", SQLAlchemyUserStore, id="sqlalchemy"),
        pytest.param("memory", MemoryUserStore, id="memory"),
    ],
)
def test_store_is_built_in_when_its_name_is_ours(database: Database, name: str, expected: type[object]) -> None:
    """The two built-in stores have short names."""
    store = open_user_store(name, database)

    assert type(store) is expected


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("our_store:OurStore", id="path-with-colon"),
        pytest.param("our_store.OurStore", id="dotted-path"),
        pytest.param("our_store:open_store", id="function"),
        pytest.param("ours", id="entry-point"),
    ],
)
def test_store_is_that_of_another_package_when_it_is_named(database: Database, name: str) -> None:
    """A class or a function is called with the database, and makes the store."""
    store = open_user_store(name, database)

    assert type(store).__name__ == "OurStore"


def test_store_gets_the_database_of_the_sessions(database: Database) -> None:
    """A store that keeps its users beside the sessions can join their transactions."""
    store = open_user_store("ours", database)

    assert getattr(store, "database", None) is database


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nonsense", id="word"),
        pytest.param("no_such_module:Store", id="unknown-module"),
        pytest.param("our_store:Missing", id="unknown-name"),
        pytest.param("our_store:", id="no-name"),
        pytest.param(":OurStore", id="no-module"),
        pytest.param("..", id="dots"),
        pytest.param("our store", id="blank"),
        pytest.param("broken", id="broken-entry-point"),
        pytest.param("our_store:fail", id="failing"),
        pytest.param("our_store:MODULE", id="not-callable"),
    ],
)
def test_store_is_refused_in_one_line_when_it_cannot_be_opened(database: Database, name: str) -> None:
    """Whatever is wrong with the name, the error says which key and which name."""
    with pytest.raises(SettingsError, match=r"^user_store: ") as caught:
        open_user_store(name, database)

    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1

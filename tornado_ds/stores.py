"""Finds the user store that the settings name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from tornado_ds.errors import SettingsError
from tornado_ds.storage.database import Database
from tornado_ds.storage.memory import MemoryUserStore
from tornado_ds.storage.sql import SQLAlchemyUserStore
from tornado_ds.users import UserStore

GROUP = "tornado_ds.user_stores"

_BUILT_IN: dict[str, Any] = {"sqlalchemy": SQLAlchemyUserStore, "memory": MemoryUserStore}


def open_user_store(name: str, database: Database) -> UserStore:
    """
    Return the store that *name* stands for.

    *name* is `sqlalchemy`, `memory`, an entry point of the group
    `tornado_ds.user_stores`, or a path, `package.module:Name`. It is called with the `Database` of the
    sessions; a store that has its own place may ignore it.

    Raises:
        SettingsError: There is no such thing, or it failed.
    """
    make = find_user_store(name)
    with _explained(name):
        store: UserStore = make(database)
    return store


def find_user_store(name: str) -> Callable[[Database], UserStore]:
    """
    Return what makes the store that *name* stands for; nothing is opened.

    Raises:
        SettingsError: There is no such thing.
    """
    with _explained(name):
        found: Callable[[Database], UserStore] = _find(name)
    if not callable(found):
        raise SettingsError(f"user_store: {name} is {type(found).__name__}: name what makes a store")
    return found


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except SettingsError:
        raise
    except Exception as exc:
        # With its type: the text of a KeyError is no more than the key.
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise SettingsError(f"user_store: {name} cannot be opened: {reason}") from exc


def _find(name: str) -> Any:
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    for entry_point in entry_points(group=GROUP, name=name):
        return entry_point.load()
    module, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")[::1]
    if not module or not attribute:
        raise SettingsError(f"user_store: there is no store {name}; write an entry point, or package.module:Name")
    return getattr(import_module(module), attribute)

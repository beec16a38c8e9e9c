"""The files of the data folder: nobody else may read them, and we must be able to."""

import os
from collections.abc import Iterator
from pathlib import Path

from tornado_ds.app import has_database, missing_files
from tornado_ds.doctor.findings import Finding, ok, warning, wrong
from tornado_ds.errors import KeyRingError, SettingsError
from tornado_ds.key_file import read_keys
from tornado_ds.settings import Settings, webhook_secret
from tornado_ds.tls import open_tls

TOPIC = "files"


def has_data(settings: Settings) -> bool:
    """True if there is a data folder that we may look into."""
    return os.access(settings.data_dir, os.R_OK | os.X_OK)


def find_secret(settings: Settings) -> str | None:
    """Return the webhook's secret; None if there is none yet, or it cannot be read."""
    if settings.webhook.secret is None and not (has_data(settings) and settings.secret_file.exists()):
        return None
    try:
        return webhook_secret(settings)
    except SettingsError:
        return None


def examine_files(settings: Settings) -> Iterator[Finding]:
    """Yield what is to be said of the data folder and the secrets in it; nothing is made that is not there."""
    folder = settings.data_dir
    if _is_missing(folder):
        advice = "Run this with the server's own --config or environment; a first start makes the folder."
        yield warning(TOPIC, f"there is no data_dir {folder}, so no server has run here with these settings", advice)
        return
    if not has_data(settings):
        yield wrong(TOPIC, f"{folder} cannot be read", "Run this command as the user who runs the server.")
        return
    problems = list(_problems(settings))
    yield from problems or [ok(TOPIC, f"{folder} and the secrets in it are for their owner alone")]


def _is_missing(folder: Path) -> bool:
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        # In a folder that we may not enter, or worse: nobody can tell.
        return False
    return False


def _problems(settings: Settings) -> Iterator[Finding]:
    mode = settings.data_dir.stat().st_mode & 0o777
    if mode & 0o077:
        text = f"{settings.data_dir}, which holds keys and password hashes, is open to other users (mode {mode:o})"
        yield wrong(TOPIC, text, f"chmod 700 {settings.data_dir}")
    for file in missing_files(settings):
        if has_database(settings):
            yield wrong(
                TOPIC, f"there is no {file}", "Restore it from a backup; a start of the server makes another one."
            )
        else:
            yield warning(TOPIC, f"there is no {file} yet", "The first start of the server makes it.")
    try:
        read_keys(settings.key_file)
    except KeyRingError as exc:
        yield wrong(TOPIC, str(exc), "The server does not start before this is put right.")
    try:
        open_tls(settings.tls)
        # Only a start may make one.
        if settings.webhook.secret is not None or settings.secret_file.exists():
            webhook_secret(settings)
    except SettingsError as exc:
        yield wrong(TOPIC, str(exc), "The server does not start before this is put right.")

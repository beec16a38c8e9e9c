"""TLS of the public listener."""

import os
import ssl
from pathlib import Path

from tornado_ds.errors import SettingsError
from tornado_ds.settings import TLSSettings

# The group may read it: that is how distributions give certificates to servers.
_FOR_OTHERS = 0o007


def open_tls(settings: TLSSettings) -> ssl.SSLContext | None:
    """
    Return a context for the certificate that *settings* name, as it is in the files now; None if they name none.

    Clients need TLS 1.2 or newer.

    Raises:
        SettingsError: A file cannot be used; the text names the setting and what to do.
    """
    if settings.certificate is None or settings.key is None:
        return None
    _check("tls.certificate", settings.certificate)
    if _check("tls.key", settings.key).st_mode & _FOR_OTHERS:
        raise SettingsError(f"tls.key: {settings.key} can be read by other users: chmod 640 it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # With no password at hand, the library would ask for it at the terminal, and wait.
        context.load_cert_chain(settings.certificate, settings.key, password="")
    except (ssl.SSLError, ValueError) as exc:
        raise SettingsError(_explain(settings, exc)) from exc
    return context


def _check(name: str, path: Path) -> os.stat_result:
    try:
        with path.open("rb"):
            return path.stat()
    except OSError as exc:
        raise SettingsError(f"{name}: cannot read {path}: {exc.strerror}") from exc


def _explain(settings: TLSSettings, error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"tls.key: {settings.key} does not belong to the certificate {settings.certificate}"
    return (
        f"tls: {settings.certificate} and {settings.key} are not a certificate, with those that lead to its root,"
        " and its key, both PEM and without a password"
    )

"""Everything that this package raises on purpose, under one root."""


class TornadoDSError(Exception):
    """Root of all errors of this package; the text is one line, fit to be shown to whoever runs the server."""


class SettingsError(TornadoDSError):
    """The configuration cannot be used; the text names the key and what to do."""


class UserDataError(TornadoDSError):
    """A user's name, password or data breaks a rule; the text says which."""


class UserExistsError(TornadoDSError):
    """The username is taken, in this or an equivalent spelling."""


class UserNotFoundError(TornadoDSError):
    """There is no user of that name."""


class ReadOnlyUserStoreError(TornadoDSError):
    """The user store is managed elsewhere and takes no changes from us."""


class SessionNotFoundError(TornadoDSError):
    """There is no such live session."""


class AuthenticationError(TornadoDSError):
    """The credentials are not good; unknown user, wrong password and disabled account look alike."""


class ThrottledError(TornadoDSError):
    """Too many failed logins of an account, device or address (*kind*); nothing was tried, come back in *seconds*."""

    def __init__(self, seconds: int, kind: str) -> None:
        super().__init__(f"too many failed logins, try again in {seconds} s")
        self.seconds = seconds
        self.kind = kind


class OverloadedError(TornadoDSError):
    """Too many passwords wait to be hashed; nothing was tried, come back later."""


class StorageError(TornadoDSError):
    """The database is away, locked, read-only or damaged; nothing was written."""


class SchemaError(TornadoDSError):
    """The database has not the tables that this version needs; the text names the command."""


class KeyRingError(TornadoDSError):
    """The key file cannot be read, or holds something else."""


class WorkerError(TornadoDSError):
    """The worker processes cannot be kept running."""


class SeedError(TornadoDSError):
    """A seed file cannot be used; the text names the row."""


class InvalidTokenError(TornadoDSError):
    """The token is not one of ours; the text is for the log only."""


class ExpiredTokenError(InvalidTokenError):
    """The token was ours, but its time is over."""


class FramingError(TornadoDSError):
    """What a peer sent is no proper HTTP/1.1; the text is for the log only."""


class ProbeError(TornadoDSError):
    """An address cannot be asked, or does not answer; the text says why, in half a sentence."""


class CertificateError(ProbeError):
    """The certificate at an address is not to be trusted; the text says why."""

"""One question, asked by every page and every connection: does this token count right now?"""

from dataclasses import dataclass, replace
from typing import Literal

from tornado_ds.errors import ExpiredTokenError, InvalidTokenError
from tornado_ds.loader import UserLoader
from tornado_ds.snapshot import SessionSnapshot, Standing
from tornado_ds.tokens import Claims, TokenService
from tornado_ds.users import User, UserStore

Denial = Literal[
    "not_logged_in",
    "session_invalid",
    "session_expired",
    "session_ended",
    "account_disabled",
    "origin_denied",
    "invalid_credentials",
    "throttled",
    "unavailable",
]

_DENIALS: dict[Standing, Denial] = {
    Standing.ENDED: "session_ended",
    Standing.DISABLED: "account_disabled",
    Standing.UNKNOWN: "unavailable",
}


@dataclass(frozen=True, slots=True)
class Check:
    """
    What a look at a token found: claims that count, or why they do not.

    With *is_stale* the user has changed since the token was issued, and only
    `SessionChecker.refresh` can tell.
    """

    claims: Claims | None = None
    denial: Denial | None = None
    is_stale: bool = False


@dataclass(slots=True)
class Remembered:
    """What it takes to check a token again that counted before: small, because there are many of them."""

    sid: str
    username: str
    version: int
    expires_at: int
    key_edition: int
    edition: int


class SessionChecker:
    """Checks tokens against the key ring and the snapshot; reads a user only when a token's data are stale."""

    def __init__(self, *, tokens: TokenService, snapshot: SessionSnapshot, users: UserStore) -> None:
        self._tokens = tokens
        self._snapshot = snapshot
        self._users = UserLoader(users)

    def check(self, token: str) -> Check:
        """Look at *token*: one signature and two look-ups, no database, never raises."""
        try:
            claims = self._tokens.verify(token)
        except ExpiredTokenError:
            return Check(denial="session_expired")
        except InvalidTokenError:
            return Check(denial="session_invalid")
        standing = self._snapshot.standing(claims)
        if standing is Standing.LIVE:
            return Check(claims)
        if standing is Standing.STALE:
            return Check(claims, is_stale=True)
        return Check(denial=_DENIALS[standing])

    def remember(self, claims: Claims) -> Remembered:
        """Return what `counts_still` wants to know of a token that counts at this moment."""
        return Remembered(
            sid=claims.sid,
            username=claims.username,
            version=claims.version,
            expires_at=claims.expires_at,
            key_edition=self._tokens.edition,
            edition=self._snapshot.edition,
        )

    def counts_still(self, token: Remembered) -> bool:
        """
        True if *token* counts as it did when it was remembered.

        Once a key has gone it is to be checked anew; a new one beside the others is
        no reason, or a rotation would have everybody checked again. Ended sessions are
        refused all the same; the text of the token is not looked at again.
        """
        snapshot, tokens = self._snapshot, self._tokens
        if token.key_edition != tokens.edition or tokens.is_over(token.expires_at) or not snapshot.is_fresh:
            return False
        # Nearly always nothing has happened, and then nothing of this token need be fetched from memory.
        if token.edition != snapshot.edition:
            if snapshot.standing(token) is not Standing.LIVE:
                return False
            token.edition = snapshot.edition
        return True

    async def refresh(self, stale: Claims) -> Check:
        """
        Return the check of *stale* with the user's data as they are now.

        Raises:
            StorageError: The user store did not answer.
        """
        user = await self._users.get(stale.username)
        if user is None:
            return Check(denial="session_ended")
        if user.is_disabled:
            return Check(denial="account_disabled")
        # Reading took its time, and the session may have ended meanwhile.
        claims = with_data_of(user, stale)
        denial = _DENIALS.get(self._snapshot.standing(claims))
        return Check(claims) if denial is None else Check(denial=denial)


def with_data_of(user: User, claims: Claims) -> Claims:
    """Return *claims* with the data and version of *user*."""
    return replace(claims, version=user.version, server_data=user.server_data, client_data=user.client_data)

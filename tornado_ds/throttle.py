"""How many failed logins are too many: of an account, from an address, and from a device that is known."""

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, Protocol

from tornado_ds.addresses import network_of
from tornado_ds.clock import Clock
from tornado_ds.errors import ThrottledError
from tornado_ds.keys import KeyRing
from tornado_ds.users import User, username_key

# Somebody who tries the passwords they have ever had needs a handful of attempts.
FREE_FAILURES = 5

# From there on some 100 guesses a day, which finds no password that we accept
# (NIST SP 800-63B-4, section 3.2.2, allows 100 in a row).
LONGEST_WAIT_SECONDS = 15 * 60

# Were failures forgotten sooner, a guesser who pauses would get more free ones
# than the longest wait lets through.
FORGET_SECONDS = 24 * 3600

# An office behind one address mistypes less often than that.
FAILURES_PER_WINDOW = 30
WINDOW_SECONDS = 60

# Some 20 MB; honest failures of one day are far fewer.
MAX_BUCKETS = 100_000

Kind = Literal["account", "device", "address"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    Where an attempt comes from, as far as it counts.

    *device* is something that only one browser has, for which the account
    vouches: attempts with it have a bucket of their own and touch no other.
    """

    address: str | None = None
    device: str | None = None


UNKNOWN_SOURCE = Source()

# A device is known to one account, so where an attempt comes from can be said once its user is known.
SourceOf = Callable[[User | None], Source]


def unknown_source(_: User | None) -> Source:
    """Say nothing of where an attempt comes from."""
    return UNKNOWN_SOURCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """
    The failed logins of one account, device or address.

    *username* is that of a user who exists, otherwise None: what was typed as
    a name may be a password. Times are whole seconds since the epoch, rounded
    up, so that no wait is shorter than it was said to be.
    """

    kind: Kind
    key: str
    username: str | None = None
    failures: int = 0
    blocked_until: int = 0
    expires_at: int = 0

    def wait(self, now: float) -> float:
        """Return for how many seconds from *now* no attempt is let through."""
        seconds = self.blocked_until - now
        # What is further away was written before the clock was set back.
        return seconds if 0 < seconds <= 2 * LONGEST_WAIT_SECONDS else 0

    def counted(self, now: float) -> "Bucket":
        """Return it with one more failure, at *now*."""
        if self.kind == "address":
            return self._counted_in_window(now)
        failures = 1 if self._is_over(now, FORGET_SECONDS) else self.failures + 1
        wait = wait_after(failures)
        return replace(
            self,
            failures=failures,
            blocked_until=ceil(now) + wait if wait else 0,
            expires_at=ceil(now) + FORGET_SECONDS,
        )

    def forgiven(self) -> "Bucket":
        """
        Return it after a good login.

        An address only gets that one attempt back: otherwise the owner of one account
        could guess at all others without end.
        """
        failures = max(self.failures - 1, 0) if self.kind == "address" else 0
        is_blocked = self.kind == "address" and failures >= FAILURES_PER_WINDOW
        return replace(self, failures=failures, blocked_until=self.blocked_until if is_blocked else 0)

    def _counted_in_window(self, now: float) -> "Bucket":
        is_over = self._is_over(now, WINDOW_SECONDS)
        failures = 1 if is_over else self.failures + 1
        end = ceil(now) + WINDOW_SECONDS if is_over else self.expires_at
        return replace(
            self, failures=failures, blocked_until=end if failures >= FAILURES_PER_WINDOW else 0, expires_at=end
        )

    def _is_over(self, now: float, lifetime: int) -> bool:
        # Servers whose clocks differ a little share a bucket; one from the far
        # future was written before the clock was set back.
        return not 0 < self.expires_at - now <= 2 * lifetime


class ThrottleStore(Protocol):
    """Where buckets are kept; `StorageError` from any method when it cannot be reached."""

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """All or nothing for what is done inside, and for the sessions and users of the same database."""
        ...

    async def take(self, buckets: Sequence[Bucket]) -> Sequence[Bucket]:
        """
        Return what is stored under the keys of *buckets*, or these where nothing is, in their order.

        The usernames are those of *buckets*. Until the transaction is over nobody else can take them.
        """
        ...

    async def put(self, buckets: Sequence[Bucket]) -> None:
        """Store what was taken before; forget those without failures."""
        ...

    async def list(self, *, limit: int) -> Sequence[Bucket]:
        """Return up to *limit* buckets, those that are blocked longest first, then by failures."""
        ...

    async def clear(self, key: str | None = None) -> int:
        """Forget the bucket *key* and those whose keys go on from it with `/`, or all; return how many there were."""
        ...

    async def prune(self, *, expired_at: int, keep: int, limit: int) -> int:
        """
        Forget up to *limit* buckets: expired ones, or else those beyond *keep*, and return how many went.

        Those with the fewest failures go first, so that a flood of made-up
        names pushes out itself, and not the account that is under attack.
        """
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that counts as failed until it has proved good; *buckets* say where, and are empty themselves."""

    buckets: Sequence[Bucket]


class Throttle:
    """
    Counts failed logins, and turns away whoever has too many.

    Whether or not a user exists makes no difference to what is counted or said.
    """

    def __init__(self, store: ThrottleStore, *, keys: Callable[[], KeyRing], clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._owed: Counter[str] = Counter()

    def attempt(self, username: str, source: Source = UNKNOWN_SOURCE, *, user: User | None) -> Attempt:
        """Return an attempt at *username*, whose *user* is None if nobody has the name; it has yet to be counted."""
        return Attempt(self._buckets(username, source, user))

    async def count(self, attempt: Attempt) -> None:
        """
        Count *attempt* as failed.

        That is done before it is tried, since attempts that run at the same time
        have to know of each other. `forgive` takes it back if it was good.

        Raises:
            ThrottledError: It must not be tried now; it was not counted, so that trying does not prolong the wait.
        """
        now = self._clock.now()
        owed = Counter({bucket.key: self._owed[bucket.key] for bucket in attempt.buckets})
        async with self._store.transaction():
            taken = await self._store.take(attempt.buckets)
            buckets = [_forgiven(bucket, owed[bucket.key]) for bucket in taken]
            _check(buckets, now)
            await self._store.put([bucket.counted(now) for bucket in buckets])
        self._owed -= owed

    async def forgive(self, attempt: Attempt) -> None:
        """Clear the bucket of the account or device that *attempt* was counted in, and take it back elsewhere."""
        async with self._store.transaction():
            buckets = await self._store.take(attempt.buckets)
            await self._store.put([bucket.forgiven() for bucket in buckets])

    def owe(self, attempt: Attempt) -> None:
        """
        Forgive *attempt*, which was good, at the next one in the same place.

        For when the database went away meanwhile: nobody is to be throttled for that.
        """
        self._owed.update(bucket.key for bucket in attempt.buckets)

    async def list(self, *, limit: int) -> Sequence[Bucket]:
        """Return up to *limit* buckets, those that are blocked longest first."""
        return await self._store.list(limit=limit)

    async def clear_account(self, username: str) -> int:
        """Forget the failures of *username*, whether or not there is such a user, and those of all its devices."""
        return await self._store.clear(self._digest(username_key(username)))

    async def clear_address(self, address: str) -> int:
        """Forget the failures of *address*, or of its network."""
        return await self._store.clear(network_of(address))

    async def clear_all(self) -> int:
        """Forget all failures."""
        return await self._store.clear()

    async def prune(self, *, limit: int) -> int:
        """Forget up to *limit* buckets that expired or are too many, and return how many went."""
        return await self._store.prune(expired_at=int(self._clock.now()), keep=MAX_BUCKETS, limit=limit)

    def _buckets(self, username: str, source: Source, user: User | None) -> Sequence[Bucket]:
        """Return the empty buckets of an attempt, always in the same order: they are locked in it."""
        account = self._digest(username_key(username))
        name = None if user is None else user.username
        if source.device is not None:
            return [Bucket(kind="device", key=f"{account}/{self._digest(source.device)}", username=name)]
        buckets = [Bucket(kind="account", key=account, username=name)]
        if source.address is not None:
            buckets.append(Bucket(kind="address", key=network_of(source.address)))
        return buckets

    def _digest(self, text: str) -> str:
        # With a key that is not in the database: people type passwords where the
        # name belongs, and a plain hash of one is found much faster than bcrypt's.
        # The oldest key, because a new one must not let everybody start from zero.
        secret = self._keys().oldest_key.derive("throttle")
        return hmac.new(secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def wait_after(failures: int) -> int:
    """Return how many seconds nobody may try after that many failures: none, then 1, 2, 4 ... up to the longest."""
    if failures < FREE_FAILURES:
        return 0
    # The exponent is bounded too: failures are not.
    return min(1 << min(failures - FREE_FAILURES, 10), LONGEST_WAIT_SECONDS)


def _forgiven(bucket: Bucket, times: int) -> Bucket:
    for _ in range(times):
        bucket = bucket.forgiven()
    return bucket


def _check(buckets: Sequence[Bucket], now: float) -> None:
    blocked = max(buckets, key=lambda bucket: bucket.wait(now))
    seconds = ceil(blocked.wait(now))
    if seconds:
        raise ThrottledError(seconds, blocked.kind)

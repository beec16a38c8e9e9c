import asyncio
from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie

import pytest

from tests.fakes import ManualClock
from tornado_ds.addresses import network_of
from tornado_ds.cookies import DeviceCookie
from tornado_ds.devices import LIFETIME_SECONDS, MAX_ACCOUNTS, Devices
from tornado_ds.errors import InvalidTokenError, ThrottledError
from tornado_ds.key_file import open_key_ring
from tornado_ds.keys import KeyRing
from tornado_ds.storage.memory import MemoryThrottleStore
from tornado_ds.throttle import FAILURES_PER_WINDOW, FORGET_SECONDS, Attempt, Bucket, Source, Throttle, wait_after
from tornado_ds.tokens import Claims, TokenService
from tornado_ds.users import User

HERE = Source(address="203.0.113.9")
ALICE = User("Alice", "no hash")
BOB = User("bob", "no hash")


@pytest.fixture
def store() -> MemoryThrottleStore:
    """A store in which nobody has failed yet."""
    return MemoryThrottleStore()


@pytest.fixture
def throttle(store: MemoryThrottleStore, hs256_key_ring: KeyRing, clock: ManualClock) -> Throttle:
    """A throttle over `store`."""
    return Throttle(store, keys=lambda: hs256_key_ring, clock=clock)


@pytest.fixture
def devices(hs256_key_ring: KeyRing, clock: ManualClock) -> Devices:
    """Devices of a server on https."""
    return Devices(DeviceCookie("https://app.example.com"), keys=lambda: hs256_key_ring, clock=clock)


def attempt(throttle: Throttle, name: str = "alice", source: Source = HERE, *, user: User | None = None) -> Attempt:
    """Count one attempt."""
    counted = throttle.attempt(name, source, user=user)
    asyncio.run(throttle.count(counted))
    return counted


def wait_for(throttle: Throttle, name: str = "alice", source: Source = HERE) -> int:
    """Return how long an attempt has to wait; one that need not is counted."""
    try:
        attempt(throttle, name, source)
    except ThrottledError as exc:
        return exc.seconds
    return 0


def fail(throttle: Throttle, times: int, name: str = "alice", source: Source = HERE) -> None:
    """Fail several times at once, which nothing may forbid."""
    assert [0] * times == [wait_for(throttle, name, source) for _ in range(times)]


def cookie_of(set_cookie: str) -> str:
    """Return what a browser sends after that Set-Cookie."""
    return set_cookie.partition(";")[0]


@pytest.mark.parametrize(
    ("expected", "failures"),
    [
        pytest.param(0, 0, id="none"),
        pytest.param(0, 4, id="last-but-one-free"),
        pytest.param(1, 5, id="last-free"),
        pytest.param(2, 6, id="next"),
        pytest.param(512, 14, id="before-the-longest"),
        pytest.param(900, 15, id="longest"),
        pytest.param(900, 10**9, id="without-end"),
    ],
)
def test_wait_after_doubles_up_to_a_quarter_of_an_hour(expected: int, failures: int) -> None:
    """Five failures are free, then each one costs twice as much as the one before."""
    assert expected == wait_after(failures)


@pytest.mark.parametrize(
    ("expected", "address"),
    [
        pytest.param("203.0.113.9", "203.0.113.9", id="ipv4"),
        pytest.param("203.0.113.9", "::ffff:203.0.113.9", id="ipv4-in-ipv6"),
        pytest.param("203.0.113.9", "::FFFF:cb00:7109", id="ipv4-in-ipv6-as-hex"),
        pytest.param("2001:db8:1:2::/64", "2001:db8:1:2:3:4:5:6", id="ipv6"),
        pytest.param("2001:db8:1:2::/64", "2001:DB8:1:2::1", id="ipv6-neighbour"),
        pytest.param("fe80::/64", "fe80::1%eth0", id="ipv6-with-zone"),
        pytest.param("::/64", "::1", id="loopback"),
        pytest.param("", "", id="nothing"),
        pytest.param("a socket", "a socket", id="no-address"),
    ],
)
def test_network_of_joins_what_one_customer_has(expected: str, address: str) -> None:
    """Whoever has a /64 has not 2**64 times as many attempts."""
    assert expected == network_of(address)


def test_count_lets_five_failures_through_at_once(throttle: Throttle) -> None:
    """The sixth attempt has to wait a second."""
    fail(throttle, 5)

    assert wait_for(throttle) == 1


def test_count_goes_on_where_it_was_when_keys_were_rotated(
    throttle: Throttle, store: MemoryThrottleStore, hs256_key_ring: KeyRing, other_ring: KeyRing, clock: ManualClock
) -> None:
    """A new key gives nobody new guesses; only the end of the oldest one lets all begin anew."""
    rotated = KeyRing([*hs256_key_ring.keys, *other_ring.keys])
    fail(throttle, 5)

    after_rotation = Throttle(store, keys=lambda: rotated, clock=clock)
    after_retirement = Throttle(store, keys=lambda: other_ring, clock=clock)

    assert wait_for(after_rotation, source=Source()) == 1
    assert wait_for(after_retirement, source=Source()) == 0


def test_count_does_not_prolong_the_wait_when_it_refuses(throttle: Throttle, clock: ManualClock) -> None:
    """Somebody who goes on trying is not kept out for longer than somebody who waits."""
    fail(throttle, 5)
    for _ in range(100):
        assert wait_for(throttle) == 1

    clock.advance(1)

    assert wait_for(throttle) == 0
    assert wait_for(throttle) == 2


def test_count_never_promises_too_short_a_wait_between_two_seconds(throttle: Throttle, clock: ManualClock) -> None:
    """Whoever comes back after the seconds that were named is let through."""
    clock.advance(0.9)
    fail(throttle, 5)

    wait = wait_for(throttle)
    clock.advance(wait)

    assert wait == 2
    assert wait_for(throttle) == 0


def test_count_lets_a_guesser_try_some_hundred_times_a_day(throttle: Throttle, clock: ManualClock) -> None:
    """The best that patience gets is one guess in a quarter of an hour."""
    end = clock.now() + 24 * 3600
    guesses = 0

    while clock.now() < end:
        wait = wait_for(throttle)
        guesses += not wait
        clock.advance(wait)

    assert guesses == 15 + (24 * 3600 - 1023) // 900


def test_count_starts_again_when_a_day_has_gone(throttle: Throttle, clock: ManualClock) -> None:
    """Failures are forgotten a day after the last one."""
    fail(throttle, 5)

    clock.advance(FORGET_SECONDS)

    fail(throttle, 5)
    assert wait_for(throttle) == 1


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["Alice", "ALICE", "\uff21lice", "alice", "aLiCe"], id="spellings"),
        pytest.param(["\0"] * 5, id="unreadable"),
        pytest.param(["x" * 100_000] * 5, id="very-long"),
        pytest.param(["\ud800"] * 5, id="lone-surrogate"),
        pytest.param([""] * 5, id="empty"),
    ],
)
def test_count_knows_a_name_again_however_it_is_spelled(throttle: Throttle, names: list[str]) -> None:
    """Equivalent spellings are one account, and no name is beyond counting."""
    for name in names:
        fail(throttle, 1, name)

    assert wait_for(throttle, names[0]) == 1


def test_count_keeps_accounts_apart(throttle: Throttle) -> None:
    """Failures of one account do not hinder another."""
    fail(throttle, 5, "alice")

    assert wait_for(throttle, "bob") == 0


def test_count_treats_unknown_names_like_known_ones(throttle: Throttle) -> None:
    """How long one has to wait does not tell whether there is such a user."""
    waits: dict[str, list[int]] = {"alice": [], "nobody": []}
    for name, user in (("alice", ALICE), ("nobody", None)):
        for _ in range(8):
            try:
                attempt(throttle, name, user=user)
            except ThrottledError as exc:
                waits[name].append(exc.seconds)

    assert [1, 1, 1] == waits["alice"] == waits["nobody"]


def test_count_limits_an_address_whatever_names_it_tries(throttle: Throttle, clock: ManualClock) -> None:
    """Thirty failures a minute, then the rest of the minute without."""
    for number in range(FAILURES_PER_WINDOW - 1):
        fail(throttle, 1, f"name{number}")
        clock.advance(1)
    fail(throttle, 1, "name29")

    assert wait_for(throttle, "name30") == 31
    assert wait_for(throttle, "name30", Source(address="203.0.113.10")) == 0

    clock.advance(31)

    assert wait_for(throttle, "name30") == 0


def test_count_never_limits_an_address_that_is_not_given(throttle: Throttle) -> None:
    """What comes through deepstream is counted by account alone."""
    for number in range(3 * FAILURES_PER_WINDOW):
        fail(throttle, 1, f"name{number}", Source())


def test_count_gives_a_device_a_bucket_of_its_own(throttle: Throttle) -> None:
    """Strangers who fail cannot keep a known browser out, by account or by address, and it cannot keep them out."""
    known = Source(address=HERE.address, device="firefox")
    fail(throttle, 5)
    for number in range(FAILURES_PER_WINDOW - 5):
        fail(throttle, 1, f"name{number}")

    fail(throttle, 5, source=known)

    assert wait_for(throttle, source=known) == 1
    assert wait_for(throttle, source=Source(device="chromium")) == 0
    assert wait_for(throttle, source=HERE) == 60


def test_count_keeps_the_devices_of_accounts_apart(throttle: Throttle) -> None:
    """One browser that two people use counts for each of them."""
    device = Source(device="firefox")
    fail(throttle, 5, "alice", device)

    assert wait_for(throttle, "bob", device) == 0


def test_forgive_clears_the_account_after_a_good_login(throttle: Throttle) -> None:
    """Whoever gets in at last starts from zero the next time."""
    fail(throttle, 4)
    good = attempt(throttle)

    asyncio.run(throttle.forgive(good))

    fail(throttle, 5)


def test_forgive_gives_an_address_one_attempt_back(throttle: Throttle) -> None:
    """Somebody with one account cannot buy endless guesses at others with it."""
    for number in range(FAILURES_PER_WINDOW - 1):
        fail(throttle, 1, f"name{number}")
    good = attempt(throttle, "mallory")

    asyncio.run(throttle.forgive(good))

    assert wait_for(throttle, "name29") == 0
    assert wait_for(throttle, "name30") > 0


def test_forgive_leaves_the_account_alone_when_a_device_logged_in(throttle: Throttle) -> None:
    """The owner who logs in does not give those who guess new attempts."""
    fail(throttle, 5)
    good = attempt(throttle, source=Source(device="firefox"))

    asyncio.run(throttle.forgive(good))

    assert wait_for(throttle) == 1


def test_forgive_brings_nothing_back_that_was_cleared_meanwhile(throttle: Throttle) -> None:
    """An operator may clear everything while a password is being hashed."""
    for number in range(3):
        fail(throttle, 1, f"name{number}")
    good = attempt(throttle)
    asyncio.run(throttle.clear_all())

    asyncio.run(throttle.forgive(good))

    assert asyncio.run(throttle.list(limit=10)) == []


def test_forgive_leaves_nothing_behind_after_a_good_login(throttle: Throttle) -> None:
    """Logins that go well take no room."""
    good = attempt(throttle)

    asyncio.run(throttle.forgive(good))

    assert asyncio.run(throttle.list(limit=10)) == []


@pytest.mark.parametrize(
    "seconds", [pytest.param(2, id="2-s"), pytest.param(600, id="10-min"), pytest.param(365 * 86400, id="a-year")]
)
def test_count_locks_nobody_out_for_long_when_the_clock_is_set_back(
    throttle: Throttle, clock: ManualClock, seconds: int
) -> None:
    """A clock that was wrong costs at most half an hour."""
    for number in range(FAILURES_PER_WINDOW):
        fail(throttle, 1, f"name{number}")
    for _ in range(14):
        clock.advance(wait_for(throttle, "bob", Source()))

    clock.set(clock.now() - seconds)

    assert wait_for(throttle, "bob", Source()) <= 1800
    assert wait_for(throttle, "eve", HERE) <= 60 + seconds
    clock.advance(1800)
    assert wait_for(throttle, "bob", Source()) == 0
    assert wait_for(throttle, "eve", HERE) == 0


def test_count_still_limits_an_address_when_the_clock_was_set_back(throttle: Throttle, clock: ManualClock) -> None:
    """A minute that began in the far future is not the current one."""
    fail(throttle, 1, "first")
    clock.set(clock.now() - 365 * 86400)

    for number in range(FAILURES_PER_WINDOW):
        fail(throttle, 1, f"name{number}")

    assert wait_for(throttle, "last") == 60


def test_count_stores_no_name_that_nobody_has(throttle: Throttle) -> None:
    """A stolen database does not tell what people typed in the wrong field, not even to somebody who guesses."""
    attempt(throttle, "hunter2-in-the-wrong-field")
    attempt(throttle, "alice", user=ALICE)

    buckets = asyncio.run(throttle.list(limit=10))

    assert {bucket.username for bucket in buckets if bucket.kind == "account"} == {None, "Alice"}
    assert "hunter2" not in str(buckets)


def test_clear_account_lets_everybody_try_again(throttle: Throttle) -> None:
    """An operator can clear a name, with its devices, and any name at all."""
    fail(throttle, 5, "alice", Source())
    fail(throttle, 5, "alice", Source(device="firefox"))
    fail(throttle, 5, "bob", Source())

    cleared = asyncio.run(throttle.clear_account("ALICE"))

    assert cleared == 2
    fail(throttle, 5, "alice", Source())
    fail(throttle, 5, "alice", Source(device="firefox"))
    assert wait_for(throttle, "bob", Source()) == 1


def test_clear_address_lets_its_network_try_again(throttle: Throttle) -> None:
    """An operator can clear an address by any address of its network."""
    for number in range(FAILURES_PER_WINDOW):
        fail(throttle, 1, f"name{number}", Source(address="2001:db8::1"))

    cleared = asyncio.run(throttle.clear_address("2001:db8::2"))

    assert cleared == 1
    assert wait_for(throttle, "name30", Source(address="2001:db8::1")) == 0


def test_wait_is_none_when_the_block_is_over(clock: ManualClock) -> None:
    """The last moment of a block is not blocked any more."""
    until = int(clock.now())

    assert Bucket(kind="account", key="a", failures=5, blocked_until=until).wait(clock.now()) == 0
    assert Bucket(kind="account", key="a", failures=5, blocked_until=until).wait(clock.now() - 0.5) == 0.5


def test_remember_makes_a_browser_known_for_that_account_alone(devices: Devices) -> None:
    """The cookie that alice's browser got helps in no other name."""
    cookie = cookie_of(devices.remember("", ALICE))

    device = devices.recognise(cookie, ALICE)

    assert device is not None
    assert devices.recognise(cookie, BOB) is None
    assert devices.recognise("", ALICE) is None


def test_remember_keeps_the_device_when_it_logs_in_again(devices: Devices) -> None:
    """Logging in again makes no new device."""
    first = cookie_of(devices.remember("", ALICE))

    second = cookie_of(devices.remember(first, User("ALICE", ALICE.password_hash)))

    assert devices.recognise(first, ALICE) == devices.recognise(second, ALICE) is not None


def test_remember_gives_every_browser_another_device(devices: Devices) -> None:
    """Two browsers of one account fail each for itself."""
    first, second = (cookie_of(devices.remember("", ALICE)) for _ in range(2))

    assert devices.recognise(first, ALICE) != devices.recognise(second, ALICE)


def test_remember_knows_several_people_but_not_any_number(devices: Devices) -> None:
    """A family shares a browser; the cookie keeps those who logged in last."""
    people = [User(f"user{number}", "no hash") for number in range(MAX_ACCOUNTS + 2)]
    cookie = ""
    for each in people:
        cookie = cookie_of(devices.remember(cookie, each))

    known = [each for each in people if devices.recognise(cookie, each)]

    assert people[2:] == known


def test_remember_forgets_nobody_else_when_one_has_a_new_password(devices: Devices) -> None:
    """However often somebody changes the password, the family that shares the browser stays known."""
    family = [User(f"user{number}", "no hash") for number in range(MAX_ACCOUNTS)]
    cookie = ""
    for each in family:
        cookie = cookie_of(devices.remember(cookie, each))

    for number in range(MAX_ACCOUNTS):
        cookie = cookie_of(devices.remember(cookie, replace(family[0], password_hash=f"hash {number}")))

    assert family[1:] == [each for each in family if devices.recognise(cookie, each)]


def test_recognise_knows_nobody_when_the_password_was_changed(devices: Devices) -> None:
    """A device counts for the password by which it logged in, and is the same one after the next login."""
    cookie = cookie_of(devices.remember("", ALICE))
    changed = replace(ALICE, password_hash="another hash")

    renewed = cookie_of(devices.remember(cookie, changed))

    assert devices.recognise(cookie, changed) is None
    assert devices.recognise(renewed, ALICE) is None
    assert devices.recognise(cookie, ALICE) == devices.recognise(renewed, changed) is not None


def test_remember_sets_a_cookie_that_only_this_server_gets(devices: Devices, clock: ManualClock) -> None:
    """It is out of reach for scripts and other hosts, lasts, and does not tell whose it is."""
    header = devices.remember("", ALICE)

    morsel = SimpleCookie(header)["__Host-device"]
    expected = {"path": "/", "samesite": "Lax", "httponly": True, "secure": True, "domain": ""}
    assert expected == {name: morsel[name] for name in expected}
    assert int(clock.now()) + LIFETIME_SECONDS == parsedate_to_datetime(morsel["expires"]).timestamp()
    assert "alice" not in header


def test_remember_uses_a_plain_name_on_plain_http(hs256_key_ring: KeyRing, clock: ManualClock) -> None:
    """Browsers refuse the prefix without https."""
    devices = Devices(DeviceCookie("http://localhost:8000"), keys=lambda: hs256_key_ring, clock=clock)

    header = devices.remember("", ALICE)

    assert header.startswith("device=")
    assert "Secure" not in header


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda cookie: cookie[:-1], id="shortened"),
        pytest.param(lambda cookie: cookie + "A", id="lengthened"),
        pytest.param(lambda cookie: cookie[:20] + ("A" if cookie[20] != "A" else "B") + cookie[21:], id="other-device"),
        pytest.param(lambda cookie: f"{cookie}; {cookie}", id="twice"),
        pytest.param(lambda cookie: cookie.replace("__Host-device", "device"), id="other-name"),
        pytest.param(lambda cookie: "__Host-device=" + "~" * 10_000, id="separators"),
        pytest.param(lambda cookie: "__Host-device=" + "A" * 22 + ("." + "A" * 43) * 2, id="invented"),
        pytest.param(lambda cookie: "__Host-device=" + "~".join(["x"] * 4 + [cookie[14:]]), id="behind-too-many"),
        pytest.param(lambda cookie: cookie.replace(".", "\ud800"), id="lone-surrogate"),
        pytest.param(lambda cookie: cookie.rpartition(".")[0], id="without-the-password"),
        pytest.param(lambda cookie: ".".join([*cookie.split(".")[:2], cookie.split(".")[1]]), id="account-as-password"),
        pytest.param(lambda cookie: ".".join([cookie.split(".")[0], *cookie.split(".")[:0:-1]]), id="seals-swapped"),
    ],
)
def test_recognise_knows_nobody_when_the_cookie_is_spoiled(devices: Devices, spoil: Callable[[str], str]) -> None:
    """Only what this server sealed counts."""
    cookie = cookie_of(devices.remember("", ALICE))

    assert devices.recognise(spoil(cookie), ALICE) is None


def test_recognise_still_knows_a_browser_when_keys_were_rotated(
    devices: Devices, hs256_key_ring: KeyRing, other_ring: KeyRing, clock: ManualClock
) -> None:
    """A seal is good until its key is retired."""
    cookie = cookie_of(devices.remember("", ALICE))
    rotated = KeyRing([*hs256_key_ring.keys, *other_ring.keys])

    after_rotation = Devices(DeviceCookie("https://app.example.com"), keys=lambda: rotated, clock=clock)
    after_retirement = Devices(DeviceCookie("https://app.example.com"), keys=lambda: other_ring, clock=clock)

    assert after_rotation.recognise(cookie, ALICE) is not None
    assert after_retirement.recognise(cookie, ALICE) is None


def test_device_and_token_never_pass_for_each_other(devices: Devices, tokens: TokenService, claims: Claims) -> None:
    """The same key ring is behind both, but for different purposes."""
    value = cookie_of(devices.remember("", ALICE)).removeprefix("__Host-device=")
    token = tokens.issue(claims)
    header, payload, signature = token.split(".")
    device = value.split(".")[0]

    assert devices.recognise(f"__Host-device={token}", ALICE) is None
    assert devices.recognise(f"__Host-device={device}.{signature}.{signature}", ALICE) is None
    for forged in (value, *(f"{header}.{payload}.{seal}" for seal in value.split(".")[1:])):
        with pytest.raises(InvalidTokenError):
            tokens.verify(forged)


def test_derive_returns_another_secret_for_each_key_and_purpose(key_ring: KeyRing, other_ring: KeyRing) -> None:
    """It is the same one whenever it is asked for, so that all servers with the key file agree."""
    key, other = key_ring.oldest_key, other_ring.oldest_key

    secrets = [key.derive("a"), key.derive("b"), other.derive("a"), key.derive("")]

    assert len(set(secrets)) == len(secrets)
    assert {32} == {len(secret) for secret in secrets}
    assert secrets[0] == key.derive("a")


@pytest.fixture
def other_ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """The ring of another server."""
    return open_key_ring(tmp_path_factory.mktemp("other") / "keys.json", "HS256", now=1_800_000_000)

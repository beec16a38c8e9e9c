import asyncio
import hashlib
import subprocess
import sys
from base64 import b64encode

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tornado_ds.errors import OverloadedError, UserDataError
from tornado_ds.passwords import (
    MAX_COST,
    MAX_WAITING,
    PasswordHasher,
    can_be_hashed,
    check_password,
    check_password_hash,
    legacy_hash,
)
from tornado_ds.settings import PasswordSettings

# From deepstream's own sample users.yml: the password is "password".
SAMPLE = "rCOSZxJrgze2AZdVQh12c6ErDMOG0M+Rx5Yu7S5d91c=GS4SbTQYmoaGwjm2shEobg=="
SAMPLE_HASH = legacy_hash(SAMPLE, algorithm="md5", iterations=100, key_length=32)


def hash_at(cost: int, password: str = "correct horse") -> str:
    """A bcrypt hash made by somebody else."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def deepstream_entry(password: str, *, digest: str, iterations: int, key_length: int) -> str:
    """What deepstream writes into users.yml."""
    salt = "c2FsdCBvZiAxNiBieXRlcw=="
    key = hashlib.pbkdf2_hmac(digest, password.encode(), salt.encode(), iterations, key_length)
    return b64encode(key).decode() + salt


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "password",
    [
        pytest.param("correct horse", id="usual"),
        pytest.param("  correct horse  ", id="blanks-around"),
        pytest.param("\tcorrect\nhorse\x7f", id="control-characters"),
        pytest.param("пароль 😀", id="not-ascii"),
        pytest.param("x" * 72, id="72-bytes"),
        pytest.param("ü" * 36, id="72-bytes-of-two-byte-letters"),
    ],
)
async def test_verify_says_yes_to_exactly_what_was_hashed(hasher: PasswordHasher, password: str) -> None:
    """A password counts to the byte: neither trimmed nor folded nor cut."""
    password_hash = await hasher.hash(password)

    assert await hasher.verify(password, password_hash)
    assert not await hasher.verify(password + " ", password_hash)
    assert not await hasher.verify(password.swapcase(), password_hash) or password.swapcase() == password
    assert not await hasher.verify(password[:-1], password_hash)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("password", "hashed"),
    [
        pytest.param("x" * 73, "x" * 72, id="73-bytes"),
        pytest.param("ü" * 37, "ü" * 36, id="74-bytes-of-two-byte-letters"),
        pytest.param("abc\0abc", "abc", id="nul"),
        pytest.param("\0", "", id="nothing-but-nul"),
        pytest.param("\ud800", "?", id="surrogate"),
        pytest.param("", "correct horse", id="empty"),
        pytest.param("x" * 100_000, "x" * 72, id="100-kilobytes"),
    ],
)
async def test_verify_says_no_when_bcrypt_would_cut_the_password(
    hasher: PasswordHasher, password: str, hashed: str
) -> None:
    """A longer password that begins like the right one is a wrong one."""
    assert not await hasher.verify(password, hash_at(4, hashed))


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "password_hash",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("correct horse", id="clear-text"),
        pytest.param("$2b$04$", id="cut"),
        pytest.param("$2b$04$" + "a" * 54, id="one-too-long"),
        pytest.param("$2b$04$" + "z" * 53, id="impossible-salt"),
        pytest.param("$2b$03$" + "a" * 53, id="cost-too-low"),
        pytest.param("$2b$17$" + "." * 53, id="cost-too-high"),
        pytest.param("$2b$31$" + "." * 53, id="cost-of-days"),
        pytest.param("$2b$\u0660\u0664$" + "a" * 53, id="arabic-digits"),
        pytest.param("$2x$04$" + "a" * 53, id="other-bcrypt"),
        pytest.param("$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA", id="argon2"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param("$deepstream$nothing$1$1$AAAA", id="legacy-unknown-digest"),
        pytest.param("$deepstream$md5$0$1$AAAA", id="legacy-no-iteration"),
        pytest.param("$deepstream$md5$1$0$AAAA", id="legacy-no-key"),
        pytest.param("$deepstream$md5$99999999999999999999$1$AAAA", id="legacy-too-many-iterations"),
        pytest.param("$deepstream$md5$1$99999999999999999999$AAAA", id="legacy-too-long-key"),
        pytest.param("$deepstream$md5$9999999$11$AAAAAAAAAAAAAAA=", id="legacy-of-minutes"),
        pytest.param("$deepstream$md5$1$32$@", id="legacy-not-base64"),
    ],
)
async def test_verify_says_no_when_the_hash_is_none_of_ours(hasher: PasswordHasher, password_hash: str | None) -> None:
    """A damaged row locks its user out and nobody else, and breaks nothing."""
    assert not await hasher.verify("correct horse", password_hash)


@pytest.mark.gen_test
@pytest.mark.parametrize("variant", ["$2a$", "$2b$", "$2y$"])
async def test_verify_says_yes_when_the_hash_was_made_elsewhere(hasher: PasswordHasher, variant: str) -> None:
    """Hashes of other programs, dearer and cheaper ones, are good."""
    for cost in (4, 6):
        password_hash = variant + hash_at(cost)[4:]

        assert check_password_hash(password_hash) == password_hash
        assert await hasher.verify("correct horse", password_hash)
        assert not await hasher.verify("wrong horse", password_hash)


@pytest.mark.gen_test
async def test_verify_says_yes_to_deepstreams_sample_user(hasher: PasswordHasher) -> None:
    """The entry of userA in deepstream's own users.yml opens with its password only."""
    assert await hasher.verify("password", SAMPLE_HASH)
    assert not await hasher.verify("Password", SAMPLE_HASH)
    assert not await hasher.verify("\ud800", SAMPLE_HASH)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("node_name", "digest"),
    [
        pytest.param("md5", "md5", id="md5"),
        pytest.param("sha1", "sha1", id="sha1"),
        pytest.param("sha256", "sha256", id="sha256"),
        pytest.param("SHA-256", "sha256", id="upper-case-with-dash"),
        pytest.param("RSA-SHA256", "sha256", id="openssl-name"),
        pytest.param("sha512", "sha512", id="sha512"),
        pytest.param("SHA2-256", "sha256", id="sha2"),
        pytest.param("sha3-256", "sha3_256", id="sha3"),
        pytest.param("RSA-SHA3-512", "sha3_512", id="openssl-sha3"),
        pytest.param("sha512-256", "sha512_256", id="sha512-cut"),
        pytest.param("RSA-SHA512/256", "sha512_256", id="openssl-sha512-cut"),
    ],
)
@pytest.mark.parametrize("key_length", [16, 24, 32, 64])
async def test_legacy_hash_is_verified_whatever_node_calls_the_digest(
    hasher: PasswordHasher, node_name: str, digest: str, key_length: int
) -> None:
    """Every digest and key length that deepstream's configuration may name is understood."""
    entry = deepstream_entry("schöne Grüße", digest=digest, iterations=7, key_length=key_length)

    password_hash = legacy_hash(entry, algorithm=node_name, iterations=7, key_length=key_length)

    assert check_password_hash(password_hash) == password_hash
    assert await hasher.verify("schöne Grüße", password_hash)
    assert not await hasher.verify("schone Gruse", password_hash)


@pytest.mark.parametrize(
    ("stored", "algorithm", "iterations", "key_length"),
    [
        pytest.param(SAMPLE, "whirlpool2", 100, 32, id="unknown-digest"),
        pytest.param(SAMPLE, "", 100, 32, id="no-digest"),
        pytest.param(SAMPLE, "md5", 0, 32, id="no-iteration"),
        pytest.param(SAMPLE, "md5", 100, 0, id="no-key"),
        pytest.param(SAMPLE, "md5", 100, 33, id="key-that-reaches-into-the-salt"),
        pytest.param(SAMPLE, "md5", 100, 512, id="key-longer-than-the-entry"),
        pytest.param(SAMPLE, "shake256", 100, 32, id="digest-of-any-length"),
        pytest.param("password", "md5", 100, 32, id="clear-text"),
        pytest.param("", "md5", 100, 32, id="empty"),
        pytest.param("ä" * 60, "md5", 100, 32, id="not-ascii"),
    ],
)
def test_legacy_hash_refuses_an_entry_when_the_parameters_cannot_be_its_own(
    stored: str, algorithm: str, iterations: int, key_length: int
) -> None:
    """Wrong parameters are noticed at the import, not at the first login."""
    with pytest.raises(UserDataError):
        legacy_hash(stored, algorithm=algorithm, iterations=iterations, key_length=key_length)


@pytest.mark.parametrize(
    ("expected", "password_hash"),
    [
        pytest.param(True, hash_at(4), id="cheaper"),
        pytest.param(False, hash_at(5), id="as-dear"),
        pytest.param(False, hash_at(6), id="dearer"),
        pytest.param(True, SAMPLE_HASH, id="legacy"),
        pytest.param(True, "nonsense", id="malformed"),
    ],
)
def test_needs_rehash_says_yes_when_the_hash_is_cheaper_than_ours(expected: bool, password_hash: str) -> None:
    """Cheaper and legacy hashes are replaced, dearer ones stay."""
    hasher = PasswordHasher(cost=5, threads=1)

    needs_rehash = hasher.needs_rehash(password_hash)

    hasher.close()
    assert expected == needs_rehash


@pytest.mark.gen_test
async def test_hash_is_made_at_the_cost_that_is_set(hasher: PasswordHasher) -> None:
    """The cost stands in the hash, and no two hashes are equal."""
    one, other = await hasher.hash("correct horse"), await hasher.hash("correct horse")

    assert one.startswith("$2b$04$")
    assert one != other
    assert not hasher.needs_rehash(one)


@pytest.mark.gen_test
async def test_verify_turns_away_whoever_comes_when_the_queue_is_full(hasher: PasswordHasher) -> None:
    """One password is worked on and 16 wait; the next is refused at once, and once they are done others are taken."""
    waiting = [asyncio.ensure_future(hasher.hash("correct horse")) for _ in range(1 + MAX_WAITING)]
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError):
        await hasher.verify("correct horse", None)
    with pytest.raises(OverloadedError):
        await hasher.hash("correct horse")

    assert hasher.pending == 1 + MAX_WAITING
    assert len({await each for each in waiting}) == 1 + MAX_WAITING
    assert not hasher.pending
    assert not await hasher.verify("correct horse", None)


@pytest.mark.gen_test
async def test_queue_has_room_again_when_those_who_waited_have_gone(hasher: PasswordHasher) -> None:
    """A client that hangs up gives its place in the queue back."""
    waiting = [asyncio.ensure_future(hasher.hash("correct horse")) for _ in range(1 + MAX_WAITING)]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert not hasher.pending
    assert not await hasher.verify("correct horse", None)


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("twelve chars", id="shortest"),
        pytest.param("            ", id="nothing-but-blanks"),
        pytest.param("alice and more", id="holds-the-username"),
        pytest.param("пароль пароль", id="not-ascii"),
        pytest.param("x7" * 36, id="longest"),
    ],
)
def test_check_password_returns_the_password_when_it_is_long_enough(password: str) -> None:
    """Length is what counts: no rule about digits or symbols."""
    assert password == check_password(password, username="alice", min_length=12)


@pytest.mark.parametrize(
    ("password", "username", "reason"),
    [
        pytest.param("eleven char", "alice", "at least 12", id="short"),
        pytest.param("", "alice", "at least 12", id="empty"),
        pytest.param("x" * 73, "alice", "72 bytes", id="73-bytes"),
        pytest.param("😀" * 19, "alice", "72 bytes", id="76-bytes-of-astral-letters"),
        pytest.param("twelve\0chars", "alice", "NUL", id="nul"),
        pytest.param("twelve chars\ud800", "alice", "bytes", id="surrogate"),
        pytest.param("wolfram.hempel", "Wolfram.Hempel", "username", id="username"),
        pytest.param("\uff57olfram.hempel", "wolfram.hempel", "username", id="username-in-full-width"),
        pytest.param("leavemealone", "alice", "everybody", id="common"),
        pytest.param("SonyEricsson", "alice", "everybody", id="common-in-capitals"),
        pytest.param("123456654321", "alice", "everybody", id="common-digits"),
    ],
)
def test_check_password_refuses_a_password_when_it_is_weak(password: str, username: str, reason: str) -> None:
    """The reason is named, the password is not."""
    with pytest.raises(UserDataError, match=reason) as caught:
        check_password(password, username=username, min_length=12)

    assert not password or password not in str(caught.value)


@given(password=st.text(st.characters(codec=None), max_size=80))
def test_can_be_hashed_agrees_with_what_bcrypt_takes(password: str) -> None:
    """Whatever passes the check is hashed by bcrypt without losing a byte."""
    if can_be_hashed(password):
        assert len(password.encode()) <= 72
        assert "\0" not in password


@pytest.mark.parametrize(
    "password_hash",
    [
        pytest.param("", id="empty"),
        pytest.param("correct horse", id="clear-text"),
        pytest.param("$2b$04$short", id="short"),
        pytest.param("$2b$32$" + "a" * 53, id="impossible-cost"),
        pytest.param(f"$deepstream$md5$1562501$32${SAMPLE}", id="legacy-of-seconds"),
        pytest.param(f"{hash_at(4)}\n", id="line-feed"),
        pytest.param("$2b$04$" + "z" * 53, id="impossible-salt"),
        pytest.param("$2b$\u0660\u0664$" + "a" * 53, id="arabic-digits"),
        pytest.param("$deepstream$nothing$1$32$" + SAMPLE, id="legacy-unknown-digest"),
        pytest.param("$deepstream$md5$0$32$" + SAMPLE, id="legacy-no-iteration"),
        pytest.param("$deepstream$md5$1$10$" + SAMPLE, id="legacy-other-key-length"),
    ],
)
def test_check_password_hash_refuses_what_verify_does_not_understand(password_hash: str) -> None:
    """A hash that no password can open is noticed when it is set."""
    with pytest.raises(UserDataError):
        check_password_hash(password_hash)


def test_check_password_hash_names_the_highest_cost_when_a_hash_is_dearer() -> None:
    """One hash of a high cost would keep a thread busy for days, so it is refused at the import."""
    with pytest.raises(UserDataError, match=r"cost 31, .* 16 is the most"):
        check_password_hash("$2b$31$" + "." * 53)


def test_legacy_hash_says_what_to_do_when_the_work_is_endless() -> None:
    """An entry that is right, but takes minutes to verify, is not called a wrong one."""
    with pytest.raises(UserDataError, match=r"no login can wait for 1562501 iterations .* new password"):
        legacy_hash(SAMPLE, algorithm="md5", iterations=1562501, key_length=32)


def test_costs_that_can_be_set_are_those_that_are_verified() -> None:
    """Nobody can make hashes that nobody can open."""
    settings = PasswordSettings(bcrypt_cost=MAX_COST)

    with pytest.raises(ValidationError, match="less than or equal to 16"):
        PasswordSettings(bcrypt_cost=MAX_COST + 1)
    assert MAX_COST == settings.bcrypt_cost


@pytest.mark.parametrize("more", [0, 12])
def test_hashing_gives_way_to_the_loop_whatever_the_priority_of_that_is(more: int) -> None:
    """A thread that hashes never goes first: checks stay fast on a machine that is full."""
    script = """
import os
from tornado_ds.passwords import PasswordHasher

os.nice({more})
hasher = PasswordHasher(cost=4, threads=1)
priority = hasher._pool.submit(os.getpriority, os.PRIO_PROCESS, 0).result()
hasher.close()
print(os.getpriority(os.PRIO_PROCESS, 0), priority)
"""
    printed = subprocess.run(
        [sys.executable, "-c", script.format(more=more)], capture_output=True, text=True, check=True
    ).stdout

    loop, thread = map(int, printed.split())
    assert min(19, loop + 10) == thread

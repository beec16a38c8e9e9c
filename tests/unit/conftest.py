"""What most unit tests need: keys, tokens and the claims of alice."""

from collections.abc import Iterator

import pytest

from tests.fakes import ManualClock
from tornado_ds.key_file import open_key_ring
from tornado_ds.keys import Algorithm, KeyRing
from tornado_ds.passwords import PasswordHasher
from tornado_ds.tokens import Claims, TokenService


@pytest.fixture(scope="session", params=["HS256", "EdDSA", "ES256", "RS256"])
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    """Each algorithm in turn."""
    algorithm: Algorithm = request.param
    return algorithm


@pytest.fixture(scope="session")
def key_ring(algorithm: Algorithm, tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """A ring with one key for each algorithm in turn."""
    return open_key_ring(tmp_path_factory.mktemp("keys") / "keys.json", algorithm, now=1_800_000_000)


@pytest.fixture(scope="session")
def hs256_key_ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """A ring with one key for the default algorithm."""
    return open_key_ring(tmp_path_factory.mktemp("keys") / "keys.json", "HS256", now=1_800_000_000)


@pytest.fixture
def tokens(hs256_key_ring: KeyRing, clock: ManualClock) -> TokenService:
    """Tokens of the default algorithm."""
    return TokenService(hs256_key_ring, clock=clock, issuer="tornado_ds", audience="deepstream")


@pytest.fixture
def claims(clock: ManualClock) -> Claims:
    """What a token of alice says for the next hour."""
    now = int(clock.now())
    return Claims(
        username="alice",
        sid="Zm9v-sid_1",
        version=3,
        issued_at=now,
        expires_at=now + 3600,
        server_data={"roles": ["admin"]},
        client_data={"colour": "blue"},
    )


@pytest.fixture
def hasher() -> Iterator[PasswordHasher]:
    """A hasher with one thread, so that the second password waits."""
    hasher = PasswordHasher(cost=4, threads=1)
    yield hasher
    hasher.close()

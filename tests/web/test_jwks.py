"""Our tokens, verified by another JOSE library with what `/.well-known/jwks.json` says."""

from typing import Any

import orjson
import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OctKey
from tornado.httpclient import HTTPResponse
from tornado.platform.asyncio import AsyncIOLoop

from tests.fakes import ManualClock
from tests.web.browser import Browser, json_of
from tornado_ds.key_file import add_key, retire_key
from tornado_ds.keys import Algorithm
from tornado_ds.services import Services
from tornado_ds.settings import TokenSettings
from tornado_ds.users import User

ASYMMETRIC: list[Algorithm] = ["EdDSA", "ES256", "RS256"]
# RFC 9864 wants it to be called Ed25519, which most libraries do not know yet.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864")

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}


@pytest.fixture(params=ASYMMETRIC)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    """Each algorithm with public keys in turn."""
    algorithm: Algorithm = request.param
    return algorithm


@pytest.fixture
def overrides(algorithm: Algorithm) -> dict[str, Any]:
    """A server with that algorithm."""
    return {"token": TokenSettings(algorithm=algorithm)}


async def fetch_keys(browser: Browser) -> HTTPResponse:
    """Ask as a service does that has never been here."""
    return await browser.ask("/.well-known/jwks.json")


def verified(token: str, keys: KeySet | OctKey, algorithm: str) -> dict[str, Any]:
    """Return the claims of *token*, as joserfc sees them."""
    decoded = jwt.decode(token, keys, algorithms=[algorithm])
    jwt.JWTClaimsRegistry(
        now=lambda: 1_800_000_100,
        iss={"essential": True, "value": "tornado_ds"},
        aud={"essential": True, "value": "deepstream"},
        exp={"essential": True},
    ).validate(decoded.claims)
    return dict(decoded.claims)


@pytest.mark.gen_test
async def test_token_is_verified_with_the_published_keys(
    browser: Browser, services: Services, alice: User, algorithm: Algorithm
) -> None:
    """Another library, which knows nothing but the answer, reads the same claims."""
    opened = await services.sessions.open(alice)

    response = await fetch_keys(browser)

    claims = verified(opened.token, KeySet.import_key_set(json_of(response)), algorithm)
    assert response.code == 200
    assert response.headers["Cache-Control"] == "public, max-age=5"
    assert (alice.username, opened.session.sid) == (claims["sub"], claims["sid"])
    assert claims["server_data"] == {"roles": ["admin"]}


@pytest.mark.gen_test
async def test_token_is_refused_by_others_when_a_bit_is_flipped(
    browser: Browser, services: Services, alice: User, algorithm: Algorithm
) -> None:
    """The keys are those of these tokens, and of no others."""
    opened = await services.sessions.open(alice)
    header, payload, signature = opened.token.split(".")
    forged = f"{header}.{payload}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"

    keys = KeySet.import_key_set(json_of(await fetch_keys(browser)))

    with pytest.raises(JoseError):
        verified(forged, keys, algorithm)


@pytest.mark.gen_test
async def test_keys_are_published_before_they_sign_and_until_they_are_retired(
    browser: Browser, services: Services, alice: User, algorithm: Algorithm, clock: ManualClock
) -> None:
    """A service that asks now and then never meets a token whose key it could not have."""
    file, now = services.settings.key_file, int(clock.now())
    [old] = services.tokens.keys.keys
    new = add_key(file, algorithm, now=now)

    await services.key_follower.look()
    early = json_of(await fetch_keys(browser))
    clock.advance(10)
    opened = await services.sessions.open(alice)
    retire_key(file, old.kid, algorithm, now=now + 10)
    await services.key_follower.look()
    late = json_of(await fetch_keys(browser))

    assert [old.kid, new.kid] == [key["kid"] for key in early["keys"]]
    assert [new.kid] == [key["kid"] for key in late["keys"]]
    assert verified(opened.token, KeySet.import_key_set(early), algorithm)["sub"] == "alice"


@pytest.mark.gen_test
async def test_answer_holds_nothing_private(browser: Browser, algorithm: Algorithm) -> None:
    """Only what RFC 7518 calls public, and no times of ours."""
    [jwk] = json_of(await fetch_keys(browser))["keys"]

    assert not PRIVATE_MEMBERS & jwk.keys()
    assert not {"created_at", "signs_from", "retired_at"} & jwk.keys()
    assert (algorithm, "sig") == (jwk["alg"], jwk["use"])


@pytest.mark.parametrize("algorithm", ["HS256"], indirect=True)
@pytest.mark.gen_test
async def test_key_set_is_empty_when_the_key_is_a_secret(browser: Browser) -> None:
    """There are no public keys, which is no error."""
    response = await fetch_keys(browser)

    assert response.code == 200
    assert json_of(response) == {"keys": []}


@pytest.mark.parametrize("algorithm", ["HS256"], indirect=True)
def test_token_is_verified_with_the_shared_secret(io_loop: AsyncIOLoop, services: Services, alice: User) -> None:
    """Whoever is given the secret can verify with any library."""
    opened = io_loop.run_sync(lambda: services.sessions.open(alice))
    [jwk] = orjson.loads(services.settings.key_file.read_bytes())["keys"]

    assert verified(opened.token, OctKey.import_key({"kty": "oct", "k": jwk["k"]}), "HS256")["sub"] == "alice"

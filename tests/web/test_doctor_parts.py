"""What `doctor` says of certificates, feeds and databases, each by itself."""

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tests.web.reverse_proxy import parrot
from tornado_ds.clock import SystemClock
from tornado_ds.doctor import client
from tornado_ds.doctor.database import examine_database
from tornado_ds.doctor.feed import examine_feed, examine_readiness
from tornado_ds.doctor.findings import Finding
from tornado_ds.doctor.pages import examine_deepstream
from tornado_ds.doctor.targets import parse_target
from tornado_ds.doctor.tls import examine_certificate
from tornado_ds.key_file import open_key_ring
from tornado_ds.settings import Settings

pytestmark = pytest.mark.gen_test

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.fixture(autouse=True)
def _trust() -> Iterator[None]:
    """What is trusted is read again, and forgotten afterwards."""
    client.trusted.cache_clear()
    yield
    client.trusted.cache_clear()


def certificate(folder: Path, *, days: float) -> Path:
    """A file with a certificate for 127.0.0.1 that ends in so many *days*, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + made.public_bytes(Encoding.PEM))
    return file


@asynccontextmanager
async def serving_tls(file: Path) -> AsyncIterator[str]:
    """A server with the certificate in *file*."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    server = HTTPServer(Application([]), ssl_options=context)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield f"https://127.0.0.1:{sockets[0].getsockname()[1]}/check-token"
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.mark.parametrize(
    ("days", "is_trusted", "level", "text"),
    [
        pytest.param(90.5, True, "ok", "that of 127.0.0.1 is good for 90 days", id="good"),
        pytest.param(3.5, True, "warning", "that of 127.0.0.1 ends in 3 days", id="soon"),
        pytest.param(-1, True, "wrong", "not to be trusted: certificate has expired", id="over"),
        pytest.param(90.5, False, "wrong", "not to be trusted: self-signed certificate", id="stranger"),
    ],
)
async def test_certificate_is_wrong_when_deepstream_would_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, is_trusted: bool, level: str, text: str
) -> None:
    """And worth a look when it soon will."""
    file = certificate(tmp_path, days=days)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))

    async with serving_tls(file) as url:
        found = await examine_certificate(parse_target(url), SystemClock())

    assert isinstance(found, Finding)
    assert (level, True) == (found.level, text in found.text)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        pytest.param(STREAM, "is held back on its way", id="buffered"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", "no stream of events", id="no-stream"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\n\r\n", "the answer is 404", id="not-found"),
        pytest.param(b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\n\r\n", "refuses the secret", id="refused"),
        pytest.param(b"nonsense\r\n\r\n", "does not speak HTTP", id="no-http"),
        pytest.param(b"", "does not speak HTTP", id="hung-up"),
        pytest.param(b"x" * 200_000, "does not speak HTTP", id="endless"),
    ],
)
async def test_feed_is_wrong_when_events_would_not_arrive(octets: bytes, expected: str) -> None:
    """Ended sessions would stay connected, and nobody notice."""
    async with parrot(octets) as url:
        found = await examine_feed(replace(parse_target(f"{url}/session-events"), authorization="Basic eA=="))

    assert "wrong" == found.level
    assert expected in found.text


async def test_server_is_wrong_when_it_says_that_it_is_not_ready() -> None:
    """With what it says."""
    body = b'{"ready": false, "not_ready": {"database": "away"}}'
    head = b"HTTP/1.1 503 Unavailable\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with parrot(head + body) as url:
        [found] = await examine_readiness(url, SystemClock())

    assert ("wrong", f"{url} is not ready: away") == (found.level, found.text)


async def test_readiness_is_not_judged_when_the_certificate_is_a_strangers(tmp_path: Path) -> None:
    """One line about the certificate is enough, and stands elsewhere."""
    async with serving_tls(certificate(tmp_path, days=90)) as url:
        found = await examine_readiness(url.removesuffix("/check-token"), SystemClock())

    assert [] == found


async def test_feed_is_wrong_when_nobody_says_anything() -> None:
    """Nobody waits for longer than an answer may take."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = parse_target(f"http://127.0.0.1:{silent.getsockname()[1]}/session-events")
        found = await examine_feed(replace(target, authorization="Basic eA=="))

    assert "wrong" == found.level
    assert "no answer within 2 s" in found.text


async def test_deepstream_is_not_found_when_something_else_answers(settings: Settings) -> None:
    """A web server at that address is as good as none."""
    async with parrot(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as url:
        found = await examine_deepstream(settings.model_copy(update={"deepstream_url": url.replace("http", "ws")}))

    assert "warning" == found.level
    assert "the answer is 404" in found.text


async def test_database_is_wrong_when_its_url_is_none(settings: Settings) -> None:
    """The server would not start with it either."""
    nowhere = settings.model_copy(update={"database_url": SecretStr("the one in the cellar")})

    [found] = await examine_database(nowhere, SystemClock())

    assert ("wrong", "database") == (found.level, found.topic)
    assert "write postgresql://" in found.text


async def test_database_is_wrong_when_it_is_away(settings: Settings) -> None:
    """Its password is not shown."""
    away = settings.model_copy(update={"database_url": SecretStr("postgresql://u:canary@127.0.0.1:1/x")})

    [found] = await examine_database(away, SystemClock())

    assert ("wrong", "database") == (found.level, found.topic)
    assert "canary" not in str(found)


async def test_database_is_wrong_when_it_has_not_our_tables(settings: Settings) -> None:
    """The line names the command."""
    settings.sqlite_path.write_bytes(b"")

    [found] = await examine_database(settings, SystemClock())

    assert ("wrong", "database") == (found.level, found.topic)
    assert "db upgrade" in found.text


async def test_database_is_wrong_when_it_is_lost(settings: Settings) -> None:
    """Where there are keys it was there, and a start would refuse to make another one."""
    open_key_ring(settings.key_file, "HS256", now=0)
    settings.sqlite_path.unlink()

    [found] = await examine_database(settings, SystemClock())

    assert ("wrong", "database") == (found.level, found.topic)
    assert "has keys but no database" in found.text


async def test_database_is_a_warning_when_the_first_start_is_still_to_come(settings: Settings) -> None:
    """Nothing is wrong before."""
    settings.sqlite_path.unlink()

    [found] = await examine_database(settings, SystemClock())

    assert ("warning", "database") == (found.level, found.topic)


async def test_database_is_wrong_when_it_is_damaged(settings: Settings) -> None:
    """Whatever the file holds."""
    settings.sqlite_path.write_bytes(b"no database" * 1000)

    [found] = await examine_database(settings, SystemClock())

    assert ("wrong", "database") == (found.level, found.topic)


async def test_clock_of_another_database_is_compared(settings: Settings, postgresql_url: str) -> None:
    """PostgreSQL can be on another machine."""
    shared = settings.model_copy(update={"database_url": SecretStr(postgresql_url)})

    found = await examine_database(shared, SystemClock())

    assert ["ok database", "ok clock", "warning users"] == [f"{line.level} {line.topic}" for line in found]

"""TLS of the public listener: certificates that are used, refused, and replaced while it serves."""

import asyncio
import json
import logging
import os
import signal
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.web.certificates import trusting, write_certificate
from tests.web.test_session_events import until
from tests.web.wire import Wire, get
from tornado_ds.errors import SettingsError
from tornado_ds.handlers.routes import make_app
from tornado_ds.limits import Limits
from tornado_ds.listeners import PublicListener
from tornado_ds.logs import configure_logging
from tornado_ds.server import serve
from tornado_ds.services import Services
from tornado_ds.settings import Address, Settings, TLSSettings
from tornado_ds.sockets import Sockets, listen_on
from tornado_ds.tls import open_tls

LOCAL = Address("127.0.0.1", 0)
Spoil = Callable[[Path, Path], object]


async def status(port: int, client: ssl.SSLContext) -> int:
    """What a *client* gets for the log-in page."""
    async with Wire(port, tls=client) as wire:
        wire.send(get("/login"))
        return (await wire.answer()).status


def hang_up(sock: socket.socket, octets: bytes) -> None:
    """Connect to *sock*, send *octets*, and reset the connection."""
    with socket.create_connection(sock.getsockname()) as client:
        client.sendall(octets)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def until_served(port: int, client: ssl.SSLContext) -> None:
    """Return when *client* trusts whom it finds there."""
    while True:
        with suppress(OSError):
            if await status(port, client) == 200:
                return
        await asyncio.sleep(0.01)


@pytest.mark.gen_test
async def test_certificate_is_replaced_by_sighup_and_stays_when_the_new_one_is_bad(
    settings: Settings, tmp_path: Path
) -> None:
    """Who connects after SIGHUP sees the new certificate; files that cannot be used change nothing but the log."""
    tls = write_certificate(tmp_path)
    assert tls.certificate is not None
    trusts_first = trusting(tls.certificate)
    settings = settings.model_copy(update={"tls": tls, "public_url": "https://localhost"})
    sockets = Sockets(public=listen_on(LOCAL, key="listen"), internal=listen_on(LOCAL, key="internal_listen"))
    port = sockets.public[0].getsockname()[1]
    with capture_logs() as logs:
        serving = asyncio.create_task(serve(settings, sockets))
        await until_served(port, trusts_first)

        tls.certificate.write_text("nonsense")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: any(line["log_level"] == "error" for line in logs))
        still = await status(port, trusts_first)
        write_certificate(tmp_path)
        os.kill(os.getpid(), signal.SIGHUP)
        await until_served(port, trusting(tls.certificate))

        with pytest.raises(ssl.SSLCertVerificationError):
            await status(port, trusts_first)
        os.kill(os.getpid(), signal.SIGTERM)
        await serving

    assert still == 200
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["certificate not reloaded"]


@pytest.mark.gen_test
async def test_client_is_hung_up_on_when_it_dawdles_over_the_handshake(services: Services, tmp_path: Path) -> None:
    """A connection that says nothing, or half of a handshake, ends like one with half a request."""
    tls = open_tls(write_certificate(tmp_path))
    listener = PublicListener(make_app(services), listen_on(LOCAL, key="listen"), tls=tls, limits=Limits(idle=0.1))
    await listener.start()
    async with Wire(listener.port) as silent, Wire(listener.port) as slow:
        slow.send(b"\x16\x03\x01\x02\x00\x01")
        rests = [await wire.rest() for wire in (silent, slow)]
    await listener.drain()

    assert rests == [b"", b""]
    assert listener.connections == 0


@pytest.mark.gen_test
async def test_broken_tls_is_one_line_in_the_log_when_many_send_it(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither handshakes that are none nor nonsense after a good one fill the log."""
    configure_logging("json")
    tls = write_certificate(tmp_path)
    assert tls.certificate is not None
    listener = PublicListener(make_app(services), listen_on(LOCAL, key="listen"), tls=open_tls(tls))
    await listener.start()
    for _ in range(3):
        async with Wire(listener.port) as plain:
            plain.send(get("/login"))
            await plain.rest()
    async with Wire(listener.port, tls=trusting(tls.certificate)) as good:
        os.write(good.writer.get_extra_info("socket").fileno(), b"nonsense")
        with suppress(ssl.SSLError):
            await good.rest()
    told = ""
    while not told:
        await asyncio.sleep(0.01)
        told = capsys.readouterr().err
    await listener.drain()

    [line] = map(json.loads, told.splitlines())
    assert (line["event"], line["level"], line["connections"]) == ("TLS failed", "warning", 4)
    assert line["last"]


# Python leaves the socket of such a client to be closed by the collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.gen_test
async def test_clients_are_no_traceback_when_they_hang_up_before_their_handshake(
    services: Services, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Health checks of load balancers reset their connection at once, and strangers may say something first."""
    tls = write_certificate(tmp_path)
    assert tls.certificate is not None
    sockets = listen_on(LOCAL, key="listen")
    for octets in (b"", b"nonsense"):
        hang_up(sockets[0], octets)
    listener = PublicListener(make_app(services), sockets, tls=open_tls(tls))
    await listener.start()
    served = await status(listener.port, trusting(tls.certificate))
    await listener.drain()

    assert served == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_open_tls_refuses_what_is_older_than_tls_1_2(tmp_path: Path) -> None:
    """Nothing that browsers have given up is spoken."""
    context = open_tls(write_certificate(tmp_path))

    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_open_tls_takes_a_key_that_the_group_may_read(tmp_path: Path) -> None:
    """Distributions give keys to servers that way."""
    tls = write_certificate(tmp_path)
    assert tls.key is not None

    tls.key.chmod(0o640)

    assert open_tls(tls)


def test_open_tls_returns_nothing_when_no_certificate_is_set() -> None:
    """Then a proxy has it."""
    assert open_tls(TLSSettings()) is None


def _exchange(certificate: Path, _: Path) -> None:
    other = certificate.parent / "other"
    other.mkdir()
    write_certificate(other)
    (other / "tls.crt").replace(certificate)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        pytest.param(lambda crt, _: crt.unlink(), "tls.certificate: cannot read .*: No such file", id="no-certificate"),
        pytest.param(lambda _, key: key.unlink(), "tls.key: cannot read .*: No such file", id="no-key"),
        pytest.param(lambda _, key: (key.unlink(), key.mkdir()), "tls.key: cannot read .*: Is a dir", id="folder"),
        pytest.param(lambda _, key: key.chmod(0o644), "tls.key: .* read by other users: chmod 640", id="open-to-all"),
        pytest.param(_exchange, "tls.key: .* does not belong to the certificate", id="of-another-certificate"),
        pytest.param(lambda crt, _: crt.write_text(""), "tls: .* are not a certificate", id="empty-certificate"),
        pytest.param(lambda _, key: key.write_bytes(b"\0\xff"), "tls: .* are not a certificate", id="binary-key"),
        pytest.param(
            lambda crt, _: write_certificate(crt.parent, password=b"secret"), "tls: .*without a password", id="password"
        ),
    ],
)
def test_open_tls_refuses_files_and_says_what_to_do(tmp_path: Path, spoil: Spoil, text: str) -> None:
    """A server that cannot have its certificate does not start, in one line, and never asks at the terminal."""
    tls = write_certificate(tmp_path)
    assert tls.certificate is not None
    assert tls.key is not None
    spoil(tls.certificate, tls.key)

    with pytest.raises(SettingsError, match=f"^{text}"):
        open_tls(tls)

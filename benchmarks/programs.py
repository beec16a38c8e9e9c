"""The programs that answer the webhook, and how each one is started."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.machine import PEERS, PEERS_PYTHON, MissingError, on_core, server_core
from benchmarks.traffic import AUDIENCE, ISSUER, ORIGIN, Place, Stage
from tests.live.servers import NODE, AuthServer, Server, free_port

# bcrypt's default cost; servers that tests start hash more cheaply.
COST = 12
REAL_HASHING = {
    "TORNADO_DS_PASSWORDS__BCRYPT_COST": str(COST),
    "TORNADO_DS_PASSWORDS__ALLOW_WEAK_COST": "false",
}


class MeasuredServer(Server):
    """A server whose webhook is at *address* (host:port)."""

    address: str

    @property
    def pid(self) -> int:
        """The id of its process, while it runs."""
        assert self._process is not None
        return self._process.pid


S = TypeVar("S", bound=MeasuredServer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One way to answer the webhook; *checks_tokens* is False for the limit, which lets everybody in."""

    key: str
    label: str
    how: str
    make: Callable[[Stage], MeasuredServer]
    checks_tokens: bool = True


class OurServer(AuthServer, MeasuredServer):
    """tornado_ds, accepting the origin of our traffic."""

    def __init__(
        self,
        place: Place,
        *,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        is_public: bool = False,
    ) -> None:
        super().__init__(
            folder or place.folder,
            secret=place.secret,
            deepstream_port=6020,
            env={"TORNADO_DS_ALLOWED_ORIGINS": ORIGIN, **(env or {})},
        )
        self.public = self.settings["TORNADO_DS_LISTEN"]
        self.address = self.public if is_public else self.internal


class Peer(MeasuredServer):
    """A program of `peers/`: it reads PORT and the key from its environment, and need not stop gracefully."""

    def __init__(self, stage: Stage, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        super().__init__(
            [argument.replace("$PORT", str(port)) for argument in command],
            env={
                "PORT": str(port),
                "JWK": stage.jwk,
                "ISSUER": ISSUER,
                "AUDIENCE": AUDIENCE,
                "NODE_ENV": "production",
                **(env or {}),
            },
            log=stage.folder / f"peer-{port}.log",
            ready=f"http://{self.address}/readyz",
        )

    def stop(self) -> None:
        self.kill()


@contextmanager
def pinned(server: S) -> Iterator[S]:
    """
    Run *server* on the servers' core.

    Raises:
        MissingError: It does not start.
    """
    try:
        with on_core(server_core()):
            server.start()
    except (AssertionError, TimeoutError) as exc:
        last_line = (server.output.strip().splitlines() or ["it said nothing"])[-1]
        raise MissingError(f"a server does not start: {last_line}") from exc
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    server.stop()


def express(stage: Stage) -> Peer:
    """Return the tutorial's way."""
    return Peer(stage, [NODE, str(PEERS / "express.js")])


def fastapi(stage: Stage) -> Peer:
    """Return FastAPI on uvicorn with the fastest loop and parser it has."""
    where = ["--app-dir", str(PEERS), "--port", "$PORT"]
    how = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return Peer(stage, [str(PEERS_PYTHON), "-m", "uvicorn", "fastapi_app:app", *where, *how])


def fastify(stage: Stage, *, cache: int) -> Peer:
    """Return Fastify; its fast-jwt keeps so many verified tokens."""
    return Peer(stage, [NODE, str(PEERS / "fastify.js")], {"CACHE": str(cache)})


def limit(stage: Stage) -> Peer:
    """Return the responder that does nothing."""
    return Peer(stage, [str(PEERS_PYTHON), str(PEERS / "limit.py")])


PROGRAMS = [
    Program(
        key="express",
        label="tutorial's way: Express 4 + jsonwebtoken",
        how="node express.js",
        make=express,
    ),
    Program(
        key="fastapi",
        label="FastAPI + PyJWT on uvicorn",
        how="uvicorn fastapi_app:app --loop uvloop --http httptools --no-access-log",
        make=fastapi,
    ),
    Program(
        key="fastify",
        label="Fastify + fast-jwt",
        how="node fastify.js",
        make=partial(fastify, cache=0),
    ),
    Program(
        key="fastify_cached",
        label="Fastify + fast-jwt with its cache",
        how="CACHE=100000 node fastify.js",
        make=partial(fastify, cache=100_000),
    ),
    Program(
        key="public",
        label="tornado_ds, public listener",
        how="python -m tornado_ds",
        make=partial(OurServer, is_public=True),
    ),
    Program(
        key="internal",
        label="tornado_ds, internal listener",
        how="python -m tornado_ds",
        make=OurServer,
    ),
    Program(
        key="limit",
        label="the limit: an empty answer on httptools and uvloop",
        how="python limit.py",
        make=limit,
        checks_tokens=False,
    ),
]

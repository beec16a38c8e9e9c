"""The machine under the benchmark: what has to be there, which core does what, and what to say of it."""

import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tests.live.servers import DEEPSTREAM, NODE, ROOT

PEERS = ROOT / "benchmarks" / "peers"
PEERS_PYTHON = PEERS / ".venv" / "bin" / "python"

# The storm's connections, at both ends, and some to spare.
OPEN_FILES = 8192

_NODE_PACKAGES = ("express", "jsonwebtoken", "fastify", "fast-jwt", "autocannon")
_PYTHON_PACKAGES = (
    "tornado",
    "PyJWT",
    "orjson",
    "uvloop",
    "httptools",
    "bcrypt",
    "SQLAlchemy",
    "aiosqlite",
    "asyncpg",
)
_PEER_PACKAGES = ("fastapi", "uvicorn", "PyJWT", "uvloop", "httptools")


class MissingError(Exception):
    """Something that the benchmarks need is not there; the text says what."""


def prepare() -> None:
    """
    Make sure that everything is there.

    Raises:
        MissingError: It is not.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise MissingError("programs are pinned to cores, which only Linux offers")
    if len(os.sched_getaffinity(0)) < 2:
        raise MissingError("two cores are needed, one for the server and one for the load")
    if shutil.which("node") is None:
        raise MissingError("Node.js 20+ is needed for deepstream and the peers")
    for path in (DEEPSTREAM.with_suffix(".js"), PEERS / "node_modules" / "express", PEERS_PYTHON):
        if not path.exists():
            raise MissingError(f"{path.relative_to(ROOT)} is missing; `make bench` installs it")
    allow_open_files()


def server_core() -> int:
    """Return the core that servers run on while they are measured."""
    return min(_ALL_CORES)


def load_core() -> int:
    """Return the core that makes the load."""
    return max(_ALL_CORES)


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this thread, and what it starts meanwhile, on one core (as `taskset -c` does)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def processor_time_of(pid: int) -> float:
    """Return how long a process and its children have been computing, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_time_of(child) for child in _children(pid))


def memory_of(pid: int) -> float:
    """Return the resident memory of a process and its children, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return own / 1024 + sum(memory_of(child) for child in _children(pid))


def describe() -> dict[str, str]:
    """Return what somebody who compares figures has to know of this machine."""
    return {
        **describe_ourselves(),
        "Python of the peers": _list(_peer_versions()),
        "Node.js": f"{_output(NODE, '--version').removeprefix('v')} with {_list(_node_versions())}",
        "deepstream": f"server {_npm_version(ROOT, '@deepstream/server')}, "
        f"client {_npm_version(ROOT, '@deepstream/client')}",
        "load generator": load_generator(),
    }


def describe_ourselves() -> dict[str, str]:
    """Return the machine, and what of Python is under our own programs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{_processor()}, {len(_ALL_CORES)} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "load before": f"{os.getloadavg()[0]:.2f} (one minute average)",
        "Python": f"{platform.python_version()} with {_list({name: version(name) for name in _PYTHON_PACKAGES})}",
    }


def load_generator() -> str:
    """Return which program makes the load: wrk if the system has it, else autocannon from npm."""
    if shutil.which("wrk") is None:
        return f"autocannon {_npm_version(PEERS, 'autocannon')} (the system has no wrk)"
    # wrk says its version together with its usage, and fails.
    said = subprocess.run(["wrk", "--version"], capture_output=True, text=True).stdout
    return " ".join(said.split()[:2])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def allow_open_files() -> None:
    """
    Let this process open as many files as thousands of connections need.

    Raises:
        MissingError: The system does not allow that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise MissingError(f"{OPEN_FILES} open files are needed, the system allows {hard} (see `ulimit -Hn`)")
    if soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _node_versions() -> dict[str, str]:
    return {name: _npm_version(PEERS, name) for name in _NODE_PACKAGES}


def _npm_version(folder: Path, package: str) -> str:
    return str(json.loads((folder / "node_modules" / package / "package.json").read_text(encoding="utf-8"))["version"])


def _peer_versions() -> dict[str, str]:
    script = f"import importlib.metadata as m; print(*(m.version(name) for name in {_PEER_PACKAGES}))"
    return dict(zip(_PEER_PACKAGES, _output(str(PEERS_PYTHON), "-c", script).split(), strict=True))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _list(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


_ALL_CORES = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset({0})
